"""All runs of a configuration: in parallel over seeds, resumable, one file per finished run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulations.config import SimulationConfig
from simulations.errors import ConfigInvalid

Report = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """One run as it stands in `results.json`.

    Attributes:
        strategy: name.
        seed: of the world.
        curve: points as mappings.
        selection_seconds: spent selecting in all cycles.
    """

    strategy: str
    seed: int
    curve: list[dict[str, Any]]
    selection_seconds: float


def run_all(config: SimulationConfig, out: Path, report: Report) -> list[Finished]:
    """Runs what is not finished yet and returns all runs in the order of the configuration.

    Args:
        config: what to run.
        out: folder for results; finished runs in it are taken over, if the configuration fits.
        report: gets one line per finished run.

    Raises:
        ConfigInvalid: a strategy is not known, or the folder holds runs of another configuration.
    """
    from simulations.strategies import find_strategy

    for name in config.simulation.strategies:
        find_strategy(name)
    folder = _prepare(config, out)
    seeds = range(
        config.simulation.first_seed, config.simulation.first_seed + config.simulation.seeds
    )
    open_work = {seed: _missing(config, folder, seed) for seed in seeds}
    work = {seed: names for seed, names in open_work.items() if names}
    total = sum(len(names) for names in work.values())
    for done, line in enumerate(_finish(config, folder, work), start=1):
        report(f"{done}/{total} {line}")
    return [
        _load(_place(folder, name, seed)) for name in config.simulation.strategies for seed in seeds
    ]


def run_seed(config: SimulationConfig, folder: str, seed: int, names: list[str]) -> Iterator[str]:
    """Plays the named strategies on one seed's world and stores each when it is finished."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from simulations.datasets import load_dataset
    from simulations.engine import Run
    from simulations.learned_features import learn_features
    from simulations.learner import make_learner
    from simulations.strategies import find_strategy
    from simulations.world import make_world

    dataset = load_dataset(config.data)
    world = make_world(config, dataset, seed)
    dataset = learn_features(config, dataset, world, seed)
    learner = make_learner(
        dataset, config.training, seed, flower=config.simulation.trainer == "flower"
    )
    start = Run(config, dataset, world, learner).start_model()
    for name in names:
        run = Run(config, dataset, world, learner)
        curve, seconds = run.play(find_strategy(name), start)
        finished = Finished(name, seed, [asdict(point) for point in curve], round(seconds, 4))
        _store(_place(Path(folder), name, seed), finished)
        yield f"{name} seed {seed}: accuracy {curve[-1].accuracy:.3f} at {curve[-1].labels} labels"


def _finish(config: SimulationConfig, folder: Path, work: dict[int, list[str]]) -> Iterator[str]:
    wanted = config.simulation.processes or os.cpu_count() or 1
    processes = min(wanted, len(work))
    if processes <= 1:
        for seed, names in work.items():
            yield from run_seed(config, str(folder), seed, names)
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [
            pool.submit(_run_seed_list, config, str(folder), seed, names)
            for seed, names in work.items()
        ]
        for future in as_completed(futures):
            yield from future.result()


def _run_seed_list(config: SimulationConfig, folder: str, seed: int, names: list[str]) -> list[str]:
    return list(run_seed(config, folder, seed, names))


def _prepare(config: SimulationConfig, out: Path) -> Path:
    """Makes the folder of runs; refuses one that was made by another configuration."""
    folder = out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    decisive = asdict(config)
    decisive["simulation"] = {"trainer": config.simulation.trainer}
    text = json.dumps(decisive, sort_keys=True, default=list)
    digest = hashlib.sha256(text.encode()).hexdigest()
    mark = folder / "configuration.sha256"
    if mark.exists() and mark.read_text("utf-8") != digest:
        raise ConfigInvalid(f"{out} holds runs of another configuration; choose an empty folder")
    mark.write_text(digest, "utf-8")
    return folder


def _place(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}.{seed}.json"


def _missing(config: SimulationConfig, folder: Path, seed: int) -> list[str]:
    return [n for n in config.simulation.strategies if not _place(folder, n, seed).exists()]


def _store(path: Path, finished: Finished) -> None:
    """Writes a run whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(finished)), "utf-8")
    part.replace(path)


def _load(path: Path) -> Finished:
    return Finished(**json.loads(path.read_text("utf-8")))


def result_of(run: Finished) -> dict[str, Any]:
    """The run as `results.json` shows it."""
    return asdict(run)
