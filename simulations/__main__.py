"""`perimeter-simulate`: try a rollout before it costs anything."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    options = _parser().parse_args(arguments)
    from simulations.errors import SimulationError

    try:
        return int(options.run(options))
    except SimulationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perimeter-simulate", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run all strategies and seeds of a configuration")
    run.add_argument("config", type=Path, help="TOML file; see simulations/scenarios")
    run.add_argument("--out", type=Path, required=True, help="folder for results; resumes in it")
    run.set_defaults(run=_run)
    plan = commands.add_parser(
        "plan", help="how many labels, which policy, what cost, when to stop"
    )
    plan.add_argument("config", type=Path, help="the configuration that was or will be run")
    plan.add_argument("--out", type=Path, required=True, help="folder for results; resumes in it")
    plan.add_argument("--target", type=float, default=None, help="accuracy to plan for, 0 to 1")
    plan.set_defaults(run=_plan)
    names = commands.add_parser("strategies", help="list all strategies")
    names.set_defaults(run=_strategies)
    from simulations.name_tagger.commands import add_arguments

    add_arguments(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    import json

    from simulations.config import read_config
    from simulations.report import make_report
    from simulations.summary import summarise
    from simulations.sweep import result_of, run_all

    config = read_config(options.config)
    runs = run_all(config, options.out, lambda line: print(line, flush=True))
    summary = summarise(runs)
    results = {"runs": [result_of(run) for run in runs], "summary": summary}
    _write(options.out / "results.json", json.dumps(results, indent=1))
    _write(options.out / "report.html", make_report(config, runs, summary))
    print(f"results: {options.out / 'results.json'}\nreport:  {options.out / 'report.html'}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from simulations.advice import make_plan, plan_text
    from simulations.config import read_config
    from simulations.sweep import run_all

    config = read_config(options.config)
    runs = run_all(config, options.out, lambda line: print(line, file=sys.stderr, flush=True))
    print(plan_text(make_plan(config, runs, options.target)))
    return 0


def _strategies(options: argparse.Namespace) -> int:
    del options
    from simulations.strategies import strategy_names

    for name, line in strategy_names().items():
        print(f"{name:28s} {line}")
    return 0


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, "utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
