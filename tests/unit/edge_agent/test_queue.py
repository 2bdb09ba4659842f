"""The queue is sealed, survives anything, and says clearly when there is no room."""

from __future__ import annotations

import doctest
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from perimeter.v1 import grant_pb2, model_pb2

from edge_agent.config import parse_config
from edge_agent.errors import SealBroken, StorageError, StorageFull
from edge_agent.queue import outbox as outbox_module
from edge_agent.queue import samples as samples_module
from edge_agent.queue import sealing
from edge_agent.queue.outbox import PoolTotals, SealedBatch
from edge_agent.queue.samples import OfferedScore, SampleState, View
from edge_agent.queue.sealing import Sealer, load_or_make_key
from edge_agent.queue.stores import open_stores
from edge_agent.sources.intake import Delivery, Intake

CAMPAIGN = b"c" * 16


@pytest.fixture
def stores(tmp_path):
    opened = open_stores(parse_config({"state": "state"}, {}, base=tmp_path))
    yield opened
    opened.database.close()


def intake_of(stores, **changes):
    settings = {"queue_bytes_max": 1 << 30, "drop_oldest": False} | changes
    return Intake(stores.database, stores.samples, stores.journal, **settings)


def test_the_examples_in_the_docstrings_hold():
    results = [doctest.testmod(m) for m in (outbox_module, samples_module, sealing)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 4


def test_no_byte_of_a_sample_lies_open_on_the_disk(tmp_path, stores):
    stores.samples.add(CAMPAIGN, "s", [b"marker-one", b"marker-two"])
    (sample, _) = stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=2)
    stores.samples.record_view(sample, "policy", View(b"marker-view", b"marker-report", 1))
    stores.journal.record_position("s", b"marker-position")
    for path in filter(Path.is_file, (tmp_path / "state").rglob("*")):
        assert b"marker" not in path.read_bytes(), path.name
    found = stores.samples.find(CAMPAIGN, sample.candidate_id)
    assert found.view == View(b"marker-view", b"marker-report", 1)


def test_a_changed_or_moved_seal_does_not_open(stores):
    stores.samples.add(CAMPAIGN, "s", [b"one", b"two"])
    stores.database.write(
        "UPDATE sample SET content = (SELECT content FROM sample WHERE id = 2) WHERE id = 1"
    )
    first = stores.samples.candidate_id(CAMPAIGN, b"one")
    with pytest.raises(SealBroken):
        stores.samples.find(CAMPAIGN, first)


def test_one_damaged_row_is_put_aside_and_the_others_go_on(stores):
    stores.samples.add(CAMPAIGN, "s", [b"one", b"two"])
    stores.database.write("UPDATE sample SET content = zeroblob(50) WHERE id = 1")
    found = stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=2)
    assert [sample.content for sample in found] == [b"two"]
    assert stores.samples.counts()[CAMPAIGN] == {"open": 1, "broken": 1}


def test_a_key_that_did_not_seal_the_queue_is_refused_at_the_start(tmp_path, stores):
    stores.samples.add(CAMPAIGN, "s", [b"one"])
    (tmp_path / "state" / "queue.key").write_bytes(bytes(32))
    with pytest.raises(StorageError, match="restore the key"):
        open_stores(parse_config({"state": "state"}, {}, base=tmp_path))


def test_another_key_opens_nothing():
    sealed = Sealer(bytes(32)).seal(b"value", b"place")
    with pytest.raises(SealBroken):
        Sealer(b"\1" * 32).open(sealed, b"place")


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "key"
    load_or_make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(StorageError, match="chmod 600"):
        load_or_make_key(path)


def test_a_key_file_that_is_a_link_or_cut_is_refused(tmp_path):
    key = tmp_path / "key"
    load_or_make_key(key)
    link = tmp_path / "link"
    link.symlink_to(key)
    with pytest.raises(StorageError):
        load_or_make_key(link)
    key.write_bytes(b"short")
    with pytest.raises(StorageError, match="backup"):
        load_or_make_key(key)


def test_candidate_ids_differ_by_device_and_by_campaign(stores, tmp_path):
    other = open_stores(parse_config({"state": "other"}, {}, base=tmp_path))
    ids = {
        stores.samples.candidate_id(CAMPAIGN, b"x"),
        stores.samples.candidate_id(b"d" * 16, b"x"),
        other.samples.candidate_id(CAMPAIGN, b"x"),
    }
    assert len(ids) == 3
    assert {len(i) for i in ids} == {16}
    other.database.close()


def test_grants_without_a_sample_go_to_the_best_of_the_newest_scores(stores):
    contents = [b"a", b"b", b"c", b"d"]
    stores.samples.add(CAMPAIGN, "s", contents)
    ids = [stores.samples.candidate_id(CAMPAIGN, content) for content in contents]
    untrained = [(60, 0), (1, 9), (30, 9), (63, 2)]
    scores = [OfferedScore(1, margin, 0, 0, band) for margin, band in untrained]
    stores.samples.record_scores(CAMPAIGN, list(zip(ids, scores, strict=True)))
    bound = [stores.bindings.bind(CAMPAIGN, bytes([n]) * 16) for n in range(2)]
    assert bound == [ids[2], ids[1]]
    # A trained model has scored one of those that are left.
    stores.samples.record_scores(CAMPAIGN, [(ids[0], OfferedScore(2, 5, 0, 0))])
    stores.bindings.forget_ranking(CAMPAIGN)
    bound = [stores.bindings.bind(CAMPAIGN, bytes([n]) * 16) for n in (2, 3)]
    assert bound == [ids[0], ids[3]]


def test_equal_content_is_stored_once(stores):
    assert stores.samples.add(CAMPAIGN, "s", [b"a", b"b", b"a"]) == 2
    assert stores.samples.add(CAMPAIGN, "s", [b"a"]) == 0


def test_a_batch_keeps_its_sequence_until_it_is_acknowledged(stores):
    outbox = stores.outbox
    outbox.begin_version(CAMPAIGN, 1, class_count=3)
    totals = PoolTotals(1, np.zeros(3, np.uint32), 0, 0).plus(np.uint16([2]), np.float32([0.5]))
    for body in (b"first", b"second"):
        sequence, _ = outbox.next_sequence(CAMPAIGN)
        outbox.append(SealedBatch(CAMPAIGN, sequence, body), row_count=1, totals=totals)
    assert [(b.sequence, b.body) for b in outbox.waiting()] == [(1, b"first"), (2, b"second")]
    outbox.acknowledge(outbox.waiting()[0])
    assert [b.sequence for b in outbox.waiting()] == [2]
    assert outbox.totals(CAMPAIGN).class_counts.tolist() == [0, 0, 1]


def test_a_new_version_drops_unsent_batches_and_goes_on_counting(stores):
    outbox = stores.outbox
    outbox.begin_version(CAMPAIGN, 1, class_count=2)
    totals = PoolTotals(1, np.zeros(2, np.uint32), 7, 7)
    outbox.append(SealedBatch(CAMPAIGN, 1, b"old"), row_count=1, totals=totals)
    assert outbox.begin_version(CAMPAIGN, 2, class_count=2)
    assert outbox.waiting() == []
    assert outbox.next_sequence(CAMPAIGN) == (2, True)
    assert not outbox.begin_version(CAMPAIGN, 2, class_count=2)


def test_equal_totals_after_different_ones_are_reported_anew(stores):
    outbox = stores.outbox
    outbox.begin_version(CAMPAIGN, 1, class_count=2)
    assert outbox.next_report(CAMPAIGN) == 1
    outbox.record_report(CAMPAIGN, 1, outbox.totals(CAMPAIGN))
    assert outbox.next_report(CAMPAIGN) is None
    outbox.begin_version(CAMPAIGN, 2, class_count=2)
    assert outbox.next_report(CAMPAIGN) == 2


def test_a_granted_sample_is_never_offered_or_dropped(stores):
    stores.samples.add(CAMPAIGN, "s", [b"a", b"b"])
    first, _ = stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=2)
    grant = grant_pb2.Grant(
        grant_id=b"g" * 16, campaign_id=CAMPAIGN, candidate_id=first.candidate_id
    )
    assert stores.grants.add([grant, grant]) == 1
    assert [s.content for s in stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=9)] == [b"b"]
    assert stores.samples.drop_oldest(10) == 1
    assert stores.samples.find(CAMPAIGN, first.candidate_id).state is SampleState.GRANTED


def test_a_score_is_kept_sealed_with_its_sample(stores):
    stores.samples.add(CAMPAIGN, "s", [b"a"])
    (sample,) = stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=1)
    score = OfferedScore(1, 63, 2, 1)
    stores.samples.record_scores(CAMPAIGN, [(sample.candidate_id, score)])
    assert stores.samples.offered_score(sample.candidate_id) == score
    assert stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=1) == []
    assert len(stores.samples.waiting(CAMPAIGN, 2, after=0, count_max=1)) == 1


def test_a_full_queue_makes_sources_wait_or_drops_the_oldest(stores):
    stores.samples.add(CAMPAIGN, "s", [bytes([n]) * 4000 for n in range(100)])
    with pytest.raises(StorageFull, match="drop-oldest"):
        intake_of(stores, queue_bytes_max=200_000).make_room()
    intake_of(stores, queue_bytes_max=200_000, drop_oldest=True).make_room()
    assert stores.database.size_bytes() <= 180_000
    left = stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=100)
    assert left[-1].content[0] == 99


def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_space(tmp_path, stores):
    """The limit on file size fails writes just as a full disk does."""
    stores.campaigns.record([model_pb2.Campaign(campaign_id=CAMPAIGN, name="camp", kind="text")])
    source = parse_config(
        {
            "state": "s",
            "sources": [
                {"name": "in", "campaign": "camp", "kind": "text", "type": "folder", "path": "x"}
            ],
        },
        {},
        base=tmp_path,
    ).sources[0]
    intake = intake_of(stores)
    stores.samples.add(CAMPAIGN, "s", [b"before"])
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    used = max(path.stat().st_size for path in (tmp_path / "state").iterdir())
    delivery = Delivery([bytes([n]) * 60_000 for n in range(60)], position=b"here")
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 100_000, hard))
    try:
        with pytest.raises(StorageFull, match="free space"):
            intake.take(source, delivery, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert len(stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=100)) == 1
    assert stores.journal.position("in") is None
    assert intake.take(source, delivery, 1.0) == 60
    assert stores.database.read("PRAGMA integrity_check") == [("ok",)]


def test_what_was_committed_survives_a_kill_at_any_moment(tmp_path):
    script = (
        "import sys, os\n"
        "from edge_agent.config import parse_config\n"
        "from edge_agent.queue.stores import open_stores\n"
        "from pathlib import Path\n"
        "s = open_stores(parse_config({'state': 'state'}, {}, base=Path(sys.argv[1])))\n"
        "for n in range(10**6):\n"
        "    s.samples.add(b'c' * 16, 's', [str(n).encode()])\n"
        "    print(n, flush=True)\n"
    )
    acknowledged = -1
    for lines in (3, 17, 40):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(lines):
            acknowledged = max(acknowledged, int(process.stdout.readline()))
        process.kill()
        process.wait()
        process.stdout.close()
    stores = open_stores(parse_config({"state": "state"}, {}, base=tmp_path))
    kept = {int(s.content) for s in stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=10**6)}
    assert set(range(acknowledged + 1)) <= kept
    stores.database.close()


def test_a_queue_of_another_layout_is_left_alone(tmp_path, stores):
    stores.database.write("PRAGMA user_version = 99")
    stores.database.close()
    with pytest.raises(StorageError, match="layout 99"):
        open_stores(parse_config({"state": "state"}, {}, base=tmp_path))
