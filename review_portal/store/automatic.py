"""Labels without an expert, for items of which a calibrated model is sure enough."""

from __future__ import annotations

from sqlalchemy import Connection, select

from review_portal.core.calibration import SettledSuggestion, supported_threshold
from review_portal.core.model import GrantReason, NewItem, Origin, Settlement
from review_portal.store import audit, items, settling
from review_portal.store.campaigns import CampaignSettings
from review_portal.store.tables import item, label

EVIDENCE_MAX = 5000


def supported(
    connection: Connection, campaign_id: bytes, model_version: int, settings: CampaignSettings
) -> float | None:
    """Returns the confidence from which items may be labeled without an expert.

    It is the site lead's threshold, or the least one that the newest 5,000 settled suggestions of
    this model version support, whichever is higher; None when they support none, or when the site
    lead has switched it off. Only labels that experts gave are evidence.
    """
    if settings.auto_threshold <= 0:
        return None
    rows = connection.execute(
        select(label.c.confidence, label.c.suggestion_index, label.c.class_index)
        .where(
            label.c.campaign_id == campaign_id,
            label.c.superseded_by.is_(None),
            label.c.origin == Origin.EXPERT.value,
            label.c.model_version == model_version,
            label.c.suggestion_index.is_not(None),
            label.c.class_index.is_not(None),
        )
        .order_by(label.c.label_id.desc())
        .limit(EVIDENCE_MAX)
    )
    settled = [
        SettledSuggestion(min(max(c, 0.0), 1.0), suggested == known) for c, suggested, known in rows
    ]
    least = supported_threshold(settled, accuracy_min=min(max(settings.auto_accuracy, 0.5), 0.999))
    return None if least is None else max(least, settings.auto_threshold)


def consider(
    connection: Connection, intake: items.Intake, new: NewItem, threshold: float | None
) -> bool:
    """Labels a new item with its suggestion when the site lead allows it.

    Items that measure live accuracy or agreement always go to experts, and so does a share of the
    others, so that the error of automatic labels stays known.

    Args:
        connection: Inside the transaction that took the item in.
        intake: Where it came in.
        new: The item.
        threshold: From `supported`; None labels nothing.

    Returns:
        Whether it was labeled.
    """
    if threshold is None or new.grant is None or not new.probabilities or intake.settings.is_held:
        return False
    if new.grant.reason in {GrantReason.EXPLORE, GrantReason.OVERLAP}:
        return False
    best = max(range(len(new.probabilities)), key=new.probabilities.__getitem__)
    if new.probabilities[best] < threshold:
        return False
    if items.is_chosen(new.item_id, "audit", intake.settings.auto_audit_ratio):
        return False
    row = connection.execute(select(item).where(item.c.item_id == new.item_id)).one()
    items.void_slots(connection, row.item_number)
    label_new = settling.NewLabel(str(best), Settlement.AUTO, Origin.AUTO)
    settling.put_label(connection, row, label_new, now=intake.now, send_after=intake.now)
    event = audit.Event("portal", "item.labeled_automatically", new.item_id.hex())
    audit.append(connection, intake.now, event)
    return True
