"""perimeter-demo: the whole loop on one machine, real processes over mutual TLS."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perimeter-demo", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".demo"), help="folder for all state")
    parser.add_argument("--data", type=Path, help="your own table: CSV, JSONL or Parquet")
    parser.add_argument("--human", action="store_true", help="a person labels in the browser")
    parser.add_argument("--report", type=Path, default=Path("demo-report"), help="report folder")
    parser.add_argument("--cycles", type=int, default=3, help="cycles of each campaign")
    parser.add_argument("--cycle-budget", type=int, help="labels that one cycle may buy")
    parser.add_argument(
        "--pool-max", type=int, default=3000, help="pool rows of your own table, drawn by chance"
    )
    parser.add_argument("--expert-accuracy", type=float, default=1.0, help="share of right answers")
    parser.add_argument("--seed", type=int, default=7, help="seed of every draw")
    parser.add_argument(
        "--time-limit", type=float, default=1800.0, help="seconds until it gives up, 0 for none"
    )
    return parser


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _campaigns(arguments: argparse.Namespace, markers: tuple[str, ...]) -> list[Any]:
    from simulations.demo.digits import digits_campaign
    from simulations.demo.plan import SITE_NAMES, CampaignPlan
    from simulations.demo.table import table_campaign
    from simulations.demo.tickets import tickets_campaign

    seed, cycles = arguments.seed, arguments.cycles
    if arguments.data is not None:
        source = table_campaign(
            arguments.data, SITE_NAMES, seed=seed, pool_max=arguments.pool_max or None
        )
        budget = arguments.cycle_budget or max(60, 4 * len(source.classes))
        return [CampaignPlan(source, budget, cycles, buckets=16384)]
    digits = digits_campaign(SITE_NAMES, seed=seed)
    tickets = tickets_campaign(SITE_NAMES, seed=seed, markers=markers)
    return [
        CampaignPlan(digits, arguments.cycle_budget or 80, cycles),
        CampaignPlan(tickets, arguments.cycle_budget or 60, cycles),
    ]


def _run(arguments: argparse.Namespace) -> int:
    import dataclasses

    import numpy as np
    from rich.console import Console

    from simulations.demo.display import Display, final_table
    from simulations.demo.plan import MARKER_COUNT, make_plan
    from simulations.demo.report import write_report
    from simulations.demo.run import DemoRun
    from simulations.demo.tickets import marker_strings

    console = Console()
    markers: tuple[str, ...] = ()
    if arguments.data is None:
        markers = marker_strings(MARKER_COUNT, rng=np.random.default_rng(arguments.seed))
    campaigns = _campaigns(arguments, markers)
    plan = make_plan(arguments.work, campaigns, markers=markers, human=arguments.human)
    plan = dataclasses.replace(plan, expert_accuracy=arguments.expert_accuracy, seed=arguments.seed)
    with Display(plan, console) as display:
        report = DemoRun(plan, display, arguments.time_limit).run()
    paths = write_report(report, arguments.report)
    console.print(final_table(report))
    ledger, markers_found = report["ledger"], report["markers"]
    console.print(f"Budget: {ledger['spent']} of {ledger['budget']} labels spent.")
    if markers_found["planted"]:
        console.print(
            f"{markers_found['found']} of {markers_found['planted']} marker strings planted in the "
            f"texts found in {markers_found['bytes_searched']:,} bytes on the central side.",
            soft_wrap=True,
        )
    console.print(f"Report: {paths[1]}")
    return 0


def main() -> int:
    """Reads the arguments and runs the demo; exit status 1 on an error, 130 on Ctrl-C."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)
    from simulations.demo.errors import DemoError

    try:
        return _run(arguments)
    except DemoError as error:
        sys.stderr.write(f"perimeter-demo: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("perimeter-demo: stopped; every process it started has ended\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
