"""One whole demo, run once by its command, that many tests look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from simulations.demo.layout import Layout


@dataclass(frozen=True)
class FinishedDemo:
    """What a demo left: its folders, its report and what it printed."""

    layout: Layout
    report: dict[str, Any]
    page: str
    printed: str


def processes_of(work: Path) -> list[str]:
    """Command lines of living processes that name a folder."""
    lines = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(work) in line and process.pid != os.getpid():
            lines.append(line)
    return lines


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> FinishedDemo:
    """The demo of the README, run to its end."""
    folder = tmp_path_factory.mktemp("demo")
    work, report = folder / "w", folder / "report"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "simulations.demo", "--work", str(work)),
            *("--report", str(report), "--time-limit", "1500"),
        ],
        capture_output=True,
        text=True,
        timeout=1600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    assert processes_of(work) == []
    return FinishedDemo(
        Layout(work),
        json.loads((report / "report.json").read_text()),
        (report / "report.html").read_text(),
        done.stdout,
    )
