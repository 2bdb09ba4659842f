"""The command line, and `serve` as a real process that is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from portal_bench import CAMPAIGN_ID, CLASSES, PASSWORD, fresh_token, new_campaign

from model_bundle.label_schema import LabelSchema
from review_portal.__main__ import main
from review_portal.config import load_config, parse_config
from review_portal.errors import ConfigInvalid
from review_portal.label_store import LabelStore

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PERIMETER_PORTAL_FOLDER", str(tmp_path / "portal"))
    assert main(["init"]) == 0
    with LabelStore.open(tmp_path / "portal") as store:
        store.put_campaign(new_campaign(), 1.0)
    return tmp_path / "portal"


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"id": str(n), "text": f"text number {n}", "label": CLASSES[n % 3]} for n in range(6)]


def test_seed_labels_come_in_and_go_out_again(folder, tmp_path, capsys) -> None:
    source = write_rows(tmp_path / "seed.jsonl", ROWS)
    command = ["import", "--campaign", "tickets", "--split", "test", str(source)]
    assert main(command) == 0
    assert main(command) == 0
    assert "0 items imported into tickets, 6 were there before" in capsys.readouterr().out
    with LabelStore.open(folder, read_only=True) as store:
        assert [e.class_index for e in store.examples(CAMPAIGN_ID, "test")] == [0, 1, 2, 0, 1, 2]
    assert main(["export", "--campaign", "tickets", str(tmp_path / "out.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["text"], row["label"]) for row in rows] == [(r["text"], r["label"]) for r in ROWS]


def test_a_bad_row_keeps_the_whole_file_out(folder, tmp_path, capsys) -> None:
    bad = [*ROWS, {"id": "x", "text": "hello", "label": "cart"}]
    source = write_rows(tmp_path / "seed.jsonl", bad)
    command = ["import", "--campaign", "tickets", "--split", "test", str(source)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "row 7 (x)" in said
    assert "nothing was imported" in said
    with LabelStore.open(folder, read_only=True) as store:
        assert list(store.examples(CAMPAIGN_ID, "test")) == []
    assert main([*command, "--skip-bad"]) == 0


def test_what_experts_would_see_needs_somebody_who_vouches_for_it(folder, tmp_path, capsys) -> None:
    source = write_rows(tmp_path / "open.jsonl", [{"id": "1", "text": "raw words"}])
    command = ["import", "--campaign", "tickets", str(source)]
    assert main(command) == 1
    assert "--vouch" in capsys.readouterr().err
    assert main([*command, "--vouch"]) == 0


def test_an_unknown_campaign_is_named(folder, tmp_path, capsys) -> None:
    source = write_rows(tmp_path / "seed.jsonl", ROWS)
    assert main(["import", "--campaign", "nothing", str(source)]) == 1
    assert "no campaign 'nothing' at this site; known: tickets" in capsys.readouterr().err


def test_a_person_is_added_and_nothing_secret_is_printed(folder, tmp_path, capsys) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    command = ["user", "add", "ada", "--password-file", str(secret)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert PASSWORD not in printed.out + printed.err
    assert main(command) == 1
    assert "taken" in capsys.readouterr().err
    secret.write_text("short\n")
    assert main(["user", "add", "eve", "--password-file", str(secret)]) == 1
    assert "12 to 256 characters" in capsys.readouterr().err


def test_audit_verify_finds_a_changed_byte_and_a_cut_tail(folder, capsys) -> None:
    import sqlite3

    assert main(["audit", "verify"]) == 0
    capsys.readouterr()
    with LabelStore.open(folder) as store:
        store.put_campaign(new_campaign(guideline="new"), 2.0)
    assert main(["audit", "head"]) == 0
    witness = capsys.readouterr().out.strip()
    assert main(["audit", "verify", "--witness", witness]) == 0
    with sqlite3.connect(folder / "labels.db") as connection:
        connection.execute("DELETE FROM audit WHERE sequence = (SELECT max(sequence) FROM audit)")
    assert main(["audit", "verify"]) == 0
    assert main(["audit", "verify", "--witness", witness]) == 1
    with sqlite3.connect(folder / "labels.db") as connection:
        connection.execute("UPDATE audit SET subject = 'x' WHERE sequence = 1")
    assert main(["audit", "verify"]) == 1


def test_shredding_asks_first(folder, tmp_path, capsys) -> None:
    source = write_rows(tmp_path / "seed.jsonl", ROWS)
    main(["import", "--campaign", "tickets", "--split", "train", str(source)])
    assert main(["shred", "tickets"]) == 1
    assert main(["shred", "tickets", "--yes"]) == 0
    assert main(["export", "--campaign", "tickets", str(tmp_path / "o.jsonl")]) == 1
    assert "is gone" in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


def test_campaign_settings_are_checked(folder, capsys) -> None:
    assert main(["campaign", "set", "tickets", "double_ratio=0.5", "is_held=true"]) == 0
    assert "double_ratio = 0.5" in capsys.readouterr().out
    assert main(["campaign", "set", "tickets", "dubble=1"]) == 1
    assert main(["campaign", "set", "tickets", "double_ratio=many"]) == 1


def test_a_renamed_class_keeps_its_labels_once_somebody_says_so(folder, tmp_path, capsys) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS)
    assert main(["import", "--campaign", "tickets", str(path)]) == 0
    newer = new_campaign(schema=LabelSchema(("credit", CLASSES[0], CLASSES[2]), 2))
    with LabelStore.open(folder) as store:
        store.put_campaign(newer, 2.0)
        assert sorted(e.class_index for e in store.examples(CAMPAIGN_ID)) == [1, 1, 2, 2]
    assert main(["schema", "map", "tickets", f"{CLASSES[1]}=credit"]) == 0
    assert f"  {CLASSES[1]} -> credit" in capsys.readouterr().out
    with LabelStore.open(folder) as store:
        assert sorted(e.class_index for e in store.examples(CAMPAIGN_ID)) == [0, 0, 1, 1, 2, 2]
    assert main(["schema", "map", "tickets", f"{CLASSES[1]}=nonsense"]) == 1
    assert "must name a class of version 1" in capsys.readouterr().err


def test_the_example_settings_are_the_defaults_and_name_every_key() -> None:
    path = ROOT / "docs" / "examples" / "portal.toml"
    config = load_config(path, {})
    text = path.read_text()
    for key in type(config).model_fields:
        assert re.search(rf"^#? ?{key} = ", text, re.MULTILINE), key
    defaults = parse_config({}, {})
    for key in type(config).model_fields:
        if key not in {"folder", "site_name"}:
            assert getattr(config, key) == getattr(defaults, key), key


@pytest.mark.parametrize(
    ("keys", "environment", "named"),
    [
        ({"web_prot": 1}, {}, "web_prot"),
        ({"web_port": 99999}, {}, "web_port"),
        ({}, {"PERIMETER_PORTAL_NOTHING": "1"}, "nothing"),
        ({"web_tls": "files"}, {}, "web_certificate"),
    ],
)
def test_a_wrong_setting_is_named(keys, environment, named: str) -> None:
    with pytest.raises(ConfigInvalid, match=named):
        parse_config(keys, environment)


def test_a_settings_file_that_is_no_toml_is_named(tmp_path) -> None:
    (tmp_path / "portal.toml").write_text("folder = \n")
    with pytest.raises(ConfigInvalid, match=r"portal\.toml"):
        load_config(tmp_path / "portal.toml", {})


class Process:
    """`perimeter-portal serve` on a free port."""

    def __init__(self, folder: Path) -> None:
        environment = {
            **os.environ,
            "PERIMETER_PORTAL_FOLDER": str(folder),
            "PERIMETER_PORTAL_WEB_PORT": "0",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "review_portal", "serve"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self.process.stdout.readline()
        self.url = re.search(r"http://[\d.:]+", line)[0]

    def login(self) -> httpx.Client:
        client = httpx.Client(base_url=self.url, timeout=20)
        for _ in range(1200):
            try:
                token = client.get("/api/session").json()["csrf_token"]
                break
            except httpx.TransportError:
                time.sleep(0.05)
        form = {"username": "ada", "password": PASSWORD, "csrf_token": token}
        assert client.post("/login", data=form).status_code == 303
        client.headers["X-CSRF-Token"] = client.get("/api/session").json()["csrf_token"]
        return client

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_no_acknowledged_decision_is_lost_when_the_server_is_killed(
    folder, tmp_path, monkeypatch
) -> None:
    rows = [{"id": str(n), "text": f"text {n}"} for n in range(40)]
    source = write_rows(tmp_path / "open.jsonl", rows)
    main(["import", "--campaign", "tickets", "--vouch", str(source)])
    main(["campaign", "set", "tickets", "gold_ratio=0", "repeat_ratio=0", "gold_first_count=0"])
    monkeypatch.setenv("PERIMETER_PORTAL_PASSWORD", PASSWORD)
    main(["user", "add", "ada"])
    acknowledged = 0
    for _ in range(2):
        process = Process(folder)
        client = process.login()
        items = client.get("/api/queue", params={"campaign": "tickets", "count": 10}).json()[
            "items"
        ]
        for item in items[:7]:
            body = {
                "item_id": item["item_id"], "lease_id": item["lease_id"], "class_index": 1,
                "client_token": fresh_token(),
            }  # fmt: skip
            acknowledged += client.post("/api/annotations", json=body).json()["stored"] == "stored"
        process.kill()
    assert acknowledged == 14
    with LabelStore.open(folder, read_only=True) as store:
        assert len(list(store.examples(CAMPAIGN_ID))) == acknowledged
    assert main(["audit", "verify"]) == 0


def test_serve_stops_cleanly_and_says_where_it_listens(folder) -> None:
    process = Process(folder)
    told = json.loads((folder / "serving.json").read_text())
    assert told["web"] == process.url
    assert told["pid"] == process.process.pid
    httpx.get(f"{process.url}/healthz").raise_for_status()
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(timeout=60) == 0
