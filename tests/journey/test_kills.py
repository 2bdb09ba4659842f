"""Kill any one process and start it again: no label is lost, the budget is exact."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from simulations.demo.digits import digits_campaign
from simulations.demo.display import Display
from simulations.demo.plan import SITE_NAMES, CampaignPlan, make_plan
from simulations.demo.run import DemoRun
from simulations.demo.supervisor import Supervisor
from simulations.demo.watch import Status
from tests.journey.conftest import processes_of

pytestmark = [pytest.mark.journey, pytest.mark.federation, pytest.mark.timeout(2400)]


class Killer:
    """Ends each victim once, as soon as its moment has come."""

    def __init__(self) -> None:
        self.killed: list[str] = []

    def __call__(self, status: Status, supervisor: Supervisor) -> None:
        campaign = status["campaigns"][0]
        training = campaign["training"] or {}
        in_round = campaign["phase"] == "training" and training.get("round", 0) >= 1
        moments: dict[str, bool] = {
            "alder/device-1": campaign["phase"] == "labeling",
            "birch/portal": campaign["phase"] == "labeling",
            "coordinator": campaign["ledger"]["spent"] > 0,
            "superlink": in_round and campaign["cycle"] == 1,
            "cedar/trainer": in_round and campaign["cycle"] == 2,
        }
        for name, has_come in moments.items():
            if has_come and name not in self.killed and supervisor.alive(name):
                supervisor.kill(name)
                self.killed.append(name)
                return


def interrupted(work: Path, ready: Callable[[], bool]) -> int:
    command = (sys.executable, "-m", "simulations.demo", "--work", str(work), "--report", str(work))
    # A shell's background jobs ignore Ctrl-C, and their children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, before)
    end = time.monotonic() + 600
    try:
        while not ready():
            assert demo.poll() is None, "the demo ended by itself"
            assert time.monotonic() < end, "the demo did not start its processes"
            time.sleep(0.2)
    finally:
        demo.send_signal(signal.SIGINT)
        code = demo.wait(timeout=240)
    return code


def test_every_process_may_die_once_after_an_interrupted_run(tmp_path: Path) -> None:
    work = tmp_path / "w"

    # First, Ctrl-C in the middle leaves no process behind.
    def running() -> bool:
        return any("coordinator serve" in line for line in processes_of(work))

    assert interrupted(work, running) == 130
    assert processes_of(work) == []

    # Then a second run in the same folder goes to its end, whatever is killed.
    source = digits_campaign(SITE_NAMES, seed=3, pool_max=450)
    plan = make_plan(work, [CampaignPlan(source, 36, 2)], human=False)
    killer = Killer()
    display = Display(plan, Console(file=StringIO()))
    report = DemoRun(plan, display, 1500.0, on_status=killer).run()
    assert sorted(killer.killed) == sorted(
        ["alder/device-1", "birch/portal", "coordinator", "superlink", "cedar/trainer"]
    )
    assert sorted(report["restarts"]) == sorted(killer.killed)
    cycles = report["campaigns"]["digits"]["cycles"]
    assert [cycle["cycle"] for cycle in cycles] == [1, 2]
    assert report["ledger"]["spent"] == cycles[-1]["labels"]
    assert report["ledger"]["spent"] + report["ledger"]["returned"] >= 72
    assert report["ledger"]["spent"] <= 72
    assert report["ledger"]["reserved"] == 0
    assert cycles[-1]["accuracy"] > 0.5
    assert processes_of(work) == []
