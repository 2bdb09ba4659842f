"""Ratings of several experts, grouped into the units that agreement coefficients count.

A missing value is a rating that is not there. Abstentions are left out by the caller: an expert
who cannot tell has not named a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Unit = Mapping[int, int]
"""Class index to the number of experts who chose it, for one item."""


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


def units_of(ratings: Iterable[Rating]) -> tuple[Unit, ...]:
    """Returns class counts for each item that has a rating.

    >>> units_of([Rating("i", "ann", 1), Rating("i", "bob", 1), Rating("j", "ann", 0)])
    (Counter({1: 2}), Counter({0: 1}))
    """
    return tuple(Counter(answers.values()) for answers in by_item(ratings).values())


def pairable(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """Keeps the units with at least two ratings; the others cannot agree or disagree.

    >>> pairable([{0: 1}, {0: 1, 1: 1}])
    ({0: 1, 1: 1},)
    """
    return tuple(unit for unit in units if sum(unit.values()) >= 2)


def class_totals(units: Iterable[Unit]) -> dict[int, int]:
    """Adds up the ratings of each class, classes in rising order.

    >>> class_totals([{2: 1}, {0: 1, 2: 1}])
    {0: 1, 2: 2}
    """
    totals: Counter[int] = Counter()
    for unit in units:
        totals.update(unit)
    return dict(sorted(totals.items()))


def one_against_rest(ratings: Iterable[Rating], class_index: int) -> tuple[Rating, ...]:
    """Recodes ratings to 1 for a class and 0 for every other.

    >>> one_against_rest([Rating("i", "ann", 4)], 4)[0].class_index
    1
    """
    return tuple(
        Rating(rating.item_id, rating.expert_id, int(rating.class_index == class_index))
        for rating in ratings
    )


def confusion(
    ratings: Iterable[Rating], first_expert: str, second_expert: str
) -> dict[tuple[int, int], int]:
    """Counts (class of the first expert, class of the second) over the items that both rated.

    >>> confusion([Rating("i", "ann", 1), Rating("i", "bob", 0)], "ann", "bob")
    {(1, 0): 1}
    """
    table: Counter[tuple[int, int]] = Counter()
    for answers in by_item(ratings).values():
        if first_expert in answers and second_expert in answers:
            table[answers[first_expert], answers[second_expert]] += 1
    return dict(table)


def experts_of(ratings: Sequence[Rating]) -> tuple[str, ...]:
    """Returns the experts in the order of their ids.

    >>> experts_of([Rating("i", "bob", 0), Rating("i", "ann", 0)])
    ('ann', 'bob')
    """
    return tuple(sorted({rating.expert_id for rating in ratings}))
