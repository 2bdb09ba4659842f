"""A short run of the load script: experts at their pace, nothing lost, nothing refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_ten_experts_at_once_lose_nothing_and_wait_little(tmp_path) -> None:
    numbers = tmp_path / "numbers.json"
    # Goals of the full run hold on a quiet machine; here only what holds on any.
    subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "portal_load.py"),
            "--experts", "10", "--minutes", "0.1", "--pace", "1", "--json", str(numbers),
        ],
        cwd=ROOT, check=False, capture_output=True,
    )  # fmt: skip
    found = json.loads(numbers.read_text())
    assert found["failures"] == 0
    assert found["acknowledged and lost"] == 0
    assert found["decision p95 ms"] < 1000
    assert found["resident MiB"] < 300
