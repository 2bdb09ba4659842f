"""Messages from sites, checked field by field before anything believes them.

Every message is refused when it holds a field that this contract does not know: protobuf would keep
and pass on such bytes silently. What is returned are values of the core or columns; no message
object goes further than this module and `service`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray
from perimeter.v1 import candidate_pb2, enrollment_pb2, grant_pb2, model_pb2

from coordinator.core.entries import GrantState, Verdict
from coordinator.core.ledger import OutcomeReport
from coordinator.core.records import COLUMN_WIDTHS
from coordinator.equal_rows import check_counts, expanded
from coordinator.errors import WireInvalid
from coordinator.padding import PADDING, is_padding

ID_BYTES = 16
DIGEST_BYTES = 32
ROW_COUNT_MAX = 10_000
OUTCOME_COUNT_MAX = 1_000
PAGE_SIZE_MAX = 1_000
WAIT_SECONDS_MAX = 30
DECISION_SECONDS_MAX = 3_600
DAY_MAX = 100_000
CLASS_COUNT_MAX = 4_096
VERSION_MAX = 2**31 - 1
COUNT_MAX = 2**62
SCORE_LEVELS = 63
CELL_COUNT_MAX = 4_096
HISTOGRAM_BINS = 16
EPSILON_MILLI_MAX = 100_000

OUTCOME_STATES = {
    grant_pb2.OUTCOME_STATE_RELEASED: GrantState.RELEASED,
    grant_pb2.OUTCOME_STATE_LABELED: GrantState.LABELED,
    grant_pb2.OUTCOME_STATE_ABSTAINED: GrantState.ABSTAINED,
    grant_pb2.OUTCOME_STATE_EXPIRED: GrantState.EXPIRED,
    grant_pb2.OUTCOME_STATE_DECLINED: GrantState.DECLINED,
    grant_pb2.OUTCOME_STATE_REFUSED: GrantState.REFUSED,
}
_VERDICTS = {
    grant_pb2.SUGGESTION_VERDICT_UNSPECIFIED: Verdict.UNKNOWN,
    grant_pb2.SUGGESTION_VERDICT_STOOD: Verdict.STOOD,
    grant_pb2.SUGGESTION_VERDICT_CORRECTED: Verdict.CORRECTED,
}


def refuse_unknown(message: Message) -> None:
    """Raises `WireInvalid` when the message or one inside it holds an unknown field."""
    name = message.DESCRIPTOR.name
    if len(UnknownFieldSet(message)):
        raise WireInvalid(name, "holds a field that this version does not know")
    if not is_padding(getattr(message, PADDING, b""), message):
        raise WireInvalid(f"{name}.{PADDING}", "must be zeros, to the size class exactly")
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for child in value if descriptor.is_repeated else [value]:
            refuse_unknown(child)


def request_digest(message: Message) -> bytes:
    """Returns SHA-256 of a request, to tell a repeat from another request with the same id.

    Padding does not count: a machine may repeat after an update what it sent without any.
    """
    if getattr(message, PADDING, b""):
        bare = type(message)()
        bare.CopyFrom(message)
        bare.ClearField(PADDING)
        message = bare
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()


def check_id(value: bytes, field: str) -> bytes:
    """Returns an id of 16 bytes; raises `WireInvalid` for any other length."""
    if len(value) != ID_BYTES:
        raise WireInvalid(field, f"must have {ID_BYTES} bytes, not {len(value)}")
    return value


def _in_range(value: int, field: str, low: int, high: int) -> int:
    if not low <= value <= high:
        raise WireInvalid(field, f"must be from {low} to {high}, not {value}")
    return value


def _sized(value: bytes, field: str, size: int) -> bytes:
    if len(value) != size:
        raise WireInvalid(field, f"must have {size} bytes, not {len(value)}")
    return value


@dataclass(frozen=True)
class Batch:
    """A checked batch of candidates; `columns` are little-endian bytes as `COLUMN_WIDTHS` says."""

    campaign_id: bytes
    sequence: int
    model_version: int
    code_book_version: int
    label_schema_digest: bytes
    day: int
    row_count: int
    replaces_older_versions: bool
    columns: Mapping[str, bytes]
    digest: bytes
    class_index_max: int


def parse_batch(message: candidate_pb2.CandidateBatch) -> Batch:
    """Checks a batch whole: one wrong row refuses all of it.

    Raises:
        WireInvalid: A length, a range or an id is wrong, or a field is unknown.
    """
    refuse_unknown(message)
    check_id(message.request_id, "request_id")
    rows = _in_range(message.row_count, "row_count", 1, ROW_COUNT_MAX)
    columns = {
        name: _sized(getattr(message, name), name, rows * width)
        for name, width in COLUMN_WIDTHS.items()
    }
    further = check_counts(columns["candidate_ids"], message.further_counts)
    return Batch(
        campaign_id=check_id(message.campaign_id, "campaign_id"),
        sequence=_in_range(message.sequence, "sequence", 1, COUNT_MAX),
        model_version=_in_range(message.model_version, "model_version", 1, VERSION_MAX),
        code_book_version=_in_range(message.code_book_version, "code_book_version", 0, VERSION_MAX),
        label_schema_digest=_sized(
            message.label_schema_digest, "label_schema_digest", DIGEST_BYTES
        ),
        day=_in_range(message.day, "day", 1, DAY_MAX),
        row_count=rows + sum(further),
        replaces_older_versions=message.replaces_older_versions,
        columns=expanded(columns, further),
        digest=_batch_digest(message, columns),
        class_index_max=_check_columns(columns),
    )


def _batch_digest(message: candidate_pb2.CandidateBatch, columns: Mapping[str, bytes]) -> bytes:
    # Over the checked parts, since serialising 300 kB again would double the cost of a batch.
    scalars = [value for name, value in _scalars(message) if name not in (*columns, PADDING)]
    seal = hashlib.sha256(repr(scalars).encode())
    for column in columns.values():
        seal.update(column)
    return seal.digest()


def _scalars(message: Message) -> list[tuple[str, object]]:
    return [(descriptor.name, value) for descriptor, value in message.ListFields()]


def _check_columns(columns: Mapping[str, bytes]) -> int:
    """Checks the ranges inside the columns and returns the largest class index."""
    for name in ("margins", "top_probabilities", "entropies"):
        if _column(columns, name, "u1").max() > SCORE_LEVELS:
            raise WireInvalid(name, f"a value is above {SCORE_LEVELS}")
    if (_column(columns, "density_cost", "u1") & 0x80).any():
        raise WireInvalid("density_cost", "bit 7 must be 0")
    if _stands_twice(columns["candidate_ids"]):
        raise WireInvalid("candidate_ids", "an id stands twice in the batch")
    names = ("predicted_classes", "runner_up_classes", "prototype_classes")
    return max(int(_column(columns, name, "<u2").max()) for name in names)


def _stands_twice(ids: bytes) -> bool:
    # Numbers sort forty times faster than byte strings; equal first halves are rare.
    halves = np.sort(np.frombuffer(ids, dtype="<u8")[::2])
    if not (halves[1:] == halves[:-1]).any():
        return False
    whole = np.frombuffer(ids, dtype="S16")
    return len(np.unique(whole)) != len(whole)


def _column(columns: Mapping[str, bytes], name: str, kind: str) -> NDArray[np.integer]:
    return np.frombuffer(columns[name], dtype=kind)


@dataclass(frozen=True)
class PoolReport:
    """A checked `ReportPoolRequest`."""

    campaign_id: bytes
    model_version: int
    day: int
    class_counts: bytes
    top_probability_sum: int
    top_probability_square_sum: int
    complete: bool


def parse_pool_report(message: candidate_pb2.ReportPoolRequest) -> PoolReport:
    """Checks the totals of an agent's pool."""
    refuse_unknown(message)
    check_id(message.request_id, "request_id")
    return PoolReport(
        campaign_id=check_id(message.campaign_id, "campaign_id"),
        model_version=_in_range(message.model_version, "model_version", 1, VERSION_MAX),
        day=_in_range(message.day, "day", 1, DAY_MAX),
        class_counts=_counts(message.class_counts, "class_counts"),
        top_probability_sum=_in_range(
            message.top_probability_sum, "top_probability_sum", 0, COUNT_MAX
        ),
        top_probability_square_sum=_in_range(
            message.top_probability_square_sum, "top_probability_square_sum", 0, COUNT_MAX
        ),
        complete=message.complete,
    )


def _counts(value: bytes, field: str) -> bytes:
    if len(value) % 4 or len(value) > 4 * CLASS_COUNT_MAX:
        raise WireInvalid(field, "must be uint32 per class")
    return value


@dataclass(frozen=True)
class Histogram:
    """A checked `ReportHistogramRequest`; `counts` is int64[cells, 16] with noise."""

    campaign_id: bytes
    model_version: int
    label_schema_digest: bytes
    day: int
    epsilon: float
    counts: NDArray[np.int64]
    digest: bytes


def parse_histogram(message: candidate_pb2.ReportHistogramRequest) -> Histogram:
    """Checks the noised counts of an agent's pool."""
    refuse_unknown(message)
    check_id(message.request_id, "request_id")
    cells = _in_range(message.cell_count, "cell_count", 1, CELL_COUNT_MAX)
    packed = _sized(message.noised_counts, "noised_counts", cells * HISTOGRAM_BINS * 4)
    digest = _sized(message.label_schema_digest, "label_schema_digest", DIGEST_BYTES)
    return Histogram(
        campaign_id=check_id(message.campaign_id, "campaign_id"),
        model_version=_in_range(message.model_version, "model_version", 1, VERSION_MAX),
        label_schema_digest=digest,
        day=_in_range(message.day, "day", 1, DAY_MAX),
        epsilon=_in_range(message.epsilon_milli, "epsilon_milli", 1, EPSILON_MILLI_MAX) / 1_000,
        counts=np.frombuffer(packed, dtype="<i4").astype(np.int64).reshape(cells, HISTOGRAM_BINS),
        digest=request_digest(message),
    )


@dataclass(frozen=True)
class SiteReport:
    """A checked `ReportSiteRequest`."""

    campaign_id: bytes
    day: int
    label_counts: bytes
    label_count: int
    expert_capacity_count: int
    median_decision_seconds: int
    temperature_milli: int
    calibration_error_milli: int


def parse_site_report(message: candidate_pb2.ReportSiteRequest) -> SiteReport:
    """Checks the totals of a site."""
    refuse_unknown(message)
    check_id(message.request_id, "request_id")
    return SiteReport(
        campaign_id=check_id(message.campaign_id, "campaign_id"),
        day=_in_range(message.day, "day", 1, DAY_MAX),
        label_counts=_counts(message.label_counts, "label_counts"),
        label_count=message.label_count,
        expert_capacity_count=message.expert_capacity_count,
        median_decision_seconds=_in_range(
            message.median_decision_seconds, "median_decision_seconds", 0, DECISION_SECONDS_MAX
        ),
        temperature_milli=message.temperature_milli,
        calibration_error_milli=_in_range(
            message.calibration_error_milli, "calibration_error_milli", 0, 1_000
        ),
    )


def check_list_grants(message: grant_pb2.ListGrantsRequest) -> None:
    """Checks the page size (1 to 1000) and the wait (0 to 30 seconds)."""
    refuse_unknown(message)
    _in_range(message.page_size, "page_size", 1, PAGE_SIZE_MAX)
    _in_range(message.wait_seconds, "wait_seconds", 0, WAIT_SECONDS_MAX)


def parse_outcomes(message: grant_pb2.RecordOutcomesRequest) -> list[OutcomeReport]:
    """Checks reported outcomes."""
    refuse_unknown(message)
    check_id(message.request_id, "request_id")
    _in_range(len(message.outcomes), "outcomes", 1, OUTCOME_COUNT_MAX)
    return [_outcome(outcome, f"outcomes[{i}]") for i, outcome in enumerate(message.outcomes)]


def _outcome(outcome: grant_pb2.Outcome, path: str) -> OutcomeReport:
    state = OUTCOME_STATES.get(outcome.state)
    if state is None:
        raise WireInvalid(f"{path}.state", "must be one of the known states")
    verdict = _VERDICTS.get(outcome.suggestion)
    if verdict is None:
        raise WireInvalid(f"{path}.suggestion", "must be one of the known verdicts")
    if state is not GrantState.LABELED and outcome.class_index_plus_one:
        raise WireInvalid(f"{path}.class_index_plus_one", "only a labeled grant has a class")
    return OutcomeReport(
        grant_id=check_id(outcome.grant_id, f"{path}.grant_id"),
        state=state,
        verdict=verdict,
        class_index_plus_one=_in_range(
            outcome.class_index_plus_one, f"{path}.class_index_plus_one", 0, CLASS_COUNT_MAX
        ),
        decision_seconds=_in_range(
            outcome.decision_seconds, f"{path}.decision_seconds", 0, DECISION_SECONDS_MAX
        ),
    )


def check_model_version(message: model_pb2.GetModelVersionRequest) -> None:
    """Checks a question for the version to run."""
    refuse_unknown(message)
    check_id(message.campaign_id, "campaign_id")
    _in_range(message.installed_version, "installed_version", 0, VERSION_MAX)


def check_download(message: model_pb2.DownloadBundleRequest) -> None:
    """Checks a request for a bundle."""
    refuse_unknown(message)
    check_id(message.campaign_id, "campaign_id")
    _in_range(message.version, "version", 1, VERSION_MAX)
    _in_range(message.offset, "offset", 0, COUNT_MAX)


@dataclass(frozen=True)
class InstallNote:
    """A checked `ReportInstallRequest`."""

    campaign_id: bytes
    version: int
    installed: bool
    reason: int


def parse_install(message: model_pb2.ReportInstallRequest) -> InstallNote:
    """Checks an install report."""
    refuse_unknown(message)
    check_id(message.request_id, "request_id")
    check_id(message.campaign_id, "campaign_id")
    _in_range(message.version, "version", 1, VERSION_MAX)
    _in_range(message.state, "state", 1, max(model_pb2.InstallState.values()))
    _in_range(message.reason, "reason", 0, max(model_pb2.InstallReason.values()))
    return InstallNote(
        campaign_id=message.campaign_id,
        version=message.version,
        installed=message.state == model_pb2.INSTALL_STATE_INSTALLED,
        reason=message.reason,
    )


@dataclass(frozen=True)
class EnrollOrder:
    """A checked `EnrollRequest`."""

    request_id: bytes
    request_sha256: bytes
    join_secret: bytes
    csr_der: bytes
    node_public_key_der: bytes


def parse_enroll(message: enrollment_pb2.EnrollRequest) -> EnrollOrder:
    """Checks the sizes of an enrolment; keys are checked by `identity`."""
    refuse_unknown(message)
    check_id(message.request_id, "request_id")
    return EnrollOrder(
        request_id=message.request_id,
        request_sha256=request_digest(message),
        join_secret=_sized(message.join_secret, "join_secret", DIGEST_BYTES),
        csr_der=message.csr_der,
        node_public_key_der=message.node_public_key_der,
    )


def check_renewal(message: enrollment_pb2.RenewCertificateRequest) -> None:
    """Checks the sizes of a renewal."""
    refuse_unknown(message)
    check_id(message.request_id, "request_id")
