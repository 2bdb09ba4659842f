"""Refusals: the coordinator's "no" as a value with a stable reason. Nothing is sent here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Stable reasons; each is sent to callers as `perimeter-reason`."""

    BATCH_SEQUENCE_FORK = "BATCH_SEQUENCE_FORK"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    BUNDLE_UNKNOWN = "BUNDLE_UNKNOWN"
    CAMPAIGN_UNKNOWN = "CAMPAIGN_UNKNOWN"
    CANDIDATE_GRANTED = "CANDIDATE_GRANTED"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    CERTIFICATE_REVOKED = "CERTIFICATE_REVOKED"
    CERTIFICATE_UNKNOWN = "CERTIFICATE_UNKNOWN"
    CSR_INVALID = "CSR_INVALID"
    EGRESS_MODE = "EGRESS_MODE"
    GRANT_OF_OTHER_SITE = "GRANT_OF_OTHER_SITE"
    JOIN_TOKEN_EXPIRED = "JOIN_TOKEN_EXPIRED"  # noqa: S105 - a reason, no secret
    JOIN_TOKEN_UNKNOWN = "JOIN_TOKEN_UNKNOWN"  # noqa: S105 - a reason, no secret
    JOIN_TOKEN_USED = "JOIN_TOKEN_USED"  # noqa: S105 - a reason, no secret
    LABEL_SCHEMA_MISMATCH = "LABEL_SCHEMA_MISMATCH"
    MODEL_VERSION_UNKNOWN = "MODEL_VERSION_UNKNOWN"
    OUTCOME_NOT_YOURS = "OUTCOME_NOT_YOURS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    ROLE_FORBIDDEN = "ROLE_FORBIDDEN"
    SITE_BUDGET_EXHAUSTED = "SITE_BUDGET_EXHAUSTED"


@dataclass(frozen=True)
class Refusal:
    """A "no" that is part of normal life.

    Attributes:
        reason: Stable, for programs.
        sentence: Public, for people; names the remedy and holds nothing of a site's data.
    """

    reason: Reason
    sentence: str
