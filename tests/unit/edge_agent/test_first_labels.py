"""Before any label exists, density bands say for how many others of the pool a sample stands."""

from __future__ import annotations

import numpy as np
import pytest
from agent_models import CELLS, WIDTH, bundle

from edge_agent.inference import Predictor
from edge_agent.scoring import score

# As many words in each: the tiny models of these tests count padding as words.
HEAPS = ("the app is slow", "please refund me now", "my invoice is wrong")
SIZES = (12, 25, 40)
ONE_EACH = [1, 6, 7, 8]
"""Bands of a lone sample, and of the first of 12, 25 and 40 equal ones."""


def texts() -> list[str]:
    """Texts in heaps: those of a heap differ in spaces alone, which no model sees."""
    heaps = zip(HEAPS, SIZES, strict=True)
    made = [text + " " * n for text, size in heaps for n in range(size)]
    order = np.random.default_rng(0).permutation(len(made))
    return [*(made[place] for place in order), "open on next sunday"]


@pytest.fixture
def campaign(coordinator) -> bytes:
    campaign_id = coordinator.add_campaign()
    coordinator.publish(campaign_id, 1, untrained=True)
    return campaign_id


def bands(batch) -> list[int]:
    return (np.frombuffer(batch.density_cost, np.uint8) & 15).tolist()


def above_zero(batch) -> list[int]:
    return sorted(band for band in bands(batch) if band)


def test_one_of_each_heap_stands_for_all_of_it_and_the_largest_heap_stands_highest(
    device, coordinator, campaign
):
    device.enroll().put(*texts())
    device.until(device.daemon(), lambda: coordinator.reports)
    (batch,) = coordinator.batches
    assert batch.row_count == sum(SIZES) + 1
    assert above_zero(batch) == ONE_EACH


@pytest.mark.parametrize("untrained", [True, False])
def test_only_an_untrained_model_waits_for_what_a_source_still_has(device, coordinator, untrained):
    coordinator.publish(coordinator.add_campaign(), 1, untrained=untrained)
    device.values["limits"] |= {"poll_samples_max": 5, "score_rows_max": 9}
    device.enroll()
    # In the middle the folder gives copies for a while, so that nothing waits to be scored.
    device.put(*texts()[:20], *texts()[:15], *texts()[20:])
    device.until(device.daemon(), lambda: coordinator.reports)
    assert sum(batch.row_count for batch in coordinator.batches) == sum(SIZES) + 1
    if untrained:
        assert [above_zero(batch) for batch in coordinator.batches] == [ONE_EACH]
    else:
        assert [batch.row_count for batch in coordinator.batches] == [20, 58]


def test_a_restart_before_the_pool_was_sealed_changes_nothing(device, coordinator, campaign):
    device.values["limits"] |= {"score_rows_max": 9}
    device.enroll().put(*texts())
    killed = device.daemon()
    device.until(killed, lambda: any(len(s._rows) for s in killed.scorers.values()))
    assert not coordinator.batches
    device.until(device.daemon(), lambda: coordinator.reports)
    assert [above_zero(batch) for batch in coordinator.batches] == [ONE_EACH]


def test_a_pool_larger_than_a_batch_is_compared_batch_by_batch(device, coordinator, campaign):
    device.values["limits"] |= {"score_rows_max": 40, "candidate_batch_rows": 40}
    device.enroll().put(*texts())
    device.until(device.daemon(), lambda: coordinator.reports)
    assert [batch.row_count for batch in coordinator.batches] == [40, 38]
    for batch in coordinator.batches:
        assert 3 <= len(above_zero(batch)) <= 4


def test_samples_that_come_later_are_compared_with_each_other_alone(device, coordinator, campaign):
    device.enroll().put(*texts())
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    device.put(HEAPS[2] + "\t")
    device.until(daemon, lambda: len(coordinator.batches) == 2)
    assert bands(coordinator.batches[1]) == [1]


def test_once_a_label_taught_the_model_bands_say_how_near_the_code_book_is(
    device, coordinator, campaign
):
    device.enroll().put(*texts())
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    coordinator.publish(campaign, 2)
    device.until(daemon, lambda: coordinator.reports[-1].model_version == 2)
    predictor = Predictor(bundle(campaign, 2))
    (batch,) = [b for b in coordinator.batches if b.model_version == 2]
    outputs = predictor.predict(texts())
    columns = score(
        outputs,
        temperature=predictor.temperature,
        prototypes=predictor.prototypes,
        code_book=predictor.code_book,
    )
    assert sorted(bands(batch)) == sorted((columns.density_cost & 15).tolist())
    (scorer,) = daemon.scorers.values()
    assert not scorer.predictor.is_untrained
    assert not scorer._rows.embeddings


def test_near_cells_that_the_sites_found_nothing_is_compared_and_nothing_waits(device, coordinator):
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1, untrained=True, fitted_cells=True)
    device.values["limits"] |= {"poll_samples_max": 5, "score_rows_max": 9}
    device.enroll()
    device.put(*texts()[:20], *texts()[:15], *texts()[20:])
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    assert [batch.row_count for batch in coordinator.batches] == [20, 58]
    predictor = Predictor(bundle(campaign, 1, untrained=True, fitted_cells=True))
    columns = score(
        predictor.predict(texts()),
        temperature=predictor.temperature,
        prototypes=predictor.prototypes,
        code_book=predictor.code_book,
    )
    sent = [band for batch in coordinator.batches for band in bands(batch)]
    assert sorted(sent) == sorted((columns.density_cost & 15).tolist())
    (scorer,) = daemon.scorers.values()
    assert scorer.predictor.is_untrained
    assert not scorer._rows.embeddings


def test_a_version_with_a_parent_is_trained_even_without_prototypes():
    first, second = (Predictor(bundle(bytes(16), v, untrained=True)) for v in (1, 2))
    assert first.is_untrained
    assert not second.is_untrained
    assert not Predictor(bundle(bytes(16), 1)).is_untrained
    assert first.prototypes.shape == (3, WIDTH)
    assert len(first.code_book) == CELLS


def test_equal_rows_travel_once_beside_the_one_that_stands_for_them(device, coordinator, campaign):
    coordinator.campaigns["tickets"].equal_rows_max = 2
    device.enroll().put(*texts())
    device.until(device.daemon(), lambda: coordinator.reports)
    (batch,) = coordinator.batches
    assert batch.row_count + sum(batch.further_counts) == sum(SIZES) + 1
    counts = np.frombuffer(batch.further_counts, np.uint8)
    assert counts.sum() > sum(SIZES) / 2
    assert not counts[np.array(bands(batch)) > 0].any()
    assert above_zero(batch) == ONE_EACH
