"""Two-sided geometric noise, drawn exactly: whole numbers from beginning to end. Pure.

No floating point is involved, so the noise has exactly the distribution that the privacy proof is
about. Sources: Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy", 2020
(algorithms 1 and 2); Ghosh, Roughgarden and Sundararajan, "Universally utility-maximizing privacy
mechanisms", 2009.
"""

from __future__ import annotations

from collections.abc import Callable

Below = Callable[[int], int]
"""Draws a whole number from 0 up to, not including, its argument: `secrets.randbelow`."""
_MILLI = 1000


def geometric_noise(epsilon_milli: int, below: Below) -> int:
    """Draws one value k with probability proportional to exp(-|k| * epsilon_milli / 1000).

    Args:
        epsilon_milli: Privacy loss in 1/1000, at least 1.
        below: Where chance comes from.

    Raises:
        ValueError: `epsilon_milli` is below 1.

    >>> from random import Random
    >>> chance = Random(0)
    >>> sum(geometric_noise(100_000, chance.randrange) for _ in range(50))
    0
    """
    if epsilon_milli < 1:
        raise ValueError(f"epsilon_milli must be at least 1, not {epsilon_milli}")
    while True:
        part = below(_MILLI)
        if not _exp_minus(part, _MILLI, below):
            continue
        whole = 0
        while _exp_minus(1, 1, below):
            whole += 1
        size = (part + _MILLI * whole) // epsilon_milli
        is_negative = below(2) == 1
        # Zero would be drawn twice as often as it should: once for each sign.
        if size or not is_negative:
            return -size if is_negative else size


def _exp_minus(numerator: int, denominator: int, below: Below) -> bool:
    """True with probability exp(-numerator / denominator), for a ratio of at most 1."""
    turns = 1
    while below(denominator * turns) < numerator:
        turns += 1
    return turns % 2 == 1
