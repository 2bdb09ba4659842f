"""The live display: a line for each site and for each campaign's cycles, or plain lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from simulations.demo.plan import DemoPlan

Status = Mapping[str, Any]
PHASES = {
    "initial": "making the first model",
    "waiting": "devices are scoring",
    "labeling": "experts are labeling",
    "training": "sites are training",
    "completed": "done",
}


class Display:
    """Shows progress; on a terminal it redraws in place, elsewhere it prints what is new."""

    def __init__(self, plan: DemoPlan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._live: Live | None = None
        self._said: set[str] = set()
        self._started = time.monotonic()
        self._note = "starting"
        self._kept: list[str] = []
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                self._picture(), console=self._console, refresh_per_second=4, transient=True
            )
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def tell(self, note: str) -> None:
        """Shows what is being done now."""
        self._note = note
        if self._live is not None:
            self._live.update(self._picture())
        else:
            self._say(note)

    def keep(self, line: str) -> None:
        """Shows a line that stays, such as an address to open."""
        self._kept.append(line)
        if self._live is not None:
            self._live.update(self._picture())
        else:
            self._say(line)

    def show(self, status: Status) -> None:
        """Shows a new status."""
        self._status = status
        self._note = ""
        if self._live is not None:
            self._live.update(self._picture())
            return
        for campaign in status["campaigns"]:
            for row in campaign["history"]:
                self._say(f"{campaign['name']}: {cycle_sentence(row)}")
            where = PHASES.get(campaign["phase"], campaign["phase"])
            self._say(f"{campaign['name']}, cycle {shown_cycle(campaign)}: {where}")

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            seconds = time.monotonic() - self._started
            self._console.print(
                f"[{seconds:5.0f} s] {line}", markup=False, highlight=False, soft_wrap=True
            )

    def _picture(self) -> RenderableType:
        seconds = time.monotonic() - self._started
        head = Text(f"Perimeter demo · {seconds:.0f} s", style="bold")
        parts: list[RenderableType] = [head, *(Text(line, style="bold") for line in self._kept)]
        if self._note:
            parts.append(Text(self._note, style="dim"))
        if self._status is not None:
            parts += [campaigns_table(self._status), sites_table(self._plan, self._status)]
        return Group(*parts)


def shown_cycle(campaign: Mapping[str, Any]) -> int:
    """Returns the cycle that a campaign is in, or was in last.

    >>> shown_cycle({"cycle": 4, "cycles": 3})
    3
    """
    return min(int(campaign["cycle"]), int(campaign["cycles"]))


def cycle_sentence(row: Mapping[str, Any]) -> str:
    """Returns one finished cycle in words.

    >>> cycle_sentence(
    ...     {"cycle": 1, "labels": 80, "accuracy": 0.5, "macro_f1": None, "model_version": 2,
    ...      "seconds": 31.4})
    'cycle 1 done: 80 labels, accuracy 50.0 %, model version 2, 31 s'
    """
    accuracy = "not measured" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %"
    return (
        f"cycle {row['cycle']} done: {row['labels']} labels, accuracy {accuracy}, "
        f"model version {row['model_version']}, {row['seconds']:.0f} s"
    )


def campaigns_table(status: Status) -> Table:
    """Returns a line for each campaign and for each of its finished cycles."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("campaign", "cycle", "what happens", "budget", "labels", "accuracy", "model"):
        table.add_column(name)
    for campaign in status["campaigns"]:
        ledger = campaign["ledger"]
        for row in campaign["history"]:
            accuracy = "–" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %"
            labels, made = str(row["labels"]), f"v{row['model_version']}"
            done = Text(f"took {row['seconds']:.0f} s", style="dim")
            table.add_row("", str(row["cycle"]), done, "", labels, accuracy, made)
        training = campaign["training"] or {}
        what = PHASES.get(campaign["phase"], campaign["phase"])
        if campaign["phase"] == "training" and training.get("rounds"):
            what += f", round {training['round']} of {training['rounds']}"
        bar = ProgressBar(total=ledger["budget"], completed=ledger["spent"], width=16)
        spent = f"{ledger['spent']}/{ledger['budget']}"
        number, version = (
            f"{shown_cycle(campaign)}/{campaign['cycles']}",
            f"v{campaign['model_version']}",
        )
        title = Text(campaign["name"], style="bold cyan")
        table.add_row(title, number, what, bar, spent, "", version)
    return table


def sites_table(plan: DemoPlan, status: Status) -> Table:
    """Returns a line for each site: labels by campaign and what its devices run."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("site")
    for campaign in status["campaigns"]:
        table.add_column(f"{campaign['name']} labels", justify="right")
        table.add_column("waiting", justify="right")
        table.add_column("devices run")
    for site in plan.sites:
        cells: list[str] = []
        for campaign in status["campaigns"]:
            account = campaign["sites"].get(site, {"spent": 0, "reserved": 0})
            agents = [a for a in campaign["agents"] if a["site"] == site]
            versions = " ".join(f"v{a['installed_version']}" for a in agents)
            cells += [str(account["spent"]), str(account["reserved"]), versions]
        table.add_row(Text(site, style="bold green"), *cells)
    return table


def final_table(report: Mapping[str, Any]) -> Table:
    """Returns the closing table: one line for each campaign and cycle."""
    table = Table(title="What each cycle bought", title_justify="left")
    for name in ("campaign", "cycle", "labels spent", "accuracy", "macro F1", "model", "seconds"):
        table.add_column(name, justify="left" if name == "campaign" else "right")
    for name, campaign in report["campaigns"].items():
        for row in campaign["cycles"]:
            table.add_row(
                name if row["cycle"] == 1 else "",
                str(row["cycle"]),
                str(row["budget_spent"]),
                f"{100 * row['accuracy']:.1f} %",
                f"{100 * row['macro_f1']:.1f} %",
                f"v{row['model_version']}",
                f"{row['seconds']:.0f}",
            )
        table.add_section()
    return table
