"""A SuperLink's control interface for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from federation.control import RunStatus


class FakeControl:
    """A SuperLink in memory: each start works in process, or fails as the script says."""

    def __init__(self, script: list[str], work: Callable[[], object]) -> None:
        self.script, self.work = script, work
        self.runs: list[dict[str, Any]] = []
        self.stopped: list[int] = []

    def find_runs(self, key: str, value: str) -> list[RunStatus]:
        return [self._status(i) for i, run in enumerate(self.runs) if run[key] == value]

    def start_run(self, config: dict[str, Any]) -> int:
        self.runs.append(dict(config))
        plan = self.script[len(self.runs) - 1]
        if plan == "completes":
            self.work()
        return len(self.runs) - 1

    def run_status(self, run_id: int) -> RunStatus:
        return self._status(run_id)

    def stop_run(self, run_id: int) -> None:
        self.stopped.append(run_id)
        self.script[run_id] = "fails"

    def close(self) -> None:
        pass

    def _status(self, run_id: int) -> RunStatus:
        plan, attempt = self.script[run_id], int(self.runs[run_id]["attempt"])
        if plan == "hangs":
            return RunStatus(run_id, "running", attempt=attempt)
        outcome = "completed" if plan == "completes" else "failed"
        return RunStatus(run_id, "finished", outcome, "heartbeat lost", attempt)
