"""Ratings of several experts, grouped into the units that agreement coefficients count.

A missing value is a rating that is not there. Abstentions are left out by the caller: an expert
who cannot tell has not named a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

Unit = Mapping[int, int]
"""Class index to the number of experts who chose it, for one item."""

Counted = Sequence[tuple[Unit, int]]
"""Units, each with the number of items that look like it."""

Pattern = tuple[tuple[str, int], ...]
"""What experts said of one item: (expert, class index), experts in the order of their ids."""

Panel = Mapping[Pattern, int]
"""Patterns, each with its number of items. All that agreement coefficients need to know."""


class RatingsInvalid(ValueError):
    """Ratings that contradict each other or the label schema."""


@dataclass(frozen=True, slots=True)
class Rating:
    """One expert's class for one item.

    Attributes:
        item_id: Names the item; any text that is unique within the campaign.
        expert_id: Names the expert or a pseudonym.
        class_index: Chosen class, from 0.
    """

    item_id: str
    expert_id: str
    class_index: int


def by_item(ratings: Iterable[Rating]) -> dict[str, dict[str, int]]:
    """Groups ratings: item to expert to class, in first-seen order.

    Raises:
        RatingsInvalid: An expert rates an item twice, or a class index is negative.

    >>> by_item([Rating("i", "ann", 1), Rating("i", "bob", 0)])
    {'i': {'ann': 1, 'bob': 0}}
    """
    grouped: dict[str, dict[str, int]] = {}
    for rating in ratings:
        answers = grouped.setdefault(rating.item_id, {})
        if rating.expert_id in answers:
            raise RatingsInvalid(
                f"expert {rating.expert_id!r} rates item {rating.item_id!r} twice; "
                "pass one rating for each expert and item (repeats belong to self-consistency)"
            )
        if rating.class_index < 0:
            raise RatingsInvalid(f"item {rating.item_id!r}: class index {rating.class_index} < 0")
        answers[rating.expert_id] = rating.class_index
    return grouped


def panel_of(ratings: Iterable[Rating]) -> Panel:
    """Counts items by what was said of them.

    >>> panel_of([Rating("i", "bob", 1), Rating("i", "ann", 1), Rating("j", "ann", 0)])
    Counter({(('ann', 1), ('bob', 1)): 1, (('ann', 0),): 1})
    """
    return Counter(tuple(sorted(answers.items())) for answers in by_item(ratings).values())


def counted(units: Iterable[Unit]) -> Counted:
    """Puts units that look alike together.

    >>> counted([{0: 1}, {0: 1}, {0: 1, 1: 1}])
    [({0: 1}, 2), ({0: 1, 1: 1}, 1)]
    """
    alike = Counter(tuple(sorted(unit.items())) for unit in units)
    return [(dict(unit), count) for unit, count in alike.items()]


def units_of(panel: Panel) -> Counted:
    """Returns the class counts of a panel's items.

    >>> units_of({(("ann", 1), ("bob", 1)): 3, (("ann", 1), ("eve", 1)): 2})
    [({1: 2}, 5)]
    """
    alike: Counter[tuple[int, ...]] = Counter()
    for pattern, count in panel.items():
        alike[tuple(sorted(index for _, index in pattern))] += count
    return [(Counter(classes), count) for classes, count in alike.items()]


def pairable(units: Counted) -> Counted:
    """Keeps the units with at least two ratings; the others cannot agree or disagree.

    >>> pairable([({0: 1}, 5), ({0: 1, 1: 1}, 1)])
    [({0: 1, 1: 1}, 1)]
    """
    return [(unit, weight) for unit, weight in units if sum(unit.values()) >= 2]


def item_count(units: Counted) -> int:
    """Returns how many items units stand for.

    >>> item_count([({0: 1}, 5), ({0: 1, 1: 1}, 1)])
    6
    """
    return sum(weight for _, weight in units)


def class_totals(units: Counted) -> dict[int, int]:
    """Adds up the ratings of each class, classes in rising order.

    >>> class_totals([({2: 1}, 1), ({0: 1, 2: 1}, 1)])
    {0: 1, 2: 2}
    """
    totals: Counter[int] = Counter()
    for unit, weight in units:
        for index, count in unit.items():
            totals[index] += count * weight
    return dict(sorted(totals.items()))


def one_against_rest(
    units: Counted, class_count: int, members: Mapping[int, tuple[int, ...]] | None = None
) -> tuple[Counted, ...]:
    """Recodes units to 1 for a class and 0 for every other, for each class.

    Args:
        units: Units.
        class_count: Classes of the label schema.
        members: Which classes an index stands for, where it is no class itself.

    >>> one_against_rest([({0: 1, 1: 1}, 4), ({2: 2}, 1)], 2)
    ([({1: 1, 0: 1}, 4), ({0: 2}, 1)], [({1: 1, 0: 1}, 4), ({0: 2}, 1)])
    """
    by_size: Counter[int] = Counter()
    chosen: list[Counter[tuple[int, int]]] = [Counter() for _ in range(class_count)]
    for unit, weight in units:
        size = sum(unit.values())
        by_size[size] += weight
        votes: Counter[int] = Counter()
        for index, count in unit.items():
            for member in (members or {}).get(index, (index,)):
                votes[member] += count
        for index, count in votes.items():
            if index < class_count:
                chosen[index][count, size] += weight
    return tuple(_against(counts, by_size) for counts in chosen)


def _against(chosen: Mapping[tuple[int, int], int], by_size: Mapping[int, int]) -> Counted:
    left = Counter(by_size)
    units: list[tuple[Unit, int]] = []
    for (count, size), weight in chosen.items():
        left[size] -= weight
        units.append(({1: count, 0: size - count} if size > count else {1: count}, weight))
    return units + [({0: size}, weight) for size, weight in left.items() if weight]


def confusions(panel: Panel) -> dict[tuple[str, str], Counter[tuple[int, int]]]:
    """Counts (class of the first expert, class of the second) for every two with common items.

    >>> confusions({(("ann", 1), ("bob", 0)): 2})
    {('ann', 'bob'): Counter({(1, 0): 2})}
    """
    tables: dict[tuple[str, str], Counter[tuple[int, int]]] = {}
    for pattern, count in panel.items():
        for (first, one), (second, other) in combinations(pattern, 2):
            tables.setdefault((first, second), Counter())[one, other] += count
    return tables


def experts_of(panel: Panel) -> tuple[str, ...]:
    """Returns the experts in the order of their ids.

    >>> experts_of({(("bob", 0),): 1, (("ann", 0),): 1})
    ('ann', 'bob')
    """
    return tuple(sorted({expert for pattern in panel for expert, _ in pattern}))
