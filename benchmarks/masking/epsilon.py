"""How much one sample shows in the bytes of a histogram: `python -m benchmarks.masking.epsilon`.

Two worlds differ in one sample. The device's own release path makes the bytes of both, many times
over; whoever holds the bytes guesses the world. Each guess is a set of outcomes, chosen on one half
of the runs; on the other half its probabilities in both worlds are bounded (Clopper and Pearson
1934), and so is the epsilon that the bytes really cost. Source of the method: Jagielski, Ullman and
Oprea, "Auditing differentially private machine learning", 2020.
"""

from __future__ import annotations

import argparse
import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from perimeter.v1 import candidate_pb2, model_pb2

from edge_agent.egress import encode_checked
from edge_agent.histograms import BINS, ReleaseTerms, count_samples, release_of
from edge_agent.privacy import PrivacyAccount, PrivacyBook
from edge_agent.privacy_noise import Below

CAMPAIGN = bytes(range(16))
ERROR = 0.05
_OTHERS = (3, 20, 61)


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        claimed: epsilon that the message states.
        measured: lower bound of the real epsilon, right with 95 % probability.
        runs: pairs of releases.
        sizes: lengths of the messages that were seen, in bytes.
    """

    claimed: float
    measured: float
    runs: int
    sizes: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Whether the claim was not refuted."""
        return self.measured <= self.claimed and len(self.sizes) == 1


class _OpenBook(PrivacyBook):
    """A book without files that has room for a release and forgets it: each run is a first one."""

    def __init__(self) -> None:
        super().__init__(Path("unused"))

    def account(self, campaign_id: bytes) -> PrivacyAccount | None:  # noqa: ARG002
        return PrivacyAccount(1 << 30)

    def charge(self, campaign_id: bytes, epsilon_milli: int) -> bool:  # noqa: ARG002
        return True

    def keep(self, campaign_id: bytes, version: int, message: bytes) -> None:  # noqa: ARG002
        return

    def release(self, campaign_id: bytes, version: int) -> bytes | None:  # noqa: ARG002
        return None


def wire_bytes(margins: tuple[int, ...], epsilon_milli: int, below: Below) -> bytes:
    """The bytes that leave for samples with these margin scores, all in one cell."""
    campaign = model_pb2.Campaign(
        campaign_id=CAMPAIGN,
        egress=model_pb2.EGRESS_MODE_HISTOGRAM,
        epsilon_release_milli=epsilon_milli,
        epsilon_total_milli=6 * epsilon_milli,
    )
    terms = ReleaseTerms(campaign, 1, bytes(32), 20_000, secrets.token_bytes(16))
    counts = count_samples(np.zeros(len(margins), np.uint16), np.array(margins, np.uint8), 1)
    message = release_of(_OpenBook(), terms, counts, below=below)
    if message is None:
        raise RuntimeError("the release was refused")
    return encode_checked(message)


def audit(
    runs: int,
    *,
    epsilon_milli: int = 500,
    below: Below = secrets.randbelow,
    release: Callable[[tuple[int, ...], int, Below], bytes] = wire_bytes,
) -> Audit:
    """Runs both worlds and bounds the epsilon that their bytes show.

    Args:
        runs: releases in each world; an even number.
        epsilon_milli: what the device is told to spend, in 1/1000.
        below: where the device's chance comes from.
        release: the release path, replaced to prove that the audit finds a broken one.
    """
    sizes: set[int] = set()

    def world(margins: tuple[int, ...]) -> NDArray[np.int64]:
        rows = np.zeros((runs, BINS), np.int64)
        for run in range(runs):
            raw = release(margins, epsilon_milli, below)
            sizes.add(len(raw))
            told = candidate_pb2.ReportHistogramRequest.FromString(raw)
            rows[run] = np.frombuffer(told.noised_counts, "<i4")
        return rows

    without, beside = world(_OTHERS), world((*_OTHERS, 40))
    half = runs // 2
    best = max(_guesses(), key=lambda guess: _ratio(guess, without[:half], beside[:half]))
    measured = max(
        _lower_bound(best(beside[half:]), best(without[half:])),
        _lower_bound(~best(without[half:]), ~best(beside[half:])),
    )
    return Audit(epsilon_milli / 1000, measured, runs, tuple(sorted(sizes)))


Guess = Callable[[NDArray[Any]], NDArray[np.bool_]]


def _guesses() -> Iterator[Guess]:
    """Thresholds on each count and on their sum: bool[runs], true for "the sample is there"."""
    for place in range(BINS):
        for low in range(-6, 8):
            yield lambda rows, p=place, t=low: rows[:, p] >= t  # type: ignore[misc]
    for low in range(-30, 40, 2):
        yield lambda rows, t=low: rows.sum(axis=1) >= t  # type: ignore[misc]


def _ratio(guess: Guess, without: NDArray[np.int64], beside: NDArray[np.int64]) -> float:
    return max(
        _lower_bound(guess(beside), guess(without)), _lower_bound(~guess(without), ~guess(beside))
    )


def _lower_bound(seen: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Lower bound of log(P(seen) / P(other)), each probability bounded with half of the error."""
    from scipy.stats import beta

    k, n = int(seen.sum()), len(seen)
    j, m = int(other.sum()), len(other)
    low = float(beta.ppf(ERROR / 4, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(1 - ERROR / 4, j + 1, m - j)) if j < m else 1.0
    return math.log(low / high) if low > 0 else -math.inf


def no_chance(limit: int) -> int:
    """Always the largest value below the limit: the noise is the same each time, so it is none."""
    return limit - 1


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=20_000)
    args = parser.parse_args()
    print("| release path | epsilon claimed | epsilon shown by the bytes, at least | caught |")
    print("| --- | ---: | ---: | --- |")
    rows = {
        "as built": audit(args.runs),
        "noise halved": audit(args.runs, release=_halved),
        "noise removed": audit(args.runs, below=no_chance),
        "as built, epsilon 1": audit(args.runs, epsilon_milli=1000, below=Random(1).randrange),
    }
    for name, found in rows.items():
        caught = "no" if found.holds else "yes"
        print(f"| {name} | {found.claimed} | {found.measured:.3f} | {caught} |")


def _halved(margins: tuple[int, ...], epsilon_milli: int, below: Below) -> bytes:
    return wire_bytes(margins, 2 * epsilon_milli, below)


if __name__ == "__main__":
    main()
