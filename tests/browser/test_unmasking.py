"""An expert asks what a placeholder stands for, the site lead allows it, the words show once."""

from __future__ import annotations

import pytest
from browser_bench import listen, settle
from perimeter.v1 import item_pb2
from playwright.sync_api import expect

from review_portal import unmask_intake
from review_portal.core.model import Role

pytestmark = pytest.mark.browser

RULES = """() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })
  .then((r) => r.violations.map((v) => `${v.id}: ${v.nodes[0].html}`))"""
WORDS = "Zora Quill"


def device_answers(server, clock) -> None:
    """What the device does at its next question: it finds the viewing and sends the words."""
    store = server.portal.store
    settle(lambda: bool(unmask_intake.waiting(store, "test", clock())))
    (due,) = unmask_intake.waiting(store, "test", clock())
    request = item_pb2.AnswerUnmaskingRequest(
        unmasking_id=due.unmasking_id,
        answer=item_pb2.UNMASKING_ANSWER_SHOWN,
        words=[WORDS],
        device_record=bytes(32),
    )
    desk = unmask_intake.AnswerDesk(store, server.portal.words, "test", clock())
    assert unmask_intake.take(desk, request) is True


def test_a_placeholder_is_asked_about_allowed_and_seen_once(
    bench, server, login, watch, axe, clock
) -> None:
    bench.fill(1)
    server.add("ada")
    server.add("lea", Role.SITE_LEAD)

    lead = login("lea", "/unmask")
    lead.evaluate(axe)
    assert lead.evaluate(RULES) == []
    lead.get_by_role("button", name="Switch on for tickets").click()
    expect(lead.get_by_role("button", name="Switch off for tickets")).to_be_visible()

    desk = login("ada")
    with desk.expect_popup() as opened:
        desk.get_by_role("link", name="What does it stand for?").click()
    page = opened.value
    listen(page, server, watch)
    page.evaluate(axe)
    assert page.evaluate(RULES) == []
    page.get_by_label("Why must you know?").fill("two desks come into question for this card")
    page.get_by_role("button", name="Ask the site lead").click()
    expect(page.get_by_text("Waits for the site lead")).to_be_visible()
    expect(page.get_by_role("button", name="Show <PERSON_1> once")).to_have_count(0)

    lead.reload()
    lead.evaluate(axe)
    assert lead.evaluate(RULES) == []
    lead.get_by_role("button", name="Allow one viewing of <PERSON_1> for ada").click()
    expect(lead.get_by_text("Allowed")).to_be_visible()

    page.reload()
    page.get_by_role("button", name="Show <PERSON_1> once").click()
    device_answers(server, clock)
    expect(page.get_by_text(WORDS)).to_be_visible()
    page.evaluate(axe)
    assert page.evaluate(RULES) == []
    page.reload()
    expect(page.get_by_text("Shown", exact=True)).to_be_visible()
    assert WORDS not in page.content()
    assert watch.foreign == []
    assert watch.complaints == []


def test_the_page_speaks_german_and_says_that_the_raw_text_is_gone(
    bench, server, login, clock
) -> None:
    bench.set(unmasking=True)
    bench.fill(1)
    server.add("ada")
    server.add("lea", Role.SITE_LEAD)
    desk = login("ada", locale="de-DE")
    with desk.expect_popup() as opened:
        desk.get_by_role("link", name="Wofür steht er?").click()
    page = opened.value
    page.get_by_label("Warum müssen Sie es wissen?").fill("zwei Stellen kommen dafür infrage")
    page.get_by_role("button", name="Standortleitung fragen").click()
    expect(page.get_by_text("Wartet auf die Standortleitung")).to_be_visible()
    lead = login("lea", "/unmask", locale="de-DE")
    lead.get_by_role("button", name="<PERSON_1> einmal zeigen lassen für ada").click()
    expect(lead.get_by_text("Erlaubt")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="<PERSON_1> einmal zeigen").click()
    store = server.portal.store
    settle(lambda: bool(unmask_intake.waiting(store, "test", clock())))
    (due,) = unmask_intake.waiting(store, "test", clock())
    request = item_pb2.AnswerUnmaskingRequest(
        unmasking_id=due.unmasking_id,
        answer=item_pb2.UNMASKING_ANSWER_GONE,
        device_record=bytes(32),
    )
    desk = unmask_intake.AnswerDesk(store, server.portal.words, "test", clock())
    assert unmask_intake.take(desk, request) is True
    expect(page.get_by_text("Der Rohtext ist nicht mehr auf dem Gerät")).to_be_visible()
