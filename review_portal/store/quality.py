"""What annotations say about experts, classes and models: the values that `core` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from review_portal.core.agreement import (
    ExpertAgreement,
    PairAgreement,
    fleiss_kappa,
    pairwise_kappas,
    per_class,
    per_expert,
)
from review_portal.core.agreement_alpha import krippendorff_alpha
from review_portal.core.agreement_intervals import Estimate
from review_portal.core.agreement_quality import (
    Alert,
    CheckedAnswer,
    accuracy,
    accuracy_by_expert,
    quality_alerts,
)
from review_portal.core.agreement_ratings import Rating
from review_portal.core.calibration import (
    CalibrationBin,
    SettledSuggestion,
    expected_calibration_error,
    reliability_bins,
)
from review_portal.core.model import Campaign, Purpose
from review_portal.store.tables import annotation, item, label, person

ROWS_MAX = 200_000


@dataclass(frozen=True)
class ExpertQuality:
    """One expert's work.

    Attributes:
        name: Display name.
        decision_count: Decisions that stand.
        abstention_count: Of these, "can't tell".
        median_seconds: Median active seconds.
        agreement: With the others.
        gold: Accuracy on hidden known items.
        consistency: Share of own items answered alike the second time.
    """

    name: str
    decision_count: int
    abstention_count: int
    median_seconds: float
    agreement: Estimate | None
    gold: Estimate | None
    consistency: Estimate | None


@dataclass(frozen=True)
class Calibration:
    """How far the confidence of one model version can be trusted.

    Attributes:
        model_version: Which one.
        suggestion_count: Settled suggestions behind it.
        accuracy: Share of suggestions that stood.
        error: Expected calibration error.
        bins: Bars of the reliability diagram.
    """

    model_version: int
    suggestion_count: int
    accuracy: Estimate
    error: Estimate
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class QualityReport:
    """All of a campaign's quality.

    Attributes:
        alpha: Krippendorff's alpha over all items with two answers.
        fleiss: Fleiss' kappa.
        pairs: Cohen's kappa for every two experts with common items.
        classes: Class name and alpha of "this class or another".
        experts: By name.
        gold: Accuracy on gold of all experts.
        consistency: Self-consistency of all experts.
        calibrations: Newest model version first.
        alerts: What lies under its threshold.
    """

    alpha: Estimate
    fleiss: Estimate
    pairs: tuple[PairAgreement, ...]
    classes: tuple[tuple[str, Estimate], ...]
    experts: tuple[ExpertQuality, ...]
    gold: Estimate
    consistency: Estimate
    calibrations: tuple[Calibration, ...]
    alerts: tuple[Alert, ...]


def newest_change(connection: Connection) -> int:
    """Returns a number that is another one once anything was decided since."""
    rows = connection.exec_driver_sql(
        "SELECT coalesce((SELECT max(annotation_id) FROM annotation), 0) "
        "+ coalesce((SELECT max(label_id) FROM label), 0) "
        "+ coalesce((SELECT sum(schema_version) FROM campaign), 0)"
    )
    return int(rows.scalar_one())


def report(connection: Connection, campaign: Campaign) -> QualityReport:
    """Measures everything about a campaign, over its newest 200,000 annotations."""
    names = _names(connection)
    rows = _standing(connection, campaign.campaign_id)
    ratings = _ratings(rows, names)
    gold = _gold(connection, rows, names)
    repeats = _repeats(rows, names)
    alpha = krippendorff_alpha(ratings)
    by_expert = {entry.expert_id: entry for entry in per_expert(ratings)}
    gold_by, repeat_by = accuracy_by_expert(gold), accuracy_by_expert(repeats)
    return QualityReport(
        alpha=alpha,
        fleiss=fleiss_kappa(ratings),
        pairs=tuple(p for p in pairwise_kappas(ratings) if p.kappa.unit_count),
        classes=tuple(
            zip(campaign.classes, per_class(ratings, len(campaign.classes)), strict=True)
        ),
        experts=_experts(rows, names, by_expert, (gold_by, repeat_by)),
        gold=accuracy(gold),
        consistency=accuracy(repeats),
        calibrations=calibrations(connection, campaign.campaign_id),
        alerts=quality_alerts(alpha={campaign.name: alpha}, gold=gold_by, consistency=repeat_by),
    )


def _names(connection: Connection) -> dict[int, str]:
    rows = connection.execute(select(person.c.person_id, person.c.username))
    return {row.person_id: row.username for row in rows}


def _standing(connection: Connection, campaign_id: bytes) -> list[Row[Any]]:
    rows = connection.execute(
        select(
            annotation.c.annotation_id,
            annotation.c.item_number,
            annotation.c.expert_id,
            annotation.c.purpose,
            annotation.c.class_index,
            annotation.c.answer_key,
            annotation.c.seconds,
            annotation.c.withdraws,
        )
        .where(annotation.c.campaign_id == campaign_id)
        .order_by(annotation.c.annotation_id.desc())
        .limit(ROWS_MAX)
    ).all()
    gone = {row.withdraws for row in rows if row.withdraws is not None}
    return [r for r in reversed(rows) if r.withdraws is None and r.annotation_id not in gone]


def _ratings(rows: Sequence[Row[Any]], names: dict[int, str]) -> list[Rating]:
    """The first answer of each expert to each item; repeats and gold are no second opinion."""
    seen: set[tuple[int, int]] = set()
    ratings = []
    for row in rows:
        place = (row.item_number, row.expert_id)
        if row.class_index is None or row.purpose not in {"work", "late"} or place in seen:
            continue
        seen.add(place)
        name = names.get(row.expert_id, str(row.expert_id))
        ratings.append(Rating(str(row.item_number), name, row.class_index))
    return ratings


def _gold(
    connection: Connection, rows: Sequence[Row[Any]], names: dict[int, str]
) -> list[CheckedAnswer]:
    answers = [r for r in rows if r.purpose == Purpose.GOLD.value and r.class_index is not None]
    if not answers:
        return []
    known = connection.execute(
        select(label.c.item_number, label.c.class_index)
        .join(item, item.c.item_number == label.c.item_number)
        .where(item.c.is_gold, label.c.superseded_by.is_(None))
    )
    expected = {row.item_number: row.class_index for row in known}
    return [
        CheckedAnswer(names.get(r.expert_id, ""), expected[r.item_number], r.class_index)
        for r in answers
        if expected.get(r.item_number) is not None
    ]


def _repeats(rows: Sequence[Row[Any]], names: dict[int, str]) -> list[CheckedAnswer]:
    first: dict[tuple[int, int], int] = {}
    for row in rows:
        if row.purpose == Purpose.WORK.value and row.class_index is not None:
            first.setdefault((row.item_number, row.expert_id), row.class_index)
    return [
        CheckedAnswer(names.get(r.expert_id, ""), first[r.item_number, r.expert_id], r.class_index)
        for r in rows
        if r.purpose == Purpose.REPEAT.value
        and r.class_index is not None
        and (r.item_number, r.expert_id) in first
    ]


def _experts(
    rows: Sequence[Row[Any]],
    names: dict[int, str],
    agreements: dict[str, ExpertAgreement],
    checked: tuple[dict[str, Estimate], dict[str, Estimate]],
) -> tuple[ExpertQuality, ...]:
    grouped: dict[str, list[Row[Any]]] = {}
    for row in rows:
        grouped.setdefault(names.get(row.expert_id, str(row.expert_id)), []).append(row)
    found = []
    for name in sorted(grouped):
        mine = grouped[name]
        seconds = sorted(row.seconds for row in mine)
        stands = agreements.get(name)
        found.append(
            ExpertQuality(
                name=name,
                decision_count=len(mine),
                abstention_count=sum(row.answer_key is None for row in mine),
                median_seconds=seconds[len(seconds) // 2],
                agreement=stands.agreement if stands else None,
                gold=checked[0].get(name),
                consistency=checked[1].get(name),
            )
        )
    return tuple(found)


def calibrations(connection: Connection, campaign_id: bytes) -> tuple[Calibration, ...]:
    """Returns how the confidence of each model version stood up to experts, newest first."""
    rows = connection.execute(
        select(
            label.c.model_version,
            label.c.confidence,
            label.c.suggestion_index,
            label.c.class_index,
        )
        .where(
            label.c.campaign_id == campaign_id,
            label.c.superseded_by.is_(None),
            label.c.origin == "expert",
            label.c.suggestion_index.is_not(None),
            label.c.class_index.is_not(None),
        )
        .order_by(label.c.label_id.desc())
        .limit(ROWS_MAX)
    )
    by_version: dict[int, list[SettledSuggestion]] = {}
    for row in rows:
        settled = SettledSuggestion(
            min(max(row.confidence, 0.0), 1.0), row.suggestion_index == row.class_index
        )
        by_version.setdefault(row.model_version, []).append(settled)
    return tuple(_calibration(v, by_version[v]) for v in sorted(by_version, reverse=True))


def _calibration(version: int, settled: list[SettledSuggestion]) -> Calibration:
    bins = reliability_bins(settled)
    stood = [CheckedAnswer("", 1, int(entry.is_right)) for entry in settled]
    return Calibration(
        model_version=version,
        suggestion_count=len(settled),
        accuracy=accuracy(stood),
        error=expected_calibration_error(bins),
        bins=bins,
    )
