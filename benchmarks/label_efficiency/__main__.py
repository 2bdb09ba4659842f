"""Runs the label-efficiency protocol and writes its tables.

    python -m benchmarks.label_efficiency --out DIR [--sets … --seeds N --processes N]

Finished runs in DIR are not played again, so a run that was stopped goes on where it was. DIR gets
`runs.jsonl` (every curve), `results.json` (every figure) and `table.md`. The data sets lie in the
folder that --data or PERIMETER_DATA names, or in `shared/data` beside the checkout.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.label_efficiency import protocol
from benchmarks.label_efficiency.runs import Job, play_all

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.label_efficiency", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--features", type=Path, help="folder of prepared features; in DIR without")
    parser.add_argument("--sets", nargs="*", default=[], help="data sets; all without")
    parser.add_argument("--only", nargs="*", default=[], help="cells whose name ends like this")
    parser.add_argument("--strategies", nargs="*", default=[], help="entrants; all without")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--ablation-seeds", type=int, default=3, help="for parts switched off")
    parser.add_argument("--processes", type=int, default=0, help="0 for one per core")
    parser.add_argument("--seconds", type=float, default=0, help="begin no run after these")
    parser.add_argument("--page", type=Path, help="page to put the tables into")
    parser.add_argument("--tables-only", action="store_true", help="play nothing")
    options = parser.parse_args(arguments)
    if not options.tables_only:
        play_all(
            jobs_of(options),
            options.out,
            lambda line: print(line, flush=True),
            processes=options.processes,
            seconds=options.seconds,
        )
    from benchmarks.label_efficiency.tables import fill_in, write_tables

    text = write_tables(options.out)
    print(text)
    if options.page:
        fill_in(options.page, text)
    return 0


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """All runs that the options ask for, seed by seed, so that a time-out leaves whole seeds."""
    unknown = set(options.sets) - {subject.name for subject in protocol.SUBJECTS}
    if unknown:
        raise SystemExit(f"unknown data sets: {', '.join(sorted(unknown))}")
    few = set(protocol.ablations())
    wanted = set(options.strategies)
    data = options.data or Path(os.environ.get("PERIMETER_DATA", BESIDE))
    features = options.features or options.out / "features"
    jobs = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for entrant in protocol.entrants():
            if wanted and entrant.name not in wanted:
                continue
            if entrant.name in few and seed >= options.ablation_seeds:
                continue
            cells = protocol.cells(tuple(options.sets))
            if options.only:
                cells = [cell for cell in cells if cell.name.endswith(tuple(options.only))]
            jobs += [Job(cell, entrant, seed, data, features) for cell in cells]
    return jobs


if __name__ == "__main__":
    raise SystemExit(main())
