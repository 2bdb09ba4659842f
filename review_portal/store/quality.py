"""What annotations say about experts, classes and models: the values that `core` measures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from review_portal.core.agreement import (
    PairAgreement,
    agreement_with_others,
    fleiss_of_counted,
    pairwise_kappas,
    per_class,
)
from review_portal.core.agreement_alpha import alpha_of_counted
from review_portal.core.agreement_intervals import Estimate, wilson
from review_portal.core.agreement_quality import Alert, quality_alerts
from review_portal.core.agreement_ratings import Panel, Pattern, units_of
from review_portal.core.calibration import (
    BIN_COUNT,
    CalibrationBin,
    bin_of_sums,
    expected_calibration_error,
)
from review_portal.core.model import Campaign
from review_portal.core.schema_mapping import Mapping, moved_key
from review_portal.store import quality_tally as sums
from review_portal.store.campaigns import mapping_to_current, schema_versions
from review_portal.store.quality_tally import Tally
from review_portal.store.tables import person


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


def report(connection: Connection, campaign: Campaign, tally: Tally | None = None) -> QualityReport:
    """Measures everything about a campaign.

    Args:
        connection: A snapshot.
        campaign: Of which.
        tally: Sums up to this snapshot; None counts all rows.
    """
    if tally is None:
        tally = Tally()
        sums.catch_up(connection, campaign.campaign_id, tally)
    reading = _Reading(names_of(connection), mappings_of(connection, campaign))
    panel = reading.panel(tally)
    units = units_of(panel)
    alpha = alpha_of_counted(units)
    gold = reading.matches(_gold(connection, campaign, tally))
    repeats = reading.matches(list(tally.of(sums.REPEAT)))
    gold_by, repeat_by = _by_expert(gold), _by_expert(repeats)
    return QualityReport(
        alpha=alpha,
        fleiss=fleiss_of_counted(units),
        pairs=pairwise_kappas(panel),
        classes=tuple(
            zip(
                campaign.classes,
                per_class(panel, len(campaign.classes), reading.members),
                strict=True,
            )
        ),
        experts=_experts(tally, reading.names, agreement_with_others(panel), (gold_by, repeat_by)),
        gold=_overall(gold),
        consistency=_overall(repeats),
        calibrations=calibrations(tally),
        alerts=quality_alerts(alpha={campaign.name: alpha}, gold=gold_by, consistency=repeat_by),
    )


def names_of(connection: Connection) -> dict[int, str]:
    """Returns user names by number."""
    rows = connection.execute(select(person.c.person_id, person.c.username))
    return {row.person_id: row.username for row in rows}


def mappings_of(connection: Connection, campaign: Campaign) -> dict[int, Mapping]:
    """Returns where the classes of each older label schema are in the present one."""
    return {
        entry.version: mapping_to_current(connection, campaign.campaign_id, entry.version)
        for entry in schema_versions(connection, campaign.campaign_id)
    }


@dataclass
class _Reading:
    """Reads answers of any schema version in the classes of the present one.

    Attributes:
        names: User names by number.
        mappings: By schema version.
        members: Classes of each number that stands for a choice of several.
    """

    names: dict[int, str]
    mappings: dict[int, Mapping]
    members: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def said(self, version: int, answer_key: str) -> int | None:
        """Returns a number for an answer; None when its class went."""
        key = moved_key(answer_key, self.mappings.get(version))
        if key is None or "," not in key:
            return None if key is None else int(key)
        number = self._numbers.setdefault(key, 1_000_000 + len(self._numbers))
        self.members[number] = tuple(int(index) for index in key.split(","))
        return number

    def name(self, expert_id: int) -> str:
        """Returns the name of an expert."""
        return self.names.get(expert_id, str(expert_id))

    def panel(self, tally: Tally) -> Panel:
        """Returns the first answers of all experts to all items."""
        panel: Counter[Pattern] = Counter()
        for (given,), count in tally.of(sums.PATTERN):
            read = ((self.name(e), self.said(version, key)) for e, version, key in given)
            known = tuple(sorted((name, index) for name, index in read if index is not None))
            if known:
                panel[known] += count
        return panel

    def matches(self, checked: list[tuple[sums.Key, int]]) -> dict[str, tuple[int, int]]:
        """Returns matches and answers by expert, where both classes are still there.

        Args:
            checked: (expert, version and key of what was expected, the same of what was given).
        """
        found: dict[str, tuple[int, int]] = {}
        for (expert, *before, version, key), count in checked:
            expected, given = self.said(*before), self.said(version, key)
            if expected is not None and given is not None:
                right, total = found.get(self.name(expert), (0, 0))
                found[self.name(expert)] = (right + count * (expected == given), total + count)
        return dict(sorted(found.items()))


# The index is named: SQLite would walk over all items of a large campaign.
_GOLD = (
    "SELECT label.item_number, label.schema_version, label.answer_key "
    "FROM item INDEXED BY item_gold JOIN label ON label.item_number = item.item_number "
    "WHERE item.campaign_id = ? AND item.is_gold = 1 AND label.superseded_by IS NULL "
    "AND label.class_index IS NOT NULL"
)


def _gold(connection: Connection, campaign: Campaign, tally: Tally) -> list[tuple[sums.Key, int]]:
    known = connection.exec_driver_sql(_GOLD, (campaign.campaign_id,))
    expected = {row.item_number: (row.schema_version, row.answer_key) for row in known}
    return [
        ((expert, *expected[number], version, key), count)
        for (number, expert, version, key), count in tally.of(sums.GOLD)
        if number in expected
    ]


def _by_expert(matches: dict[str, tuple[int, int]]) -> dict[str, Estimate]:
    return {name: wilson(right, total) for name, (right, total) in matches.items()}


def _overall(matches: dict[str, tuple[int, int]]) -> Estimate:
    return wilson(
        sum(right for right, _ in matches.values()), sum(total for _, total in matches.values())
    )


def _experts(
    tally: Tally,
    names: dict[int, str],
    agreements: dict[str, Estimate],
    checked: tuple[dict[str, Estimate], dict[str, Estimate]],
) -> tuple[ExpertQuality, ...]:
    took: dict[int, list[tuple[float, int]]] = {}
    for (expert, seconds), count in tally.of(sums.SECONDS):
        took.setdefault(expert, []).append((seconds, count))
    abstained = {expert: count for (expert,), count in tally.of(sums.ABSTAINED)}
    found = []
    for (expert,), count in tally.of(sums.DECIDED):
        name = names.get(expert, str(expert))
        found.append(
            ExpertQuality(
                name=name,
                decision_count=count,
                abstention_count=abstained.get(expert, 0),
                median_seconds=_median(took[expert]),
                agreement=agreements.get(name),
                gold=checked[0].get(name),
                consistency=checked[1].get(name),
            )
        )
    return tuple(sorted(found, key=lambda entry: entry.name))


def _median(counted: list[tuple[float, int]]) -> float:
    """The upper median of values with their numbers."""
    left = sum(count for _, count in counted) // 2
    for value, count in sorted(counted):
        left -= count
        if left < 0:
            return value
    return 0.0


def calibrations(tally: Tally) -> tuple[Calibration, ...]:
    """Returns how the confidence of each model version stood up to experts, newest first."""
    counts: dict[int, list[list[int]]] = {}
    for (version, place, is_right), count in tally.of(sums.SUGGESTED):
        totals = counts.setdefault(version, [[0, 0] for _ in range(BIN_COUNT)])
        totals[place][0] += count
        totals[place][1] += count * is_right
    sure = dict(tally.of(sums.CONFIDENCE))
    return tuple(_calibration(v, counts[v], sure) for v in sorted(counts, reverse=True))


def _calibration(version: int, totals: list[list[int]], sure: dict[sums.Key, int]) -> Calibration:
    bins = tuple(
        bin_of_sums(place, (total, right), sure.get((version, place), 0) / sums.SCALE)
        for place, (total, right) in enumerate(totals)
    )
    count = sum(total for total, _ in totals)
    return Calibration(
        model_version=version,
        suggestion_count=count,
        accuracy=wilson(sum(right for _, right in totals), count),
        error=expected_calibration_error(bins),
        bins=bins,
    )
