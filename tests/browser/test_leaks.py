"""A leak is reported by keyboard, and the site lead deals with it."""

from __future__ import annotations

import pytest
from browser_bench import settle
from playwright.sync_api import expect
from portal_bench import new_item

from review_portal.core.model import MaskView, Role
from review_portal.store import leak_terms

pytestmark = pytest.mark.browser

RULES = """() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })
  .then((r) => r.violations.map((v) => `${v.id}: ${v.nodes[0].html}`))"""
TEXTS = (
    "Quillon wants a new card and a letter that says when it comes, please",
    "the branch was closed all day, said Quillon, who had come by train for it",
    "how do I close my account, and what happens to the money that is in it?",
)


def terms_of(bench) -> list[str]:
    return list(bench.store.database.read(lambda c: leak_terms.words(c, bench.store.keys)))


def test_a_leak_is_reported_by_keyboard_and_seen_by_the_site_lead(
    bench, server, login, watch, axe
) -> None:
    mask = MaskView("perimeter-masking-1", "strict", True, ())
    made = [new_item(n, content=text.encode(), mask=mask) for n, text in enumerate(TEXTS)]
    bench.receive(*made)
    server.add("ada")
    server.add("lea", Role.SITE_LEAD)
    page = login("ada")
    while "Quillon" not in page.inner_text("#item"):
        page.keyboard.press("s")
    reported = page.get_attribute("#desk", "data-item")
    page.keyboard.press("f")
    page.wait_for_selector("#flag-box[open]")
    page.evaluate(axe)
    assert page.evaluate(RULES) == []
    page.get_by_label("Words that should have been masked").focus()
    page.keyboard.type("Quill")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Name whole words")
    assert page.get_attribute("#desk", "data-item") == reported
    page.keyboard.type("on")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The words are gone from all items")
    settle(lambda: page.get_attribute("#desk", "data-item") not in {reported, ""})
    assert terms_of(bench) == ["Quillon"]
    page.reload()
    page.wait_for_selector("[data-ready]")
    assert "Quillon" not in page.inner_text("#item")

    lead = login("lea", "/site")
    expect(lead.get_by_role("heading", name="Reported leaks, not seen yet: 1")).to_be_visible()
    lead.get_by_role("button", name="Seen").click()
    expect(lead.get_by_role("heading", name="Reported leaks")).to_have_count(0)
    lead.get_by_role("link", name="Words that are always masked").click()
    lead.evaluate(axe)
    assert lead.evaluate(RULES) == []
    lead.get_by_role("button", name="Remove: Quillon").click()
    expect(lead.get_by_text("No words so far.")).to_be_visible()
    assert terms_of(bench) == []
    # The refused word answers 409, which a browser writes to its console by itself.
    assert [text for text in watch.complaints if "409" not in text] == []
    assert watch.foreign == []


def test_selected_words_stand_in_the_form_already(bench, server, login) -> None:
    bench.fill(1)
    server.add("ada")
    page = login("ada")
    page.evaluate(
        """() => {
          const words = document.querySelector('#item .text').firstChild;
          document.getSelection().setBaseAndExtent(words, 3, words, 7);
        }"""
    )
    page.keyboard.press("f")
    expect(page.get_by_label("Words that should have been masked")).to_have_value("card")
