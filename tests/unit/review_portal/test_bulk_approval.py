"""Approving look-alikes over real HTTP, when leases do not hold still."""

from __future__ import annotations

import re

from portal_bench import CAMPAIGN_ID, new_item

TEXT = "please change my address to house number {} in the same street as before, thank you"
HIDDEN = re.compile(r'name="(csrf_token|campaign|token|item_ids|lease_ids)" value="([^"]*)"')


def look_alikes(bench, count: int = 4) -> None:
    bench.receive(*[new_item(n, content=TEXT.format(n).encode()) for n in range(count)])


def offered(client) -> dict[str, str]:
    """The form of the first group."""
    shown = client.get("/bulk", params={"campaign": "tickets"}).text
    article = shown[shown.index("<article") : shown.index("</article>")]
    return {**dict(HIDDEN.findall(article)), "class_index": "0"}


def answers(bench) -> list[int]:
    return [e.class_index for e in bench.store.examples(CAMPAIGN_ID)]


def test_a_group_is_approved_though_a_closing_page_gave_its_leases_back(server, bench) -> None:
    look_alikes(bench)
    server.add("ada")
    client = server.login("ada")
    form = offered(client)
    given_back = [proof.partition(".")[0] for proof in form["lease_ids"].split(",")]
    released = client.post("/api/leases/release", json={"lease_ids": given_back}).json()
    assert released == {"released_count": 4}
    done = client.post("/bulk", data=form)
    assert (done.status_code, done.headers["location"].count("missed=0")) == (303, 1)
    assert answers(bench) == [0] * 4


def test_an_approval_says_which_items_it_missed(server, bench) -> None:
    look_alikes(bench)
    for name in ("ada", "eve"):
        server.add(name)
    client, other = server.login("ada"), server.login("eve")
    form = offered(client)
    given_back = [proof.partition(".")[0] for proof in form["lease_ids"].split(",")]
    client.post("/api/leases/release", json={"lease_ids": given_back})
    assert len(other.get("/api/queue", params={"campaign": "tickets", "count": 1}).json()["items"])
    shown = client.get(client.post("/bulk", data=form).headers["location"]).text
    assert "1 items are no longer with you" in shown
    assert "Approved together." in shown
    assert answers(bench) == [0] * 3


def test_a_forged_proof_approves_nothing(server, bench) -> None:
    look_alikes(bench)
    for name in ("ada", "eve"):
        server.add(name)
    form = offered(server.login("ada"))
    other = server.login("eve")
    stolen = {**form, "csrf_token": other.headers["X-CSRF-Token"]}
    shown = other.get(other.post("/bulk", data=stolen).headers["location"]).text
    assert "4 items are no longer with you" in shown
    assert "Approved together." not in shown
    assert answers(bench) == []


def test_a_repeated_approval_changes_nothing(server, bench) -> None:
    look_alikes(bench)
    server.add("ada")
    client = server.login("ada")
    form = offered(client)
    first = client.post("/bulk", data=form).headers["location"]
    assert client.post("/bulk", data=form).headers["location"] == first
    assert answers(bench) == [0] * 4


def test_a_paused_campaign_shows_no_groups_and_says_why(server, bench) -> None:
    look_alikes(bench)
    server.add("ada")
    client = server.login("ada")
    bench.store.database.write(
        lambda c: c.exec_driver_sql("UPDATE campaign SET state = 'PAUSED'").rowcount
    )
    shown = client.get("/bulk", params={"campaign": "tickets"}).text
    assert "paused or completed" in shown
    assert "<article" not in shown
