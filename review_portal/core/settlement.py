"""When the answers of experts become a label: pure decisions over values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from review_portal.core.model import Settlement


@dataclass(frozen=True)
class Waiting:
    """More answers are wanted."""

    missing_count: int


@dataclass(frozen=True)
class Settled:
    """The answers make a label."""

    answer_key: str
    settlement: Settlement


@dataclass(frozen=True)
class Dispute:
    """The answers differ; an adjudicator decides."""

    answer_keys: tuple[str | None, ...]


@dataclass(frozen=True)
class AllAbstained:
    """Nobody could tell."""


Verdict = Waiting | Settled | Dispute | AllAbstained


def settle(
    answer_keys: Sequence[str | None], wanted_count: int, *, majority: bool = False
) -> Verdict:
    """Decides what the answers to one item amount to.

    Args:
        answer_keys: One key per expert (`Answer.key`); None is an abstention.
        wanted_count: Experts asked, from 1.
        majority: Whether more than half of all answers settle; by default all must agree.

    Returns:
        Waiting while answers are missing. A label when all who could tell agree and they are at
        least half of those asked. A dispute otherwise, or nothing but abstentions.

    >>> settle(["2"], 1)
    Settled(answer_key='2', settlement=<Settlement.SINGLE: 'single'>)
    >>> settle(["2", "2"], 2).settlement.value
    'agreement'
    >>> settle(["2", "1"], 2)
    Dispute(answer_keys=('2', '1'))
    >>> settle(["2", "1", "2"], 3, majority=True).answer_key
    '2'
    >>> settle([None], 1), settle(["2"], 2)
    (AllAbstained(), Waiting(missing_count=1))
    """
    if len(answer_keys) < wanted_count:
        return Waiting(wanted_count - len(answer_keys))
    told = [key for key in answer_keys if key is not None]
    if not told:
        return AllAbstained()
    (best, best_count), *_ = Counter(told).most_common()
    if len(answer_keys) == 1:
        return Settled(best, Settlement.SINGLE)
    if best_count == len(told) and 2 * best_count >= len(answer_keys):
        return Settled(best, Settlement.AGREEMENT)
    if majority and 2 * best_count > len(answer_keys):
        return Settled(best, Settlement.MAJORITY)
    return Dispute(tuple(answer_keys))
