"""The JSON API and its guards, over real HTTP."""

from __future__ import annotations

import re

import httpx
import pytest
from portal_bench import CAMPAIGN_ID, CLASSES, PASSWORD, fresh_token, new_campaign, npy, png

from review_portal.access import STRONG_HASHER
from review_portal.core.model import Kind, MaskView, Role
from review_portal.store import people

ANSWERS = {"seconds": 1.5}


def answer(item: dict, class_index: int | None = 0, **changes) -> dict:
    return {
        "item_id": item["item_id"],
        "lease_id": item["lease_id"],
        "class_index": class_index,
        "seconds": 1.5,
        "client_token": fresh_token(),
        **changes,
    }


def fetch(client: httpx.Client, count: int = 20) -> list[dict]:
    response = client.get("/api/queue", params={"campaign": "tickets", "count": count})
    assert response.status_code == 200, response.text
    return response.json()["items"]


def test_a_scripted_expert_labels_through_login_queue_and_annotations(server, bench) -> None:
    bench.fill(3)
    server.add("ada")
    client = server.login("ada")
    assert client.get("/api/campaigns").json()[0]["classes"] == list(CLASSES)
    for item in fetch(client):
        assert item["text"].endswith("is lost")
        assert item["suggestion"] == {"class_index": 0, "confidence": 0.7, "raw_confidence": 0.7}
        done = client.post("/api/annotations", json=answer(item, 1))
        assert (done.status_code, done.json()["stored"]) == (200, "stored")
    assert fetch(client) == []
    assert [e.class_index for e in bench.store.examples(CAMPAIGN_ID)] == [1, 1, 1]


def test_an_offline_batch_is_answered_one_by_one(server, bench) -> None:
    bench.fill(2)
    server.add("ada")
    client = server.login("ada")
    first, second = fetch(client)
    bodies = [answer(first, 1), answer(second, 99), answer({**second, "lease_id": None}, 2)]
    receipts = client.post("/api/annotations/batch", json={"annotations": bodies}).json()
    assert [r["stored"] for r in receipts] == ["stored", "refused", "stored"]
    assert receipts[1]["reason"] == "CLASS_UNKNOWN"
    assert [r["client_token"] for r in receipts] == [b["client_token"] for b in bodies]


def test_a_lease_proof_outlives_the_lease(server, bench) -> None:
    bench.fill(1)
    server.add("ada")
    client = server.login("ada")
    item = fetch(client)[0]
    bench.clock.now += 700
    server.add("eve")
    other = server.login("eve")
    assert len(fetch(other)) == 1
    client = server.login("ada")
    late = client.post("/api/annotations", json=answer(item, 1))
    assert (late.status_code, late.json()["stored"]) == (200, "late")
    forged = answer({**item, "lease_id": "ab" * 16 + "." + "cd" * 16}, 1)
    assert other.post("/api/annotations", json=forged).json()["reason"] == "NOT_LEASED"


def test_a_page_that_closes_late_takes_nothing_from_the_page_that_came_after(server, bench) -> None:
    bench.fill(3)
    server.add("ada")
    server.add("eve")
    ada, eve = server.login("ada"), server.login("eve")
    asked = {"campaign": "tickets", "count": 3, "renew": True}
    before = ada.get("/api/queue", params=asked).json()["items"]
    after = ada.get("/api/queue", params=asked).json()["items"]
    ids = [entry["lease_id"] for entry in before]
    assert [e["item_id"] for e in after]
    assert not set(ids) & {e["lease_id"] for e in after}
    assert ada.post("/api/leases/release", json={"lease_ids": ids}).json() == {"released_count": 0}
    assert eve.get("/api/queue", params=asked).json()["items"] == []
    # An answer that the first page gave before it closed still counts in full.
    body = {
        "item_id": before[0]["item_id"], "lease_id": ids[0], "class_index": 1,
        "client_token": fresh_token(),
    }  # fmt: skip
    assert ada.post("/api/annotations", json=body).json()["stored"] == "stored"
    again = ada.get("/api/queue", params={"campaign": "tickets", "count": 3}).json()["items"]
    assert {e["lease_id"] for e in again} <= {e["lease_id"] for e in after}


def test_a_campaign_can_hide_what_the_model_thinks(server, bench) -> None:
    bench.set(confidence_shown=False)
    bench.fill(1)
    server.add("ada")
    item = server.login("ada").get("/api/queue", params={"campaign": "tickets"}).json()["items"][0]
    assert item["suggestion"] is None
    assert item["probabilities"] == []
    assert item["evidence"] == []


def test_an_adjudicator_chooses_among_spans(server, bench) -> None:
    bench.set(answer_mode="spans", double_ratio=1.0)
    bench.fill(1)
    server.add("max", Role.ADJUDICATOR)
    for name, start in (("ada", 3), ("eve", 0)):
        server.add(name)
        client = server.login(name)
        item = client.get("/api/queue", params={"campaign": "tickets"}).json()["items"][0]
        spans = [{"start": start, "end": 7, "class_index": 0}]
        body = {"item_id": item["item_id"], "spans": spans, "client_token": fresh_token()}
        client.post("/api/annotations", json=body).raise_for_status()
    judge = server.login("max")
    page = judge.get("/adjudicate").text
    assert "“card”: card" in page
    assert "“my card”: card" in page
    form = {"item_id": item["item_id"], "choice": "A", "note": "the shorter one"}
    assert judge.post("/adjudicate", data=form).status_code == 303
    key = bench.store.database.read(
        lambda c: c.exec_driver_sql("SELECT answer_key FROM label").scalar_one()
    )
    assert key == "3-7:0"


def test_undo_brings_the_item_back(server, bench) -> None:
    bench.fill(1)
    server.add("ada")
    client = server.login("ada")
    item = fetch(client)[0]
    body = answer(item, 1)
    client.post("/api/annotations", json=body)
    undone = client.post(
        "/api/undo", json={"client_token": fresh_token(), "of_token": body["client_token"]}
    )
    assert undone.json()["item_state"] == "OPEN"
    assert [entry["item_id"] for entry in fetch(client)] == [item["item_id"]]
    assert client.post("/api/undo", json={"client_token": fresh_token()}).status_code == 409


@pytest.mark.parametrize(
    ("kind", "content", "field"),
    [
        (Kind.IMAGE, png(), "image_png"),
        (Kind.SERIES, npy(), "series"),
        (Kind.RECORD, b'{"age":41,"city":"<LOCATION_1>"}', "record"),
    ],
)
def test_every_kind_reaches_the_page(server, bench, kind, content, field) -> None:
    bench.store.put_campaign(new_campaign(kind=kind), bench.clock())
    mask = MaskView("perimeter-masking-1", "none", False)
    bench.fill(1, kind=kind, content=content, mask=mask)
    server.add("ada")
    item = fetch(server.login("ada"))[0]
    assert item["kind"] == kind.value
    assert item[field]


def test_a_large_image_is_fetched_apart_and_only_by_its_holder(server, bench, monkeypatch) -> None:
    monkeypatch.setattr("review_portal.routes.items_view.INLINE_IMAGE_BYTES_MAX", 10)
    bench.store.put_campaign(new_campaign(kind=Kind.IMAGE), bench.clock())
    bench.fill(1, kind=Kind.IMAGE, content=png())
    server.add("ada")
    server.add("eve")
    client = server.login("ada")
    item = fetch(client)[0]
    assert item["image_png"] is None
    assert client.get(item["content_url"]).content == png()
    assert server.login("eve").get(item["content_url"]).status_code == 404


def test_a_flag_reaches_the_audit_log_and_its_words_are_sealed(server, bench) -> None:
    bench.fill(1)
    server.add("ada")
    client = server.login("ada")
    item = fetch(client)[0]
    body = {"item_id": item["item_id"], "reason_code": "personal_information", "note": "Zebrawort"}
    assert client.post("/api/flags", json=body).status_code == 200
    folder = bench.store.database.path.parent
    assert b"Zebrawort" not in b"".join(p.read_bytes() for p in folder.glob("labels.db*"))


def test_without_a_login_nothing_is_given_out(server, bench) -> None:
    bench.fill(1)
    client = server.client()
    for path in ("/api/queue?campaign=tickets", "/api/campaigns"):
        assert client.get(path).status_code == 401
    assert client.get("/label").headers["location"] == "/login"
    session = client.get("/api/session").json()
    assert session["authenticated"] is False


def test_a_login_by_json_token_works_like_the_form(server) -> None:
    server.add("ada")
    client = server.client()
    token = client.get("/api/session").json()["csrf_token"]
    form = {"username": "ada", "password": PASSWORD, "csrf_token": token}
    assert client.post("/login", data=form).status_code == 303
    assert client.get("/api/session").json()["username"] == "ada"


def test_a_login_without_the_forms_token_is_refused(server) -> None:
    server.add("ada")
    client = server.client()
    form = {"username": "ada", "password": PASSWORD, "csrf_token": "0" * 64}
    assert client.post("/login", data=form).status_code == 403


def test_wrong_password_and_unknown_user_look_the_same(server) -> None:
    server.add("ada")
    answers = []
    for name in ("ada", "nobody"):
        client = server.client()
        token = client.get("/api/session").json()["csrf_token"]
        form = {"username": name, "password": "wrong wrong wrong", "csrf_token": token}
        response = client.post("/login", data=form)
        # Only the token differs, which is fresh for each visit.
        answers.append((response.status_code, re.sub(r'value="[0-9a-f]{64}"', "", response.text)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 401


def test_a_locked_account_opens_by_itself_after_a_while(server, clock) -> None:
    server.add("ada")
    for _ in range(10):
        server.portal.access.log_in("ada", "wrong wrong wrong", address="a")
    assert server.portal.access.log_in("ada", PASSWORD, address="a").reason == "LOGIN_WRONG"
    clock.now += 16 * 60
    assert server.login("ada").get("/api/session").json()["authenticated"]


def test_too_many_logins_from_one_address_are_slowed_down(server, clock) -> None:
    server.portal.access._config = server.portal.config.model_copy(
        update={"login_per_address_per_minute": 3}
    )
    reasons = [
        server.portal.access.log_in(f"user{n}", "wrong wrong wrong", address="b").reason
        for n in range(5)
    ]
    assert reasons == ["LOGIN_WRONG"] * 3 + ["LOGIN_TOO_OFTEN"] * 2
    clock.now += 60
    assert server.portal.access.log_in("user", "x", address="b").reason == "LOGIN_WRONG"


def test_a_state_change_without_the_sessions_token_is_refused(server, bench) -> None:
    bench.fill(1)
    server.add("ada")
    client = server.login("ada")
    item = fetch(client)[0]
    for token in ("", "0" * 64):
        client.headers["X-CSRF-Token"] = token
        assert client.post("/api/annotations", json=answer(item)).json()["reason"] == "CSRF"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_request_from_a_foreign_page_is_refused(server, bench, headers) -> None:
    bench.fill(1)
    server.add("ada")
    client = server.login("ada")
    item = fetch(client)[0]
    refused = client.post("/api/annotations", json=answer(item), headers=headers)
    assert (refused.status_code, refused.json()["reason"]) == (403, "FOREIGN_ORIGIN")


def test_a_foreign_page_cannot_lease_items(server, bench) -> None:
    bench.fill(1)
    server.add("ada")
    client = server.login("ada")
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    refused = client.get("/api/queue", params={"campaign": "tickets"}, headers=headers)
    assert refused.status_code == 403


@pytest.mark.parametrize("path", ["/login", "/api/session", "/static/label.js", "/nowhere"])
def test_every_answer_carries_the_strict_headers(server, path: str) -> None:
    headers = server.client().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    if not path.startswith("/static/"):
        assert headers["cache-control"] == "no-store"


def test_a_session_ends_by_logout_idleness_age_and_lockout(server, clock) -> None:
    person_id = server.add("ada")
    client = server.login("ada")
    client.post("/logout", data={"csrf_token": client.headers["X-CSRF-Token"]})
    assert client.get("/api/campaigns").status_code == 401
    client = server.login("ada")
    clock.now += 31 * 60
    assert client.get("/api/campaigns").status_code == 401
    client = server.login("ada")
    for _ in range(27):
        clock.now += 29 * 60
        client.get("/api/campaigns")
    assert client.get("/api/campaigns").status_code == 401
    client = server.login("ada")
    server.portal.store.database.write(
        lambda c: people.change_person(c, person_id, {"is_disabled": True})
    )
    assert client.get("/api/campaigns").status_code == 401


def test_everybody_changes_their_own_password_and_every_session_ends(server, bench) -> None:
    server.add("ada")
    client, other = server.login("ada"), server.login("ada")
    for old, new, status in (
        ("wrong wrong wrong", "a much better one", 409),
        (PASSWORD, "short", 409),
        (PASSWORD, "a much better one", 303),
    ):
        answer = client.post("/account/password", data={"old": old, "new": new})
        assert answer.status_code == status
    assert other.get("/api/campaigns").status_code == 401
    assert server.portal.access.log_in("ada", PASSWORD, address="x").reason == "LOGIN_WRONG"
    assert server.portal.access.log_in("ada", "a much better one", address="x").person


def test_passwords_are_hashed_with_argon2id_at_full_strength() -> None:
    hashed = STRONG_HASHER.hash(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=1$")


def test_session_tokens_are_stored_hashed(server, bench) -> None:
    server.add("ada")
    client = server.login("ada")
    token = client.cookies["perimeter"].encode()
    folder = bench.store.database.path.parent
    written = b"".join(path.read_bytes() for path in folder.glob("labels.db*"))
    assert token not in written
    assert PASSWORD.encode() not in written


@pytest.mark.parametrize("role", [Role.SITE_LEAD, Role.AUDITOR])
def test_who_does_not_label_sees_no_items(server, bench, role: Role) -> None:
    made = bench.fill(1)[0]
    server.add("lea", role)
    client = server.login("lea")
    queue = client.get("/api/queue", params={"campaign": "tickets"})
    assert (queue.status_code, queue.json()["reason"]) == (403, "ROLE")
    assert client.get(f"/api/items/{made.item_id.hex()}/content").status_code == 403


def test_an_api_token_works_without_a_cookie_and_only_until_revoked(server, bench) -> None:
    bench.fill(1)
    person_id = server.add("robot")
    token = server.portal.access.make_api_token(person_id, "nightly import", days=1)
    client = server.client()
    client.headers["Authorization"] = f"Bearer {token}"
    item = fetch(client)[0]
    assert client.post("/api/annotations", json=answer(item)).status_code == 200
    server.portal.store.database.write(
        lambda c: people.revoke_api_token(c, person_id, 1, bench.clock())
    )
    assert client.get("/api/campaigns").status_code == 401


def test_an_unknown_campaign_and_a_paused_one_say_so(server, bench) -> None:
    server.add("ada")
    client = server.login("ada")
    unknown = client.get("/api/queue", params={"campaign": "nothing"})
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "CAMPAIGN_UNKNOWN")
    bench.store.put_campaign(new_campaign(state="PAUSED"), bench.clock())
    paused = client.get("/api/queue", params={"campaign": "tickets"})
    assert (paused.status_code, paused.json()["reason"]) == (409, "CAMPAIGN_PAUSED")


@pytest.mark.parametrize(
    "change",
    [
        {"item_id": "xyz"},
        {"client_token": "short"},
        {"class_index": -1},
        {"unknown": 1},
        {"seconds": -3},
    ],
)
def test_a_malformed_answer_is_refused(server, bench, change: dict) -> None:
    bench.fill(1)
    server.add("ada")
    client = server.login("ada")
    item = fetch(client)[0]
    assert client.post("/api/annotations", json={**answer(item), **change}).status_code == 422


def test_a_huge_request_is_refused(server) -> None:
    server.add("ada")
    client = server.login("ada")
    refused = client.post("/api/annotations", content=b"x" * (3 << 20))
    assert refused.status_code == 413


def test_the_pages_load_nothing_from_elsewhere(server, bench) -> None:
    bench.fill(1)
    server.add("ada")
    client = server.login("ada")
    texts = [client.get("/label").text, server.client().get("/login").text]
    texts += [
        client.get(f"/static/{n}").text for n in ("portal.css", "label.js", "show.js", "outbox.js")
    ]
    for text in texts:
        without_names = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(|//[a-z]+\.[a-z]", without_names)
        assert "<style" not in text
        assert " style=" not in text
        assert "onclick" not in text


def test_openapi_describes_every_route_of_the_api(server) -> None:
    described = server.client().get("/api/openapi.json").json()["paths"]
    for path in ("/api/queue", "/api/annotations", "/api/undo", "/api/campaigns", "/login"):
        assert path in described
