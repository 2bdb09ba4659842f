"""An enrolled device beside a coordinator and a portal that really listen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from agent_masker import AddressMasker
from agent_peers import Authority, Coordinator, Portal

from edge_agent.assembly import build_daemon
from edge_agent.config import AgentConfig, parse_config
from edge_agent.daemon import Daemon
from edge_agent.enrollment import enroll
from edge_agent.inference import Predictor
from edge_agent.warm_up import probe_samples
from model_bundle.manifest import unpack


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def coordinator(authority: Authority) -> Iterator[Coordinator]:
    peer = Coordinator(authority)
    yield peer
    peer.stop()


@pytest.fixture
def portal(authority: Authority) -> Iterator[Portal]:
    peer = Portal(authority)
    yield peer
    peer.stop()


class Device:
    """A state folder, an inbox folder, and a clock that only tests move."""

    def __init__(self, folder: Path, coordinator: Coordinator, portal: Portal) -> None:
        self.folder = folder
        self.coordinator = coordinator
        self.portal = portal
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.now = time.time()
        self.values: dict = {
            "state": str(folder / "state"),
            "portal": f"127.0.0.1:{portal.port}",
            "sources": [
                {
                    "name": "inbox",
                    "campaign": "tickets",
                    "kind": "text",
                    "type": "folder",
                    "path": str(self.inbox),
                }
            ],
            "timing": {
                "settle_seconds": 0.0,
                "model_poll_seconds": 0.0,
                "retry_first_seconds": 0.0,
                "retry_longest_seconds": 0.0,
                "call_seconds": 5.0,
            },
            "limits": {"warm_up_seconds": 30},
        }
        self.masker = AddressMasker()
        self.daemons: list[Daemon] = []

    @property
    def config(self) -> AgentConfig:
        return parse_config(self.values, {}, base=self.folder)

    def clock(self) -> float:
        return self.now

    def enroll(self) -> Device:
        enroll(self.config, self.coordinator.token(), self.clock)
        return self

    def daemon(self, *, real_masker: bool = False) -> Daemon:
        masker = None if real_masker else self.masker
        daemon = build_daemon(self.config, self.clock, Random(0), masker=masker)
        self.daemons.append(daemon)
        return daemon

    def put(self, *texts: str) -> None:
        """Drops texts into the watched folder."""
        count = len(list(self.inbox.iterdir()))
        for number, text in enumerate(texts, count):
            (self.inbox / f"{number:05d}.txt").write_text(text)

    def until(
        self, daemon: Daemon, done: Callable[[], object], *, ticks: int = 3000, step: float = 0.0
    ) -> None:
        """Turns the daemon until something is true."""
        for _ in range(ticks):
            if done():
                return
            self.now += step
            if not daemon.tick(self.now):
                time.sleep(0.01)
        conditions = daemon._parts.stores.conditions.all()
        pytest.fail(f"it did not happen; conditions: {conditions}")

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.close()


def trial_in_process(path: Path, **_: int) -> str:
    """The trial run without its process: the same steps, without a second interpreter's start."""
    try:
        predictor = Predictor(unpack(path.read_bytes()))
        predictor.predict(probe_samples(predictor.features, 3))
    except Exception as error:
        return str(error)
    return ""


@pytest.fixture
def device(
    tmp_path: Path, coordinator: Coordinator, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Device]:
    monkeypatch.setattr("edge_agent.installer.trial", trial_in_process)
    built = Device(tmp_path, coordinator, portal)
    yield built
    built.close()
