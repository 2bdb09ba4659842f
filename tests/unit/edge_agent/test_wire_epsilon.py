"""The bytes that leave in histogram mode show no more of one sample than they say."""

from __future__ import annotations

from random import Random

from benchmarks.masking.epsilon import audit, no_chance, wire_bytes


def test_twenty_thousand_paired_releases_never_show_more_than_the_claim():
    found = audit(20_000, epsilon_milli=500, below=Random(7).randrange)
    assert found.holds, found
    assert found.measured > 0.2, "an audit that finds next to nothing would prove nothing"


def test_a_release_without_noise_is_caught():
    assert not audit(2_000, below=no_chance).holds


def test_a_release_with_half_the_noise_is_caught():
    found = audit(4_000, release=lambda margins, epsilon, below: wire_bytes(
        margins, 2 * epsilon, below
    ))  # fmt: skip
    assert found.measured > 0.5
