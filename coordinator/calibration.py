"""How well the released model's confidence was measured to match the truth; steers the phase."""

from __future__ import annotations

from collections.abc import Collection

from coordinator.core.campaign import Campaign
from coordinator.core.records import SiteReportRecord
from coordinator.core.training import Evaluation
from coordinator.office import Office
from coordinator.registry import evaluation_of, released_record


def measured_error(
    evaluation: Evaluation | None, reports: Collection[SiteReportRecord]
) -> float | None:
    """Expected calibration error in [0, 1], or None when nobody measured it.

    The federated evaluation goes first: it is of this very version, over all sites' test splits,
    at the temperatures that their devices use. Without test splits the mean of what portals saw on
    labels drawn by chance stands in.

    Args:
        evaluation: Of the released version.
        reports: The sites' last totals.

    >>> measured_error(Evaluation(detail={"calibration_error": 0.04}), [])
    0.04
    >>> measured_error(Evaluation(detail={"calibration_error": -1.0}), []) is None
    True
    """
    found = evaluation.detail.get("calibration_error") if evaluation is not None else None
    if isinstance(found, int | float) and 0 <= found <= 1:
        return float(found)
    seen = [r.calibration_error_milli / 1_000 for r in reports if r.temperature_milli]
    return sum(seen) / len(seen) if seen else None


def released_error(office: Office, campaign: Campaign, campaign_id: bytes) -> float | None:
    """Returns `measured_error` for the version that devices score with now."""
    evaluation = evaluation_of(released_record(office, campaign, campaign_id))
    return measured_error(evaluation, office.store.find(SiteReportRecord, campaign_id=campaign_id))
