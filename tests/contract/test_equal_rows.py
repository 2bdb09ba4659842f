"""What a device leaves out because it is equal to what it sends changes nothing that is bought."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.allocation.policy import Budget, Policy
from coordinator.core.allocation.pool import Pool, Progress
from coordinator.core.allocation.seam import allocate
from coordinator.core.records import COLUMN_WIDTHS
from coordinator.equal_rows import check_counts, expanded, named_picks
from coordinator.errors import WireInvalid
from edge_agent.equal_rows import COUNT_MAX, merge_equal
from edge_agent.pool import COLUMN_NAMES
from edge_agent.queue.outbox import batch_columns
from edge_agent.scoring import CandidateColumns

CLASSES = 4
DTYPES = {1: np.uint8, 2: np.dtype("<u2")}


def a_device(sizes: list[int], seed: int) -> tuple[CandidateColumns, list[bytes]]:
    """Samples of several kinds. No two kinds share a score, so that nothing but ids is chance."""
    rng = np.random.default_rng(seed)
    kinds = len(sizes)
    scores = rng.permutation(63)[:kinds] + 1
    kind_columns = {
        "margins": scores,
        "top_probabilities": 63 - scores,
        "entropies": scores,
        "divergence_risk": rng.integers(0, 256, kinds),
        "predicted_classes": rng.integers(0, CLASSES, kinds),
        "runner_up_classes": rng.integers(0, CLASSES, kinds),
        "prototype_classes": rng.integers(0, CLASSES, kinds),
        "cell_ids": rng.integers(0, 6, kinds),
        "density_cost": rng.integers(0, 128, kinds),
    }
    kind = rng.permutation(np.repeat(np.arange(kinds), sizes))
    columns = {
        name: values[kind].astype(DTYPES[COLUMN_WIDTHS[name]])
        for name, values in kind_columns.items()
    }
    return CandidateColumns(**columns), [rng.bytes(16) for _ in kind]


def on_the_wire(columns: CandidateColumns, ids: list[bytes], named_max: int) -> tuple[dict, bytes]:
    merged = merge_equal(columns, ids, named_max=named_max)
    sent = columns.take(merged.rows)
    wire = {name: batch_columns([getattr(sent, name)]) for name in COLUMN_NAMES}
    wire["candidate_ids"] = b"".join(ids[row] for row in merged.rows.tolist())
    counts = merged.further_counts.tobytes()
    return wire, check_counts(wire["candidate_ids"], counts)


def pool_of(sites: list[dict[str, bytes]]) -> Pool:
    found = {
        name: np.concatenate(
            [np.frombuffer(site[name], DTYPES.get(width, np.uint8)) for site in sites]
        )
        for name, width in COLUMN_WIDTHS.items()
    }
    owner = np.repeat(np.arange(len(sites)), [len(site["margins"]) for site in sites])
    return Pool(
        candidate_ids=found["candidate_ids"].reshape(-1, 16),
        site_index=owner.astype(np.int32),
        agent_index=owner.astype(np.int32),
        margins=found["margins"],
        entropies=found["entropies"],
        top_probabilities=found["top_probabilities"],
        divergences=found["divergence_risk"] & np.uint8(0x3F),
        predicted_classes=found["predicted_classes"],
        runner_up_classes=found["runner_up_classes"],
        prototype_classes=found["prototype_classes"],
        cell_ids=found["cell_ids"],
        density_bands=found["density_cost"] & np.uint8(0x0F),
        cost_bands=found["density_cost"] >> np.uint8(4),
        site_ids=tuple(f"site-{i}" for i in range(len(sites))),
        class_count=CLASSES,
        progress=Progress(np.array([9, 4, 2, 0]), np.full(len(sites), 50)),
    )


def kinds_of(pool: Pool, made) -> Counter:
    names = [n for n in pool.columns() if n != "candidate_ids"]
    return Counter(
        (int(reason), round(float(chance), 9), *(int(getattr(pool, n)[row]) for n in names))
        for row, reason, chance in zip(
            made.rows, made.reasons, made.inclusion_probabilities, strict=True
        )
    )


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    labels=st.integers(1, 30),
    floors=st.integers(0, 8),
    seed=st.integers(0, 1000),
)
def test_the_same_is_bought_and_explored_with_the_same_chance_as_from_the_whole_pool(
    sizes, labels, floors, seed
):
    devices = [a_device(sizes, seed + site) for site in range(3)]
    whole = pool_of([on_the_wire(*device, named_max=0)[0] for device in devices])
    merged = [on_the_wire(*device, named_max=labels) for device in devices]
    taken_in = pool_of([expanded(*parts) for parts in merged])
    assert len(taken_in) == len(whole)
    budget = Budget(labels, np.full(3, labels), np.full(CLASSES, floors), band_costs=(1,) * 8)
    policy = Policy(explore_ratio=0.3)
    plain = allocate(whole, budget, policy, np.random.default_rng(seed))
    made = allocate(taken_in, budget, policy, np.random.default_rng(seed))
    named = named_picks(made, taken_in)
    assert kinds_of(taken_in, named) == kinds_of(whole, plain)
    assert np.array_equal(made.frame.counts, plain.frame.counts)
    assert np.allclose(made.frame.probability_sums, plain.frame.probability_sums)
    known = {identity for _, ids in devices for identity in ids}
    bought = [identity.tobytes() for identity in named.candidate_ids]
    assert set(bought) <= known
    assert len(set(bought)) == len(bought) == len(plain)


def test_where_chance_ranks_the_same_kinds_are_bought_as_often_as_from_the_whole_pool():
    columns, ids = a_device([30, 3, 40, 1, 20, 9], 1)
    even = Progress(np.full(CLASSES, 9), np.array([36]))
    whole, taken_in = (
        replace(pool_of([expanded(*on_the_wire(columns, ids, named_max))]), progress=even)
        for named_max in (0, 8)
    )
    budget = Budget(8, np.array([8]), np.zeros(CLASSES, np.int64), band_costs=(1,) * 8)
    policy = Policy(explore_ratio=0.0, coldness=1.0)
    bought = []
    for pool in (whole, taken_in):
        margins = []
        for seed in range(400):
            made = named_picks(allocate(pool, budget, policy, np.random.default_rng(seed)), pool)
            assert len(made) == 8
            margins += pool.margins[made.rows].tolist()
        bought.append(np.bincount(margins, minlength=64) / 400)
    assert (bought[0] > 0).sum() > 3
    assert bought[1] == pytest.approx(bought[0], abs=0.4)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=8),
    named_max=st.integers(0, 60),
    seed=st.integers(0, 1000),
)
def test_every_sample_is_sent_or_counted_once_and_no_more_ids_than_asked_for(
    sizes, named_max, seed
):
    columns, ids = a_device(sizes, seed)
    wire, counts = on_the_wire(columns, ids, named_max)
    rows = expanded(wire, counts)

    def multiset(parts):
        columns = [np.frombuffer(parts[n], DTYPES[COLUMN_WIDTHS[n]]).tolist() for n in COLUMN_NAMES]
        return Counter(zip(*columns, strict=True))

    every = {name: batch_columns([getattr(columns, name)]) for name in COLUMN_NAMES}
    assert multiset(rows) == multiset(every)
    all_ids = [rows["candidate_ids"][i : i + 16] for i in range(0, 16 * len(ids), 16)]
    assert len(set(all_ids)) == len(ids)
    if named_max:
        most = max(named_max, -(-max(sizes) // (COUNT_MAX + 1)))
        assert max(multiset(wire).values()) <= most
        assert expanded(wire, counts) == rows
    else:
        assert not any(counts)


@pytest.mark.parametrize(
    ("ids", "counts", "words"),
    [
        (b"a" * 32, b"\1", "must have 2 bytes"),
        (b"a" * 16 * 40, b"\xff" * 40, "more than 10000"),
        (b"a" * 8 + b"unnamed\0", b"", "made-up"),
    ],
)
def test_counts_that_are_wrong_and_made_up_ids_are_refused(ids, counts, words):
    with pytest.raises(WireInvalid, match=words):
        check_counts(ids, counts)


def test_a_pick_without_an_equal_named_row_is_dropped_and_none_is_named_twice():
    columns, ids = a_device([9], 3)
    pool = pool_of([expanded(*on_the_wire(columns, ids, named_max=2))])
    budget = Budget(5, np.array([5]), np.zeros(CLASSES, np.int64), band_costs=(1,) * 8)
    made = allocate(pool, budget, Policy(explore_ratio=0.0), np.random.default_rng(0))
    named = named_picks(made, pool)
    assert len(made) == 5
    assert len(named) == len({row.tobytes() for row in named.candidate_ids}) == 2
