"""The labeling loop in a real browser."""

from __future__ import annotations

import json
import threading

import pytest
from browser_bench import listen, settle, start_server
from portal_bench import CAMPAIGN_ID, PASSWORD, new_campaign, new_item, npy, png

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Kind, MaskView, Role
from review_portal.store import people

pytestmark = pytest.mark.browser


def classes_of(bench) -> list[int]:
    return [entry.class_index for entry in bench.store.examples(CAMPAIGN_ID)]


def saved(page) -> None:
    page.wait_for_selector("#sync[data-state=saved]")


def item_of(page) -> str | None:
    return page.get_attribute("#desk", "data-item")


def outbox_of(page) -> list[dict]:
    """What is on the browser's disk."""
    return page.evaluate(
        """() => new Promise((done) => {
          const open = indexedDB.open('perimeter-outbox', 1);
          open.onupgradeneeded = () =>
            open.result.createObjectStore('entries', {keyPath: 'number'});
          open.onsuccess = () => {
            const all = open.result.transaction('entries').objectStore('entries').getAll();
            all.onsuccess = () => { open.result.close(); done(all.result); };
          };
        })"""
    )


def answer_keys(bench) -> list[str]:
    query = "SELECT answer_key FROM annotation ORDER BY annotation_id"
    return bench.store.database.read(lambda c: list(c.exec_driver_sql(query).scalars()))


def test_one_key_per_decision_and_nothing_but_the_keyboard(bench, server, login) -> None:
    bench.fill(30)
    server.add("ada")
    page = login("ada")
    for key in ["Enter", "2", "3", "1", "0", "Enter"] * 5:
        page.wait_for_selector("#desk:not([data-item=''])")
        before = page.get_attribute("#desk", "data-item")
        page.keyboard.press(key)
        assert page.get_attribute("#desk", "data-item") != before
    saved(page)
    settle(lambda: sorted(classes_of(bench)) == [0] * 15 + [1] * 5 + [2] * 5)
    page.wait_for_selector("text=Nothing to label right now")


def test_a_new_expert_gives_a_first_label_without_any_click_but_login(bench, server, login) -> None:
    bench.fill(1)
    server.add("ada")
    page = login("ada")
    page.get_by_role("button", name="Accept: card").click()
    saved(page)
    settle(lambda: classes_of(bench) == [0])


def test_the_next_item_is_there_before_the_server_has_answered(bench, server, login) -> None:
    bench.fill(15)
    server.add("ada")
    page = login("ada")
    held: list = []
    is_over = threading.Event()

    def hold(route) -> None:
        if is_over.is_set():
            route.continue_()
        else:
            held.append(route)

    page.route("**/api/annotations/batch", hold)
    # Milliseconds until it is painted: `benchmarks/portal_browser.py`.
    seen = page.evaluate(
        """() => {
          const seen = [];
          for (let n = 0; n < 14; n += 1) {
            document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
            seen.push(document.getElementById('desk').dataset.item);
          }
          return seen;
        }"""
    )
    assert len(set(seen)) == 14
    assert "" not in seen
    assert classes_of(bench) == []
    page.wait_for_selector("#sync[data-state=waiting]")
    is_over.set()
    for route in held:
        route.continue_()
    saved(page)
    settle(lambda: classes_of(bench) == [0] * 14)


def test_undo_takes_the_last_decision_back_and_only_that(bench, server, login) -> None:
    bench.fill(3)
    server.add("ada")
    page = login("ada")
    first = page.get_attribute("#desk", "data-item")
    page.keyboard.press("2")
    saved(page)
    page.keyboard.press("u")
    assert page.get_attribute("#desk", "data-item") == first
    saved(page)
    settle(lambda: classes_of(bench) == [])
    page.keyboard.press("3")
    saved(page)
    settle(lambda: classes_of(bench) == [2])


def test_undo_before_the_decision_was_sent_leaves_no_trace(bench, server, login) -> None:
    bench.fill(2)
    server.add("ada")
    page = login("ada")
    page.context.set_offline(True)
    page.keyboard.press("2")
    page.keyboard.press("u")
    page.keyboard.press("1")
    page.context.set_offline(False)
    saved(page)
    settle(lambda: classes_of(bench) == [0])


def test_decisions_without_a_network_survive_a_reload_and_arrive_later(
    bench, server, login, clock
) -> None:
    bench.fill(12)
    server.add("ada")
    page = login("ada")
    page.context.set_offline(True)
    for _ in range(8):
        page.keyboard.press("2")
    page.wait_for_selector("#sync[data-state=offline]:has-text('8')")
    settle(lambda: len(outbox_of(page)) == 8)
    page.context.set_offline(False)
    page.goto("about:blank")
    clock.now += 8 * 3600
    # Eight hours later the session is over as well; the decisions wait for the next login.
    page.goto(f"{server.url}/login")
    page.fill("#username", "ada")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_selector("[data-ready]")
    saved(page)
    settle(lambda: classes_of(bench) == [1] * 8)


def test_decisions_survive_a_server_that_dies_and_comes_back(
    bench, tmp_path, clock, browser, watch
) -> None:
    bench.fill(10)
    first = start_server(bench, tmp_path, clock, web_port=0)
    first.add("ada")
    page = browser.new_context().new_page()
    listen(page, first, watch)
    page.goto(f"{first.url}/login")
    page.fill("#username", "ada")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_selector("[data-ready]")
    page.keyboard.press("2")
    saved(page)
    down = {"is": True}
    page.route("**/api/**", lambda route: route.abort() if down["is"] else route.continue_())
    for _ in range(4):
        page.keyboard.press("3")
    page.wait_for_selector("#sync[data-state=offline]")
    down["is"] = False
    saved(page)
    settle(lambda: classes_of(bench) == [1, 2, 2, 2, 2])
    page.context.close()
    first.stop()


def test_two_experts_at_once_never_see_the_same_item(bench, server, login) -> None:
    bench.fill(40)
    server.add("ada")
    server.add("eve")
    pages = [login("ada"), login("eve")]
    seen: list[set[str]] = [set(), set()]
    for _ in range(15):
        for place, page in enumerate(pages):
            seen[place].add(page.get_attribute("#desk", "data-item"))
            page.keyboard.press("Enter")
    for page in pages:
        saved(page)
    assert not seen[0] & seen[1]
    settle(lambda: len(classes_of(bench)) == 30)


def test_skip_note_flag_and_guideline_work_by_key(bench, server, login) -> None:
    bench.fill(4)
    server.add("ada")
    page = login("ada")
    first = page.get_attribute("#desk", "data-item")
    page.keyboard.press("s")
    assert page.get_attribute("#desk", "data-item") != first
    page.keyboard.press("g")
    page.wait_for_selector("#guideline strong:text-is('cards')")
    page.keyboard.press("n")
    page.keyboard.type("Zebra: 2 stripes, so card")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.keyboard.press("f")
    page.get_by_label("Broken or wrong content").check()
    page.get_by_role("button", name="Flag and skip").click()
    page.wait_for_selector("text=Flagged for the site lead.")
    saved(page)
    page.goto(f"{server.url}/notes?campaign=tickets&words=zebra")
    assert "2 stripes" in page.inner_text("main")
    page.goto(f"{server.url}/notes?campaign=tickets&words=giraffe")
    assert "2 stripes" not in page.inner_text("main")


def test_single_keys_can_be_remapped_and_switched_off(bench, server, login) -> None:
    bench.fill(5)
    person_id = server.add("ada")
    changed = {"keys": {"accept": ["j"]}}
    bench.store.database.write(
        lambda c: people.change_person(c, person_id, {"preferences": changed})
    )
    page = login("ada")
    first = page.get_attribute("#desk", "data-item")
    page.keyboard.press("Enter")
    assert page.get_attribute("#desk", "data-item") == first
    page.keyboard.press("j")
    assert page.get_attribute("#desk", "data-item") != first
    page.goto(f"{server.url}/account")
    page.get_by_label("Single keys decide").uncheck()
    page.get_by_role("button", name="Save").first.click()
    page.goto(f"{server.url}/label")
    page.wait_for_selector("[data-ready]")
    second = page.get_attribute("#desk", "data-item")
    page.keyboard.press("j")
    page.keyboard.press("2")
    assert page.get_attribute("#desk", "data-item") == second


def test_one_key_can_be_switched_off_and_the_others_stay(bench, server, login) -> None:
    bench.fill(3)
    server.add("ada")
    page = login("ada", "/account")
    page.get_by_label("can’t tell").fill("")
    page.get_by_role("button", name="Save").first.click()
    page.wait_for_load_state()
    assert page.get_by_label("can’t tell").input_value() == ""
    assert page.get_by_label("accept the suggestion").input_value() == "Enter Space"
    page.goto(f"{server.url}/label")
    page.wait_for_selector("[data-ready]")
    first = item_of(page)
    page.keyboard.press("x")
    assert item_of(page) == first
    page.keyboard.press("Enter")
    assert item_of(page) != first


def test_keys_are_dead_while_somebody_types(bench, server, login) -> None:
    bench.store.put_campaign(
        new_campaign(schema=LabelSchema(tuple(f"class {n:02d}" for n in range(40)), 2)),
        bench.clock(),
    )
    bench.receive(new_item(1, probabilities=()), new_item(2, probabilities=()))
    server.add("ada")
    page = login("ada")
    first = page.get_attribute("#desk", "data-item")
    page.keyboard.press("/")
    page.keyboard.type("class 31")
    assert page.get_attribute("#desk", "data-item") == first
    page.keyboard.press("Enter")
    saved(page)
    settle(lambda: classes_of(bench) == [31])


def test_ten_classes_and_more_are_found_by_name(bench, server, login) -> None:
    schema = LabelSchema(tuple(f"ward {n}" for n in range(11)), 2)
    bench.store.put_campaign(new_campaign(schema=schema), bench.clock())
    bench.receive(new_item(1, probabilities=()))
    server.add("ada")
    page = login("ada")
    assert page.locator("#classes button").count() == 11
    page.keyboard.press("/")
    page.keyboard.type("ward 10")
    page.keyboard.press("Enter")
    saved(page)
    settle(lambda: classes_of(bench) == [10])


def test_classes_that_are_digits_have_those_digits_as_keys(bench, server, login) -> None:
    schema = LabelSchema(tuple("0123456789"), 2)
    bench.store.put_campaign(new_campaign(kind=Kind.IMAGE, schema=schema), bench.clock())
    mask = MaskView("perimeter-masking-1", "none", False)
    bench.fill(3, kind=Kind.IMAGE, content=png(), mask=mask, probabilities=())
    server.add("ada")
    page = login("ada")
    for key in "073":
        page.keyboard.press(key)
    saved(page)
    settle(lambda: classes_of(bench) == [0, 7, 3] or sorted(classes_of(bench)) == [0, 3, 7])


@pytest.mark.parametrize(
    ("kind", "content", "shown"),
    [
        (Kind.IMAGE, png(), "img.picture"),
        (Kind.SERIES, npy(20, 3), "svg.plot"),
        (Kind.RECORD, b'{"age":41,"note":"<PERSON_1> is well"}', "table.record .masked"),
        (Kind.TEXT, b"my card 0 of <PERSON_1> is lost", ".text .masked"),
    ],
)
def test_every_kind_is_shown(bench, server, login, watch, kind, content, shown) -> None:
    bench.store.put_campaign(new_campaign(kind=kind), bench.clock())
    bench.fill(1, kind=kind, content=content)
    server.add("ada")
    page = login("ada")
    assert page.locator(shown).count() >= 1
    if kind is Kind.IMAGE:
        page.get_by_role("button", name="Larger").click()
        assert page.get_attribute("img.picture", "data-scale") == "2"
    assert watch.complaints == []


def test_several_classes_are_chosen_and_submitted(bench, server, login) -> None:
    bench.set(answer_mode="multi")
    bench.fill(1)
    server.add("ada")
    page = login("ada")
    page.keyboard.press("1")
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    saved(page)
    settle(lambda: classes_of(bench) == [0])
    key = bench.store.database.read(
        lambda c: c.exec_driver_sql("SELECT answer_key FROM label").scalar_one()
    )
    assert key == "0,2"


def test_spans_are_marked_in_code_points(bench, server, login) -> None:
    bench.set(answer_mode="spans")
    bench.fill(1, content="😀 my card is lost".encode(), mask=MaskView("p", "strict", True))
    server.add("ada")
    page = login("ada")
    page.evaluate(
        """() => {
          const text = document.querySelector('#item .text');
          const node = text.firstChild;
          const at = node.data.indexOf('card');
          document.getSelection().setBaseAndExtent(node, at, node, at + 4);
        }"""
    )
    page.keyboard.press("1")
    assert page.locator(".marked").inner_text().startswith("card")
    page.keyboard.press("Enter")
    saved(page)

    def key() -> str | None:
        return bench.store.database.read(
            lambda c: c.exec_driver_sql("SELECT answer_key FROM annotation").scalar()
        )

    settle(lambda: key() == "5-9:0")


def test_words_are_marked_with_the_keyboard_alone(bench, server, login) -> None:
    bench.set(answer_mode="spans")
    bench.fill(1, content="my 😀 card is lost".encode(), mask=MaskView("p", "strict", True))
    server.add("ada")
    page = login("ada")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("1")
    page.wait_for_selector(".marked:has-text('my')")
    page.keyboard.press("Enter")
    saved(page)
    settle(lambda: answer_keys(bench) == ["0-2:0"])


def test_a_flag_box_that_is_left_flags_nothing_and_a_skip_waits_for_the_network(
    bench, server, login
) -> None:
    bench.fill(3)
    server.add("ada")
    page = login("ada")
    page.context.set_offline(True)
    page.keyboard.press("f")
    page.get_by_role("button", name="Flag and skip").click()
    second = page.wait_for_selector("text=Flagged for the site lead.") and item_of(page)
    page.keyboard.press("f")
    page.wait_for_selector("#flag-box[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#flag-box", state="hidden")
    assert item_of(page) == second
    page.keyboard.press("s")
    page.wait_for_selector("#sync[data-state=offline]")
    page.context.set_offline(False)
    saved(page)

    def actions() -> list[str]:
        query = "SELECT action FROM audit WHERE action IN ('item.flagged', 'item.skipped')"
        return bench.store.database.read(lambda c: list(c.exec_driver_sql(query).scalars()))

    settle(lambda: sorted(actions()) == ["item.flagged", "item.skipped", "item.skipped"])


def test_logging_out_keeps_what_others_still_have_to_send(bench, server, login) -> None:
    bench.fill(3)
    server.add("ada")
    server.add("eve")
    page = login("ada")
    page.context.set_offline(True)
    page.keyboard.press("2")
    page.wait_for_selector("#sync[data-state=offline]")
    settle(lambda: len(outbox_of(page)) == 1)
    page.route("**/api/annotations/batch", lambda route: route.abort())
    page.context.set_offline(False)
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    assert len(outbox_of(page)) == 1
    page.unroute("**/api/annotations/batch")
    page.fill("#username", "ada")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_selector("[data-ready]")
    saved(page)
    settle(lambda: classes_of(bench) == [1])


def test_the_outbox_holds_decisions_but_no_content(bench, server, login) -> None:
    bench.fill(2)
    server.add("ada")
    page = login("ada")
    page.context.set_offline(True)
    page.keyboard.press("2")
    settle(lambda: len(outbox_of(page)) == 1)
    assert "is lost" not in json.dumps(outbox_of(page))


def test_stored_markup_in_items_notes_and_names_is_never_run(bench, server, login, watch) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}'\"><svg onload=alert(3)>"
    bench.store.put_campaign(
        new_campaign(guideline=f"# {evil}\n- {evil}", schema=LabelSchema((evil, "ok"), 2)),
        bench.clock(),
    )
    bench.fill(
        2, content=evil.encode(), probabilities=(0.9, 0.1), mask=MaskView("p", "strict", True)
    )
    server.portal.access.add_person("ada", PASSWORD, role=Role.EXPERT, display_name=evil[:80])
    page = login("ada")
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    assert page.inner_text("#item .text") == evil
    page.keyboard.press("g")
    page.keyboard.press("n")
    page.keyboard.insert_text(evil)
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    saved(page)
    page.goto(f"{server.url}/notes")
    assert evil in page.inner_text("main")
    assert alerts == []
    assert watch.complaints == []
