"""Tables of the site's database. Precious rows are only ever added; a change is a new row."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

SCHEMA_VERSION = 4
"""Counts up with every change below; kept in `PRAGMA user_version`."""

metadata = MetaData()

campaign = Table(
    "campaign",
    metadata,
    Column("campaign_id", LargeBinary, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("overlap_count", Integer, nullable=False),
    Column("guideline", String, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("settings", String, nullable=False, server_default="{}"),
    Column("updated_at", Float, nullable=False),
)

label_schema = Table(
    "label_schema",
    metadata,
    Column("campaign_id", LargeBinary, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("canonical_json", String, nullable=False),
    # Class index of the version before -> class index here, as JSON; null where a class went.
    Column("mapping", String, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
)

item = Table(
    "item",
    metadata,
    Column("item_number", Integer, primary_key=True),
    Column("item_id", LargeBinary, nullable=False, unique=True),
    Column("campaign_id", LargeBinary, nullable=False),
    Column("kind", String, nullable=False),
    Column("split", String, nullable=False),
    Column("state", String, nullable=False),
    Column("wanted_count", Integer, nullable=False),
    Column("is_gold", Boolean, nullable=False, server_default="0"),
    Column("grant_id", LargeBinary, unique=True),
    Column("candidate_id", LargeBinary, nullable=False),
    Column("grant_reason", String, nullable=False, server_default=""),
    Column("grant_expire_at", Float),
    Column("grant_model_version", Integer, nullable=False, server_default="0"),
    Column("model_version", Integer, nullable=False, server_default="0"),
    Column("schema_version", Integer, nullable=False),
    Column("probabilities", LargeBinary, nullable=False, server_default=""),
    Column("suggestion_index", Integer),
    Column("confidence", Float),
    Column("prototype_class", Integer),
    Column("margin", Integer, nullable=False, server_default="0"),
    Column("language", String, nullable=False, server_default=""),
    Column("mask_policy", String, nullable=False, server_default=""),
    Column("mask_level", String, nullable=False, server_default=""),
    Column("mask_spans", String, nullable=False, server_default="[]"),
    Column("content_sha256", LargeBinary, nullable=False),
    Column("received_at", Float, nullable=False),
)
Index("item_by_campaign", item.c.campaign_id, item.c.state, item.c.item_number)
Index(
    "item_gold",
    item.c.campaign_id,
    item.c.item_number,
    sqlite_where=text("is_gold = 1"),
)
Index(
    "item_expiring",
    item.c.grant_expire_at,
    sqlite_where=text("state IN ('OPEN', 'HELD', 'DISPUTED') AND grant_expire_at IS NOT NULL"),
)

# Content lives apart so that lists and counts never touch it.
item_content = Table(
    "item_content",
    metadata,
    Column("item_number", Integer, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

slot = Table(
    "slot",
    metadata,
    Column("slot_id", Integer, primary_key=True),
    Column("item_number", Integer, nullable=False),
    Column("campaign_id", LargeBinary, nullable=False),
    Column("subject_id", LargeBinary, nullable=False),
    Column("purpose", String, nullable=False),
    Column("state", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("language", String, nullable=False, server_default=""),
    Column("reserved_for", Integer),
    Column("expert_id", Integer),
    Column("lease_id", String),
    Column("lease_until", Float),
)
Index(
    "slot_open",
    slot.c.campaign_id,
    slot.c.priority,
    slot.c.slot_id,
    sqlite_where=text("state = 0 AND reserved_for IS NULL"),
)
Index(
    "slot_reserved",
    slot.c.reserved_for,
    slot.c.campaign_id,
    sqlite_where=text("state = 0 AND reserved_for IS NOT NULL"),
)
Index("slot_leased", slot.c.lease_until, sqlite_where=text("state = 1"))
Index("slot_held_by", slot.c.expert_id, slot.c.campaign_id, sqlite_where=text("state = 1"))
Index(
    "slot_by_expert",
    slot.c.expert_id,
    slot.c.campaign_id,
    slot.c.purpose,
    sqlite_where=text("state IN (1, 2)"),
)
Index("slot_by_subject", slot.c.subject_id, slot.c.expert_id)
Index("slot_by_item", slot.c.item_number)

# Items that an expert put off; others get them meanwhile.
skip = Table(
    "skip",
    metadata,
    Column("expert_id", Integer, primary_key=True),
    Column("subject_id", LargeBinary, primary_key=True),
    Column("until", Float, nullable=False),
)

annotation = Table(
    "annotation",
    metadata,
    Column("annotation_id", Integer, primary_key=True),
    Column("item_number", Integer, nullable=False),
    Column("campaign_id", LargeBinary, nullable=False),
    Column("slot_id", Integer),
    Column("expert_id", Integer, nullable=False),
    Column("purpose", String, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("guideline_digest", LargeBinary, nullable=False),
    # Null class and empty reason code never meet: an abstention names at least "unclear".
    Column("class_index", Integer),
    Column("answer_key", String),
    Column("reason_code", String, nullable=False, server_default=""),
    Column("suggestion_index", Integer),
    Column("confidence", Float),
    Column("model_version", Integer, nullable=False),
    Column("suggestion_shown", Boolean, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("client_token", String, nullable=False),
    Column("batch_token", String, nullable=False, server_default=""),
    Column("withdraws", Integer),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("expert_id", "client_token"),
)
Index("annotation_by_item", annotation.c.item_number)
Index("annotation_by_expert", annotation.c.expert_id, annotation.c.annotation_id)
Index("annotation_by_campaign", annotation.c.campaign_id, annotation.c.annotation_id)
Index(
    "annotation_withdrawn",
    annotation.c.withdraws,
    unique=True,
    sqlite_where=text("withdraws IS NOT NULL"),
)

label = Table(
    "label",
    metadata,
    Column("label_id", Integer, primary_key=True),
    Column("item_number", Integer, nullable=False),
    Column("campaign_id", LargeBinary, nullable=False),
    Column("split", String, nullable=False),
    Column("class_index", Integer),
    Column("answer_key", String, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("settlement", String, nullable=False),
    Column("origin", String, nullable=False),
    # Ids of the annotations behind it, as JSON.
    Column("annotation_ids", String, nullable=False),
    Column("model_version", Integer, nullable=False),
    Column("suggestion_index", Integer),
    Column("confidence", Float),
    Column("grant_id", LargeBinary),
    Column("created_at", Float, nullable=False),
    # Id of the newer label that took its place; the only column that is ever filled in later.
    Column("superseded_by", Integer),
)
Index(
    "label_standing",
    label.c.campaign_id,
    label.c.split,
    label.c.label_id,
    sqlite_where=text("superseded_by IS NULL"),
)
Index("label_by_item", label.c.item_number)

note = Table(
    "note",
    metadata,
    Column("note_id", Integer, primary_key=True),
    Column("campaign_id", LargeBinary, nullable=False),
    Column("item_number", Integer, nullable=False),
    Column("expert_id", Integer, nullable=False),
    Column("class_index", Integer),
    # note: reasoning behind an answer; flag: something is wrong with the item.
    Column("sort", String, nullable=False),
    Column("reason_code", String, nullable=False, server_default=""),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
)
Index("note_by_campaign", note.c.campaign_id, note.c.note_id)
Index("note_by_item", note.c.item_number)

# Notes whose answer was taken back.
note_withdrawn = Table(
    "note_withdrawn",
    metadata,
    Column("note_id", Integer, primary_key=True),
)

# What was answered to a request that adds something, so that a repeat adds nothing.
request_seen = Table(
    "request_seen",
    metadata,
    Column("expert_id", Integer, primary_key=True),
    Column("client_token", String, primary_key=True),
    Column("answer", Integer, nullable=False),
)

# How a text moved when words were taken out of it, for answers from pages that show it as it was.
text_moved = Table(
    "text_moved",
    metadata,
    Column("item_number", Integer, primary_key=True),
    Column("before_sha256", LargeBinary, primary_key=True),
    Column("after_sha256", LargeBinary, nullable=False),
    # (start, end, length of what came) of each replacement, as JSON.
    Column("shifts", String, nullable=False),
)

# Rows that wait for the coordinator; written in the transaction of the label they speak of.
outbox = Table(
    "outbox",
    metadata,
    Column("outbox_id", Integer, primary_key=True),
    Column("grant_id", LargeBinary, nullable=False),
    Column("campaign_id", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("is_final", Boolean, nullable=False),
    Column("suggestion_verdict", Integer, nullable=False, server_default="0"),
    Column("decision_seconds", Integer, nullable=False, server_default="0"),
    Column("class_index_plus_one", Integer, nullable=False, server_default="0"),
    Column("send_after", Float, nullable=False),
    # Set before a row is sent: from then on it may have been counted.
    Column("claimed_at", Float),
    Column("sent_at", Float),
    Column("answered_state", String, nullable=False, server_default=""),
    UniqueConstraint("grant_id", "is_final"),
)
Index("outbox_waiting", outbox.c.send_after, sqlite_where=text("sent_at IS NULL"))

# Maintained by the transactions that change them, so that no page ever counts rows.
counter = Table(
    "counter",
    metadata,
    Column("campaign_id", LargeBinary, primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", Integer, nullable=False),
)

person = Table(
    "person",
    metadata,
    Column("person_id", Integer, primary_key=True),
    Column("username", String, nullable=False, unique=True),
    Column("display_name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("password_hash", String, nullable=False),
    Column("locale", String, nullable=False, server_default=""),
    Column("languages", String, nullable=False, server_default="[]"),
    Column("skills", String, nullable=False, server_default="[]"),
    Column("hours_per_day", Float, nullable=False, server_default="1"),
    Column("daily_quota", Integer, nullable=False, server_default="0"),
    Column("preferences", String, nullable=False, server_default="{}"),
    Column("failed_count", Integer, nullable=False, server_default="0"),
    Column("locked_until", Float, nullable=False, server_default="0"),
    Column("is_disabled", Boolean, nullable=False, server_default="0"),
    Column("created_at", Float, nullable=False),
)

session = Table(
    "session",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("person_id", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("expire_at", Float, nullable=False),
)

api_token = Table(
    "api_token",
    metadata,
    Column("api_token_id", Integer, primary_key=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("person_id", Integer, nullable=False),
    Column("purpose", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expire_at", Float, nullable=False),
    Column("revoked_at", Float),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("detail", String, nullable=False),
    Column("chain_hash", LargeBinary, nullable=False),
)
Index("audit_by_action", audit.c.action, audit.c.sequence)

# Sums behind the quality page up to two row numbers, see `store.quality_tally`; a cache.
quality_tally = Table(
    "quality_tally",
    metadata,
    Column("campaign_id", LargeBinary, primary_key=True),
    Column("newest_annotation", Integer, nullable=False),
    Column("newest_label", Integer, nullable=False),
    Column("packed", LargeBinary, nullable=False),
)

# Words that got through masking. The words are sealed under a key of the site's own.
leak_term = Table(
    "leak_term",
    metadata,
    Column("term_id", LargeBinary, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("added_at", Float, nullable=False),
)

leak_report = Table(
    "leak_report",
    metadata,
    Column("report_id", Integer, primary_key=True),
    Column("term_id", LargeBinary, nullable=False),
    Column("item_number", Integer, nullable=False),
    Column("expert_id", Integer, nullable=False),
    Column("touched_count", Integer, nullable=False),
    Column("held_count", Integer, nullable=False),
    Column("reported_at", Float, nullable=False),
    Column("seen_at", Float),
    Column("seen_by", Integer),
)
Index("leak_open", leak_report.c.report_id, sqlite_where=text("seen_at IS NULL"))

# Who asked to see what a placeholder stands for, and what became of it. Never the words.
unmasking = Table(
    "unmasking",
    metadata,
    Column("unmasking_id", LargeBinary, primary_key=True),
    Column("item_number", Integer, nullable=False),
    Column("expert_id", Integer, nullable=False),
    Column("agent_name", String, nullable=False),
    Column("placeholder", String, nullable=False),
    Column("reason_code", String, nullable=False),
    Column("sealed_note", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("until", Float, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("decided_by", Integer),
)
Index("unmasking_by_state", unmasking.c.state, unmasking.c.until)
