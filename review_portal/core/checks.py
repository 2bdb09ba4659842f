"""How many hidden checks an expert's next items hold: known answers and their own earlier ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

REPEAT_DISTANCE = 50
"""Decisions that lie between an item and its repeat, so that nobody remembers the answer."""
REPEAT_AFTER_SECONDS = 24 * 3600.0
GOLD_EXPOSURE_MAX = 3
"""How often one expert sees one gold item at most."""


@dataclass(frozen=True)
class CheckRecord:
    """What an expert has done in a campaign, items they hold included.

    Attributes:
        work_count: Ordinary items.
        gold_count: Gold items.
        repeat_count: Repeats of their own items.
    """

    work_count: int
    gold_count: int
    repeat_count: int


@dataclass(frozen=True)
class CheckShares:
    """What the site lead wants.

    Attributes:
        gold_ratio: Share of gold among all items.
        gold_first_count: Gold items at the very start.
        repeat_ratio: Share of repeats among all items.
    """

    gold_ratio: float
    gold_first_count: int
    repeat_ratio: float


def plan_checks(record: CheckRecord, shares: CheckShares, count: int) -> tuple[int, int]:
    """Returns how many of the next `count` items are gold, and how many are repeats.

    Shares are kept by deficit: over 1,000 items they are met to within a few items.

    >>> plan_checks(CheckRecord(0, 0, 0), CheckShares(0.05, 5, 0.05), 20)
    (5, 0)
    >>> plan_checks(CheckRecord(380, 15, 10), CheckShares(0.05, 0, 0.05), 20)
    (6, 9)
    """
    total = record.work_count + record.gold_count + record.repeat_count + count
    first_missing = max(0, shares.gold_first_count - record.gold_count)
    gold = round(shares.gold_ratio * total) - record.gold_count
    gold = min(count, max(first_missing, gold, 0))
    # Repeats need something to repeat, so their share counts from the distance on.
    repeat = round(shares.repeat_ratio * max(0, total - REPEAT_DISTANCE)) - record.repeat_count
    return gold, min(count - gold, max(0, repeat))


def disguise(values: Sequence[float], true_class: int, chance: random.Random) -> tuple[float, ...]:
    """Makes class probabilities for a gold item that has none, shaped like those of another item.

    The known class gets the top place as often as the top probability says, so that the disguise is
    right exactly as often as a calibrated model would be.

    Args:
        values: Probabilities of an ordinary item.
        true_class: The known answer.
        chance: Seeded by the item, so that the disguise is the same every time.

    >>> disguise((0.2, 0.8), 0, random.Random(1))
    (0.8, 0.2)
    """
    ordered = sorted(values, reverse=True)
    others = [index for index in range(len(values)) if index != true_class]
    chance.shuffle(others)
    places = [true_class, *others]
    if chance.uniform(0.0, 1.0) >= ordered[0] and len(places) > 1:
        places[0], places[1] = places[1], places[0]
    by_class = dict(zip(places, ordered, strict=True))
    return tuple(by_class[index] for index in range(len(values)))
