"""Playing the protocol: in parallel over runs, one line per finished run, resumable.

A run is one entrant on one cell and one seed. `runs.jsonl` in the folder of results grows by a line
whenever a run is finished; what stands there is not played again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.label_efficiency.protocol import OURS_BY_SITE, Cell, Entrant, configuration

Report = Callable[[str], None]
Line = dict[str, Any]
KEPT = ("cycle", "labels", "cost", "accuracy", "macro_f1", "worst_class_recall", "rarest_share")
POOLED_FOR = ("random", "perimeter")
"""Entrants whose last labels also train a pooled model."""


@dataclass(frozen=True)
class Job:
    """One run to be played.

    Attributes:
        cell: where.
        entrant: who.
        seed: of the world.
        data: folder of the data sets.
        features: folder of prepared features.
    """

    cell: Cell
    entrant: Entrant
    seed: int
    data: Path
    features: Path

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes the run unique."""
        return self.cell.name, self.entrant.name, self.seed


def read_lines(out: Path) -> list[Line]:
    """Finished runs in a folder; a line that a crash cut short is left out."""
    path = out / "runs.jsonl"
    found = []
    for text in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return found


def play_all(
    jobs: list[Job], out: Path, report: Report, *, processes: int = 0, seconds: float = 0
) -> None:
    """Plays what is not finished yet.

    Args:
        jobs: in order of importance.
        out: folder of results.
        report: gets one line per finished run.
        processes: workers, 0 for one per core.
        seconds: after so many seconds no further run is begun, 0 for no limit.
    """
    from benchmarks.label_efficiency.prepared import prepare

    out.mkdir(parents=True, exist_ok=True)
    done = {(line["cell"], line["entrant"], line["seed"]) for line in read_lines(out)}
    left = [job for job in jobs if job.key not in done]
    began = time.monotonic()
    kinds = {
        (job.cell.subject.name, job.entrant.preparation(job.cell.subject).features): job
        for job in left
    }
    for job in kinds.values():
        prepare(job.cell, job.entrant, job.data, job.features)
    with (out / "runs.jsonl").open("a", encoding="utf-8") as file:
        if file.tell():
            file.write("\n")  # ends a line that a crash cut short
        for number, line in enumerate(_played(left, processes, began + (seconds or 1e9)), start=1):
            file.write(json.dumps(line) + "\n")
            file.flush()
            end = line["curve"][-1]
            report(
                f"{number}/{len(left)} {time.monotonic() - began:.0f} s  {line['cell']}, seed "
                f"{line['seed']}, {line['entrant']}: {end['accuracy']:.3f} in {line['seconds']} s"
            )


def play(job: Job) -> Line:
    """Plays one run."""
    from benchmarks.label_efficiency.pooled import pooled_accuracy
    from benchmarks.label_efficiency.prepared import learned, load, prepare
    from benchmarks.label_efficiency.watching import Watched, by_site
    from simulations.engine import Run
    from simulations.learner import make_learner
    from simulations.strategies import find_strategy
    from simulations.world import make_world

    began = time.process_time()
    config = configuration(job.cell, job.data, job.entrant)
    dataset = load(prepare(job.cell, job.entrant, job.data, job.features))
    world = make_world(config, dataset, job.seed)
    dataset = learned(config, dataset, world, job.features / f"{job.cell.name}.{job.seed}")
    learner = make_learner(dataset, config.training, job.seed)
    run = Run(config, dataset, world, learner)
    name = job.entrant.strategy
    watched = Watched(by_site if name == OURS_BY_SITE else find_strategy(name), world.answers)
    curve, selecting = run.play(watched, run.start_model())
    line: Line = {
        "cell": job.cell.name,
        "entrant": job.entrant.name,
        "seed": job.seed,
        "curve": [_rounded({k: asdict(point)[k] for k in KEPT}) for point in curve],
        "selection_seconds": round(selecting, 3),
        "stopped_at": watched.stopped_at,
    }
    if job.entrant.name in POOLED_FOR:
        line["pooled_accuracy"] = round(pooled_accuracy(learner, world, watched.labels), 4)
    line["seconds"] = round(time.process_time() - began, 2)
    return line


def _played(jobs: list[Job], processes: int, until: float) -> Iterator[Line]:
    workers = processes or os.cpu_count() or 1
    if workers == 1:
        for job in jobs:
            if time.monotonic() < until:
                yield play(job)
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        queue, running = iter(jobs), set[Future[Line]]()
        while True:
            while len(running) < workers + 2 and time.monotonic() < until:
                job = next(queue, None)
                if job is None:
                    break
                running.add(pool.submit(play, job))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()


def _rounded(point: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in point.items()}
