"""The heads of an ensemble by themselves: which parameters are whose.

Members start elsewhere and lose other units to dropout, so that what they agree on is what the
labels say, and the mean of their logits errs less than any of them. Each learns as if it were
alone: it has its own loss and its own bound on the gradient.

Source: Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty
estimation using deep ensembles", 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from federation.networks import NetworkSpec
from federation.seeding import member_prefix

T = TypeVar("T")


def split_members(parameters: Mapping[str, T], size: int) -> list[dict[str, T]]:
    """Returns the parameters of each member, under the names of the first one's.

    >>> split_members({"head.bias": 1, "member1_head.bias": 2}, 2)
    [{'head.bias': 1}, {'head.bias': 2}]
    """
    starts = tuple(member_prefix(member) for member in range(1, size))
    first = {name: value for name, value in parameters.items() if not name.startswith(starts)}
    return [first] + [
        {name[len(start) :]: v for name, v in parameters.items() if name.startswith(start)}
        for start in starts
    ]


def joined_members(members: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """Returns the parameters of all members; undoes `split_members`.

    >>> joined_members([{"head.bias": 1}, {"head.bias": 2}])
    {'head.bias': 1, 'member1_head.bias': 2}
    """
    return {
        f"{member_prefix(place)}{name}": value
        for place, parameters in enumerate(members)
        for name, value in parameters.items()
    }


def single(spec: NetworkSpec) -> NetworkSpec:
    """Returns the network of one member."""
    return replace(spec, ensemble_size=1)
