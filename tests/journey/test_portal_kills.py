"""A portal that is killed again and again loses no decision that it acknowledged.

Four experts decide as fast as they can, each repeating a decision until it is acknowledged, while
the real process is killed without warning and started again. What the experts were told is then
compared with what the store holds.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Kind
from review_portal.label_store import LabelStore
from review_portal.store.campaigns import NewCampaign
from simulations.demo.supervisor import (
    ProcessSpec,
    Supervisor,
    free_ports,
    run_command,
    wait_for_port,
)

pytestmark = pytest.mark.journey
PASSWORD = "four experts and one portal 73"
EXPERTS = ("ann", "bob", "cleo", "dan")
ITEM_COUNT = 1500
KILL_COUNT = 5
CAMPAIGN = b"kills-campaign-1"


class PersistentExpert(threading.Thread):
    """Decides until told to stop and remembers every acknowledgement and every lease."""

    def __init__(self, address: str, name: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._address, self.expert_name, self._stop_asked = address, name, stop
        self._csrf = ""
        self._client = httpx.Client(base_url=address, timeout=20)
        self.acknowledged: dict[str, str] = {}
        self.leased: list[tuple[str, str, float]] = []
        self.answer_seconds: list[float] = []
        self.unexpected: list[str] = []

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                if not self._csrf:
                    self._log_in()
                self._one_desk()
            except httpx.HTTPError:
                time.sleep(0.05)

    def _log_in(self) -> None:
        form = self._client.get("/login").text
        token = re.search(r'name="csrf_token" value="([^"]+)"', form)
        assert token
        fields = {"username": self.expert_name, "password": PASSWORD, "csrf_token": token.group(1)}
        answer = self._client.post("/login", data=fields)
        assert answer.status_code == 303, answer.status_code
        self._csrf = self._client.get("/api/session").json()["csrf_token"]

    def _one_desk(self) -> None:
        answer = self._client.get("/api/queue", params={"campaign": "tickets", "count": 8})
        if answer.status_code in (401, 403):
            self._csrf = ""
            return
        for item in answer.json()["items"]:
            self.leased.append((item["item_id"], item["lease_id"], item["lease_until"]))
            self._decide(item)

    def _decide(self, item: dict[str, object]) -> None:
        body = {
            "item_id": item["item_id"], "lease_id": item["lease_id"], "seconds": 1.0,
            "class_index": len(str(item["text"])) % 3, "client_token": uuid.uuid4().hex,
        }  # fmt: skip
        while not self._stop_asked.is_set():
            began = time.perf_counter()
            try:
                answer = self._client.post(
                    "/api/annotations", json=body, headers={"x-csrf-token": self._csrf}
                )
            except httpx.HTTPError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                self.answer_seconds.append(time.perf_counter() - began)
                self.acknowledged[str(body["client_token"])] = str(body["item_id"])
            elif answer.status_code in (401, 403):
                self._csrf = ""
            else:
                self.unexpected.append(f"{answer.status_code} {answer.text[:200]}")
            return


def command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "review_portal", *arguments)


@pytest.fixture
def portal(tmp_path: Path):
    (port,) = free_ports(1)
    config = tmp_path / "portal.toml"
    config.write_text(
        f'folder = "portal"\nweb_port = {port}\nlogin_per_minute = 1000\n'
        "login_per_address_per_minute = 1000\n"
    )
    options, log = ("--config", str(config)), tmp_path / "setup.log"
    run_command(command("init", *options), log=log)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    for name in EXPERTS:
        add = ("user", *options, "--password-file", str(tmp_path / "password"), "add", name)
        run_command(command(*add), log=log)
    with LabelStore.open(tmp_path / "portal") as store:
        schema = LabelSchema(("account", "delivery", "refund"))
        store.put_campaign(NewCampaign(CAMPAIGN, "tickets", Kind.TEXT, schema), time.time())
    rows = ({"id": str(n), "text": f"ticket {n} {'x' * (n % 7)}"} for n in range(ITEM_COUNT))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_command(
        command(
            "import", *options, "--campaign", "tickets", "--vouch", str(tmp_path / "rows.jsonl")
        ),
        log=log,
    )
    spec = ProcessSpec("portal", command("serve", *options), tmp_path / "portal.log")
    with Supervisor() as supervisor:
        supervisor.start(spec)
        wait_for_port(port, supervisor=supervisor)
        yield supervisor, port, tmp_path


@pytest.mark.timeout(1200)
def test_no_acknowledged_decision_is_lost_by_a_portal_that_is_killed_again_and_again(
    portal,
) -> None:
    supervisor, port, folder = portal
    stop, chance = threading.Event(), random.Random(5)
    experts = [PersistentExpert(f"http://127.0.0.1:{port}", name, stop) for name in EXPERTS]
    for expert in experts:
        expert.start()
    for _ in range(KILL_COUNT):
        wait_for_decisions(experts, more=25)
        time.sleep(chance.uniform(0, 0.3))
        supervisor.kill("portal")
        supervisor.restart("portal")
        wait_for_port(port, supervisor=supervisor)
    wait_for_decisions(experts, more=25)
    stop.set()
    for expert in experts:
        expert.join(timeout=60)
    supervisor.stop("portal")
    told = {token: item for expert in experts for token, item in expert.acknowledged.items()}
    assert len(told) > 100
    assert [note for expert in experts for note in expert.unexpected] == []
    stored = stored_decisions(folder / "portal" / "labels.db")
    assert {token for token in told if stored.count((token, told[token])) != 1} == set()
    assert_leases_were_exclusive(experts)
    verify = subprocess.run(
        command("audit", "verify", "--config", str(folder / "portal.toml")),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert verify.returncode == 0, verify.stderr
    print(
        f"\n{len(told)} acknowledged decisions, {KILL_COUNT} kills, 0 lost; {verify.stdout.strip()}"
    )


def wait_for_decisions(experts: list[PersistentExpert], *, more: int) -> None:
    before, end = sum(len(expert.acknowledged) for expert in experts), time.monotonic() + 150
    while sum(len(expert.acknowledged) for expert in experts) < before + more:
        assert time.monotonic() < end, [expert.unexpected for expert in experts]
        time.sleep(0.02)


def stored_decisions(path: Path) -> list[tuple[str, str]]:
    """(client token, item id) of every annotation that the store holds."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT a.client_token, i.item_id FROM annotation a JOIN item i USING (item_number)"
        )
        return [(token, item_id.hex()) for token, item_id in rows]


def assert_leases_were_exclusive(experts: list[PersistentExpert]) -> None:
    """Without overlap an item is on one desk only while its lease lasts."""
    holder: dict[str, str] = {}
    for expert in experts:
        for item_id, _, _ in expert.leased:
            assert holder.setdefault(item_id, expert.expert_name) == expert.expert_name, item_id
