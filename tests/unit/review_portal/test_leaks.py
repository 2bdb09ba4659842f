"""Reported leaks: the words go everywhere, look-alikes wait, later items lose them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tomllib

import pytest
from leak_bench import content_of, plain_item, report
from portal_bench import CAMPAIGN_ID, new_campaign, new_item
from sqlalchemy import select
from test_label_store import decide, labels, lease, undo

from review_portal.core.leaks import clean, occurrences
from review_portal.core.model import Answer, Decision, Kind, Refusal, Role
from review_portal.label_store import LabelStore
from review_portal.store import (
    annotations,
    audit,
    items,
    leak_terms,
    leaks,
    notes,
    site_view,
)
from review_portal.store.bulk_import import ImportedItem
from review_portal.store.campaigns import find_campaign, settings_of
from review_portal.store.tables import item, leak_term, slot
from review_portal.store.tables import label as label_rows

OTHER_ID = hashlib.sha256(b"another campaign").digest()[:16]
LEAK = "please call Zora Quill about my card number {} and the letter that I sent last week, thanks"


def facts_of(bench, item_id: bytes):
    query = select(item.c.state, item.c.mask_spans).where(item.c.item_id == item_id)
    return bench.store.database.read(lambda c: c.execute(query).one())


def events(bench) -> list[tuple[str, str]]:
    query = "SELECT action, actor || subject || detail FROM audit ORDER BY sequence"
    return bench.store.database.read(lambda c: [tuple(r) for r in c.exec_driver_sql(query)])


def terms(bench) -> list[str]:
    return list(bench.store.database.read(lambda c: leak_terms.words(c, bench.store.keys)))


def test_the_words_go_from_every_item_of_every_campaign_and_state(bench, server) -> None:
    ada = server.add("ada")
    bench.store.put_campaign(new_campaign(campaign_id=OTHER_ID, name="letters"), bench.clock())
    here = plain_item(
        1, "Ask Zora Quill. <PERSON_1> knows ZORA  QUILL", spans=((16, 26, "PERSON"),)
    )
    done = plain_item(2, "it is about zora\nquill and nobody else")
    free = plain_item(3, "Zora Quilling is somebody else, and so is Azora Quill")
    bench.receive(here, done, free)
    lease(bench, ada)
    decide(bench, ada, done.item_id, 1)

    def elsewhere(c):
        campaign = find_campaign(c, OTHER_ID)
        intake = items.Intake(campaign, settings_of(c, OTHER_ID), bench.store.keys, bench.clock())
        new = plain_item(4, "Zora Quill again", campaign_id=OTHER_ID)
        items.receive(c, intake, new, "agent:test")
        return new.item_id

    far = bench.store.database.write(elsewhere)
    report(bench, ada, here.item_id, " Zora Quill ")
    assert content_of(bench, here.item_id) == "Ask <REPORTED_1>. <PERSON_1> knows <REPORTED_1>"
    assert json.loads(facts_of(bench, here.item_id).mask_spans) == [
        [4, 16, "REPORTED"], [18, 28, "PERSON"], [35, 47, "REPORTED"],
    ]  # fmt: skip
    assert content_of(bench, done.item_id) == "it is about <REPORTED_1> and nobody else"
    assert content_of(bench, far) == "<REPORTED_1> again"
    assert content_of(bench, free.item_id) == free.content.decode()
    assert [entry.class_index for entry in labels(bench)] == [1]


def test_records_lose_the_words_in_their_text_columns_and_nowhere_else(bench) -> None:
    record = {"Zora": "Zora, then <REPORTED_2>", "note": "zora", "number": 7, "none": None}
    done = clean(Kind.RECORD, json.dumps(record).encode(), (), ["Zora"])
    assert done is not None
    assert json.loads(done.content) == {
        "Zora": "<REPORTED_3>, then <REPORTED_2>",
        "note": "<REPORTED_3>",
        "number": 7,
        "none": None,
    }
    assert clean(Kind.IMAGE, b"Zora", (), ["Zora"]) is None


def test_letters_that_fold_into_several_keep_the_places_of_the_text() -> None:
    assert occurrences("ß İ Straße STRASSE strasses", "strasse") == [(4, 10), (11, 18)]
    assert occurrences("a+49 170 and +49 170", "+49 170") == [(1, 8), (13, 20)]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("Al", "LEAK_SHORT"),
        ("  a ", "LEAK_SHORT"),
        ("x" * 201, "LEAK_LONG"),
        ("<PERSON_1> Quill", "LEAK_PLACEHOLDER"),
        ("PERSON_1> Quill", "LEAK_PLACEHOLDER"),
        ("Qui", "LEAK_PART"),
        ("Somebody Else", "LEAK_ABSENT"),
    ],
)
def test_words_that_cannot_be_masked_are_refused_and_nothing_changes(
    bench, server, words: str, reason: str
) -> None:
    ada = server.add("ada")
    new = plain_item(1, "ask Al and <PERSON_1> Quill", spans=((11, 21, "PERSON"),))
    bench.receive(new)
    lease(bench, ada)
    before = events(bench)
    refused = report(bench, ada, new.item_id, words)
    assert isinstance(refused, Refusal)
    assert (refused.reason, bool(refused.message)) == (reason, True)
    assert content_of(bench, new.item_id) == new.content.decode()
    assert (events(bench), terms(bench)) == (before, [])


def test_nobody_reports_an_item_that_they_were_not_given(bench, server) -> None:
    bench.receive(plain_item(1, LEAK))
    refused = report(bench, server.add("eve"), new_item(1).item_id, "Zora Quill")
    assert isinstance(refused, Refusal)
    assert refused.reason == "ITEM_UNKNOWN"


def test_open_look_alikes_wait_for_the_site_lead_and_come_back_once(bench, server) -> None:
    ada, eve = server.add("ada"), server.add("eve")
    bench.set(double_ratio=1.0)
    alike = [plain_item(number, LEAK.format(number)) for number in range(4)]
    other = plain_item(9, "where is the next branch of the bank, and when does it open?")
    bench.receive(*alike, other)
    lease(bench, ada)
    lease(bench, eve)
    decide(bench, ada, alike[3].item_id, 0, client_token="answer-before")
    decide(bench, eve, alike[2].item_id, 0)
    decide(bench, ada, alike[2].item_id, 0)
    report(bench, ada, alike[0].item_id, "Zora Quill")
    states = [facts_of(bench, entry.item_id).state for entry in (*alike, other)]
    assert states == ["HELD", "HELD", "LABELED", "HELD", "OPEN"]
    assert {q.item_id for q in lease(bench, eve)} == {other.item_id}
    kept = undo(bench, ada, of_token="answer-before")
    assert isinstance(kept, Refusal)
    assert kept.reason == "ITEM_HELD"
    assert bench.store.database.read(leaks.open_reports)[0].held_count == 3

    def approve(c):
        return site_view.release_held(c, CAMPAIGN_ID, actor="person:1", now=bench.clock())

    assert bench.store.database.write(approve) == 3
    # What ada answered before is not asked again: one open slot is left of two.
    query = (
        select(slot.c.state)
        .join(item, item.c.item_number == slot.c.item_number)
        .where(item.c.item_id == alike[3].item_id)
    )
    slots = bench.store.database.read(lambda c: sorted(c.execute(query).scalars()))
    assert slots == [0, 2, 3]


def test_later_deliveries_and_imports_lose_the_words_before_they_are_stored(bench, server) -> None:
    ada = server.add("ada")
    bench.receive(plain_item(1, LEAK))
    lease(bench, ada)
    report(bench, ada, new_item(1).item_id, "Zora Quill")
    bench.receive(plain_item(2, "zora quill wrote again"))
    assert content_of(bench, new_item(2).item_id) == "<REPORTED_1> wrote again"
    assert json.loads(facts_of(bench, new_item(2).item_id).mask_spans) == [[0, 12, "REPORTED"]]
    imported = ImportedItem(plain_item(3, "ZORA QUILL lost a card", grant=None), "18-22:0")
    campaign = bench.store.campaign("tickets")
    settings = bench.store.database.read(lambda c: settings_of(c, CAMPAIGN_ID))
    intake = items.Intake(campaign, settings, bench.store.keys, bench.clock())
    assert bench.store.import_items(intake, [imported]) == 1
    assert content_of(bench, new_item(3).item_id) == "<REPORTED_1> lost a card"
    keys = bench.store.database.read(
        lambda c: list(c.execute(select(label_rows.c.answer_key)).scalars())
    )
    assert keys == ["20-24:0"]


def test_a_removed_term_comes_through_again_and_a_known_one_is_not_listed_twice(
    bench, server
) -> None:
    ada = server.add("ada")
    bench.receive(plain_item(1, LEAK), plain_item(2, "a word, a Word, and Zora Quill"))
    lease(bench, ada)
    report(bench, ada, new_item(2).item_id, "Word")
    (only,) = bench.store.database.read(lambda c: leak_terms.list_terms(c, bench.store.keys))

    def again(c):
        return leak_terms.put(c, bench.store.keys, "WORD", bench.clock())

    assert bench.store.database.write(again) == only.term_id

    def remove(c):
        return leak_terms.remove(c, only.term_id, actor="person:1", now=bench.clock())

    assert bench.store.database.write(remove)
    assert not bench.store.database.write(remove)
    bench.receive(plain_item(3, "my word"))
    assert content_of(bench, new_item(3).item_id) == "my word"
    assert (
        content_of(bench, new_item(2).item_id) == "a <REPORTED_1>, a <REPORTED_1>, and Zora Quill"
    )


def test_marked_spans_go_on_marking_the_same_words(bench, server) -> None:
    ada = server.add("ada")
    new = plain_item(1, "Zora Quill lost a card")
    bench.receive(new)
    lease(bench, ada)
    decision = Decision(new.item_id, Answer(None, spans=((18, 22, 0),)), 1.0, "token-0001")
    desk = annotations.Desk(ada, bench.clock(), bench.store.keys)
    bench.store.database.write(lambda c: annotations.record(c, desk, decision))
    report(bench, ada, new.item_id, "Zora Quill")
    text = content_of(bench, new.item_id)
    assert [entry.answer_key for entry in labels(bench)] == ["20-24:0"]
    assert text[20:24] == "card"


def test_the_words_are_nowhere_in_clear_on_disk_nor_in_the_audit_log(bench, server) -> None:
    ada = server.add("ada")
    bench.receive(plain_item(1, LEAK))
    lease(bench, ada)
    number = report(bench, ada, new_item(1).item_id, "Zora Quill", note="it says zora quill")
    assert bench.store.database.write(lambda c: leaks.mark_seen(c, number, ada, bench.clock()))
    folder = bench.store.database.path.parent
    stored = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file()).lower()
    assert b"quill" not in stored
    actions = [action for action, _ in events(bench)]
    assert actions[-3:] == ["item.flagged", "leak.reported", "leak.seen"]
    assert bench.store.database.read(audit.verify).first_broken is None
    (note,) = bench.store.database.read(lambda c: notes.search(c, bench.store.keys, CAMPAIGN_ID))
    assert note.text == "it says <REPORTED_1>"


def test_a_report_that_fails_midway_changes_nothing(bench, server, monkeypatch) -> None:
    ada = server.add("ada")
    made = [plain_item(number, LEAK.format(number)) for number in range(6)]
    bench.receive(*made)
    lease(bench, ada)
    monkeypatch.setattr(leaks, "PAGE_ROWS", 2)
    monkeypatch.setattr(leaks, "_write", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        report(bench, ada, made[0].item_id, "Zora Quill")
    assert all("Zora Quill" in content_of(bench, entry.item_id) for entry in made)
    assert {facts_of(bench, entry.item_id).state for entry in made} == {"OPEN"}
    assert terms(bench) == []


def test_a_store_of_the_format_before_gets_the_new_tables_and_keeps_its_rows(
    bench, tmp_path
) -> None:
    bench.receive(plain_item(1, LEAK))
    bench.store.close()
    path = bench.store.database.path
    with sqlite3.connect(path) as old:
        old.execute("DROP TABLE leak_term")
        old.execute("DROP TABLE leak_report")
        old.execute("PRAGMA user_version = 1")
    old.close()
    with LabelStore.open(path.parent) as store:
        found = store.database.read(
            lambda c: (c.execute(select(leak_term)).all(), c.execute(select(item)).all())
        )
    assert (len(found[0]), len(found[1])) == (0, 1)


def test_the_site_lead_sees_the_alarm_the_list_and_its_export(server, bench) -> None:
    server.add("ada")
    server.add("lea", Role.SITE_LEAD)
    server.add("ann", Role.AUDITOR)
    bench.receive(plain_item(1, 'ask "Zora" Quill', spans=()))
    ada, lea, ann = server.login("ada"), server.login("lea"), server.login("ann")
    fetched = ada.get("/api/queue", params={"campaign": "tickets"}).json()["items"][0]
    body = {"item_id": fetched["item_id"], "reason_code": "other", "words": '"Zora" Quill'}
    assert ada.post("/api/flags", json=body).status_code == 422
    body["reason_code"] = "personal_information"
    absent = ada.post("/api/flags", json={**body, "words": "Nobody"})
    assert (absent.status_code, absent.json()["reason"]) == (409, "LEAK_ABSENT")
    assert ada.post("/api/flags", json=body).json()["report_id"] == 1
    form = {"csrf_token": lea.headers["X-CSRF-Token"]}
    assert "Reported leaks, not seen yet: 1" in ann.get("/site").text
    assert "Zora" not in ann.get("/site").text + lea.get("/site").text
    assert "items changed: 1" in lea.get("/site").text
    assert "&#34;Zora&#34; Quill" in lea.get("/site/leaks").text
    exported = tomllib.loads(lea.get("/site/leaks/export").text)
    assert exported == {"deny": ['"Zora" Quill']}
    assert lea.post("/site/leaks/seen", data={**form, "report_id": 1}).status_code == 303
    assert "not seen yet" not in lea.get("/site").text
    bare = lea.build_request("POST", "/site/leaks/remove", data={"term_id": "00" * 16})
    del bare.headers["X-CSRF-Token"]
    assert lea.send(bare).json()["reason"] == "CSRF"
    (term,) = bench.store.database.read(lambda c: leak_terms.list_terms(c, bench.store.keys))
    done = lea.post("/site/leaks/remove", data={**form, "term_id": term.term_id.hex()})
    assert (done.status_code, terms(bench)) == (303, [])
    known = [action for action, _ in events(bench) if action.startswith("leak.")]
    assert known == [
        "leak.reported", "leak.list_viewed", "leak.list_exported", "leak.seen", "leak.term_removed",
    ]  # fmt: skip
    assert "Zora" not in str(events(bench))
