"""Leases, answers, labels and their outcomes, on a real SQLite file."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from portal_bench import CAMPAIGN_ID, CLASSES, fresh_token, new_campaign, new_item
from sqlalchemy import select

from model_bundle.label_schema import LabelSchema
from review_portal.core.leasing import Slot, choose_slots, is_free, is_taken
from review_portal.core.model import Answer, Decision, Receipt, Refusal, SlotState
from review_portal.errors import KeyExposed, KeyMissing, SealBroken, StoreMissing
from review_portal.label_store import LabelStore
from review_portal.store import annotations, audit, items, outbox, queue
from review_portal.store.bulk_import import ImportedItem
from review_portal.store.campaigns import find_campaign, settings_of
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import label, slot
from review_portal.store.tables import outbox as outbox_rows


def lease(bench, expert_id: int, count: int = 20, *, seconds: float = 600):
    request = queue.LeaseRequest(
        expert_id, CAMPAIGN_ID, count, bench.clock(), bench.clock() + seconds
    )
    return bench.store.database.write(lambda c: queue.lease(c, request))


def decide(bench, expert_id: int, item_id: bytes, class_index: int | Answer | None = 0, **changes):
    fields = {"seconds": 2.0, "client_token": fresh_token(), **changes}
    held_before = fields.pop("held_before", False)
    answer = class_index if isinstance(class_index, Answer) else Answer(class_index)
    decision = Decision(item_id, answer, **fields)
    desk = annotations.Desk(
        expert_id, bench.clock(), bench.store.keys, 10.0, held_before=held_before
    )
    return bench.store.database.write(lambda c: annotations.record(c, desk, decision))


def undo(bench, expert_id: int, **changes):
    desk = annotations.Desk(expert_id, bench.clock(), bench.store.keys, 10.0)
    fields = {"client_token": fresh_token(), "of_token": None, "until": bench.clock() + 600}
    return bench.store.database.write(lambda c: annotations.undo(c, desk, **{**fields, **changes}))


def outcomes(bench):
    rows = bench.store.database.read(lambda c: c.execute(select(outbox_rows)).all())
    return [(row.state, row.suggestion_verdict, row.class_index_plus_one) for row in rows]


def labels(bench):
    return bench.store.database.read(
        lambda c: c.execute(select(label).where(label.c.superseded_by.is_(None))).all()
    )


def examples(bench, split="train"):
    return list(bench.store.examples(CAMPAIGN_ID, split))


def test_an_answer_becomes_a_label_with_its_provenance_and_its_outcome(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    receipt = decide(bench, 1, made.item_id, 2)
    assert receipt == Receipt("stored", "LABELED", receipt.annotation_id)
    stored = labels(bench)[0]
    assert (stored.class_index, stored.settlement, stored.origin) == (2, "single", "expert")
    assert (stored.suggestion_index, stored.model_version) == (0, 1)
    assert stored.grant_id == made.grant.grant_id
    assert outcomes(bench) == [("RELEASED", 0, 0), ("LABELED", 2, 3)]
    assert [(e.class_index, e.content, e.origin) for e in examples(bench)] == [
        (2, made.content, "expert")
    ]


def test_a_repeated_answer_changes_nothing(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    first = decide(bench, 1, made.item_id, 1, client_token="token-0001")
    again = decide(bench, 1, made.item_id, 2, client_token="token-0001")
    assert again == Receipt("duplicate", "LABELED", first.annotation_id)
    assert [row.class_index for row in labels(bench)] == [1]


def test_a_delivered_item_is_taken_once(bench) -> None:
    made = bench.fill(1)[0]
    bench.receive(made)
    assert len(lease(bench, 1)) == 1
    assert outcomes(bench) == [("RELEASED", 0, 0)]


def test_two_experts_never_hold_the_same_item(bench) -> None:
    bench.fill(30)
    first = {entry.item_id for entry in lease(bench, 1)}
    second = {entry.item_id for entry in lease(bench, 2)}
    assert len(first) == 20
    assert len(second) == 10
    assert not first & second


def test_a_reloaded_page_gets_the_items_it_held(bench) -> None:
    bench.fill(5)
    first = [(entry.item_id, entry.lease_id) for entry in lease(bench, 1, 3)]
    assert [(entry.item_id, entry.lease_id) for entry in lease(bench, 1, 3)] == first


def test_an_expired_lease_goes_to_somebody_else(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    assert lease(bench, 2) == ()
    bench.clock.now += 601
    assert [entry.item_id for entry in lease(bench, 2)] == [made.item_id]


def test_an_answer_after_the_lease_takes_the_slot_that_is_still_free(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    bench.clock.now += 601
    bench.store.database.write(lambda c: queue.reopen_expired(c, bench.clock()))
    assert decide(bench, 1, made.item_id, 1, held_before=True).stored == "stored"
    assert len(labels(bench)) == 1


def test_an_answer_to_an_item_that_somebody_else_settled_is_kept_as_late(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    bench.clock.now += 601
    lease(bench, 2)
    decide(bench, 2, made.item_id, 0)
    late = decide(bench, 1, made.item_id, 1, held_before=True)
    assert (late.stored, late.item_state) == ("late", "LABELED")
    assert [row.class_index for row in labels(bench)] == [0]


def test_nobody_answers_an_item_that_they_were_never_given(bench) -> None:
    made = bench.fill(1)[0]
    refused = decide(bench, 1, made.item_id)
    assert isinstance(refused, Refusal)
    assert refused.reason == "NOT_LEASED"


def test_a_class_outside_the_schema_is_refused_and_the_lease_stays(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    assert decide(bench, 1, made.item_id, 7).reason == "CLASS_UNKNOWN"
    assert decide(bench, 1, made.item_id, 1).stored == "stored"


def test_an_abstention_gives_the_budget_back(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    assert decide(bench, 1, made.item_id, None).item_state == "ABSTAINED"
    assert outcomes(bench)[-1] == ("ABSTAINED", 0, 0)
    assert examples(bench) == []


def test_two_experts_settle_by_agreement(bench) -> None:
    bench.set(double_ratio=1.0)
    made = bench.fill(1)[0]
    lease(bench, 1)
    lease(bench, 2)
    assert decide(bench, 1, made.item_id, 1).item_state == "OPEN"
    assert decide(bench, 2, made.item_id, 1).item_state == "LABELED"
    assert labels(bench)[0].settlement == "agreement"


def test_two_experts_who_differ_make_a_dispute_and_no_label(bench) -> None:
    bench.set(double_ratio=1.0)
    made = bench.fill(1)[0]
    lease(bench, 1)
    lease(bench, 2)
    decide(bench, 1, made.item_id, 1)
    assert decide(bench, 2, made.item_id, 2).item_state == "DISPUTED"
    assert labels(bench) == []
    assert outcomes(bench) == [("RELEASED", 0, 0)]


def test_an_expert_never_gets_both_halves_of_a_pair(bench) -> None:
    bench.set(double_ratio=1.0)
    bench.fill(3)
    assert len({entry.item_id for entry in lease(bench, 1)}) == 3
    assert len(lease(bench, 1)) == 3


def test_undo_supersedes_and_deletes_nothing(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, 1)
    assert undo(bench, 1).stored == "stored"
    assert examples(bench) == []
    assert outcomes(bench) == [("RELEASED", 0, 0)]
    assert bench.store.label_count(CAMPAIGN_ID) == 0
    assert decide(bench, 1, made.item_id, 2).item_state == "LABELED"
    assert [e.class_index for e in examples(bench)] == [2]
    kept = bench.store.database.read(lambda c: c.execute(select(label)).all())
    assert [row.class_index for row in kept] == [1, None, 2]


def test_undo_after_the_outcome_left_keeps_the_budget_spent_once(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, 1)
    bench.clock.now += 11
    bench.store.database.write(lambda c: outbox.claim(c, bench.clock()))
    assert undo(bench, 1).stored == "stored"
    decide(bench, 1, made.item_id, 2)
    assert outcomes(bench) == [("RELEASED", 0, 0), ("LABELED", 2, 2)]


def test_an_abstention_that_was_counted_cannot_be_taken_back(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, None)
    bench.clock.now += 11
    bench.store.database.write(lambda c: outbox.claim(c, bench.clock()))
    assert undo(bench, 1).reason == "OUTCOME_SENT"


def test_undo_reaches_the_last_twenty_decisions_and_no_further(bench) -> None:
    for made in bench.fill(25):
        lease(bench, 1, 1)
        decide(bench, 1, made.item_id)
    undone = [undo(bench, 1) for _ in range(26)]
    assert all(isinstance(entry, Receipt) for entry in undone[:20])


def test_a_repeated_undo_changes_nothing(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id)
    undo(bench, 1, client_token="undo-0001")
    decide(bench, 1, made.item_id)
    assert undo(bench, 1, client_token="undo-0001").stored == "duplicate"
    assert len(labels(bench)) == 1


def test_a_skipped_item_goes_to_others_first(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    bench.store.database.write(lambda c: queue.skip(c, 1, made.item_id, bench.clock()))
    assert lease(bench, 1) == ()
    assert len(lease(bench, 2)) == 1


def test_an_item_whose_grant_is_over_ends_unlabeled(bench) -> None:
    bench.fill(1)
    bench.clock.now = 2e9 + 1
    assert bench.store.database.write(lambda c: items.expire(c, bench.clock())) == 1
    assert lease(bench, 1) == ()
    assert outcomes(bench)[-1] == ("EXPIRED", 0, 0)


def test_an_item_that_an_expert_holds_does_not_end_under_their_hands(bench) -> None:
    made = bench.fill(1)[0]
    bench.clock.now = 2e9 - 10
    lease(bench, 1)
    bench.clock.now = 2e9 + 1
    assert bench.store.database.write(lambda c: items.expire(c, bench.clock())) == 0
    assert decide(bench, 1, made.item_id).item_state == "LABELED"


def test_held_items_wait_for_the_site_lead(bench) -> None:
    bench.set(is_held=True)
    bench.fill(1)
    assert lease(bench, 1) == ()


def test_high_confidence_is_labeled_without_an_expert_only_where_allowed(bench) -> None:
    from review_portal.store import automatic

    bench.set(auto_threshold=0.6, auto_audit_ratio=0.0)

    def work(connection):
        campaign = find_campaign(connection, CAMPAIGN_ID)
        intake = items.Intake(
            campaign, settings_of(connection, CAMPAIGN_ID), bench.store.keys, bench.clock()
        )
        made = []
        for number in (0, 1):
            new = new_item(number, probabilities=((0.7, 0.2, 0.1), (0.5, 0.4, 0.1))[number])
            items.receive(connection, intake, new, "agent:test")
            made.append(automatic.consider(connection, intake, new, 0.6))
        return made

    assert bench.store.database.write(work) == [True, False]
    assert [(e.class_index, e.origin) for e in examples(bench)] == [(0, "auto")]
    assert len(lease(bench, 1)) == 1


def test_imported_labels_are_examples_and_cost_no_budget(bench) -> None:
    new = new_item(1, grant=None, split="test", probabilities=())
    campaign = bench.store.campaign("tickets")
    intake = items.Intake(
        campaign,
        bench.store.database.read(lambda c: settings_of(c, CAMPAIGN_ID)),
        bench.store.keys,
        bench.clock(),
    )
    assert bench.store.import_items(intake, [ImportedItem(new, "1")]) == 1
    assert bench.store.import_items(intake, [ImportedItem(new, "1")]) == 0
    assert [(e.class_index, e.split, e.origin) for e in examples(bench, "test")] == [
        (1, "test", "import")
    ]
    assert outcomes(bench) == []
    assert bench.store.label_count(CAMPAIGN_ID, "test") == 1
    assert bench.store.expert_label_count(CAMPAIGN_ID) == 0


def test_training_may_look_at_what_has_no_label_and_nobody_withheld(bench) -> None:
    made = bench.fill(4)
    lease(bench, 1)
    decide(bench, 1, made[0].item_id, 1)
    decide(bench, 1, made[1].item_id, None)
    bench.set(is_held=True)
    bench.receive(new_item(50))
    bench.set(is_held=False)
    bench.receive(new_item(51, split="test"))
    found = [entry.item_id for entry in bench.store.unlabeled(CAMPAIGN_ID, 10)]
    assert found == [made[n].item_id for n in (3, 2, 1)]
    assert len(list(bench.store.unlabeled(CAMPAIGN_ID, 2))) == 2
    assert list(bench.store.unlabeled(CAMPAIGN_ID, 0)) == []


def test_labels_of_an_older_schema_come_in_todays_classes(bench) -> None:
    first, second = bench.fill(2)
    lease(bench, 1)
    decide(bench, 1, first.item_id, 0)
    decide(bench, 1, second.item_id, 1)
    newer = LabelSchema(("other", "card"), version=2)
    bench.store.put_campaign(new_campaign(schema=newer), bench.clock())
    assert [e.class_index for e in examples(bench)] == [1]


def test_training_reads_while_the_portal_writes(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, 2)
    script = (
        "import sys; from review_portal.label_store import LabelStore\n"
        "store = LabelStore.open(sys.argv[1], read_only=True)\n"
        "print([e.class_index for e in store.examples(bytes.fromhex(sys.argv[2]), 'train')])\n"
    )
    folder = str(bench.store.database.path.parent)
    done = subprocess.run(
        [sys.executable, "-c", script, folder, CAMPAIGN_ID.hex()],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[2]"


def test_reading_a_folder_without_a_store_says_what_to_do(tmp_path) -> None:
    with pytest.raises(StoreMissing, match="perimeter-portal init"):
        LabelStore.open(tmp_path / "nothing", read_only=True)


def test_content_on_disk_is_sealed(bench) -> None:
    bench.fill(3)
    folder = bench.store.database.path.parent
    written = b"".join(path.read_bytes() for path in folder.glob("labels.db*"))
    assert b"is lost" not in written
    key_file = next((folder / "keys").iterdir())
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_a_deleted_key_makes_content_unreadable_for_good(bench) -> None:
    made = bench.fill(1)[0]
    sealed = lease(bench, 1)[0].sealed
    assert bench.store.keys.shred(CAMPAIGN_ID)
    with pytest.raises(KeyMissing):
        queue.unseal_item(bench.store.keys, CAMPAIGN_ID, made.item_id, sealed)


def test_a_key_that_others_can_read_is_refused(bench) -> None:
    made = bench.fill(1)[0]
    sealed = lease(bench, 1)[0].sealed
    folder = bench.store.database.path.parent / "keys"
    next(folder.iterdir()).chmod(0o644)
    with pytest.raises(KeyExposed, match="chmod 600"):
        queue.unseal_item(KeyRing(folder), CAMPAIGN_ID, made.item_id, sealed)


def test_sealed_content_cannot_move_to_another_row(bench) -> None:
    first, second = bench.fill(2)
    entry = next(e for e in lease(bench, 1) if e.item_id == first.item_id)
    with pytest.raises(SealBroken):
        queue.unseal_item(bench.store.keys, CAMPAIGN_ID, second.item_id, entry.sealed)


def test_every_view_is_in_the_audit_log_and_the_chain_holds(bench) -> None:
    bench.fill(3)
    lease(bench, 1)
    from review_portal.store.tables import audit as audit_rows

    actions = bench.store.database.read(
        lambda c: c.execute(select(audit_rows.c.action)).scalars().all()
    )
    assert actions.count("item.viewed") == 3
    verified = bench.store.database.read(audit.verify)
    assert verified.first_broken is None
    assert verified.event_count == len(actions)


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE audit SET actor = 'nobody' WHERE sequence = 3",
        "DELETE FROM audit WHERE sequence = 3",
        "UPDATE audit SET at = at + 1 WHERE sequence = 3",
        "UPDATE audit SET detail = '{}' , action = 'x' WHERE sequence = 3",
    ],
)
def test_a_forged_audit_row_is_found(bench, forgery: str) -> None:
    bench.fill(5)
    bench.store.database.write(lambda c: c.exec_driver_sql(forgery) and None)
    assert bench.store.database.read(audit.verify).first_broken == 3


def test_fifty_clients_never_hold_one_item_twice(bench) -> None:
    bench.fill(100)
    held: list[bytes] = []
    lock = threading.Lock()

    def work(expert_id: int) -> None:
        for _ in range(2):
            taken = lease(bench, expert_id, 1)
            with lock:
                held.extend(entry.item_id for entry in taken)
            for entry in taken:
                decide(bench, expert_id, entry.item_id)

    threads = [threading.Thread(target=work, args=(expert,)) for expert in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == len(set(held)) == 100
    assert bench.store.expert_label_count(CAMPAIGN_ID) == 100


# Shrinking a case over a real file takes longer than reading it.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)

slots = st.lists(
    st.builds(
        Slot,
        slot_id=st.integers(1, 200),
        subject_id=st.sampled_from([bytes([n]) for n in range(6)]),
        state=st.sampled_from(list(SlotState)),
        priority=st.integers(0, 3),
        reserved_for=st.sampled_from([None, None, 1, 2]),
        expert_id=st.sampled_from([None, 1, 2, 3]),
        lease_until=st.sampled_from([0.0, 50.0, 150.0]),
    ),
    max_size=25,
    unique_by=lambda s: s.slot_id,
)


@given(slots, st.integers(1, 3), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_choosing_slots_is_exclusive_for_any_state(pool, expert_id: int, count: int) -> None:
    chosen = [
        s
        for s in pool
        if s.slot_id in choose_slots(pool, expert_id=expert_id, count=count, now=100.0)
    ]
    assert len(chosen) <= count
    assert all(is_free(s, now=100.0) for s in chosen)
    assert all(s.reserved_for in (None, expert_id) for s in chosen)
    open_subjects = [s.subject_id for s in chosen if s.reserved_for is None]
    assert len(open_subjects) == len(set(open_subjects))
    theirs = {s.subject_id for s in pool if s.expert_id == expert_id and is_taken(s, now=100.0)}
    assert not theirs & set(open_subjects)


def _leased_by_the_store(store: LabelStore, pool: list[Slot], count: int) -> set[int]:
    def work(connection):
        connection.execute(slot.delete())
        for entry in pool:
            leased = entry.state is SlotState.LEASED
            connection.execute(
                slot.insert().values(
                    slot_id=entry.slot_id,
                    item_number=entry.slot_id,
                    campaign_id=CAMPAIGN_ID,
                    subject_id=entry.subject_id,
                    purpose="work",
                    state=entry.state.value,
                    priority=entry.priority,
                    reserved_for=entry.reserved_for,
                    expert_id=entry.expert_id,
                    lease_until=entry.lease_until if leased else None,
                )
            )
        queue.lease(connection, queue.LeaseRequest(1, CAMPAIGN_ID, count, 100.0, 700.0))
        mine = select(slot.c.slot_id).where(slot.c.state == 1, slot.c.expert_id == 1)
        return set(connection.execute(mine).scalars())

    return store.database.write(work)


def _as_stored(entry: Slot) -> Slot:
    holder = None if entry.state is SlotState.OPEN else entry.expert_id or 9
    return replace(entry, expert_id=holder)


def test_the_stores_leases_follow_the_pure_rule(store) -> None:
    @given(slots)
    @settings(max_examples=15, deadline=None, phases=NO_SHRINKING)
    def check(drawn: list[Slot]) -> None:
        pool = [_as_stored(entry) for entry in drawn]
        held = {
            s.slot_id
            for s in pool
            if s.state is SlotState.LEASED and s.lease_until > 100.0 and s.expert_id == 1
        }
        expected = set(choose_slots(pool, expert_id=1, count=4, now=100.0))
        assert _leased_by_the_store(store, pool, len(held) + 4) == held | expected

    check()


def test_classes_of_the_bench_fit_its_probabilities() -> None:
    assert len(new_item(0).probabilities) == len(CLASSES)
