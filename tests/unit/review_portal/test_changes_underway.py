"""What changes while an expert works: classes, texts, networks that lose a reply."""

from __future__ import annotations

import pytest
from leak_bench import content_of, plain_item, report
from portal_bench import CAMPAIGN_ID, CLASSES, fresh_token, new_campaign, new_item
from test_label_store import decide, examples, labels, lease, outcomes, undo

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Answer, Role
from review_portal.store import leaks, notes, people

SPAN_TEXT = "Zora Quill owes the bank money"


def new_classes(bench, *classes: str) -> None:
    bench.store.put_campaign(new_campaign(schema=LabelSchema(classes, version=2)), bench.clock())


@pytest.fixture
def ada(bench) -> int:
    """Notes and alarms name who wrote them."""
    new = people.NewPerson("ada", "Ada", Role.EXPERT, "x")
    return bench.store.database.write(lambda c: people.add_person(c, new, 0.0))


def made_digest(held, made) -> bytes:
    return next(entry.content_sha256 for entry in held if entry.item_id == made.item_id)


def case_notes(bench) -> list[str]:
    found = bench.store.database.read(lambda c: notes.search(c, bench.store.keys, CAMPAIGN_ID))
    return [entry.text for entry in found]


def test_suggestions_of_items_that_wait_follow_the_classes(bench) -> None:
    bench.fill(1)
    new_classes(bench, "loan", "house", "card")
    shown = lease(bench, 1)[0]
    assert shown.suggestion_index == 2
    assert shown.confidence == pytest.approx(0.7)


def test_a_suggestion_whose_class_went_is_not_shown(bench) -> None:
    bench.fill(1)
    new_classes(bench, "loan", "other")
    shown = lease(bench, 1)[0]
    assert shown.suggestion_index is None
    assert shown.confidence is None


def test_an_item_of_older_classes_gets_its_label_in_those_of_today(bench) -> None:
    made = bench.fill(1)[0]
    new_classes(bench, "loan", "other", "card")
    lease(bench, 1)
    decide(bench, 1, made.item_id, 2)
    assert [e.class_index for e in examples(bench)] == [2]
    assert [(row.schema_version, row.suggestion_index) for row in labels(bench)] == [(2, 2)]
    # The suggestion was "card" and so is the answer.
    assert outcomes(bench)[-1] == ("LABELED", 1, 3)


def test_a_decision_from_a_page_with_older_classes_means_what_its_expert_saw(bench) -> None:
    first, second, third = bench.fill(3)
    lease(bench, 1)
    new_classes(bench, "other", "card")
    decide(bench, 1, first.item_id, CLASSES.index("card"), schema_version=1)
    assert [e.class_index for e in examples(bench)] == [1]
    gone = decide(bench, 1, second.item_id, CLASSES.index("loan"), schema_version=1)
    assert gone.reason == "CLASS_GONE"
    assert decide(bench, 1, third.item_id, None, schema_version=1).stored == "stored"


def test_spans_from_a_page_that_shows_reported_words_lie_where_their_words_are_now(bench) -> None:
    made = plain_item(1, SPAN_TEXT)
    other = plain_item(2, "somebody owes nothing to anybody, and that is all there is to say here")
    bench.receive(made, other)
    bench.set(answer_mode="spans")
    shown = made_digest(lease(bench, 1), made)
    report(bench, 1, made.item_id, "Zora Quill")
    report(bench, 1, other.item_id, "owes")
    start = SPAN_TEXT.index("bank")
    marked = Answer(None, spans=((start, start + 4, 1),))
    # The reported item waits for the site lead; an answer to it is kept all the same.
    decide(bench, 1, made.item_id, marked, content_sha256=shown, held_before=True)
    (key,) = bench.store.database.read(
        lambda c: c.exec_driver_sql("SELECT answer_key FROM annotation").scalars().all()
    )
    now = content_of(bench, made.item_id)
    places = key.partition(":")[0].split("-")
    assert now[int(places[0]) : int(places[1])] == "bank"
    assert now.startswith("<REPORTED_1> <REPORTED_2> the bank")


def test_spans_in_a_text_that_nobody_knows_are_refused(bench) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    marked = Answer(None, spans=((0, 2, 1),))
    assert decide(bench, 1, made.item_id, marked, content_sha256=b"?").reason == "TEXT_CHANGED"


def test_nothing_to_mark_is_an_answer(bench) -> None:
    bench.set(answer_mode="spans", double_ratio=1.0)
    made = bench.fill(2)
    for expert in (1, 2):
        lease(bench, expert)
        decide(bench, expert, made[0].item_id, Answer(None, is_nothing=True))
    assert [row.answer_key for row in labels(bench)] == ["none"]
    decide(bench, 1, made[1].item_id, Answer(None, is_nothing=True))
    disputed = decide(bench, 2, made[1].item_id, Answer(None, spans=((0, 2, 1),)))
    assert disputed.item_state == "DISPUTED"


def test_an_empty_list_of_spans_is_an_answer_and_no_spans_at_all_an_abstention(
    bench, server
) -> None:
    server.add("ada")
    bench.set(answer_mode="spans")
    bench.fill(2)
    client = server.login("ada")
    for extra in ({"spans": []}, {}):
        item = client.get("/api/queue", params={"campaign": "tickets"}).json()["items"][0]
        body = {"item_id": item["item_id"], "client_token": fresh_token(), **extra}
        assert client.post("/api/annotations", json=body).status_code == 200
    states = bench.store.database.read(
        lambda c: c.exec_driver_sql("SELECT state FROM item ORDER BY state").scalars().all()
    )
    assert states == ["ABSTAINED", "LABELED"]


def test_a_flag_that_is_sent_again_after_a_lost_reply_is_one_flag(bench, server) -> None:
    server.add("ada")
    bench.fill(1)
    client = server.login("ada")
    item = client.get("/api/queue", params={"campaign": "tickets"}).json()["items"][0]
    body = {
        "item_id": item["item_id"], "reason_code": "other", "note": "torn page",
        "client_token": fresh_token(),
    }  # fmt: skip
    answers = [client.post("/api/flags", json=body).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert case_notes(bench) == ["torn page"]
    # A leak that is reported again is no second alarm, though the words are gone by then.
    leak = {**body, "reason_code": "personal_information", "client_token": fresh_token()}
    leak["words"] = "card"
    again = [client.post("/api/flags", json=leak) for _ in range(2)]
    assert [reply.status_code for reply in again] == [200, 200]
    assert again[0].json() == again[1].json()
    assert len(bench.store.database.read(leaks.open_reports)) == 1


def test_the_note_of_a_decision_goes_with_it(bench, ada) -> None:
    first, second = bench.fill(2)
    lease(bench, 1)
    decide(bench, 1, first.item_id, 0, note="fees are cards")
    bench.clock.now += 5
    decide(bench, 1, second.item_id, 1, note="late fees are loans")
    assert case_notes(bench) == ["late fees are loans", "fees are cards"]
    undo(bench, 1)
    assert case_notes(bench) == ["fees are cards"]
    # An age limit may remove the newest note, and its number is given again.
    bench.store.database.write(
        lambda c: c.exec_driver_sql("DELETE FROM note WHERE note_id = 2") and None
    )
    decide(bench, 1, second.item_id, 0, note="no, cards as well")
    assert case_notes(bench) == ["no, cards as well", "fees are cards"]


def test_one_report_takes_several_names_out(bench, ada) -> None:
    made = plain_item(1, "Zora Quill met Ada Lee and Zora")
    bench.receive(made, new_item(2, content=b"Ada Lee is here"))
    lease(bench, 1)
    refused = report(bench, 1, made.item_id, "Zora Quill\nNobody Else")
    assert refused.reason == "LEAK_ABSENT"
    report(bench, 1, made.item_id, "Zora Quill\nada lee\nZora")
    assert content_of(bench, made.item_id) == "<REPORTED_1> met <REPORTED_2> and <REPORTED_3>"
    assert content_of(bench, new_item(2).item_id) == "<REPORTED_1> is here"
    assert len(bench.store.database.read(leaks.open_reports)) == 1


def test_a_report_opens_only_what_its_survey_named_and_what_came_since(bench, monkeypatch) -> None:
    bench.receive(*(plain_item(n, f"letter {n} says nothing") for n in range(5)))
    made = plain_item(9, "please ask Zora Quill")
    bench.receive(made)
    lease(bench, 1)
    flag = leaks.flags.NewFlag(made.item_id, 1, "personal_information")
    database, keys = bench.store.database, bench.store.keys
    seen = leaks.survey(database, keys, flag, "Zora Quill")
    late = plain_item(10, "Zora Quill came later")
    bench.receive(late)
    opened: list[bytes] = []
    unseal = keys.unseal
    monkeypatch.setattr(
        type(keys), "unseal", lambda _, *place: opened.append(place[1]) or unseal(*place)
    )
    when = leaks.Moment(bench.clock(), seen)
    database.write(lambda c: leaks.report(c, keys, flag, "Zora Quill", when))
    monkeypatch.undo()
    assert {content_of(bench, i) for i in (made.item_id, late.item_id)} == {
        "please ask <REPORTED_1>", "<REPORTED_1> came later",
    }  # fmt: skip
    # Twice the reported item, once the later one.
    assert len([name for name in opened if name.startswith(b"item")]) == 3
