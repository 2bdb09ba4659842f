"""A site's totals for the coordinator: counts and capacity, nothing about single items."""

from __future__ import annotations

import struct
import uuid

from perimeter.v1 import candidate_pb2
from sqlalchemy import Connection, select

from review_portal.core.capacity import daily_capacity
from review_portal.core.model import Campaign, Role
from review_portal.store import counters, people
from review_portal.store.campaigns import settings_of
from review_portal.store.explored import explored_calibration
from review_portal.store.tables import annotation

RECENT_DECISIONS = 500
SECONDS_PER_DAY = 86400


# Counting the campaigns among all annotations would read every one of them.
_WORKED_ON = (
    "SELECT count(*) FROM campaign WHERE EXISTS "
    "(SELECT 1 FROM annotation WHERE annotation.campaign_id = campaign.campaign_id)"
)


def site_report(
    connection: Connection, campaign: Campaign, now: float
) -> candidate_pb2.ReportSiteRequest:
    """Returns the totals of one campaign."""
    counted = counters.counts(connection, campaign.campaign_id)
    per_class = [0] * len(campaign.classes)
    for name, count in counted.items():
        head, _, index = name.rpartition(".")
        if head.startswith("labels.train.") and index.isdigit() and int(index) < len(per_class):
            per_class[int(index)] += count
    settings = settings_of(connection, campaign.campaign_id)
    seconds = median_seconds(connection, campaign.campaign_id)
    campaign_count = connection.exec_driver_sql(_WORKED_ON).scalar_one()
    seen = explored_calibration(connection, campaign.campaign_id)
    return candidate_pb2.ReportSiteRequest(
        request_id=uuid.uuid4().bytes,
        campaign_id=campaign.campaign_id,
        day=int(now // SECONDS_PER_DAY),
        label_counts=struct.pack(f"<{len(per_class)}I", *per_class)
        if settings.share_class_index
        else b"",
        label_count=sum(per_class),
        expert_capacity_count=_capacity(connection, seconds, campaign_count),
        median_decision_seconds=round(min(seconds, 3600.0)),
        temperature_milli=round(1_000 * seen.further_temperature) if seen else 0,
        calibration_error_milli=round(1_000 * seen.error) if seen else 0,
    )


def _capacity(connection: Connection, seconds: float, campaign_count: int) -> int:
    experts = [
        p
        for p in people.list_people(connection)
        if p.role in {Role.EXPERT, Role.ADJUDICATOR} and not p.is_disabled
    ]
    hours = [(p.hours_per_day, p.daily_quota) for p in experts]
    return daily_capacity(hours, seconds=seconds) // max(campaign_count, 1)


def median_seconds(connection: Connection, campaign_id: bytes) -> float:
    """Returns the median seconds of the newest decisions, 0 when there are none."""
    rows = connection.execute(
        select(annotation.c.seconds)
        .where(annotation.c.campaign_id == campaign_id, annotation.c.withdraws.is_(None))
        .order_by(annotation.c.annotation_id.desc())
        .limit(RECENT_DECISIONS)
    ).scalars()
    ordered = sorted(rows)
    return float(ordered[len(ordered) // 2]) if ordered else 0.0
