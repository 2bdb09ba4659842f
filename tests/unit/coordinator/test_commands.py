"""The command line, its settings and its campaign file, as an operator meets them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from pathlib import Path

import grpc
import pytest
from central_harness import STAND_IN, Machine, make_batch, read_token

from coordinator.__main__ import main
from coordinator.campaign_file import campaign_of, read_campaign_file
from coordinator.config import CoordinatorConfig, load_config
from coordinator.core.campaign import Campaign
from coordinator.core.refusals import Reason
from coordinator.errors import CampaignInvalid, ConfigInvalid
from coordinator.store import open_store

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "central"


def run(capsys, folder, *words):
    status = main([*words, "--folder", str(folder), "--json"])
    answer = capsys.readouterr()
    return status, json.loads(answer.out) if answer.out else answer.err


def test_the_example_settings_are_the_defaults():
    loaded = load_config(EXAMPLES / "coordinator.toml")
    assert loaded.folder == EXAMPLES / "central"
    assert loaded.model_copy(update={"folder": Path("central")}) == CoordinatorConfig()
    written = set(tomllib.loads((EXAMPLES / "coordinator.toml").read_text()))
    assert written == set(CoordinatorConfig.model_fields)


def test_the_example_campaign_shows_every_key_and_the_defaults():
    loaded = read_campaign_file(EXAMPLES / "campaign.toml")
    own = {"name", "kind", "classes", "sites", "guideline", "class_guidelines"}
    own |= {"budget_labels", "cycle_budget_labels", "cycles"}
    for item in dataclasses.fields(Campaign):
        if item.name not in own and item.default is not dataclasses.MISSING:
            assert getattr(loaded, item.name) == item.default, item.name
    text = (EXAMPLES / "campaign.toml").read_text()
    for item in dataclasses.fields(Campaign):
        assert item.name.removesuffix("_seconds") in text or item.name == "class_guidelines"


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    path = tmp_path / "c.toml"
    path.write_text('listen_address = "127.0.0.1:1"\n')
    monkeypatch.setenv("PERIMETER_COORDINATOR_LISTEN_ADDRESS", "127.0.0.1:2")
    assert load_config(path).listen_address == "127.0.0.1:2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen = 3", "'listen': unknown key"),
        ('listen_address = "nowhere"', "host:port"),
        ("tick_seconds = 0", "greater than or equal"),
        ("folder = [", "no TOML file"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, said):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid, match=said.replace("'", ".")):
        load_config(path)


CAMPAIGN = {
    "name": "digits",
    "kind": "image",
    "classes": ["0", "1"],
    "sites": ["north"],
    "budget_labels": 10,
    "cycle_budget_labels": 5,
    "cycles": 2,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"cycles": None}, "cycles must be"),
        ({"kind": "video"}, "not one of"),
        ({"classes": ["0"]}, "2 to"),
        ({"classes": ["0", "0"]}, "twice"),
        ({"classes": "ab"}, "list of names"),
        ({"sites": ["North"]}, "'North'"),
        ({"sites": ["central"]}, "'central'"),
        ({"cycle_budget_labels": 11}, "above budget_labels"),
        ({"explore_ratio": 2}, "explore_ratio must be"),
        ({"grant_lifetime": "soon"}, "grant_lifetime must be a duration"),
        ({"training": 3}, "training must be a table"),
    ],
)
def test_a_wrong_campaign_key_is_named(changes, said):
    with pytest.raises(CampaignInvalid, match=said):
        campaign_of({**CAMPAIGN, **changes})


def test_a_missing_campaign_key_is_named():
    with pytest.raises(CampaignInvalid, match="budget_labels"):
        campaign_of({k: v for k, v in CAMPAIGN.items() if k != "budget_labels"})


def test_settings_survive_storing():
    campaign = read_campaign_file(EXAMPLES / "campaign.toml")
    stored = json.loads(json.dumps(campaign.to_mapping()))
    assert Campaign.from_mapping(stored) == campaign


def test_init_twice_changes_no_key(capsys, folder):
    run(capsys, folder, "init")
    before = {p.name: p.read_bytes() for p in (folder / "identity").iterdir()}
    assert set(before) >= {"ca.pem", "server.pem", "superlink.pem", "fleet.pem", "release.key"}
    run(capsys, folder, "init")
    assert {p.name: p.read_bytes() for p in (folder / "identity").iterdir()} == before


def test_private_keys_are_readable_by_their_owner_only(capsys, folder):
    run(capsys, folder, "init")
    for path in (folder / "identity").glob("*.key"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_campaign_is_created_listed_shown_paused_and_resumed(capsys, folder, tmp_path):
    run(capsys, folder, "init")
    status, made = run(capsys, folder, "campaign", "create", str(EXAMPLES / "campaign.toml"))
    assert status == 0
    assert len(made["campaign_id"]) == 32
    _, listed = run(capsys, folder, "campaign", "list")
    assert [row["name"] for row in listed["campaigns"]] == ["tickets"]
    run(capsys, folder, "campaign", "pause", "tickets")
    assert run(capsys, folder, "campaign", "show", "tickets")[1]["state"] == "paused"
    run(capsys, folder, "campaign", "resume", "tickets")
    assert run(capsys, folder, "campaign", "show", "tickets")[1]["state"] == "active"


def test_a_campaign_name_is_used_once(capsys, folder):
    run(capsys, folder, "init")
    run(capsys, folder, "campaign", "create", str(EXAMPLES / "campaign.toml"))
    status, said = run(capsys, folder, "campaign", "create", str(EXAMPLES / "campaign.toml"))
    assert status == 2
    assert "exists" in said


def test_a_join_token_names_its_machine_and_the_authority(capsys, folder):
    run(capsys, folder, "init")
    words = ("join-token", "--site", "north", "--role", "agent", "--name", "cam")
    token = read_token(run(capsys, folder, *words)[1]["token"])
    assert (token["site"], token["role"], token["name"]) == ("north", "agent", "cam")
    assert token["enroll"] == "127.0.0.1:7444"
    assert token["coordinator"] == "127.0.0.1:7443"


def test_a_join_token_before_init_says_what_to_do(capsys, folder):
    words = ("join-token", "--site", "north", "--role", "agent", "--name", "cam")
    status, said = run(capsys, folder, *words)
    assert status == 2
    assert "perimeter-coordinator init" in said


def test_a_settings_file_names_the_same_folder_from_wherever_a_command_runs(
    capsys, tmp_path, monkeypatch
):
    (tmp_path / "coordinator.toml").write_text(
        'folder = "central"\nhigh_water_file = "elsewhere/high-water.json"\n'
    )
    config = load_config(tmp_path / "coordinator.toml")
    assert config.folder == tmp_path / "central"
    assert config.high_water_path == tmp_path / "elsewhere" / "high-water.json"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["init", "--config", "../coordinator.toml"]) == 0
    assert (tmp_path / "central" / "coordinator.db").exists()
    assert main(["audit", "--config", "../coordinator.toml"]) == 0
    assert list((tmp_path / "other").iterdir()) == []


def test_no_command_but_init_makes_a_database(capsys, folder):
    for words in (
        ("audit",),
        ("status",),
        ("campaign", "create", str(EXAMPLES / "campaign.toml")),
        ("campaign", "pause", "tickets"),
        ("revoke", "--site", "north", "--role", "agent", "--name", "cam"),
    ):
        status, said = run(capsys, folder, *words)
        assert status == 2, words
        assert "perimeter-coordinator init" in said
    assert not folder.exists()


def test_a_changed_ledger_entry_is_found(capsys, folder):
    run(capsys, folder, "init")
    run(capsys, folder, "campaign", "create", str(EXAMPLES / "campaign.toml"))
    with serving(folder):
        pass
    assert run(capsys, folder, "ledger", "verify")[1]["ok"]
    with contextlib.closing(sqlite3.connect(folder / "coordinator.db")) as database:
        database.execute("UPDATE ledger_entry SET body = replace(body, '300', '900')")
        database.commit()
    status, said = run(capsys, folder, "ledger", "verify")
    assert status == 1
    assert "changed" in said["problems"][0]


@contextlib.contextmanager
def serving(folder, signal_at_end=signal.SIGTERM):
    """A real coordinator process; yields it and its ports once a campaign was looked at."""
    environment = {
        **os.environ,
        "PERIMETER_COORDINATOR_LISTEN_ADDRESS": "127.0.0.1:0",
        "PERIMETER_COORDINATOR_ENROLL_ADDRESS": "127.0.0.1:0",
        "PERIMETER_COORDINATOR_METRICS_ADDRESS": "127.0.0.1:0",
        "PERIMETER_COORDINATOR_TICK_SECONDS": "0.05",
        "PERIMETER_COORDINATOR_FEDERATION_COMMAND": json.dumps([sys.executable, str(STAND_IN)]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "coordinator", "serve", "--folder", str(folder), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=EXAMPLES.parents[1],
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, json.loads(line)
    finally:
        process.send_signal(signal_at_end)
        process.communicate(timeout=60)


def status_at(ports):
    url = f"http://127.0.0.1:{ports['metrics_port']}/status"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


def wait_for_version(ports, version):
    deadline = time.monotonic() + 120
    while status_at(ports)["campaigns"][0]["model_version"] != version:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_coordinator_goes_on_where_it_was(capsys, folder):
    run(capsys, folder, "init")
    run(capsys, folder, "campaign", "create", str(EXAMPLES / "campaign.toml"))
    with serving(folder, signal.SIGKILL) as (_, ports):
        wait_for_version(ports, 1)
        before = status_at(ports)
    with serving(folder) as (process, ports):
        wait_for_version(ports, 1)
        assert status_at(ports)["ledger"] == before["ledger"]
        assert status_at(ports)["ledger_sequence"] == before["ledger_sequence"]
    assert process.returncode == 0


def test_two_coordinators_never_serve_one_folder(capsys, folder):
    run(capsys, folder, "init")
    with serving(folder):
        second = subprocess.run(
            [sys.executable, "-m", "coordinator", "serve", "--folder", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            cwd=EXAMPLES.parents[1],
            timeout=60,
        )
    assert second.returncode == 2
    assert "another coordinator serves" in second.stderr


def test_an_acknowledged_batch_survives_kill_nine_at_any_moment(runner, config, folder_with_model):
    template, campaign_id, campaign = folder_with_model
    shutil.copytree(template, config.folder)
    central = runner.start(config)
    agent = central.enroll("north")
    runner.stop(central)
    sent: dict[int, bytes] = {}
    acknowledged: dict[int, bytes] = {}

    def batches():
        for number in range(len(sent) + 1, len(sent) + 2_000):
            made = make_batch(campaign_id, campaign, sequence=number, rows=200)
            sent[number] = made.candidate_ids
            yield made

    for attempt in range(3):
        with serving(config.folder, signal.SIGKILL) as (process, ports):
            central.servers.port = ports["port"]
            again = Machine(central, agent.key, agent.certificate_der)
            stream = again.candidates.StreamCandidateBatches(batches(), timeout=60)
            # A busy machine may answer slowly: the clock starts when it has answered a few times.
            for ack in itertools.islice(stream, 2 + attempt):
                acknowledged[ack.sequence] = sent[ack.sequence]
            threading.Timer(0.05 + 0.07 * attempt, process.kill).start()
            with contextlib.suppress(grpc.RpcError):
                acknowledged.update((ack.sequence, sent[ack.sequence]) for ack in stream)
    store = open_store(config.store_url)
    heads = {head.sequence: head for head in store.segments(campaign_id)}
    assert len(acknowledged) > 3
    for number, ids in acknowledged.items():
        (columns,) = store.columns([heads[number].segment_id], ["candidate_ids"])
        assert columns["candidate_ids"] == ids
    assert store.check() == []
    store.close()


def test_every_reason_for_a_refusal_is_on_the_operators_page():
    page = (EXAMPLES.parent / "operator.md").read_text()
    internal = {Reason.BUDGET_EXHAUSTED, Reason.SITE_BUDGET_EXHAUSTED, Reason.CANDIDATE_GRANTED}
    assert [
        reason for reason in Reason if f"`{reason}`" not in page and reason not in internal
    ] == []


def test_a_campaign_says_what_was_filled_in_beside_its_layer(tmp_path, capsys):
    folder = tmp_path / "central"
    run(capsys, folder, "init")
    path = tmp_path / "letters.toml"
    path.write_text(
        'name = "letters"\nkind = "text"\nclasses = ["a", "b"]\nsites = ["north"]\n'
        "budget_labels = 10\ncycle_budget_labels = 5\ncycles = 2\n"
        "[network]\nunsupervised_width = 200\n[training]\nrounds = 20\n"
    )
    status, made = run(capsys, folder, "campaign", "create", str(path))
    assert status == 0
    assert made["settings"]["training"]["rounds"] == 20
    assert made["settings"]["training"]["local_steps_max"] == 6
    assert made["settings"]["network"]["linear_skip"] is True
    _, shown = run(capsys, folder, "campaign", "show", "letters")
    assert shown["settings"] == made["settings"]
    assert main(["campaign", "show", "letters", "--folder", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "[features] word_weight = 2" in text
    assert "hidden_width = 512" in text
    assert "local_steps_max = 6" in text
