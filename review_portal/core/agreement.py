"""Agreement between experts, corrected for chance, with 95 % intervals.

Three coefficients for three questions: Cohen's kappa for two experts, Fleiss' kappa for a panel
whose members are interchangeable, Krippendorff's alpha for any number of experts with missing
values. One means perfect agreement, zero what chance alone would give.

Items are the unit of every interval: ratings of one item are not independent of each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from review_portal.core.agreement_alpha import alpha_of_counted
from review_portal.core.agreement_intervals import (
    CONFIDENCE,
    Estimate,
    normal_quantile,
    symmetric,
    undefined,
)
from review_portal.core.agreement_ratings import (
    Counted,
    Panel,
    Rating,
    Unit,
    class_totals,
    confusions,
    counted,
    experts_of,
    item_count,
    one_against_rest,
    pairable,
    panel_of,
    units_of,
)

ONE_CLASS = "every rating names the same class, so agreement by chance is certain"
NO_PAIR = "no item was rated by two experts yet"


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Cohen's kappa of two experts.

    Attributes:
        first_expert: The one whose id sorts first.
        second_expert: The other.
        kappa: Their kappa over the items that both rated.
        agreement_ratio: Share of those items with the same class; None without such items.
    """

    first_expert: str
    second_expert: str
    kappa: Estimate
    agreement_ratio: float | None


def cohen_kappa(ratings: Sequence[Rating], first_expert: str, second_expert: str) -> Estimate:
    """Returns Cohen's kappa of two experts over the items that both rated.

    Raises:
        RatingsInvalid: An expert rates an item twice.

    Sources: Cohen 1960, Educ. Psychol. Meas. 20; large-sample variance of Fleiss, Cohen and
    Everitt 1969, Psychol. Bull. 72.

    >>> pair = [Rating(str(i), "a", c) for i, c in enumerate([0, 0, 1, 1])]
    >>> pair += [Rating(str(i), "b", c) for i, c in enumerate([0, 1, 1, 1])]
    >>> cohen_kappa(pair, "a", "b").value
    0.5
    """
    first, second = sorted((first_expert, second_expert))
    return kappa_of_table(confusions(panel_of(ratings)).get((first, second), {}))


def kappa_of_table(table: Mapping[tuple[int, int], int]) -> Estimate:
    """Returns Cohen's kappa of a confusion table, (first class, second class) to items.

    >>> # Fleiss, Cohen and Everitt 1969, table 1: two clinicians, 200 subjects
    >>> cells = {(0, 0): 106, (0, 1): 10, (0, 2): 4, (1, 0): 22, (1, 1): 28, (1, 2): 10,
    ...          (2, 0): 2, (2, 1): 12, (2, 2): 6}
    >>> kappa = kappa_of_table(cells)
    >>> f"{kappa.value:.3f}"
    '0.429'
    """
    total = sum(table.values())
    if total == 0:
        return undefined(NO_PAIR, 0)
    rows, columns = _margins(table, total)
    chance = math.fsum(rows[index] * columns[index] for index in rows)
    if chance > 1 - 1e-12:
        return undefined(ONE_CLASS, total)
    observed = math.fsum(n for (row, column), n in table.items() if row == column) / total
    kappa = (observed - chance) / (1 - chance)
    variance = _kappa_variance(table, (rows, columns), kappa=kappa, chance=chance)
    half = normal_quantile(CONFIDENCE) * math.sqrt(variance)
    return Estimate(
        kappa, max(-1.0, kappa - half), min(1.0, kappa + half), total, "fleiss-cohen-everitt"
    )


def _margins(
    table: Mapping[tuple[int, int], int], total: int
) -> tuple[dict[int, float], dict[int, float]]:
    classes = sorted({index for cell in table for index in cell})
    rows, columns = dict.fromkeys(classes, 0.0), dict.fromkeys(classes, 0.0)
    for (row, column), count in table.items():
        rows[row] += count / total
        columns[column] += count / total
    return rows, columns


def _kappa_variance(
    table: Mapping[tuple[int, int], int],
    margins: tuple[dict[int, float], dict[int, float]],
    *,
    kappa: float,
    chance: float,
) -> float:
    """Fleiss, Cohen and Everitt 1969, large-sample variance."""
    rows, columns = margins
    total = sum(table.values())
    same = math.fsum(
        count / total * (1 - (rows[row] + columns[row]) * (1 - kappa)) ** 2
        for (row, column), count in table.items()
        if row == column
    )
    other = math.fsum(
        count / total * (columns[row] + rows[column]) ** 2
        for (row, column), count in table.items()
        if row != column
    )
    spread = same + (1 - kappa) ** 2 * other - (kappa - chance * (1 - kappa)) ** 2
    return max(0.0, spread) / ((1 - chance) ** 2 * total)


def pairwise_kappas(panel: Panel) -> tuple[PairAgreement, ...]:
    """Returns Cohen's kappa for every two experts with common items.

    >>> both = {(("a", 0), ("b", 1)): 1, (("a", 1), ("b", 1)): 1}
    >>> [(pair.first_expert, pair.agreement_ratio) for pair in pairwise_kappas(both)]
    [('a', 0.5)]
    """
    pairs = []
    for (first, second), table in sorted(confusions(panel).items()):
        same = sum(count for (row, column), count in table.items() if row == column)
        pairs.append(
            PairAgreement(first, second, kappa_of_table(table), same / sum(table.values()))
        )
    return tuple(pairs)


def fleiss_kappa(ratings: Sequence[Rating]) -> Estimate:
    """Returns Fleiss' kappa; items may have different numbers of ratings.

    Items with a single rating count for the chance agreement only. The interval is Gwet's, which
    holds also when kappa is not zero (the variance of Fleiss 1971 does not).

    Raises:
        RatingsInvalid: An expert rates an item twice.

    Sources: Fleiss 1971, Psychol. Bull. 76; Gwet 2021, Educ. Psychol. Meas. 81 (variance).

    >>> fleiss_kappa([Rating("i", "a", 0), Rating("i", "b", 0), Rating("j", "a", 1),
    ...               Rating("j", "b", 1)]).value
    1.0
    """
    return fleiss_of_counted(units_of(panel_of(ratings)))


def fleiss_of_units(units: Sequence[Unit]) -> Estimate:
    """Returns Fleiss' kappa of class counts, one mapping an item.

    >>> # Fleiss' kappa of Krippendorff's data with gaps, as Gwet prints it: 0.76117 (SE 0.15302)
    >>> rows = [{1: 3}, {2: 3, 3: 1}, {3: 4}, {3: 4}, {2: 4}, {1: 1, 2: 1, 3: 1, 4: 1}, {4: 4},
    ...         {1: 3, 2: 1}, {2: 4}, {5: 3}, {1: 2}, {3: 1}]
    >>> kappa = fleiss_of_units(rows)
    >>> f"{kappa.value:.5f} {kappa.low:.3f}"
    '0.76117 0.424'
    """
    return fleiss_of_counted(counted(units))


def fleiss_of_counted(units: Counted) -> Estimate:
    """Returns Fleiss' kappa of units with their numbers of items.

    >>> fleiss_of_counted([({0: 2}, 500), ({1: 2}, 500)]).value
    1.0
    """
    paired, total = pairable(units), item_count(units)
    if not paired:
        return undefined(NO_PAIR, 0)
    shares = _mean_shares(units)
    chance = math.fsum(share * share for share in shares.values())
    if chance > 1 - 1e-12:
        return undefined(ONE_CLASS, item_count(paired))
    agreed = math.fsum(weight * _unit_agreement(unit) for unit, weight in paired)
    kappa = (agreed / item_count(paired) - chance) / (1 - chance)
    error = _gwet_error(units, shares, kappa=kappa, chance=chance)
    return symmetric(kappa, error, unit_count=total, method="gwet")


def _mean_shares(units: Counted) -> dict[int, float]:
    shares = dict.fromkeys(class_totals(units), 0.0)
    total = item_count(units)
    for unit, weight in units:
        raters = sum(unit.values())
        for index, count in unit.items():
            shares[index] += weight * count / raters / total
    return shares


def _unit_agreement(unit: Unit) -> float:
    raters = sum(unit.values())
    return sum(count * (count - 1) for count in unit.values()) / (raters * (raters - 1))


def _gwet_error(
    units: Counted, shares: Mapping[int, float], *, kappa: float, chance: float
) -> float:
    """Standard error by linearisation: each item's pull on kappa (Gwet 2021)."""
    total = item_count(units)
    if total < 2:
        return math.inf
    scale = total / item_count(pairable(units))
    squares = []
    for unit, weight in units:
        raters = sum(unit.values())
        own = scale * (_unit_agreement(unit) - chance) / (1 - chance) if raters > 1 else 0.0
        by_chance = math.fsum(shares[index] * count for index, count in unit.items()) / raters
        pull = own - 2 * (1 - kappa) * (by_chance - chance) / (1 - chance)
        squares.append(weight * (pull - kappa) ** 2)
    return math.sqrt(math.fsum(squares) / (total * (total - 1)))


def per_class(
    panel: Panel, class_count: int, members: Mapping[int, tuple[int, ...]] | None = None
) -> tuple[Estimate, ...]:
    """Returns alpha of "this class or another" for each class: which meanings are unclear.

    Args:
        panel: What experts said.
        class_count: Classes of the label schema.
        members: Which classes an index stands for, where it is no class itself but a choice of
            several.

    >>> shown = per_class({(("a", 0), ("b", 0)): 1, (("a", 1), ("b", 1)): 1}, 3)
    >>> [estimate.value for estimate in shown]
    [1.0, 1.0, None]
    """
    recoded = one_against_rest(units_of(panel), class_count, members)
    return tuple(alpha_of_counted(units) for units in recoded)


def agreement_with_others(panel: Panel) -> dict[str, Estimate]:
    """Returns for each expert the share of comparisons with others on the same item that agree.

    Each item counts once, whatever its number of ratings. Experts come in the order of their ids.

    >>> panel = {tuple((expert, int(expert == "c")) for expert in "abc"): 2}
    >>> [(expert, shown.value) for expert, shown in agreement_with_others(panel).items()]
    [('a', 0.5), ('b', 0.5), ('c', 0.0)]
    """
    shares: dict[str, Counter[float]] = {expert: Counter() for expert in experts_of(panel)}
    for pattern, count in panel.items():
        alike = Counter(index for _, index in pattern)
        for expert, own in pattern if len(pattern) > 1 else ():
            shares[expert][(alike[own] - 1) / (len(pattern) - 1)] += count
    return {expert: _mean_share(shares[expert]) for expert in shares}


def _mean_share(shares: Mapping[float, int]) -> Estimate:
    total = sum(shares.values())
    if not total:
        return undefined(NO_PAIR, 0)
    mean = math.fsum(count * share for share, count in shares.items()) / total
    spread = math.fsum(count * (share - mean) ** 2 for share, count in shares.items())
    error = math.sqrt(spread / (total * max(1, total - 1)))
    shown = symmetric(mean, error, unit_count=total, method="mean of items")
    low = None if shown.low is None else max(0.0, shown.low)
    return Estimate(mean, low, shown.high, shown.unit_count, shown.method)
