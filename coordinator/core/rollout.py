"""Which model version may go to which machine. Pure: the same facts give the same answer."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

CANARY_FAILURE_RATIO_MAX = 0.05


class VersionState(StrEnum):
    """Where a registered version stands."""

    CANDIDATE = "candidate"
    CANARY = "canary"
    RELEASED = "released"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Rollout:
    """Versions on offer in one campaign; 0 for none.

    Attributes:
        released_version: For everyone.
        canary_version: For the canary agents only.
        canary_ratio: Share of agents in the canary, 0 to 1.
    """

    released_version: int = 0
    canary_version: int = 0
    canary_ratio: float = 0.0


def in_canary(machine: tuple[str, str], version: int, ratio: float) -> bool:
    """Whether an agent (site, name) belongs to the canary of a version.

    The draw is a hash, so it is stable for one version and differs between versions.

    >>> in_canary(("site", "agent"), 3, 1.0), in_canary(("site", "agent"), 3, 0.0)
    (True, False)
    """
    digest = hashlib.sha256(f"{version}/{machine[0]}/{machine[1]}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < ratio * 2**64


def canary_group(
    machines: Collection[tuple[str, str]], version: int, ratio: float
) -> frozenset[tuple[str, str]]:
    """Returns the canary agents of a version: the drawn share, at least one where there is any.

    >>> sorted(canary_group([("a", "1"), ("b", "1")], 2, 1.0))
    [('a', '1'), ('b', '1')]
    """
    drawn = frozenset(m for m in machines if in_canary(m, version, ratio))
    if drawn or not machines or ratio <= 0:
        return drawn
    return frozenset(
        [min(machines, key=lambda m: hashlib.sha256(f"{version}/{m}".encode()).digest())]
    )


def version_for(
    machine: tuple[str, str], rollout: Rollout, machines: Collection[tuple[str, str]]
) -> int:
    """Returns the version that a machine should run, 0 for none.

    >>> version_for(("a", "1"), Rollout(released_version=4), [("a", "1")])
    4
    """
    if rollout.canary_version and machine in canary_group(
        machines, rollout.canary_version, rollout.canary_ratio
    ):
        return rollout.canary_version
    return rollout.released_version


class CanaryVerdict(StrEnum):
    """What the canary's reports say."""

    WAIT = "wait"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


def judge_canary(
    group: Collection[tuple[str, str]],
    installed: Mapping[tuple[str, str], bool],
    *,
    timed_out: bool,
) -> CanaryVerdict:
    """Judges a canary by the install reports of its agents.

    Args:
        group: The canary agents.
        installed: Agent to True (installed) or False (refused or rolled back); silent ones absent.
        timed_out: True when waiting is over.

    Returns:
        ROLL_BACK as soon as more than 5 % of the group failed; PROMOTE when all installed, or when
        time is over and at least one did; else WAIT, or ROLL_BACK once time is over.

    >>> judge_canary([("a", "1")], {("a", "1"): True}, timed_out=False).value
    'promote'
    """
    reports = [installed[machine] for machine in group if machine in installed]
    failures = reports.count(False)
    if failures > CANARY_FAILURE_RATIO_MAX * len(group):
        return CanaryVerdict.ROLL_BACK
    if len(reports) == len(group):
        return CanaryVerdict.PROMOTE
    if not timed_out:
        return CanaryVerdict.WAIT
    return CanaryVerdict.PROMOTE if reports else CanaryVerdict.ROLL_BACK
