"""What the coordinator remembers besides the ledger and the candidates, as frozen records.

Every record names its key fields in `KEY`; a store keeps one record per key. Times are whole
seconds since 1970-01-01 UTC, ids are 16 bytes, counts are labels or rows as their names say.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar

from coordinator.core.campaign import CampaignState
from coordinator.core.cycle import CycleState, Phase
from coordinator.core.rollout import VersionState
from coordinator.core.training import TrainingState


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign; `settings_json` is its `Campaign`, `salt` keys candidate ids, 16 bytes."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id",)
    campaign_id: bytes
    name: str
    state: CampaignState
    settings_json: str
    salt: bytes
    created_at: int


@dataclass(frozen=True)
class CycleRecord:
    """`core.cycle.CycleState` of a campaign."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id",)
    campaign_id: bytes
    cycle: int
    phase: Phase
    phase_started_at: int
    cycle_started_at: int
    run: int
    spent_at_training: int
    failed_runs: int

    @classmethod
    def of(cls, state: CycleState) -> CycleRecord:
        """Returns the record of a state."""
        return cls(**vars(state))

    def state(self) -> CycleState:
        """Returns the state that was recorded."""
        return CycleState(**vars(self))


@dataclass(frozen=True)
class CycleResultRecord:
    """What one finished cycle brought; -1 where nothing was measured.

    `labels` were settled in this cycle, `budget_spent` counts all cycles so far. `accuracy` and
    `macro_f1` are those of `model_version` on the sites' held-out sets; `live_accuracy` with its
    interval is that of the version that scored the cycle's pool, estimated from explore labels.
    """

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id", "cycle")
    campaign_id: bytes
    cycle: int
    labels: int
    budget_spent: int
    accuracy: float
    macro_f1: float
    model_version: int
    seconds: int
    live_accuracy: float = -1.0
    live_low: float = -1.0
    live_high: float = -1.0


@dataclass(frozen=True)
class TrainingRunRecord:
    """One training run; `folder` is relative to the central folder, `first` marks init-model."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id", "run")
    campaign_id: bytes
    run: int
    state: TrainingState
    first: bool
    parent_version: int
    next_version: int
    folder: str
    started_at: int
    state_at: int
    round: int = 0
    rounds: int = 0
    attempts: int = 0
    spent_labels: int = 0
    error: str = ""


@dataclass(frozen=True)
class ModelVersionRecord:
    """A registered bundle; `path` is relative to the central folder."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id", "version")
    campaign_id: bytes
    version: int
    state: VersionState
    run: int
    path: str
    size_bytes: int
    sha256: bytes
    evaluation_json: str
    created_at: int


@dataclass(frozen=True)
class MachineRecord:
    """A machine of a site. A new enrolment raises `generation` and ends the older ones.

    `node_key` is the OpenSSH public key of a federation node, empty for other roles.
    """

    KEY: ClassVar[tuple[str, ...]] = ("site_id", "role", "name")
    site_id: str
    role: str
    name: str
    generation: int
    enrolled_at: int
    revoked: bool = False
    node_key: str = ""


@dataclass(frozen=True)
class CertificateRecord:
    """An issued certificate; whoever presents another is unknown."""

    KEY: ClassVar[tuple[str, ...]] = ("serial",)
    serial: str
    site_id: str
    role: str
    name: str
    generation: int
    expires_at: int


@dataclass(frozen=True)
class JoinTokenRecord:
    """A join token; only SHA-256 of its secret is kept. `used_at` 0 means unused."""

    KEY: ClassVar[tuple[str, ...]] = ("secret_sha256",)
    secret_sha256: bytes
    site_id: str
    role: str
    name: str
    hosts: str
    expires_at: int
    used_at: int = 0


@dataclass(frozen=True)
class AnswerRecord:
    """The first answer to a request, kept so that a repeat gets the same one."""

    KEY: ClassVar[tuple[str, ...]] = ("caller", "request_id")
    caller: str
    request_id: bytes
    request_sha256: bytes
    response: bytes
    answered_at: int


@dataclass(frozen=True)
class PoolReportRecord:
    """Totals of an agent's pool; `class_counts` is uint32 per class, little-endian."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id", "site_id", "agent_name")
    campaign_id: bytes
    site_id: str
    agent_name: str
    generation: int
    model_version: int
    day: int
    class_counts: bytes
    top_probability_sum: int
    top_probability_square_sum: int
    complete: bool


@dataclass(frozen=True)
class SiteReportRecord:
    """Totals of a site's label store and experts; `label_counts` is uint32 per class or empty."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id", "site_id")
    campaign_id: bytes
    site_id: str
    day: int
    label_counts: bytes
    label_count: int
    expert_capacity_count: int
    median_decision_seconds: int
    temperature_milli: int
    calibration_error_milli: int


@dataclass(frozen=True)
class InstallRecord:
    """What a machine last said about a version; `installed` False means refused or rolled back."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id", "site_id", "role", "name")
    campaign_id: bytes
    site_id: str
    role: str
    name: str
    version: int
    installed: bool
    reason: int
    reported_at: int


@dataclass(frozen=True)
class ParticipantRecord:
    """An agent that has asked for a campaign's model, and so has samples for it."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id", "site_id", "agent_name")
    campaign_id: bytes
    site_id: str
    agent_name: str
    since_at: int


@dataclass(frozen=True)
class AllocationRecord:
    """All that is needed to make an allocation again and compare: inputs, seed and outcome."""

    KEY: ClassVar[tuple[str, ...]] = ("campaign_id", "cycle")
    campaign_id: bytes
    cycle: int
    seed: bytes
    segment_ids_json: str
    ledger_sequence: int
    inputs_json: str
    frame_json: str
    inputs_digest: str
    picks_digest: str
    pick_count: int
    decided_at: int


@dataclass(frozen=True)
class CounterRecord:
    """A counter that survives restarts, for example bytes received."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    total: int


@dataclass(frozen=True)
class AuditRecord:
    """One line of the audit log: who or what (`subject`) met which `action`.

    `digest` is SHA-256 over the digest before and this line, so that none can be changed alone.
    """

    KEY: ClassVar[tuple[str, ...]] = ("sequence",)
    sequence: int
    at: int
    action: str
    subject: str
    digest: bytes = b""

    def after(self, previous: bytes) -> AuditRecord:
        """Returns the line with its digest after `previous` (32 bytes)."""
        line = f"{self.sequence}|{self.at}|{self.action}|{self.subject}".encode()
        return replace(self, digest=hashlib.sha256(previous + line).digest())


AUDIT_GENESIS = b"\0" * 32


@dataclass(frozen=True)
class SegmentRecord:
    """Head of one stored batch of candidates; its columns are kept beside it.

    `segment_id` is given by the store, 0 before.
    """

    KEY: ClassVar[tuple[str, ...]] = (
        "campaign_id",
        "site_id",
        "agent_name",
        "generation",
        "sequence",
    )
    campaign_id: bytes
    site_id: str
    agent_name: str
    generation: int
    sequence: int
    digest: bytes
    model_version: int
    code_book_version: int
    day: int
    row_count: int
    new_row_count: int
    replaces_older_versions: bool
    segment_id: int = 0


COLUMN_WIDTHS: dict[str, int] = {
    "candidate_ids": 16,
    "margins": 1,
    "top_probabilities": 1,
    "entropies": 1,
    "divergence_risk": 1,
    "predicted_classes": 2,
    "runner_up_classes": 2,
    "prototype_classes": 2,
    "cell_ids": 2,
    "density_cost": 1,
}
"""Bytes a row of every candidate column, in the order of the wire."""

Record = (
    CampaignRecord
    | CycleRecord
    | CycleResultRecord
    | TrainingRunRecord
    | ModelVersionRecord
    | MachineRecord
    | CertificateRecord
    | JoinTokenRecord
    | AnswerRecord
    | PoolReportRecord
    | SiteReportRecord
    | InstallRecord
    | ParticipantRecord
    | AllocationRecord
    | CounterRecord
    | AuditRecord
)
