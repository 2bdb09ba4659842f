"""Who may do what: every route against every role, deny by default."""

from __future__ import annotations

import pytest
from portal_bench import PASSWORD

from review_portal.app import create_app
from review_portal.core.model import Role

EXPERT, ADJUDICATOR, LEAD, AUDITOR = (
    Role.EXPERT,
    Role.ADJUDICATOR,
    Role.SITE_LEAD,
    Role.AUDITOR,
)
LABELERS = {EXPERT, ADJUDICATOR}
EVERYBODY = set(Role)
OPEN = {"/login", "/api/session", "/", "/healthz", "/api/openapi.json"}
ALLOWED = {
    ("GET", "/label"): LABELERS,
    ("GET", "/bulk"): LABELERS,
    ("POST", "/bulk"): LABELERS,
    ("POST", "/bulk/undo"): LABELERS,
    ("GET", "/adjudicate"): {ADJUDICATOR},
    ("POST", "/adjudicate"): {ADJUDICATOR},
    ("POST", "/api/adjudications"): {ADJUDICATOR},
    ("GET", "/quality"): {ADJUDICATOR, LEAD, AUDITOR},
    ("GET", "/api/quality"): {ADJUDICATOR, LEAD, AUDITOR},
    ("GET", "/notes"): {EXPERT, ADJUDICATOR, LEAD},
    ("GET", "/site"): {LEAD, AUDITOR},
    ("POST", "/site/allocation"): {LEAD},
    ("POST", "/site/decline"): {LEAD},
    ("POST", "/site/settings"): {LEAD},
    ("GET", "/site/leaks"): {LEAD},
    ("GET", "/site/leaks/export"): {LEAD},
    ("POST", "/site/leaks/seen"): {LEAD},
    ("POST", "/site/leaks/remove"): {LEAD},
    ("GET", "/unmask"): EVERYBODY,
    ("POST", "/unmask/ask"): LABELERS,
    ("POST", "/unmask/decide"): {LEAD},
    ("POST", "/unmask/switch"): {LEAD},
    ("POST", "/api/unmaskings/{unmasking_id}/open"): LABELERS,
    ("POST", "/api/unmaskings/{unmasking_id}/view"): LABELERS,
    ("GET", "/people"): {LEAD},
    ("POST", "/people"): {LEAD},
    ("POST", "/people/{person_id}"): {LEAD},
    ("GET", "/egress"): {LEAD, AUDITOR},
    ("GET", "/egress/export"): {LEAD, AUDITOR},
    ("GET", "/audit"): {LEAD, AUDITOR},
    ("GET", "/account"): EVERYBODY,
    ("POST", "/account/password"): EVERYBODY,
    ("POST", "/account"): EVERYBODY,
    ("POST", "/account/tokens"): EVERYBODY,
    ("POST", "/account/tokens/{token_id}/revoke"): EVERYBODY,
    ("PUT", "/api/preferences"): EVERYBODY,
    ("GET", "/api/campaigns"): EVERYBODY,
    ("GET", "/api/examples"): LABELERS,
    ("GET", "/api/queue"): LABELERS,
    ("POST", "/api/annotations"): LABELERS,
    ("POST", "/api/annotations/batch"): LABELERS,
    ("POST", "/api/undo"): LABELERS,
    ("POST", "/api/skips"): LABELERS,
    ("POST", "/api/flags"): LABELERS,
    ("POST", "/api/leases/release"): LABELERS,
    ("POST", "/api/leases/extend"): LABELERS,
    ("GET", "/api/items/{item_id}/content"): LABELERS,
    ("POST", "/logout"): EVERYBODY,
}


def routes_of(app) -> set[tuple[str, str]]:
    found = set()

    def walk(routes) -> None:
        for route in routes:
            path, methods = getattr(route, "path", ""), getattr(route, "methods", None)
            if methods:
                found.update((m, path) for m in methods if m not in {"HEAD", "OPTIONS"})
            walk(getattr(route, "routes", None) or [])
            original = getattr(route, "original_router", None)
            walk(getattr(original, "routes", None) or [])

    walk(app.routes)
    return {(method, path) for method, path in found if path not in OPEN and path != "/static"}


def test_every_route_has_a_row_in_the_matrix(server) -> None:
    assert routes_of(create_app(server.portal)) == set(ALLOWED)


@pytest.mark.parametrize("role", list(Role))
def test_what_a_role_may_not_do_is_refused(server, bench, role: Role) -> None:
    bench.fill(1)
    server.add("ada", role)
    client = server.login("ada")
    for (method, path), allowed in ALLOWED.items():
        if path == "/logout":
            continue
        target = path.replace("{person_id}", "77").replace("{token_id}", "77")
        target = target.replace("{item_id}", "00" * 16)
        token = {"csrf_token": client.headers["X-CSRF-Token"]}
        form = token if method == "POST" and not path.startswith("/api/") else None
        answer = client.request(method, target, data=form)
        refused = answer.status_code == 403 or (
            answer.status_code == 303 and path == "/label" and answer.headers["location"] == "/"
        )
        assert refused == (role not in allowed), f"{method} {path}: {answer.status_code}"


def test_without_a_session_every_route_asks_for_a_login(server) -> None:
    client = server.client()
    for method, path in ALLOWED:
        target = path.replace("{person_id}", "1").replace("{token_id}", "1")
        answer = client.request(method, target.replace("{item_id}", "00" * 16))
        asked = answer.status_code == 401 or answer.headers.get("location") == "/login"
        assert asked, f"{method} {path}: {answer.status_code}"


def test_nobody_changes_their_own_rights(server) -> None:
    person_id = server.add("lea", Role.SITE_LEAD)
    client = server.login("lea")
    form = {"csrf_token": client.headers["X-CSRF-Token"], "role": "adjudicator"}
    answer = client.post(f"/people/{person_id}", data=form)
    assert (answer.status_code, answer.json()["reason"]) == (409, "OWN_RIGHTS")
    assert client.get("/api/session").json()["role"] == "site_lead"


def test_a_new_role_ends_the_sessions_of_the_old_one(server) -> None:
    server.add("lea", Role.SITE_LEAD)
    person_id = server.add("eve")
    lead, eve = server.login("lea"), server.login("eve")
    form = {"csrf_token": lead.headers["X-CSRF-Token"], "role": "auditor", "hours_per_day": "2"}
    assert lead.post(f"/people/{person_id}", data=form).status_code == 303
    assert eve.get("/api/campaigns").status_code == 401
    assert server.login("eve").get("/api/session").json()["role"] == "auditor"


def test_a_quota_and_a_skill_keep_items_away(server, bench) -> None:
    from review_portal.store import people

    bench.fill(5)
    person_id = server.add("ada")
    client = server.login("ada")
    bench.set(skill="cardiology")
    refused = client.get("/api/queue", params={"campaign": "tickets"})
    assert refused.json()["reason"] == "SKILL"
    changes = {"skills": ["cardiology"], "daily_quota": 1}
    bench.store.database.write(lambda c: people.change_person(c, person_id, changes))
    item = client.get("/api/queue", params={"campaign": "tickets", "count": 1}).json()["items"][0]
    body = {"item_id": item["item_id"], "class_index": 0, "client_token": "token-0001"}
    assert client.post("/api/annotations", json=body).status_code == 200
    refused = client.get("/api/queue", params={"campaign": "tickets"})
    assert refused.json()["reason"] == "QUOTA_DONE"
    bench.clock.now += 86400
    client = server.login("ada")
    assert client.get("/api/queue", params={"campaign": "tickets"}).status_code == 200


def test_items_in_a_language_go_to_those_who_read_it(server, bench) -> None:
    from portal_bench import new_item

    from review_portal.store import people

    bench.receive(new_item(1, language="de"), new_item(2, language="en"))
    person_id = server.add("ada")
    bench.store.database.write(lambda c: people.change_person(c, person_id, {"languages": ["de"]}))
    client = server.login("ada")
    items = client.get("/api/queue", params={"campaign": "tickets"}).json()["items"]
    assert [entry["language"] for entry in items] == ["de"]
    assert PASSWORD not in str(items)
