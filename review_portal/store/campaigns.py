"""Campaigns and label schemas as the site knows them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection, Row, bindparam, select, update
from sqlalchemy.dialects.sqlite import insert

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import AnswerMode, Campaign, Kind
from review_portal.store.tables import campaign, label_schema


@dataclass(frozen=True)
class CampaignSettings:
    """What the site lead decides about a campaign.

    Attributes:
        is_held: New items wait until the site lead lets them through.
        answer_mode: What experts answer with.
        majority: Whether more than half of the answers settle an item.
        double_ratio: Share of items that two experts see, in [0, 1].
        gold_ratio: Share of an expert's queue that is hidden gold, in [0, 0.5].
        gold_first_count: Gold items among an expert's first ones.
        repeat_ratio: Share of an expert's own items that come again, in [0, 0.5].
        auto_threshold: Confidence from which items are labeled without an expert, where settled
            suggestions of the model version support it; 0 switches it off.
        auto_accuracy: How often such suggestions must be right at the least, in [0.5, 1).
        auto_audit_ratio: Share of such items that an expert checks all the same.
        share_class_index: Whether outcomes name the class.
        skill: Only experts with this skill see items; empty for all.
        confidence_shown: Whether experts see the suggestion and its confidence. Without them,
            their answers are blind to the model.
        unmasking: Whether experts may ask to see what a placeholder stands for.
    """

    is_held: bool = False
    answer_mode: str = AnswerMode.SINGLE.value
    majority: bool = False
    double_ratio: float = 0.0
    gold_ratio: float = 0.05
    gold_first_count: int = 5
    repeat_ratio: float = 0.05
    auto_threshold: float = 0.0
    auto_accuracy: float = 0.95
    auto_audit_ratio: float = 0.1
    share_class_index: bool = True
    skill: str = ""
    confidence_shown: bool = True
    unmasking: bool = False


def settings_from_json(raw: str) -> CampaignSettings:
    """Reads settings; keys of a newer portal are left out."""
    known = {k: v for k, v in json.loads(raw).items() if k in CampaignSettings.__dataclass_fields__}
    return replace(CampaignSettings(), **known)


@dataclass(frozen=True)
class NewCampaign:
    """A campaign as the coordinator describes it.

    Attributes:
        campaign_id: 16 bytes.
        name: Short name.
        kind: What its items show.
        state: ACTIVE, PAUSED or COMPLETED.
        schema: Label schema.
        overlap_count: Experts asked per item.
        guideline: Markdown for experts.
    """

    campaign_id: bytes
    name: str
    kind: Kind
    schema: LabelSchema
    state: str = "ACTIVE"
    overlap_count: int = 1
    guideline: str = ""


def put_campaign(connection: Connection, new: NewCampaign, now: float) -> bool:
    """Stores a campaign, or what changed about it. The site's settings stay.

    A class that keeps its name in a newer schema version keeps its labels; the mapping from the
    version before is stored beside the new one.

    Returns:
        Whether anything changed.
    """
    known = find_campaign(connection, new.campaign_id)
    wanted = _as_known(new)
    if known == wanted:
        return False
    if known is None or known.schema_version != wanted.schema_version:
        _put_schema(connection, new, known, now)
    row = {
        "campaign_id": new.campaign_id,
        "name": new.name,
        "kind": new.kind.value,
        "state": new.state,
        "overlap_count": new.overlap_count,
        "guideline": new.guideline,
        "schema_version": new.schema.version,
        "updated_at": now,
    }
    statement = insert(campaign).values(row)
    changes = {key: value for key, value in row.items() if key != "campaign_id"}
    connection.execute(
        statement.on_conflict_do_update(index_elements=[campaign.c.campaign_id], set_=changes)
    )
    return True


def _as_known(new: NewCampaign) -> Campaign:
    return Campaign(
        campaign_id=new.campaign_id,
        name=new.name,
        kind=new.kind,
        state=new.state,
        overlap_count=new.overlap_count,
        guideline=new.guideline,
        schema_version=new.schema.version,
        classes=new.schema.classes,
    )


def _put_schema(
    connection: Connection, new: NewCampaign, known: Campaign | None, now: float
) -> None:
    mapping = ""
    if known is not None:
        mapping = json.dumps(
            [
                new.schema.classes.index(name) if name in new.schema.classes else None
                for name in known.classes
            ]
        )
    connection.execute(
        insert(label_schema)
        .values(
            campaign_id=new.campaign_id,
            version=new.schema.version,
            canonical_json=new.schema.canonical_json().decode(),
            mapping=mapping,
            created_at=now,
        )
        .on_conflict_do_nothing()
    )


def _campaign_of(row: Row[tuple[object, ...]]) -> Campaign:
    return Campaign(
        campaign_id=row.campaign_id,
        name=row.name,
        kind=Kind(row.kind),
        state=row.state,
        overlap_count=row.overlap_count,
        guideline=row.guideline,
        schema_version=row.schema_version,
        classes=LabelSchema.from_json(row.canonical_json.encode()).classes,
    )


_JOINED = select(campaign, label_schema.c.canonical_json).join(
    label_schema,
    (label_schema.c.campaign_id == campaign.c.campaign_id)
    & (label_schema.c.version == campaign.c.schema_version),
)


# Built once: building a statement costs more than running it.
_BY_ID = _JOINED.where(campaign.c.campaign_id == bindparam("wanted"))


def list_campaigns(connection: Connection) -> tuple[Campaign, ...]:
    """Returns all campaigns by name."""
    rows = connection.execute(_JOINED.order_by(campaign.c.name))
    return tuple(_campaign_of(row) for row in rows)


def find_campaign(connection: Connection, campaign_id: bytes) -> Campaign | None:
    """Returns a campaign by id, or None."""
    row = connection.execute(_BY_ID, {"wanted": campaign_id}).first()
    return None if row is None else _campaign_of(row)


def find_campaign_named(connection: Connection, name: str) -> Campaign | None:
    """Returns a campaign by its short name or by its id in hex, or None."""
    row = connection.execute(_JOINED.where(campaign.c.name == name)).first()
    if row is not None:
        return _campaign_of(row)
    try:
        return find_campaign(connection, bytes.fromhex(name))
    except ValueError:
        return None


def settings_of(connection: Connection, campaign_id: bytes) -> CampaignSettings:
    """Returns the site's settings of a campaign; defaults for an unknown one."""
    raw = connection.exec_driver_sql(
        "SELECT settings FROM campaign WHERE campaign_id = ?", (campaign_id,)
    ).scalar()
    return settings_from_json(raw or "{}")


def put_settings(connection: Connection, campaign_id: bytes, settings: CampaignSettings) -> None:
    """Replaces the site's settings of a campaign."""
    connection.execute(
        campaign.update()
        .where(campaign.c.campaign_id == campaign_id)
        .values(settings=json.dumps(asdict(settings), sort_keys=True))
    )


@dataclass(frozen=True)
class SchemaVersion:
    """One version of a campaign's classes.

    Attributes:
        version: Its number.
        classes: Class names in order.
        mapping: Per class of the version before its index here, None where it went; empty for
            the first version.
    """

    version: int
    classes: tuple[str, ...]
    mapping: tuple[int | None, ...]


def schema_versions(connection: Connection, campaign_id: bytes) -> tuple[SchemaVersion, ...]:
    """Returns all versions of a campaign's label schema that came here, oldest first."""
    rows = connection.execute(
        select(label_schema)
        .where(label_schema.c.campaign_id == campaign_id)
        .order_by(label_schema.c.version)
    )
    return tuple(
        SchemaVersion(
            row.version,
            LabelSchema.from_json(row.canonical_json.encode()).classes,
            tuple(json.loads(row.mapping)) if row.mapping else (),
        )
        for row in rows
    )


def put_mapping(
    connection: Connection, campaign_id: bytes, version: int, mapping: list[int | None]
) -> None:
    """Says what the classes of the version before are in this one."""
    connection.execute(
        update(label_schema)
        .where(label_schema.c.campaign_id == campaign_id, label_schema.c.version == version)
        .values(mapping=json.dumps(mapping))
    )


def mapping_to_current(
    connection: Connection, campaign_id: bytes, from_version: int
) -> tuple[int | None, ...] | None:
    """Returns where each class of an older schema version is now.

    Returns:
        Per old class index the present one, None for a class that went; None when the version is
        the present one or unknown.
    """
    rows = connection.execute(
        select(label_schema.c.version, label_schema.c.mapping)
        .where(label_schema.c.campaign_id == campaign_id, label_schema.c.version > from_version)
        .order_by(label_schema.c.version)
    ).all()
    combined: list[int | None] | None = None
    for row in rows:
        step: list[int | None] = json.loads(row.mapping) if row.mapping else []
        before = range(len(step)) if combined is None else combined
        combined = [None if i is None else step[i] for i in before]
    return None if combined is None else tuple(combined)
