"""Seeded values of a network's parameters: the same seed gives the same bytes on any machine.

Each parameter has a generator of its own, seeded by its name, so that it does not depend on what
else a network holds. Parameters of a plain head (`PLAIN_PREFIX`) start where those of the served
head start; those of the members of an ensemble (`member_prefix`) each elsewhere.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PLAIN_PREFIX = "plain_"
"""What names of the parameters of a plain head begin with."""
_MEMBER = re.compile(r"^member[0-9]+_")
SEEDED_BIAS = -0.5
SEEDED_SCALE = 2.0


def member_prefix(member: int) -> str:
    """Returns what names of the parameters of a member of an ensemble begin with; "" for the first.

    >>> member_prefix(0), member_prefix(2)
    ('', 'member2_')
    """
    return f"member{member}_" if member else ""


def seeded_arrays(
    layout: Mapping[str, tuple[int, ...]], *, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Returns a float32 array for every name and shape of a layout.

    Weights before a rectifier follow He et al., "Delving deep into rectifiers", 2015; heads follow
    Glorot and Bengio, 2010; a linear map beside them starts at 0; the n-gram table is standard
    normal. A layer that is yet to learn without labels starts with random filters of unit length
    and mean zero, and a projection whose rows have mean zero.

    >>> found = seeded_arrays({"head.weight": (2, 3), "plain_head.weight": (2, 3)}, seed=1)
    >>> bool((found["head.weight"] == found["plain_head.weight"]).all())
    True
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, shape in layout.items():
        role = name.removeprefix(PLAIN_PREFIX)
        label = hashlib.sha256(f"{seed}/{role}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(label[:8], "little"))
        role = _MEMBER.sub("", role)
        values = rng.standard_normal(shape) * _scale(role, shape)
        if role in ("dictionary.weight", "projection.weight"):
            values = _even(role, values)
        arrays[name] = values.astype(np.float32)
    if "dictionary.bias" in arrays:
        arrays["dictionary.bias"] += np.float32(SEEDED_BIAS)
    return arrays


def _even(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of mean zero; filters of unit length as well."""
    rows = values.reshape(len(values), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    if name == "dictionary.weight":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows.reshape(values.shape))


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 1:
        return 0.0
    if name == "skip.weight":
        return 0.0  # the hidden layers alone speak before anything is learned
    if name == "tokens.weight":
        return 1.0
    if name == "projection.weight":
        return SEEDED_SCALE
    fan_in = math.prod(shape[1:])
    gain = 1.0 if name.startswith(("head", "committee")) else 2.0
    return math.sqrt(gain / fan_in)
