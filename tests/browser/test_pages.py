"""The other pages in a real browser: adjudication, site lead, accessibility, privacy."""

from __future__ import annotations

import re

import pytest
from browser_bench import settle
from playwright.sync_api import expect
from portal_bench import CAMPAIGN_ID, PASSWORD, fresh_token, new_item
from test_label_store import decide, lease

from review_portal.core.model import Role
from review_portal.store import flags

pytestmark = pytest.mark.browser

PAGES = {
    "ada": ["/label", "/bulk", "/notes", "/account"],
    "max": ["/adjudicate", "/quality"],
    "lea": [
        "/site",
        "/site/leaks",
        "/quality",
        "/people",
        "/audit?verify=1",
        "/notes",
        "/egress?verify=1",
    ],
}


def crowd(bench, server) -> None:
    """People, answers that agree and differ, notes, flags, held items."""
    ada, eve = server.add("ada"), server.add("eve")
    server.add("max", Role.ADJUDICATOR)
    server.add("lea", Role.SITE_LEAD)
    bench.set(double_ratio=1.0)
    made = bench.fill(12)
    lease(bench, ada)
    lease(bench, eve)
    for place, entry in enumerate(made[:8]):
        decide(bench, ada, entry.item_id, 0 if place < 6 else 1, note="why: see page 3")
        decide(bench, eve, entry.item_id, 0 if place < 6 else 2)
    flag = flags.NewFlag(made[9].item_id, ada, "personal_information", "a street name")
    bench.store.database.write(lambda c: flags.raise_flag(c, bench.store.keys, flag, bench.clock()))
    bench.set(is_held=True)
    bench.receive(new_item(50))


def test_a_dispute_is_settled_on_the_adjudicators_page(bench, server, login) -> None:
    crowd(bench, server)
    page = login("max", "/adjudicate?campaign=tickets")
    assert page.locator("article.dispute").count() == 2
    assert "ada" not in page.inner_text("main")
    first = page.locator("article.dispute").first
    first.get_by_label("Decision").select_option(label="loan")
    first.get_by_label("Why?").fill("The loan is what they ask for.")
    first.get_by_role("button", name="Settle").click()
    expect(page.locator("article.dispute")).to_have_count(1)
    assert sorted(e.class_index for e in bench.store.examples(CAMPAIGN_ID)) == [0] * 6 + [1]


def test_look_alikes_are_approved_and_taken_back_together(bench, server, login) -> None:
    server.add("ada")
    text = "please change my address to house number {} in the same street as before, thank you"
    bench.receive(*[new_item(n, content=text.format(n).encode()) for n in range(4)])
    page = login("ada", "/bulk?campaign=tickets")
    page.get_by_role("button", name="Approve all 4").click()
    page.wait_for_selector("text=Approved together.")
    assert [e.class_index for e in bench.store.examples(CAMPAIGN_ID)] == [0] * 4
    page.get_by_role("button", name="Undo").click()
    page.wait_for_url(re.compile(r"/bulk\?campaign=tickets$"))
    assert list(bench.store.examples(CAMPAIGN_ID)) == []


def test_the_site_lead_holds_approves_and_declines(bench, server, login) -> None:
    crowd(bench, server)
    page = login("lea", "/site?campaign=tickets")
    page.get_by_role("button", name="Decline 1 held").click()
    page.wait_for_selector("text=declined")
    bench.receive(new_item(51))
    page.reload()
    page.get_by_role("button", name="Approve 1 held").click()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    page.get_by_role("button", name="Let new items flow").click()
    expect(page.get_by_role("button", name="Hold new items")).to_have_count(1)
    page.get_by_role("button", name="Take the item out").click()
    query = "SELECT count(*) FROM item WHERE state = 'DECLINED'"
    settle(lambda: bench.store.database.read(lambda c: c.exec_driver_sql(query).scalar_one()) == 2)


def test_wrong_passwords_lock_the_account_for_a_while(bench, server, browser, clock) -> None:
    server.add("ada")
    page = browser.new_context().new_page()

    def attempt(password: str) -> None:
        page.goto(f"{server.url}/login")
        page.fill("#username", "ada")
        page.fill("#password", password)
        with page.expect_navigation():
            page.press("#password", "Enter")

    for _ in range(10):
        attempt("wrong wrong wrong")
    attempt(PASSWORD)
    assert "locked for a while" in page.inner_text("[role=alert]")
    clock.now += 16 * 60
    attempt(PASSWORD)
    page.wait_for_url(re.compile("/label"))
    page.context.close()


def test_people_are_added_and_locked_out_by_the_site_lead(server, login, browser) -> None:
    server.add("lea", Role.SITE_LEAD)
    page = login("lea", "/people")
    page.get_by_label("User name").fill("eve")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Add").click()
    page.get_by_role("form", name="eve").get_by_label("Locked out").check()
    page.get_by_role("form", name="eve").get_by_role("button", name="Save").click()
    page.wait_for_selector("text=locked out")
    assert server.portal.access.log_in("eve", PASSWORD, address="x").reason == "LOGIN_WRONG"


def test_an_api_token_is_shown_once(server, login) -> None:
    server.add("ada")
    page = login("ada", "/account")
    page.get_by_label("What is the new token for?").fill("nightly export")
    page.get_by_role("button", name="Make a token").click()
    token = page.inner_text("code.token")
    client = server.client()
    client.headers["Authorization"] = f"Bearer {token}"
    assert client.get("/api/campaigns").status_code == 200
    page.goto(f"{server.url}/account")
    assert page.locator("code.token").count() == 0
    page.get_by_role("button", name="Revoke").click()
    page.wait_for_selector("text=revoked")
    assert client.get("/api/campaigns").status_code == 401


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("username", sorted(PAGES))
def test_no_page_breaks_a_rule_of_wcag_level_a_or_aa(
    bench, server, login, watch, axe, username: str, theme: str
) -> None:
    crowd(bench, server)
    page = login(username, PAGES[username][0], color_scheme=theme)
    for path in PAGES[username]:
        page.goto(server.url + path)
        page.wait_for_load_state("networkidle")
        if path == "/label":
            page.wait_for_selector("[data-ready]")
            page.keyboard.press("g")
            page.keyboard.press("n")
        page.evaluate(axe)
        found = page.evaluate(
            """() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })
                 .then((r) => r.violations.map((v) => `${v.id}: ${v.nodes[0].html}`))"""
        )
        assert found == [], f"{path} in {theme}"
    assert watch.foreign == []


def test_login_and_refusal_break_no_rule_either(server, browser, login, axe) -> None:
    server.add("ada")
    page = login("ada", "/people")
    assert "Your role does not allow this." in page.inner_text("[role=alert]")
    page.evaluate(axe)
    assert page.evaluate("() => axe.run().then((r) => r.violations.map((v) => v.id))") == []
    for theme in ("light", "dark"):
        page = browser.new_context(color_scheme=theme).new_page()
        page.goto(f"{server.url}/login")
        page.evaluate(axe)
        found = page.evaluate("() => axe.run().then((r) => r.violations.map((v) => v.id))")
        assert found == []
        page.context.close()


def test_a_whole_visit_asks_no_other_host_and_breaks_no_policy(bench, server, login, watch) -> None:
    crowd(bench, server)
    for username, paths in PAGES.items():
        page = login(username, paths[0])
        page.evaluate(
            """() => document.addEventListener('securitypolicyviolation',
                 (event) => console.error('policy', event.violatedDirective))"""
        )
        for path in paths:
            page.goto(server.url + path)
            page.wait_for_load_state("networkidle")
    assert watch.foreign == []
    assert watch.complaints == []


def test_every_page_speaks_german_to_those_who_ask(bench, server, login) -> None:
    crowd(bench, server)
    page = login("lea", "/site", locale="de-DE")
    for path, words in (
        ("/site", "Was diesen Standort verließ"),
        ("/quality", "Krippendorffs Alpha"),
        ("/people", "Personen dieses Standorts"),
        ("/audit", "Prüfprotokoll"),
    ):
        page.goto(server.url + path)
        assert words in page.inner_text("main")
        assert page.get_attribute("html", "lang") == "de"
        # A key that no catalogue has would show as itself.
        assert not re.search(
            r"\b(site|quality|people|audit|nav|label)\.[a-z_]+", page.inner_text("body")
        )


def test_pages_fit_a_narrow_screen_without_sideways_scrolling(bench, server, login) -> None:
    crowd(bench, server)
    for username, paths in PAGES.items():
        page = login(username, paths[0], viewport={"width": 320, "height": 640})
        for path in paths:
            page.goto(server.url + path)
            page.wait_for_load_state("networkidle")
            wide = page.evaluate("() => document.documentElement.scrollWidth")
            assert wide <= 320, f"{path} is {wide} pixels wide"


def test_gold_and_repeats_look_like_any_other_item(bench, server, login) -> None:
    made = bench.fill(30)
    bench.store.database.write(
        lambda c: c.exec_driver_sql("UPDATE item SET is_gold = 1 WHERE item_number <= 5") and None
    )
    eve = server.add("eve")
    lease(bench, eve, 5)
    for entry in made[:5]:
        decide(bench, eve, entry.item_id, 0, client_token=fresh_token())
    bench.set(gold_ratio=0.2, gold_first_count=2)
    server.add("ada")
    page = login("ada")
    answers: list[dict] = []
    page.on(
        "response",
        lambda response: answers.append(response.json()) if "/api/queue" in response.url else None,
    )
    page.reload()
    page.wait_for_selector("[data-ready]")
    settle(lambda: bool(answers))
    items = answers[0]["items"]
    assert len(items) == 20
    assert len({tuple(sorted(entry)) for entry in items}) == 1
    golden = {entry.item_id.hex() for entry in made[:5]}
    gold = [entry for entry in items if entry["item_id"] in golden]
    assert len(gold) >= 4
    assert not any("gold" in str(entry) or "purpose" in entry for entry in items)
