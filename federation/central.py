"""The central side of one run: resume, rounds, checkpoints, then the sites' assessment.

`train_run` is what the deployed server app calls, and what simulations call in process. It leaves
checkpoints and an `assessment/` folder; `publish` makes the signed bundle from those, in another
process, so that the signing key is never near code that talks to sites.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation import checkpoint, frames, onnx_engine, run_files, survey_run
from federation.aggregation import ServerState
from federation.checkpoint import RoundState
from federation.courier import Transport
from federation.errors import CheckpointInvalid, FederationError, RequestInvalid
from federation.networks import Arrays, initial_arrays
from federation.requests import RoundSettings, TrainingRequest
from federation.round_loop import (
    RunPlan,
    ask_reports,
    learns_from_pool,
    plain_plan,
    quorum,
    run_rounds,
    sum_groups,
)
from federation.screening import ReportVerdict
from federation.statistics import (
    Calibration,
    accuracy,
    calibration_error,
    f1_scores,
    macro_f1,
    next_code_book,
    pooled_error,
    prototypes,
    seeded_code_book,
    site_temperature,
    temperature_of,
)
from model_bundle.errors import BundleError
from model_bundle.manifest import FITTED_CELLS, PART_CODE_BOOK, PART_MODEL, Bundle, unpack

FACTS_NAME = "facts.json"
ARRAYS_NAME = "arrays.frame"
POOL, PLAIN = "pool", "plain"
_NODE_PAUSE_SECONDS = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Assessment:
    """What the sites measured of the final model.

    Attributes:
        prototypes: float32[C, d].
        code_book: float32[K, d].
        temperature: Softmax temperature.
        calibration_error: In [0, 1], -1 when unknown.
        evaluation: Accuracy, macro F1, per class and per site, JSON-ready.
        facts: Sites, example counts, refusals, JSON-ready.
    """

    prototypes: NDArray[np.float32]
    code_book: NDArray[np.float32]
    temperature: float
    calibration_error: float
    evaluation: Mapping[str, Any]
    facts: Mapping[str, Any]


def plan_of(request: TrainingRequest) -> RunPlan:
    """Returns the request's plan of rounds."""
    settings = request.settings
    return RunPlan(
        request.campaign_id,
        request.run_key,
        request.network,
        settings.rounds,
        request.local,
        settings.aggregation,
        request.label_counts,
        request.seed,
    )


def train_run(
    request: TrainingRequest,
    transport: Transport,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Runs or resumes a training run up to its assessment.

    Args:
        request: The order; its folder takes the files.
        transport: Reaches the sites.
        clock: Monotonic seconds.
        pause: Waits.

    Raises:
        QuorumMissed: Too few sites; finished rounds are kept, a later call resumes.
    """
    courses, start = courses_of(request), start_state(request)
    total = sum(course.plan.rounds.rounds for course in courses)
    begun = checkpoint.resume(request.folder, start, request.digest())
    _note_round(request, begun.round_number, _Progress(0, total, clock))
    wanted = {site for site, count in request.label_counts.items() if count > 0}
    await_sites(transport, wanted, request.settings.rounds, clock=clock, pause=pause)
    start = survey_run.surveyed(courses[0].plan, transport, start, begun, request.folder)
    found: dict[str, Assessment] = {}
    for course in courses:
        done = sum(courses[i].plan.rounds.rounds for i in range(len(found)))
        progress = _Progress(done, total, clock)
        state = _run_course(request, course, start, transport, progress)
        verdict, silent = ask_reports(course.plan, transport, state)
        found[course.name] = assess(request, state, verdict, silent)
    save_assessment(request.folder, better(found), request.digest())


@dataclass(frozen=True, eq=False)
class Course:
    """One way to train in a run.

    Attributes:
        name: pool (as the request says) or plain (without unlabelled samples).
        plan: Its rounds.
        folder: Where its checkpoints lie.
    """

    name: str
    plan: RunPlan
    folder: Path


def courses_of(request: TrainingRequest) -> list[Course]:
    """Returns what a run trains: one course, or a second one to compare the first with."""
    plan = plan_of(request)
    first = Course(POOL, plan, request.folder)
    if not learns_from_pool(plan) or not plan.rounds.compare_plain:
        return [first]
    return [first, Course(PLAIN, plain_plan(plan), request.folder / PLAIN)]


def better(found: Mapping[str, Assessment]) -> Assessment:
    """Returns the assessment of the course that is kept, with both accuracies among its facts.

    The estimate is the gate's: accuracy on the sites' test examples. A tie goes to the pool where
    anything was measured, to plain training where nothing was. Pure.
    """
    if len(found) == 1:
        return next(iter(found.values()))
    measured = {name: float(one.evaluation["accuracy"]) for name, one in found.items()}
    examples = int(found[POOL].evaluation["example_count"])
    kept = POOL if examples and measured[POOL] >= measured[PLAIN] else PLAIN
    facts = {**found[kept].facts, "kept": kept, "compared": measured}
    return replace(found[kept], facts=facts)


@dataclass(frozen=True)
class _Progress:
    """Rounds of earlier courses, rounds in all, and the clock."""

    done: int
    total: int
    clock: Callable[[], float]


def _run_course(
    request: TrainingRequest,
    course: Course,
    start: RoundState,
    transport: Transport,
    progress: _Progress,
) -> RoundState:
    folder, digest, clock = course.folder, request.digest(), progress.clock
    state = checkpoint.resume(folder, start, digest)
    _note_round(request, state.round_number, progress)
    began = clock()

    def after_round(following: RoundState, facts: Mapping[str, Any]) -> RoundState:
        nonlocal began
        timed = {**facts, "seconds": round(clock() - began, 3)}
        saved = checkpoint.save(folder, following, digest, timed)
        _note_round(request, saved.round_number, progress)
        _log.info("%s, round %d: %s", course.name, saved.round_number, timed)
        began = clock()
        return saved

    return run_rounds(course.plan, transport, state, after_round)


def _note_round(request: TrainingRequest, number: int, progress: _Progress) -> None:
    run_files.write_state(
        request.folder,
        "training",
        round_number=progress.done + number,
        rounds=progress.total,
    )


def start_state(request: TrainingRequest) -> RoundState:
    """Returns the state before the first round: the parent's parameters, or seeded ones.

    Raises:
        RequestInvalid: The parent bundle is missing or damaged.
        NetworkInvalid: The parent was another network.
    """
    spec, cells = request.network, request.settings.rounds.cell_count
    seeded = seeded_code_book(cells, spec.embedding_width, seed=request.seed)
    if request.parent_bundle is None:
        return RoundState(0, initial_arrays(spec, seed=request.seed), ServerState(), seeded)
    parent = read_bundle(request.parent_bundle)
    arrays = onnx_engine.arrays_of(parent.parts[PART_MODEL], spec)
    book = np.frombuffer(parent.parts.get(PART_CODE_BOOK, b""), dtype="<f4")
    of_columns = FITTED_CELLS in parent.manifest.training
    fits = book.size == cells * spec.embedding_width and not of_columns
    code_book = book.reshape(cells, spec.embedding_width).copy() if fits else seeded
    return RoundState(0, arrays, ServerState(), code_book)


def read_bundle(path: Path) -> Bundle:
    """Reads a bundle file.

    Raises:
        RequestInvalid: It is missing or damaged.
    """
    try:
        return unpack(path.read_bytes())
    except OSError as error:
        raise RequestInvalid(f"bundle {path} cannot be read: {error.strerror}") from None
    except BundleError as error:
        raise RequestInvalid(f"bundle {path}: {error}") from None


def assess(
    request: TrainingRequest,
    state: RoundState,
    verdict: ReportVerdict,
    silent: Mapping[str, str],
) -> Assessment:
    """Adds up the sites' reports. Pure."""
    reports = [verdict.reports[site] for site in sorted(verdict.reports)]
    classes = sum_groups([report.classes for report in reports])
    cells = sum_groups([report.cells for report in reports])
    assert classes is not None
    assert cells is not None
    rng = np.random.default_rng([request.seed, state.round_number, 3])
    temperature, error = temperature_of(_sum_calibrations([r.calibration for r in reports]))
    own = {
        site: (report.calibration, site_temperature(report.calibration, temperature))
        for site, report in verdict.reports.items()
    }
    if error >= 0:
        # At the sites' own temperatures, because these are what devices score with.
        error = pooled_error(list(own.values()))
    table = np.sum([report.table for report in reports], axis=0)
    per_site = {
        site: {
            **_figures(report.table),
            "temperature": own[site][1],
            "calibration_error": calibration_error(*own[site]),
        }
        for site, report in verdict.reports.items()
    }
    names = request.label_schema.classes
    evaluation = {
        **_figures(table),
        "per_class": _per_class(table, names),
        "per_site": per_site,
        "temperature": temperature,
        "calibration_error": error,
    }
    counts = {site: report.example_count for site, report in verdict.reports.items()}
    facts = {"examples": counts, "refused": dict(verdict.refused), "silent": dict(silent)}
    book = next_code_book(state.code_book, cells, rng) if len(state.code_book) else state.code_book
    return Assessment(prototypes(classes), book, temperature, error, evaluation, facts)


def save_assessment(folder: Path, found: Assessment, request_digest: str) -> None:
    """Writes the assessment whole."""
    arrays = {"prototypes": found.prototypes, "code_book": found.code_book}
    record = {
        "request": request_digest,
        "temperature": found.temperature,
        "calibration_error": found.calibration_error,
        "evaluation": dict(found.evaluation),
        "facts": dict(found.facts),
    }
    files = {
        ARRAYS_NAME: frames.encode(frames.Frame("assessment", {}, arrays)),
        FACTS_NAME: json.dumps(record, indent=1, sort_keys=True, allow_nan=False).encode(),
    }
    run_files.write_folder(folder / run_files.ASSESSMENT_NAME, files)


def load_assessment(folder: Path, request_digest: str) -> Assessment:
    """Reads the assessment of this request.

    Raises:
        CheckpointInvalid: There is none, it is damaged, or it belongs to another request.
    """
    place = folder / run_files.ASSESSMENT_NAME
    try:
        record = json.loads((place / FACTS_NAME).read_bytes())
        arrays = frames.decode((place / ARRAYS_NAME).read_bytes()).arrays
        found = Assessment(
            arrays["prototypes"],
            arrays["code_book"],
            float(record["temperature"]),
            float(record["calibration_error"]),
            record["evaluation"],
            record["facts"],
        )
        owner = record["request"]
    except (OSError, ValueError, KeyError, TypeError, FederationError) as error:
        raise CheckpointInvalid(f"the assessment cannot be read: {error!r}") from None
    if owner != request_digest:
        raise CheckpointInvalid("the assessment belongs to another request")
    return found


def final_arrays(request: TrainingRequest, kept: str = "") -> Arrays:
    """Returns the parameters after the last round.

    Args:
        request: The run's order.
        kept: Course that the assessment names; "" for the only one.

    Raises:
        CheckpointInvalid: The run's last round is missing or damaged.
    """
    course = courses_of(request)[-1 if kept == PLAIN else 0]
    state = checkpoint.resume(course.folder, start_state(request), request.digest())
    if state.round_number != course.plan.rounds.rounds:
        raise CheckpointInvalid(f"the run has only {state.round_number} valid rounds")
    return state.arrays


def await_sites(
    transport: Transport,
    wanted: Set[str],
    rounds: RoundSettings,
    *,
    clock: Callable[[], float],
    pause: Callable[[float], None],
) -> None:
    """Waits until all wanted sites and a quorum are online, at most `node_wait_seconds`."""
    end = clock() + rounds.node_wait_seconds
    while clock() < end:
        online = set(transport.sites())
        if wanted <= online and len(online) >= rounds.quorum_count:
            return
        pause(_NODE_PAUSE_SECONDS)
    names = ", ".join(transport.sites()) or "no site"
    _log.warning("only %s online; the quorum is %d", names, quorum(rounds, 1))


def _sum_calibrations(parts: list[Calibration]) -> Calibration:
    return Calibration(
        np.sum([part.loss_sums for part in parts], axis=0),
        sum(part.loss_count for part in parts),
        np.sum([part.bin_counts for part in parts], axis=0),
        np.sum([part.bin_confidences for part in parts], axis=0),
        np.sum([part.bin_correct for part in parts], axis=0),
    )


def _figures(table: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "accuracy": accuracy(table),
        "macro_f1": macro_f1(table),
        "example_count": int(table[2].sum()),
    }


def _per_class(table: NDArray[np.int64], names: tuple[str, ...]) -> list[dict[str, Any]]:
    scores = f1_scores(table)
    return [
        {
            "class": name,
            "example_count": int(table[2, index]),
            "correct_count": int(table[0, index]),
            "predicted_count": int(table[1, index]),
            "f1": float(scores[index]),
        }
        for index, name in enumerate(names)
    ]
