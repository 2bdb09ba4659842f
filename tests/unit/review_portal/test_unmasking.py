"""What a placeholder stands for: who may ask, who decides, what is kept. The device is left out."""

from __future__ import annotations

import doctest
import json

import pytest
from perimeter.v1 import item_pb2
from portal_bench import Authority, delivery, new_item
from test_intake import reason_of, stub_for
from test_label_store import lease

from review_portal.config import PortalConfig
from review_portal.core import unmasking as core
from review_portal.core.model import Kind, MaskView, Refusal, Role
from review_portal.core.unmasking import UnmaskState
from review_portal.egress.archive import EgressArchive
from review_portal.intake import IntakeDesk, start_intake
from review_portal.store import audit, unmask_asking, unmaskings
from review_portal.store.people import find_person
from review_portal.unmask_intake import check_answer
from review_portal.unmask_words import HeldWords

CURRENT = ("perimeter-masking-1",)
WHY = "the card's holder decides which desk it goes to"
FOREIGN = "perimeter://test/site/alder/agent/cam-2"


@pytest.fixture
def desk(bench, server, authority: Authority, tmp_path):
    """A portal with its intake, sharing one memory for words."""
    config = PortalConfig(folder=tmp_path / "portal", intake_host="127.0.0.1", intake_port=0)
    identity = authority.identity(tmp_path / "identity")
    archive = EgressArchive(config.folder)
    intake, port = start_intake(
        IntakeDesk(bench.store, config, identity, bench.clock, archive, server.portal.words)
    )
    bench.set(unmasking=True)
    yield f"127.0.0.1:{port}"
    intake.stop(None).wait()


@pytest.fixture
def held(bench, server, authority, desk) -> tuple[int, bytes]:
    """An expert who holds an item that a device delivered: person and item id."""
    report = item_pb2.MaskReport(
        policy_version=CURRENT[0], detector_digest=bytes(32), level="strict", verified=True,
        spans=[item_pb2.MaskedSpan(start=11, end=21, entity_type="PERSON")],
    )  # fmt: skip
    stub_for(authority, desk).DeliverItem(delivery(authority.grant(1), mask_report=report))
    ada = server.add("ada")
    server.add("lea", Role.SITE_LEAD)
    (item,) = lease(bench, ada)
    return ada, item.item_id


def person_of(bench, person_id: int):
    return bench.store.database.read(lambda c: find_person(c, person_id))


def ask(bench, person_id: int, item_id: bytes, placeholder: str = "<PERSON_1>", **changes):
    fields = {"reason_code": "decision", "note": WHY} | changes
    policies = fields.pop("policies", CURRENT)
    asker = unmask_asking.Asker(person_of(bench, person_id), policies, bench.clock())
    question = unmask_asking.Question(item_id, placeholder, **fields)
    return bench.store.database.write(
        lambda c: unmask_asking.ask(c, bench.store.keys, asker, question)
    )


def answer(unmasking_id: bytes, *words: str, **changes) -> item_pb2.AnswerUnmaskingRequest:
    fields = {
        "unmasking_id": unmasking_id, "answer": item_pb2.UNMASKING_ANSWER_SHOWN,
        "words": words, "device_record": bytes(32), **changes,
    }  # fmt: skip
    return item_pb2.AnswerUnmaskingRequest(**fields)


def events(bench) -> list[tuple[str, dict]]:
    rows = bench.store.database.read(
        lambda c: c.exec_driver_sql(
            "SELECT action, detail FROM audit WHERE action LIKE 'unmask.%' ORDER BY sequence"
        ).all()
    )
    return [(row.action, json.loads(row.detail)) for row in rows]


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(core).failed == 0


def test_one_viewing_from_the_question_to_the_words(
    bench, server, authority, desk, held, tmp_path
) -> None:
    _, item_id = held
    ada, lea = server.login("ada"), server.login("lea")
    agent = stub_for(authority, desk)
    form = {"item_id": item_id.hex(), "placeholder": "<PERSON_1>", "reason_code": "decision"}
    assert ada.post("/unmask/ask", data=form | {"note": WHY}).status_code == 303
    (asked,) = bench.store.database.read(
        lambda c: unmaskings.list_all(c, bench.store.keys, bench.clock())
    )
    number = asked.unmasking_id.hex()
    assert agent.ListUnmaskings(item_pb2.ListUnmaskingsRequest()).unmaskings == []
    assert ada.post(f"/api/unmaskings/{number}/open").json()["reason"] == "UNMASK_OVER"
    verdict = {"unmasking_id": number, "decision": "approve"}
    assert ada.post("/unmask/decide", data=verdict).status_code == 403
    assert WHY in lea.get("/unmask").text.replace("&#39;", "'")
    assert lea.post("/unmask/decide", data=verdict).status_code == 303
    assert agent.ListUnmaskings(item_pb2.ListUnmaskingsRequest()).unmaskings == []
    assert ada.post(f"/api/unmaskings/{number}/open").json() == {"state": "OPENED", "words": []}
    (due,) = agent.ListUnmaskings(item_pb2.ListUnmaskingsRequest()).unmaskings
    assert (due.placeholder, due.grant_id) == ("<PERSON_1>", authority.grant(1).grant_id)
    assert agent.AnswerUnmasking(answer(due.unmasking_id, "Zora Quill")).taken
    seen = ada.post(f"/api/unmaskings/{number}/view")
    assert seen.json() == {"state": "SHOWN", "words": ["Zora Quill"]}
    assert seen.headers["cache-control"] == "no-store"
    assert ada.post(f"/api/unmaskings/{number}/view").json() == {"state": "SHOWN", "words": []}
    assert [action for action, _ in events(bench)] == [
        "unmask.asked", "unmask.approved", "unmask.opened", "unmask.answered", "unmask.shown",
    ]  # fmt: skip
    assert bench.store.database.read(audit.verify).first_broken is None
    assert len(server.portal.words) == 0
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Quill" not in stored
    assert WHY.encode() not in stored


def test_a_question_without_a_good_reason_or_placeholder_is_refused(bench, held) -> None:
    for changes, reason in (
        ({"reason_code": "curious"}, "UNMASK_REASON"),
        ({"note": "  why not   "}, "UNMASK_NOTE"),
        ({"note": "x" * 501}, "UNMASK_NOTE"),
        ({"placeholder": "<PERSON_2>"}, "UNMASK_PLACEHOLDER"),
        ({"placeholder": "my card of"}, "UNMASK_PLACEHOLDER"),
        ({"policies": ("perimeter-masking-2",)}, "MASK_POLICY"),
    ):
        refused = ask(bench, *held, **changes)
        assert isinstance(refused, Refusal)
        assert refused.reason == reason
    assert events(bench) == []


def test_nobody_asks_about_an_item_of_somebody_else_or_where_it_is_switched_off(
    bench, server, held
) -> None:
    _, item_id = held
    assert ask(bench, server.add("eve"), item_id).reason == "ITEM_UNKNOWN"
    bench.set(unmasking=False)
    assert ask(bench, *held).reason == "UNMASK_OFF"


def test_words_that_the_portal_itself_replaced_are_not_on_offer() -> None:
    spans = ((0, 10, "PERSON"), (15, 27, "REPORTED"))
    text = "<PERSON_1> and <REPORTED_1>"
    assert core.placeholders(Kind.TEXT, text, spans) == ("<PERSON_1>",)
    assert core.placeholders(Kind.RECORD, text, spans) == ()


def test_an_item_that_no_device_delivered_has_nobody_to_ask(bench, server, desk) -> None:
    ada = server.add("ada")
    mask = MaskView(CURRENT[0], "strict", True, ((13, 23, "PERSON"),))
    made = new_item(7, grant=None, mask=mask)
    bench.receive(made)
    lease(bench, ada)
    # The bench hands items over as agent:test; an import has another actor.
    bench.store.database.write(
        lambda c: c.exec_driver_sql("UPDATE audit SET actor = 'command' WHERE action LIKE 'item.%'")
    )
    assert ask(bench, ada, made.item_id).reason == "UNMASK_NO_DEVICE"


def opened(bench, server, held) -> bytes:
    """A question that was allowed and is being looked at."""
    number = ask(bench, *held)
    lead = next(
        p for p in bench.store.database.read(_people) if p.role is Role.SITE_LEAD
    )  # fmt: skip
    write = bench.store.database.write
    now = bench.clock()
    assert write(lambda c: unmaskings.decide(c, number, lead, yes=True, now=now)) is None
    assert write(lambda c: unmaskings.open_viewing(c, number, held[0], now)) is None
    return number


def _people(connection):
    from review_portal.store.people import list_people

    return list_people(connection)


def test_a_site_lead_who_asked_as_an_expert_does_not_decide_on_it(bench, held) -> None:
    number = ask(bench, *held)
    bench.store.database.write(lambda c: c.exec_driver_sql("UPDATE person SET role = 'site_lead'"))
    self_made = person_of(bench, held[0])
    refused = bench.store.database.write(
        lambda c: unmaskings.decide(c, number, self_made, yes=True, now=bench.clock())
    )
    assert refused.reason == "UNMASK_SECOND_PERSON"


def test_only_the_device_that_delivered_the_item_is_asked_and_heard(
    bench, server, authority, desk, held
) -> None:
    number = opened(bench, server, held)
    other = stub_for(authority, desk, FOREIGN)
    assert other.ListUnmaskings(item_pb2.ListUnmaskingsRequest()).unmaskings == []
    assert not other.AnswerUnmasking(answer(number, "made up")).taken
    assert len(server.portal.words) == 0
    portal = stub_for(authority, desk, "perimeter://test/site/alder/portal/main")
    assert reason_of(lambda: portal.ListUnmaskings(item_pb2.ListUnmaskingsRequest())) == "IDENTITY"
    birch = stub_for(authority, desk, "perimeter://test/site/birch/agent/cam-1")
    assert reason_of(lambda: birch.AnswerUnmasking(answer(number, "x"))) == "SITE_FOREIGN"


def test_the_expert_is_told_why_there_are_no_words(bench, server, authority, desk, held) -> None:
    ada, agent = server.login("ada"), stub_for(authority, desk)
    for state in ("REFUSED", "GONE", "UNKNOWN"):
        number = opened(bench, server, held)
        assert agent.AnswerUnmasking(answer(number, answer=f"UNMASKING_ANSWER_{state}")).taken
        view = ada.post(f"/api/unmaskings/{number.hex()}/view").json()
        assert view == {"state": state, "words": []}
        assert events(bench)[-1][1] == {"answer": state.lower(), "device_record": "00" * 32}


def test_an_answer_that_comes_late_or_is_not_fetched_is_thrown_away(
    bench, server, authority, desk, held, clock
) -> None:
    agent = stub_for(authority, desk)
    late = opened(bench, server, held)
    clock.now += core.VIEWING_SECONDS
    assert not agent.AnswerUnmasking(answer(late, "Zora Quill")).taken
    unseen = opened(bench, server, held)
    assert agent.AnswerUnmasking(answer(unseen, "Zora Quill")).taken
    clock.now += core.VIEWING_SECONDS
    ada = server.login("ada")
    view = ada.post(f"/api/unmaskings/{unseen.hex()}/view").json()
    assert view == {"state": "EXPIRED", "words": []}
    assert len(server.portal.words) == 0


def test_words_do_not_outlive_the_process(bench, server, authority, desk, held) -> None:
    number = opened(bench, server, held)
    stub_for(authority, desk).AnswerUnmasking(answer(number, "Zora Quill"))
    server.portal.words.take(number, bench.clock())  # What a new process would find: nothing.
    view = server.login("ada").post(f"/api/unmaskings/{number.hex()}/view").json()
    assert view == {"state": "EXPIRED", "words": []}


def test_another_expert_sees_neither_state_nor_words(bench, server, authority, desk, held) -> None:
    number = opened(bench, server, held)
    stub_for(authority, desk).AnswerUnmasking(answer(number, "Zora Quill"))
    server.add("eve")
    eve = server.login("eve")
    for what in ("open", "view"):
        assert eve.post(f"/api/unmaskings/{number.hex()}/{what}").status_code in {404, 409}
    assert "PERSON_1" not in eve.get("/unmask").text
    assert len(server.portal.words) == 1


@pytest.mark.parametrize(
    "request_",
    [
        answer(b"short", "x"),
        answer(bytes(16), "x", device_record=b""),
        answer(bytes(16), "x", answer=0),
        answer(bytes(16)),
        answer(bytes(16), ""),
        answer(bytes(16), "x" * 1001),
        answer(bytes(16), *["x"] * 21),
        answer(bytes(16), "x", answer=item_pb2.UNMASKING_ANSWER_GONE),
    ],
)
def test_a_malformed_answer_is_refused_without_repeating_it(request_) -> None:
    refused = check_answer(request_)
    assert isinstance(refused, Refusal)
    assert refused.reason == "UNMASK_MALFORMED"


def test_held_words_are_taken_once_and_forgotten_in_time() -> None:
    words = HeldWords()
    words.put(b"a", ("Ann",), until=10.0, now=0.0)
    words.put(b"b", ("Bob",), until=5.0, now=0.0)
    words.drop_old(5.0)
    assert words.take(b"b", 5.0) is None
    assert words.take(b"a", 5.0) == ("Ann",)
    assert words.take(b"a", 5.0) is None
    assert "Ann" not in repr(words)


def test_only_the_site_lead_switches_questions_on(server, bench) -> None:
    from portal_bench import CAMPAIGN_ID

    from review_portal.store.campaigns import settings_of

    for name, role in (("ada", Role.EXPERT), ("oda", Role.AUDITOR), ("lea", Role.SITE_LEAD)):
        server.add(name, role)
        form = {"campaign": "tickets", "unmasking": "on"}
        status = server.login(name).post("/unmask/switch", data=form).status_code
        assert status == (303 if role is Role.SITE_LEAD else 403)
    assert bench.store.database.read(lambda c: settings_of(c, CAMPAIGN_ID)).unmasking


def test_what_is_over_is_over() -> None:
    assert core.state_at(UnmaskState.DECLINED, 0.0, 9.0) is UnmaskState.DECLINED
    for state in core.PASSING:
        assert core.state_at(state, 9.0, 9.0) is UnmaskState.EXPIRED
