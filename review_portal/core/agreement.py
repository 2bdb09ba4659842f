"""Agreement between experts, corrected for chance, with 95 % intervals.

Three coefficients for three questions: Cohen's kappa for two experts, Fleiss' kappa for a panel
whose members are interchangeable, Krippendorff's alpha for any number of experts with missing
values. One means perfect agreement, zero what chance alone would give.

Items are the unit of every interval: ratings of one item are not independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from review_portal.core.agreement_alpha import krippendorff_alpha
from review_portal.core.agreement_intervals import (
    CONFIDENCE,
    Estimate,
    normal_quantile,
    symmetric,
    undefined,
)
from review_portal.core.agreement_ratings import (
    Rating,
    Unit,
    by_item,
    class_totals,
    confusion,
    experts_of,
    one_against_rest,
    pairable,
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


@dataclass(frozen=True, slots=True)
class ExpertAgreement:
    """How one expert stands to the panel.

    Attributes:
        expert_id: Whom this is about.
        agreement: Share of comparisons with other experts on the same item that agree, each item
            counted once, whatever its number of ratings.
        alpha_without: Alpha of the panel when this expert is left out; higher than the panel's
            alpha means that this expert differs from the others.
        rating_count: Items that the expert rated.
    """

    expert_id: str
    agreement: Estimate
    alpha_without: Estimate
    rating_count: int


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
    return kappa_of_table(confusion(ratings, first_expert, second_expert))


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


def pairwise_kappas(ratings: Sequence[Rating]) -> tuple[PairAgreement, ...]:
    """Returns Cohen's kappa for every two experts, also for those without common items.

    >>> both = [Rating("i", "a", 0), Rating("i", "b", 1), Rating("j", "a", 1), Rating("j", "b", 1)]
    >>> [(pair.first_expert, pair.agreement_ratio) for pair in pairwise_kappas(both)]
    [('a', 0.5)]
    """
    pairs = []
    for first, second in combinations(experts_of(ratings), 2):
        table = confusion(ratings, first, second)
        total = sum(table.values())
        same = sum(count for (row, column), count in table.items() if row == column)
        ratio = same / total if total else None
        pairs.append(PairAgreement(first, second, kappa_of_table(table), ratio))
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
    return fleiss_of_units(units_of(ratings))


def fleiss_of_units(units: Sequence[Unit]) -> Estimate:
    """Returns Fleiss' kappa of class counts, one mapping an item.

    >>> # Fleiss' kappa of Krippendorff's data with gaps, as Gwet prints it: 0.76117 (SE 0.15302)
    >>> rows = [{1: 3}, {2: 3, 3: 1}, {3: 4}, {3: 4}, {2: 4}, {1: 1, 2: 1, 3: 1, 4: 1}, {4: 4},
    ...         {1: 3, 2: 1}, {2: 4}, {5: 3}, {1: 2}, {3: 1}]
    >>> kappa = fleiss_of_units(rows)
    >>> f"{kappa.value:.5f} {kappa.low:.3f}"
    '0.76117 0.424'
    """
    paired = pairable(units)
    if not paired:
        return undefined(NO_PAIR, 0)
    shares = _mean_shares(units)
    chance = math.fsum(share * share for share in shares.values())
    if chance > 1 - 1e-12:
        return undefined(ONE_CLASS, len(paired))
    observed = math.fsum(_unit_agreement(unit) for unit in paired) / len(paired)
    kappa = (observed - chance) / (1 - chance)
    error = _gwet_error(units, shares, kappa=kappa, chance=chance)
    return symmetric(kappa, error, unit_count=len(units), method="gwet")


def _mean_shares(units: Sequence[Unit]) -> dict[int, float]:
    shares = dict.fromkeys(class_totals(units), 0.0)
    for unit in units:
        raters = sum(unit.values())
        for index, count in unit.items():
            shares[index] += count / raters / len(units)
    return shares


def _unit_agreement(unit: Unit) -> float:
    raters = sum(unit.values())
    return sum(count * (count - 1) for count in unit.values()) / (raters * (raters - 1))


def _gwet_error(
    units: Sequence[Unit], shares: Mapping[int, float], *, kappa: float, chance: float
) -> float:
    """Standard error by linearisation: each item's pull on kappa (Gwet 2021)."""
    total = len(units)
    if total < 2:
        return math.inf
    scale = total / len(pairable(units))
    squares = []
    for unit in units:
        raters = sum(unit.values())
        own = scale * (_unit_agreement(unit) - chance) / (1 - chance) if raters > 1 else 0.0
        by_chance = math.fsum(shares[index] * count for index, count in unit.items()) / raters
        pull = own - 2 * (1 - kappa) * (by_chance - chance) / (1 - chance)
        squares.append((pull - kappa) ** 2)
    return math.sqrt(math.fsum(squares) / (total * (total - 1)))


def per_class(ratings: Sequence[Rating], class_count: int) -> tuple[Estimate, ...]:
    """Returns alpha of "this class or another" for each class: which meanings are unclear.

    Args:
        ratings: Ratings of the campaign.
        class_count: Classes of the label schema.

    >>> shown = per_class([Rating("i", "a", 0), Rating("i", "b", 0), Rating("j", "a", 1),
    ...                    Rating("j", "b", 1)], 3)
    >>> [estimate.value for estimate in shown]
    [1.0, 1.0, None]
    """
    return tuple(
        krippendorff_alpha(one_against_rest(ratings, index)) for index in range(class_count)
    )


def per_expert(ratings: Sequence[Rating]) -> tuple[ExpertAgreement, ...]:
    """Returns how each expert stands to the others, in the order of their ids.

    >>> panel = [Rating(item, expert, int(expert == "c")) for item in "ij" for expert in "abc"]
    >>> [(view.expert_id, view.agreement.value) for view in per_expert(panel)]
    [('a', 0.5), ('b', 0.5), ('c', 0.0)]
    """
    grouped = by_item(ratings)
    return tuple(
        ExpertAgreement(
            expert_id=expert,
            agreement=_agreement_with_others(expert, grouped),
            alpha_without=krippendorff_alpha([r for r in ratings if r.expert_id != expert]),
            rating_count=sum(expert in answers for answers in grouped.values()),
        )
        for expert in experts_of(ratings)
    )


def _agreement_with_others(expert: str, grouped: Mapping[str, Mapping[str, int]]) -> Estimate:
    shares = [
        sum(answers[other] == answers[expert] for other in answers if other != expert)
        / (len(answers) - 1)
        for answers in grouped.values()
        if expert in answers and len(answers) > 1
    ]
    if not shares:
        return undefined(NO_PAIR, 0)
    mean = math.fsum(shares) / len(shares)
    spread = math.fsum((share - mean) ** 2 for share in shares)
    error = math.sqrt(spread / (len(shares) * max(1, len(shares) - 1)))
    shown = symmetric(mean, error, unit_count=len(shares), method="mean of items")
    low = None if shown.low is None else max(0.0, shown.low)
    return Estimate(mean, low, shown.high, shown.unit_count, shown.method)
