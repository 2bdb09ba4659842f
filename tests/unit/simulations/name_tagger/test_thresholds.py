"""Thresholds: most secrets kept among the pairs that hide little else."""

from edge_agent.masking.evaluate import Measurement
from simulations.name_tagger.calibrate import Tried, best_calm, best_hasty


def tried(pair: tuple[float, float], masked: int, harmless: int) -> Tried:
    result = Measurement(
        spans_masked=masked, span_count=100, harmless_masked=harmless, harmless_count=1000
    )
    result.by_type["PERSON"] = [masked, 100]
    return Tried(pair, result)


def test_of_calm_pairs_the_one_that_misses_least_at_a_bearable_price():
    grid = [tried((0.3, 0.05), 95, 20), tried((0.2, 0.02), 97, 30), tried((0.1, 0.01), 99, 60)]
    assert best_calm(grid) == (0.2, 0.02)


def test_when_every_calm_pair_hides_too_much_the_mildest_is_taken():
    assert best_calm([tried((0.1, 0.01), 99, 90), tried((0.3, 0.05), 95, 70)]) == (0.3, 0.05)


def test_hasty_pairs_pay_only_for_what_the_tagger_adds():
    grid = [
        tried((0.05, 0.02), 90, 250),
        tried((0.02, 0.005), 94, 290),
        tried((0.01, 0.002), 96, 310),
    ]
    assert best_hasty(grid, floor=0.2) == (0.02, 0.005)
    assert best_hasty(grid, floor=0.1) == (0.05, 0.02)
