"""Content of settled items has an age limit; labels, outcomes and the audit log stay."""

from __future__ import annotations

import json

import pytest
from portal_bench import CAMPAIGN_ID, new_campaign, new_item
from test_label_store import decide, labels, lease

from review_portal.__main__ import main
from review_portal.errors import KeyMissing
from review_portal.label_store import LabelStore
from review_portal.retention import PAUSE_SECONDS, SECONDS_PER_DAY, Keeper
from review_portal.store import audit, flags, retention, unmask_asking, unmaskings
from review_portal.store.exemplars import exemplars
from review_portal.store.people import NewPerson, Role, add_person, find_person

DAYS = 30


def count(bench, table: str) -> int:
    return bench.store.database.read(
        lambda c: c.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
    )


def add_expert(bench) -> int:
    new = NewPerson("ada", "Ada", Role.EXPERT, "no password")
    return bench.store.database.write(lambda c: add_person(c, new, bench.clock()))


@pytest.fixture
def aged(bench, clock):
    """Four items: one answered and noted long ago, one answered now, one open, one gold."""
    ada = add_expert(bench)
    bench.set(unmasking=True)
    made = bench.fill(4)
    lease(bench, ada)
    decide(bench, ada, made[0].item_id, 1, note="she says why, by name")
    bench.store.database.write(
        lambda c: c.exec_driver_sql(
            "UPDATE item SET is_gold = 1, state = 'LABELED' WHERE item_number = 4"
        )
    )
    flag = flags.NewFlag(made[0].item_id, ada, "other", "odd")
    bench.store.database.write(lambda c: flags.raise_flag(c, bench.store.keys, flag, clock()))
    asker = unmask_asking.Asker(
        bench.store.database.read(lambda c: find_person(c, ada)), ("perimeter-masking-1",), clock()
    )
    question = unmask_asking.Question(
        made[0].item_id, "<PERSON_1>", "decision", "I know somebody of this name"
    )
    asked = bench.store.database.write(
        lambda c: unmask_asking.ask(c, bench.store.keys, asker, question)
    )
    assert isinstance(asked, bytes)
    clock.now += (DAYS + 1) * SECONDS_PER_DAY
    lease(bench, ada)
    decide(bench, ada, made[1].item_id, 2)
    return ada, made


def test_old_content_goes_with_its_notes_and_everything_else_stays(bench, aged, clock) -> None:
    ada, made = aged
    before = labels(bench)
    assert Keeper(bench.store, DAYS).turn(clock()) == 1
    assert count(bench, "item_content") == 3
    assert labels(bench) == before
    assert len(before) == 2
    assert count(bench, "note") == 0
    listed = bench.store.database.read(lambda c: unmaskings.list_all(c, bench.store.keys, clock()))
    assert [entry.note for entry in listed] == [""]
    found = [item.item_id for item in bench.store.examples(CAMPAIGN_ID)]
    assert found == [made[1].item_id]
    shown = bench.store.database.write(
        lambda c: exemplars(c, CAMPAIGN_ID, reader_id=ada, now=clock())
    )
    assert made[0].item_id not in [entry.item_id for entry in shown]
    detail = bench.store.database.read(
        lambda c: c.exec_driver_sql(
            "SELECT actor, detail FROM audit WHERE action = 'retention.removed'"
        ).one()
    )
    limit = int(clock() - DAYS * SECONDS_PER_DAY)
    assert (detail.actor, json.loads(detail.detail)) == ("clock", {"items": 1, "before": limit})
    assert bench.store.database.read(audit.verify).first_broken is None


def test_what_was_removed_is_overwritten_in_the_file_and_its_log(bench, aged, clock) -> None:
    _, made = aged
    sealed = bench.store.database.read(
        lambda c: c.exec_driver_sql("SELECT sealed FROM item_content ORDER BY 1").scalars().all()
    )
    kept = Keeper(bench.store, DAYS)
    kept.turn(clock())
    left = bench.store.database.read(
        lambda c: c.exec_driver_sql("SELECT sealed FROM item_content").scalars().all()
    )
    (gone,) = set(sealed) - set(left)
    folder = bench.store.database.path.parent
    bytes_now = b"".join(p.read_bytes() for p in folder.glob("labels.db*"))
    assert left[0] in bytes_now
    assert gone not in bytes_now
    assert made


def test_an_item_that_somebody_holds_keeps_its_content(bench, aged, clock) -> None:
    bench.store.database.write(
        lambda c: c.exec_driver_sql("UPDATE slot SET state = 1 WHERE item_number = 1")
    )
    assert Keeper(bench.store, DAYS).turn(clock()) == 0


def test_by_default_nothing_goes_and_an_idle_limit_looks_once_an_hour(bench, aged, clock) -> None:
    assert Keeper(bench.store, 0).turn(clock()) == 0
    kept = Keeper(bench.store, DAYS)
    assert kept.turn(clock()) == 1
    clock.now += (DAYS + 1) * SECONDS_PER_DAY
    kept._next_at = clock() + PAUSE_SECONDS
    assert kept.turn(clock() + PAUSE_SECONDS - 1) == 0
    assert kept.turn(clock() + PAUSE_SECONDS) == 1


def test_the_key_of_a_campaign_that_ended_goes_when_its_time_is_over(bench, clock) -> None:
    bench.receive(new_item(1))
    bench.store.put_campaign(new_campaign(state="COMPLETED"), clock())
    kept = Keeper(bench.store, DAYS)
    kept.remove(clock(), actor="clock")
    assert bench.store.keys.has(CAMPAIGN_ID)
    clock.now += (DAYS + 1) * SECONDS_PER_DAY
    kept.remove(clock(), actor="clock")
    assert not bench.store.keys.has(CAMPAIGN_ID)
    with pytest.raises(KeyMissing):
        bench.store.keys.unseal(CAMPAIGN_ID, b"row", b"")
    events = bench.store.database.read(
        lambda c: c.exec_driver_sql(
            "SELECT count(*) FROM audit WHERE action = 'campaign.shredded'"
        ).scalar_one()
    )
    kept.remove(clock(), actor="clock")
    assert events == 1


def test_the_command_says_what_goes_and_does_it_only_when_told(
    bench, aged, store: LabelStore, monkeypatch, capsys, clock
) -> None:
    folder = str(store.database.path.parent)
    monkeypatch.setattr("review_portal.commands.retention.time.time", clock)
    assert main(["retention", "--folder", folder]) == 1
    assert "no age limit" in capsys.readouterr().err
    given = ["retention", "--folder", folder, "--days", str(DAYS)]
    assert main(given) == 1
    assert "the content of 1 items" in capsys.readouterr().err
    assert main([*given, "--yes"]) == 0
    assert capsys.readouterr().out == "content of 1 items removed\n"
    assert bench.store.database.read(lambda c: retention.count_old(c, clock() - 1)) == 0
