"""The commands answer fast, say what is wrong, and survive being killed."""

from __future__ import annotations

import doctest
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent import config as config_module
from edge_agent import status
from edge_agent.config import load_config, parse_config
from edge_agent.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "docs" / "examples" / "agent.toml"


def agent(*words: str, config: Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "edge_agent", *words, "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def write_config(device, path: Path) -> Path:
    """The device's settings as a TOML file."""
    values = device.values
    lines = [f'state = "{values["state"]}"', f'portal = "{values["portal"]}"']
    for source in values["sources"]:
        lines += ["[[sources]]", *(f'{key} = "{value}"' for key, value in source.items())]
    lines += ["[timing]", "model_poll_seconds = 0.5", "settle_seconds = 0", "tick_seconds = 0.1"]
    path.write_text("\n".join([*lines, "[limits]", "nice = 0"]) + "\n")
    return path


def test_the_examples_in_the_docstrings_hold():
    results = [doctest.testmod(module) for module in (config_module, status)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 2


def test_help_loads_nothing_heavy():
    script = (
        "import sys\n"
        "sys.argv = ['perimeter-agent', '--help']\n"
        "from edge_agent.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    for heavy in ("numpy", "grpc", "onnxruntime", "cryptography", "msgspec", "PIL", "google"):
        assert f"'{heavy}'" not in done.stderr
    assert "enroll" in done.stdout


def test_the_daemon_never_loads_what_only_the_centre_or_the_masker_needs():
    script = (
        "import sys, edge_agent.assembly, edge_agent.enrollment\n"
        "print({m.split('.')[0] for m in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    forbidden = ("torch", "flwr", "fastapi", "sqlmodel", "sqlalchemy", "scipy", "pyarrow", "onnx")
    for heavy in (*forbidden, "presidio_analyzer", "spacy", "pandas", "sklearn"):
        assert f"'{heavy}'" not in done.stdout


# -- configuration ------------------------------------------------------------------------------


def test_the_example_file_is_a_whole_configuration_with_the_defaults():
    config = load_config(EXAMPLE, {})
    assert [source.type for source in config.sources] == ["folder", "file", "file", "push"]
    plain = parse_config({"state": "x"}, {}, base=Path("/"))
    assert config.limits == plain.limits
    assert config.timing == plain.timing


def test_the_example_file_documents_every_key():
    text = EXAMPLE.read_text()
    for table in (
        config_module.AgentConfig,
        config_module.SourceConfig,
        config_module.Limits,
        config_module.Timing,
    ):
        for key in table.__struct_fields__:
            assert key in text, key


SOURCE = {"name": "s", "campaign": "c", "kind": "text", "type": "folder", "path": "p"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "state"),
        ({"state": "s", "stat": "x"}, "stat"),
        ({"state": 5}, "state"),
        ({"state": "s", "limits": {"sample_bytes": 1}}, "sample_bytes"),
        ({"state": "s", "limits": {"candidate_batch_rows": 10_001}}, "between 1 and 10000"),
        ({"state": "s", "limits": {"minibatch_rows": 0}}, "at least 1"),
        ({"state": "s", "timing": {"grant_wait_seconds": 31}}, "between 0 and 30"),
        ({"state": "s", "sources": [SOURCE | {"kind": "video"}]}, "video"),
        ({"state": "s", "sources": [SOURCE, SOURCE]}, "names must differ"),
        ({"state": "s", "sources": [SOURCE | {"path": ""}]}, "set `path`"),
        ({"state": "s", "sources": [SOURCE | {"type": "file", "kind": "image"}]}, "folder or push"),
        ({"state": "s", "sources": [SOURCE | {"kind": "record"}]}, "growing file"),
        (
            {"state": "s", "sources": [SOURCE | {"type": "push", "listen": "0.0.0.0:80"}]},
            "only this device",
        ),
    ],
)
def test_a_wrong_configuration_names_the_key(values, words):
    with pytest.raises(ConfigError, match=words):
        parse_config(values, {}, base=Path("/"))


def test_the_environment_overrides_and_is_checked_too():
    environment = {
        "PERIMETER_AGENT_PORTAL": "p:1",
        "PERIMETER_AGENT_TIMING_TICK_SECONDS": "0.5",
        "PERIMETER_AGENT_LIMITS_WHEN_FULL": "drop-oldest",
        "PERIMETER_AGENT_MASKING_LEVEL": "strict",
    }
    config = parse_config({"state": "s"}, environment, base=Path("/"))
    assert (config.portal, config.timing.tick_seconds) == ("p:1", 0.5)
    assert (config.limits.when_full, config.masking) == ("drop-oldest", {"level": "strict"})
    for name, value in (("PORTL", "x"), ("SOURCES", "x"), ("LIMITS_NICE", "many")):
        with pytest.raises(ConfigError, match=f"PERIMETER_AGENT_{name}"):
            parse_config({"state": "s"}, {f"PERIMETER_AGENT_{name}": value}, base=Path("/"))


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"docs/examples/agent\.toml"):
        load_config(tmp_path / "no.toml", {})
    (tmp_path / "bad.toml").write_text("state = ")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_config(tmp_path / "bad.toml", {})


# -- processes ----------------------------------------------------------------------------------


def test_a_device_is_enrolled_runs_reports_and_is_killed_without_loss(
    device, coordinator, portal, tmp_path
):
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    device.put(*(f"letter number {n} about a refund" for n in range(30)))
    config = write_config(device, tmp_path / "agent.toml")
    assert agent("status", config=config).returncode == 1
    enrolled = agent("enroll", "-", config=config, input=coordinator.token())
    assert "enrolled as north/a1" in enrolled.stdout, enrolled.stderr
    command = [sys.executable, "-m", "edge_agent", "run", "--config", str(config)]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: coordinator.reports)
        found = json.loads(agent("status", "--json", config=config).stdout)
        assert found["running"]
        assert found["campaigns"]["tickets"]["samples"] == {"open": 30}
        assert found["campaigns"]["tickets"]["model_version"] == 1
        second = agent("run", config=config)
        assert second.returncode == 2
        assert "another agent is running" in second.stderr
        daemon.kill()
        daemon.wait()
        candidate = next(iter(coordinator.rows(campaign)))
        grant = coordinator.grant(campaign, candidate, expires_at=int(time.time()) + 600)
        daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: coordinator.outcomes)
        assert grant.grant_id in portal.items
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=60) == 0
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stderr.close()
    shown = agent("status", config=config).stdout
    assert "agent is stopped" in shown
    assert "1 released" in shown
    verified = agent("egress", "verify", "--json", config=config)
    assert json.loads(verified.stdout)["fault"] == ""


def wait_for(done, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_status_says_what_was_refused_and_why(device, coordinator, tmp_path):
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    (device.inbox / "bad.txt").write_bytes(b"\xff\xfe")
    daemon = device.enroll().daemon()
    device.until(daemon, lambda: coordinator.reports)
    config = write_config(device, tmp_path / "agent.toml")
    shown = agent("status", config=config).stdout
    assert "1 not-utf8" in shown
    assert "bad.txt" in shown
    assert "iconv" in shown


def test_a_full_disk_is_named_and_work_goes_on_when_it_has_space(device, coordinator):
    """A limit on the size of files fails writes as a full disk does, without a disk to fill."""
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    daemon = device.enroll().daemon()
    device.until(daemon, lambda: coordinator.reports)
    stores = daemon._parts.stores
    device.put(*(f"{n} " + "long letter " * 20_000 for n in range(8)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        device.until(daemon, lambda: "source inbox" in daemon._faults)
        assert "free space" in daemon._faults["source inbox"]
        assert stores.samples.counts() == {}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    device.until(daemon, lambda: len(coordinator.rows(campaign)) == 8)
    assert stores.database.read("PRAGMA integrity_check") == [("ok",)]
