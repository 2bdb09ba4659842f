"""Labels without an expert, for items of which a calibrated model is sure enough."""

from __future__ import annotations

from sqlalchemy import Connection, select

from review_portal.core.model import GrantReason, NewItem, Origin, Settlement
from review_portal.store import audit, items, settling
from review_portal.store.tables import item


def consider(connection: Connection, intake: items.Intake, new: NewItem) -> bool:
    """Labels a new item with its suggestion when the site lead allows it.

    Items that measure live accuracy or agreement always go to experts, and so does a share of the
    others, so that the error of automatic labels stays known.

    Returns:
        Whether it was labeled.
    """
    threshold = intake.settings.auto_threshold
    if threshold <= 0 or new.grant is None or not new.probabilities or intake.settings.is_held:
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
    label = settling.NewLabel(str(best), Settlement.AUTO, Origin.AUTO)
    settling.put_label(connection, row, label, now=intake.now, send_after=intake.now)
    event = audit.Event("portal", "item.labeled_automatically", new.item_id.hex())
    audit.append(connection, intake.now, event)
    return True
