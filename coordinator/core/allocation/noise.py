"""Discrete noise and its account, for sites that send histograms instead of rows.

Adding or removing one candidate changes one count by one. Two-sided geometric noise with parameter
exp(-epsilon) on every count makes the whole histogram epsilon-differentially private, in whole
numbers and without the floating-point leaks of sampled Laplace noise.

Sources: Ghosh, Roughgarden and Sundararajan, "Universally utility-maximizing privacy mechanisms",
2009; Mironov, "On significance of the least significant bits for differential privacy", 2012;
basic composition: Dwork and Roth, "The algorithmic foundations of differential privacy", 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.errors import AllocationError


def geometric_noise(
    shape: tuple[int, ...], *, epsilon: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """int64 noise: the difference of two geometric draws with parameter 1 - exp(-epsilon).

    Raises:
        AllocationError: epsilon is not positive.

    >>> noise = geometric_noise((20_000,), epsilon=1.0, rng=np.random.default_rng(0))
    >>> noise.dtype.name, bool(abs(noise.mean()) < 0.05)
    ('int64', True)
    """
    if not epsilon > 0:
        raise AllocationError(f"epsilon must be positive, not {epsilon}")
    chance = -np.expm1(-epsilon)
    return rng.geometric(chance, shape) - rng.geometric(chance, shape)


@dataclass(frozen=True, slots=True)
class PrivacyAccount:
    """What a site has spent of its privacy budget over all cycles.

    Attributes:
        limit: most epsilon that may ever be spent.
        spent: epsilon spent so far; releases about the same candidates add up.
    """

    limit: float
    spent: float = 0.0

    @property
    def left(self) -> float:
        """Epsilon that may still be spent."""
        return max(0.0, self.limit - self.spent)

    def charge(self, epsilon: float) -> PrivacyAccount | None:
        """The account after one release, or None when the limit would be passed.

        >>> PrivacyAccount(limit=1.0).charge(0.6).charge(0.6) is None
        True
        """
        if epsilon <= 0 or self.spent + epsilon > self.limit * (1.0 + 1e-12):
            return None
        return PrivacyAccount(self.limit, self.spent + epsilon)
