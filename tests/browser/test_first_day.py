"""What an expert meets on the first day: nothing to do, a session that ended, a wrong address."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from portal_bench import CAMPAIGN_ID, PASSWORD, new_campaign, new_item
from test_label_store import labels

pytestmark = pytest.mark.browser

SELECT = """(words) => {
  const box = document.querySelector('#item .text');
  const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.data.indexOf(words);
    if (at >= 0) document.getSelection().setBaseAndExtent(node, at, node, at + words.length);
  }
}"""


def test_the_first_page_is_a_campaign_with_work_and_tabs_say_where_there_is_some(
    bench, server, login
) -> None:
    server.add("ada")
    early = new_campaign(campaign_id=bytes(16), name="archive")
    bench.store.put_campaign(early, bench.clock())
    bench.fill(3)
    page = login("ada")
    expect(page.locator(".tabs a[aria-current]")).to_have_text("tickets 3")
    page.goto(f"{server.url}/label?campaign=archive")
    page.wait_for_selector("text=Nothing to label right now")
    expect(page.get_by_role("heading", name="Your answer")).to_be_hidden()


def test_what_is_left_with_colleagues_is_called_so(bench, server, login) -> None:
    server.add("ada")
    server.add("eve")
    bench.fill(2)
    login("eve")
    page = login("ada")
    page.wait_for_selector("text=What is left is with colleagues")


def test_a_session_that_ends_in_the_middle_keeps_decisions_and_says_where_to_go(
    bench, server, login
) -> None:
    server.add("ada")
    bench.fill(3)
    page = login("ada")
    forget = "DELETE FROM session"
    bench.store.database.write(lambda c: c.exec_driver_sql(forget) and None)
    page.keyboard.press("2")
    link = page.locator("#sync").get_by_role("link", name="Log in")
    expect(page.locator("#sync")).to_contain_text("1 kept safe in this browser")
    link.click()
    page.fill("#username", "ada")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url(re.compile("/label"))
    expect(page.locator("#sync")).to_have_text("All saved")
    assert [entry.class_index for entry in bench.store.examples(CAMPAIGN_ID)] == [1]


def test_nothing_to_mark_is_one_key_and_undo_brings_marks_back(bench, server, login) -> None:
    server.add("ada")
    bench.set(answer_mode="spans")
    texts = (b"the card is lost", b"the card is lost")
    bench.receive(*(new_item(n, content=text) for n, text in enumerate(texts)))
    page = login("ada")
    expect(page.get_by_role("button", name="Nothing to mark")).to_be_visible()
    page.evaluate(SELECT, "card")
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="Submit")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("card")
    page.keyboard.press("u")
    expect(page.locator("#facts")).to_contain_text("card: card")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("nothing to mark")
    expect(page.locator("#sync")).to_have_text("All saved")
    assert sorted(row.answer_key for row in labels(bench)) == ["4-8:0", "none"]


def test_an_address_that_leads_nowhere_says_so_in_words(server, login) -> None:
    server.add("ada")
    page = login("ada")
    page.goto(f"{server.url}/nowhere")
    expect(page.get_by_role("alert")).to_have_text("There is no such page.")
