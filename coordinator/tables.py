"""Tables of the SQL store. Precious rows are SQLModel; candidates are plain column segments.

Nothing here leaves `sql_store`: the rest of the package knows records, never rows.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from coordinator.core import records

SCHEMA_VERSION = 1


class _Row(SQLModel):
    """Base of all tables here, so that they share no metadata with other packages."""

    metadata: ClassVar[MetaData] = MetaData()


class SchemaRow(_Row, table=True):
    """The version of these tables; one row."""

    __tablename__: ClassVar[str] = "schema_version"
    version: int = Field(primary_key=True)


class EntryRow(_Row, table=True):
    """One ledger entry with the chain digest after it."""

    __tablename__: ClassVar[str] = "ledger_entry"
    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    body: str
    digest: bytes


class CampaignRow(_Row, table=True):
    """`CampaignRecord`."""

    __tablename__: ClassVar[str] = "campaign"
    campaign_id: bytes = Field(primary_key=True)
    name: str = Field(unique=True)
    state: str
    settings_json: str
    salt: bytes
    created_at: int = Field(sa_type=BigInteger)


class CycleRow(_Row, table=True):
    """`CycleRecord`."""

    __tablename__: ClassVar[str] = "cycle"
    campaign_id: bytes = Field(primary_key=True)
    cycle: int
    phase: str
    phase_started_at: int = Field(sa_type=BigInteger)
    cycle_started_at: int = Field(sa_type=BigInteger)
    run: int
    spent_at_training: int
    failed_runs: int


class CycleResultRow(_Row, table=True):
    """`CycleResultRecord`."""

    __tablename__: ClassVar[str] = "cycle_result"
    campaign_id: bytes = Field(primary_key=True)
    cycle: int = Field(primary_key=True)
    labels: int
    budget_spent: int
    accuracy: float
    macro_f1: float
    model_version: int
    seconds: int
    live_accuracy: float
    live_low: float
    live_high: float


class TrainingRunRow(_Row, table=True):
    """`TrainingRunRecord`."""

    __tablename__: ClassVar[str] = "training_run"
    campaign_id: bytes = Field(primary_key=True)
    run: int = Field(primary_key=True)
    state: str
    first: bool
    parent_version: int
    next_version: int
    folder: str
    started_at: int = Field(sa_type=BigInteger)
    state_at: int = Field(sa_type=BigInteger)
    round: int
    rounds: int
    attempts: int
    spent_labels: int
    error: str


class ModelVersionRow(_Row, table=True):
    """`ModelVersionRecord`."""

    __tablename__: ClassVar[str] = "model_version"
    campaign_id: bytes = Field(primary_key=True)
    version: int = Field(primary_key=True)
    state: str
    run: int
    path: str
    size_bytes: int = Field(sa_type=BigInteger)
    sha256: bytes
    evaluation_json: str
    created_at: int = Field(sa_type=BigInteger)


class MachineRow(_Row, table=True):
    """`MachineRecord`."""

    __tablename__: ClassVar[str] = "machine"
    site_id: str = Field(primary_key=True)
    role: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    generation: int
    enrolled_at: int = Field(sa_type=BigInteger)
    revoked: bool
    node_key: str


class CertificateRow(_Row, table=True):
    """`CertificateRecord`."""

    __tablename__: ClassVar[str] = "certificate"
    serial: str = Field(primary_key=True)
    site_id: str
    role: str
    name: str
    generation: int
    expires_at: int = Field(sa_type=BigInteger)


class JoinTokenRow(_Row, table=True):
    """`JoinTokenRecord`."""

    __tablename__: ClassVar[str] = "join_token"
    secret_sha256: bytes = Field(primary_key=True)
    site_id: str
    role: str
    name: str
    hosts: str
    expires_at: int = Field(sa_type=BigInteger)
    used_at: int = Field(sa_type=BigInteger)


class AnswerRow(_Row, table=True):
    """`AnswerRecord`."""

    __tablename__: ClassVar[str] = "answer"
    caller: str = Field(primary_key=True)
    request_id: bytes = Field(primary_key=True)
    request_sha256: bytes
    response: bytes
    answered_at: int = Field(sa_type=BigInteger)


class PoolReportRow(_Row, table=True):
    """`PoolReportRecord`; the square sum may pass 2^63 only far beyond the size limits."""

    __tablename__: ClassVar[str] = "pool_report"
    campaign_id: bytes = Field(primary_key=True)
    site_id: str = Field(primary_key=True)
    agent_name: str = Field(primary_key=True)
    generation: int
    model_version: int
    day: int
    class_counts: bytes
    top_probability_sum: int = Field(sa_type=BigInteger)
    top_probability_square_sum: int = Field(sa_type=BigInteger)
    complete: bool


class SiteReportRow(_Row, table=True):
    """`SiteReportRecord`."""

    __tablename__: ClassVar[str] = "site_report"
    campaign_id: bytes = Field(primary_key=True)
    site_id: str = Field(primary_key=True)
    day: int
    label_counts: bytes
    label_count: int = Field(sa_type=BigInteger)
    expert_capacity_count: int = Field(sa_type=BigInteger)
    median_decision_seconds: int
    temperature_milli: int = Field(sa_type=BigInteger)
    calibration_error_milli: int


class InstallRow(_Row, table=True):
    """`InstallRecord`."""

    __tablename__: ClassVar[str] = "install"
    campaign_id: bytes = Field(primary_key=True)
    site_id: str = Field(primary_key=True)
    role: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    version: int
    installed: bool
    reason: int
    reported_at: int = Field(sa_type=BigInteger)


class ParticipantRow(_Row, table=True):
    """`ParticipantRecord`."""

    __tablename__: ClassVar[str] = "participant"
    campaign_id: bytes = Field(primary_key=True)
    site_id: str = Field(primary_key=True)
    agent_name: str = Field(primary_key=True)
    since_at: int = Field(sa_type=BigInteger)


class AllocationRow(_Row, table=True):
    """`AllocationRecord`."""

    __tablename__: ClassVar[str] = "allocation"
    campaign_id: bytes = Field(primary_key=True)
    cycle: int = Field(primary_key=True)
    seed: bytes
    segment_ids_json: str
    ledger_sequence: int = Field(sa_type=BigInteger)
    inputs_json: str
    frame_json: str
    inputs_digest: str
    picks_digest: str
    pick_count: int
    decided_at: int = Field(sa_type=BigInteger)


class CounterRow(_Row, table=True):
    """`CounterRecord`."""

    __tablename__: ClassVar[str] = "counter"
    name: str = Field(primary_key=True)
    total: int = Field(sa_type=BigInteger)


class AuditRow(_Row, table=True):
    """`AuditRecord`."""

    __tablename__: ClassVar[str] = "audit"
    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    at: int = Field(sa_type=BigInteger)
    action: str
    subject: str
    digest: bytes


SEGMENT = Table(
    "segment",
    _Row.metadata,
    # SQLite gives rising ids by itself only to a column declared INTEGER.
    Column(
        "segment_id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("campaign_id", LargeBinary, nullable=False),
    Column("site_id", String, nullable=False),
    Column("agent_name", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("model_version", BigInteger, nullable=False),
    Column("code_book_version", BigInteger, nullable=False),
    Column("day", BigInteger, nullable=False),
    Column("row_count", Integer, nullable=False),
    Column("new_row_count", Integer, nullable=False),
    Column("replaces_older_versions", Boolean, nullable=False),
    *[Column(name, LargeBinary, nullable=False) for name in records.COLUMN_WIDTHS],
    UniqueConstraint(*records.SegmentRecord.KEY, name="segment_key"),
    Index("segment_campaign", "campaign_id"),
)

ROWS: dict[type[Any], type[_Row]] = {
    records.CampaignRecord: CampaignRow,
    records.CycleRecord: CycleRow,
    records.CycleResultRecord: CycleResultRow,
    records.TrainingRunRecord: TrainingRunRow,
    records.ModelVersionRecord: ModelVersionRow,
    records.MachineRecord: MachineRow,
    records.CertificateRecord: CertificateRow,
    records.JoinTokenRecord: JoinTokenRow,
    records.AnswerRecord: AnswerRow,
    records.PoolReportRecord: PoolReportRow,
    records.SiteReportRecord: SiteReportRow,
    records.InstallRecord: InstallRow,
    records.ParticipantRecord: ParticipantRow,
    records.AllocationRecord: AllocationRow,
    records.CounterRecord: CounterRow,
    records.AuditRecord: AuditRow,
}
METADATA = _Row.metadata
