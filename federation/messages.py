"""The three commands that a site's trainer takes, and its replies, as frames.

`train` brings parameters and settings and takes back parameters; `assess` brings a finished model
and takes back counts and sums; `survey` asks for sums that a layer of features is fitted from.
Replies have exactly the keys written here: an unknown or missing key is refused on both sides.

A layer that nobody trains (`networks.feature_names`) travels to a site once in a run: later
commands name it by its digest, and updates leave it out. Sites update after their coordinator, so
that a centre reads both forms of an update and a site need only write this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import FrameInvalid, LayerUnknown
from federation.frames import Frame
from federation.layer_arrays import layer_digest, trained_arrays
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, feature_names, parameter_layout
from federation.statistics import RELIABILITY_BINS, TEMPERATURES, Calibration, GroupSums
from federation.survey_stages import (
    CELLS_MAX,
    Question,
    SumsLayout,
    SurveySums,
    question_layout,
)

TRAIN, ASSESS, UPDATE, REPORT, REFUSED = "train", "assess", "update", "report", "refused"
SURVEY, SUMS = "survey", "sums"
PARAMETER = "parameter/"
TEACHER = "teacher/"
CODE_BOOK = "code_book"
REASON_CHARACTERS_MAX = 300


@dataclass(frozen=True, eq=False)
class Command:
    """What the centre asks of a site.

    Attributes:
        kind: train or assess.
        campaign_id: 32 hex digits.
        run_key: Names the training run; a site keeps its examples fixed while it lasts.
        spec: The network.
        local: Local training settings.
        seed: Seed of the round.
        arrays: Parameters of the shared model.
        code_book: float32[K, d]; K may be 0.
        teacher: Parameters that guess the classes of unlabelled samples; empty for `arrays`.
    """

    kind: str
    campaign_id: str
    run_key: str
    spec: NetworkSpec
    local: LocalSettings
    seed: int
    arrays: Arrays
    code_book: NDArray[np.float32]
    teacher: Arrays = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SurveyCommand:
    """One stage of a survey: campaign, run and network as in `Command`, and the question."""

    campaign_id: str
    run_key: str
    spec: NetworkSpec
    question: Question


@dataclass(frozen=True, eq=False)
class UpdateReply:
    """A site's answer to `train`; see `training.SiteUpdate`."""

    arrays: Arrays
    example_count: int
    loss: float
    cells: GroupSums
    table: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ReportReply:
    """A site's answer to `assess`; see `training.SiteReport`."""

    table: NDArray[np.int64]
    classes: GroupSums
    cells: GroupSums
    calibration: Calibration
    example_count: int


def command_frame(command: Command, *, with_layer: bool = True) -> Frame:
    """Returns the frame of a command.

    Args:
        command: What is asked.
        with_layer: False names a fixed layer by its digest, for sites that hold it.
    """
    fields: dict[str, Any] = {
        "campaign_id": command.campaign_id,
        "run_key": command.run_key,
        "network": command.spec.to_mapping(),
        "local": command.local.to_mapping(),
        "seed": command.seed,
    }
    own, teacher = command.arrays, command.teacher
    if not with_layer:
        fields["layer"] = layer_digest(own, command.spec)
        own, teacher = trained_arrays(own, command.spec), trained_arrays(teacher, command.spec)
    arrays: dict[str, NDArray[Any]] = {PARAMETER + n: a for n, a in own.items()}
    arrays |= {TEACHER + n: a for n, a in teacher.items()}
    return Frame(command.kind, fields, {**arrays, CODE_BOOK: command.code_book})


def read_command(frame: Frame, layers: Mapping[str, Arrays] | None = None) -> Command:
    """Reads a command at the site.

    Args:
        frame: What came.
        layers: Fixed layers that the site holds, by digest.

    Raises:
        FrameInvalid: It is no command, or a key is unknown or missing.
        LayerUnknown: It names a fixed layer that the site does not hold.
        RequestInvalid: A setting is out of range.
    """
    expected = {"campaign_id", "run_key", "network", "local", "seed"}
    if frame.kind not in (TRAIN, ASSESS) or set(frame.fields) - {"layer"} != expected:
        raise FrameInvalid(f"the trainer takes train and assess with known keys, not {frame.kind}")
    spec = NetworkSpec.from_mapping(frame.fields["network"])
    layer = _layer(frame, layers or {})
    layout = set(parameter_layout(spec)) - set(layer)
    names = {PARAMETER + name for name in layout} | {CODE_BOOK}
    if set(frame.arrays) not in (names, names | {TEACHER + name for name in layout}):
        raise FrameInvalid("the command's arrays are not the network's parameters and a code book")
    return Command(
        frame.kind,
        _campaign(frame.fields["campaign_id"]),
        str(frame.fields["run_key"])[:200],
        spec,
        LocalSettings.from_mapping(frame.fields["local"]),
        _count(frame.fields["seed"]),
        layer | _parameters(frame.arrays),
        _shaped(frame.arrays, CODE_BOOK, "<f4", (None, spec.embedding_width)),
        layer | teacher if (teacher := _parameters(frame.arrays, TEACHER)) else {},
    )


def survey_frame(command: SurveyCommand) -> Frame:
    """Returns the frame of a survey's stage."""
    question = command.question
    fields = {
        "campaign_id": command.campaign_id,
        "run_key": command.run_key,
        "network": command.spec.to_mapping(),
        "stage": question.stage,
        "seed": question.seed,
        "group_count_min": question.count_min,
    }
    return Frame(SURVEY, fields, question.arrays)


def read_survey(frame: Frame) -> SurveyCommand:
    """Reads a survey's stage at the site.

    Raises:
        FrameInvalid: A key is unknown or missing, or an array has another shape or is not finite.
        RequestInvalid: The network has no such stage.
    """
    expected = {"campaign_id", "run_key", "network", "stage", "seed", "group_count_min"}
    if frame.kind != SURVEY or set(frame.fields) != expected:
        raise FrameInvalid("the frame is not a survey with the known keys")
    spec = NetworkSpec.from_mapping(frame.fields["network"])
    stage = str(frame.fields["stage"])
    layout = question_layout(spec, stage)
    if set(frame.arrays) != set(layout):
        raise FrameInvalid(f"the arrays are not those of the stage {stage}")
    for name, shape in layout.items():
        if not np.isfinite(_shaped(frame.arrays, name, "<f4", shape)).all():
            raise FrameInvalid(f"{name} holds a value that is not finite")
        if None in shape and len(frame.arrays[name]) > CELLS_MAX:
            raise FrameInvalid(f"{name} has more than {CELLS_MAX} rows")
    return SurveyCommand(
        _campaign(frame.fields["campaign_id"]),
        str(frame.fields["run_key"])[:200],
        spec,
        Question(
            stage,
            frame.arrays,
            _count(frame.fields["seed"]),
            _count(frame.fields["group_count_min"]),
        ),
    )


def sums_frame(reply: SurveySums) -> Frame:
    """Returns the frame of a survey's answer: counts and sums only."""
    arrays: dict[str, NDArray[Any]] = {
        "counts": reply.counts,
        "sums": reply.sums,
        "moments": reply.moments,
    }
    return Frame(SUMS, {"sample_count": reply.sample_count}, arrays)


def read_sums(frame: Frame, layout: SumsLayout) -> SurveySums:
    """Reads a survey's answer at the centre; values are judged by `screening`.

    Args:
        frame: What came.
        layout: Of the stage that was asked.

    Raises:
        FrameInvalid: Keys, shapes or dtypes are not the known ones.
    """
    _known(frame, SUMS, {"sample_count"}, {"counts", "sums", "moments"})
    return SurveySums(
        _count(frame.fields["sample_count"]),
        _shaped(frame.arrays, "counts", "<i8", (layout.groups,)),
        _shaped(frame.arrays, "sums", "<f4", (layout.groups, layout.width)),
        _shaped(frame.arrays, "moments", "<f4", (layout.moments_side, layout.moments_side)),
    )


def update_frame(reply: UpdateReply, spec: NetworkSpec) -> Frame:
    """Returns the frame of an update: what was trained, a count, a loss, and sums."""
    own = trained_arrays(reply.arrays, spec)
    arrays: dict[str, NDArray[Any]] = {PARAMETER + n: a for n, a in own.items()}
    arrays |= {
        "cell_counts": reply.cells.counts,
        "cell_sums": reply.cells.sums,
        "class_table": reply.table,
    }
    fields = {"example_count": reply.example_count, "loss": reply.loss}
    return Frame(UPDATE, fields, arrays)


def read_update(frame: Frame, spec: NetworkSpec, cell_count: int) -> UpdateReply:
    """Reads an update at the centre; values are judged by `screening`.

    Older sites send a fixed layer back, which is left out here.

    Raises:
        FrameInvalid: Keys, shapes or dtypes are not the known ones.
    """
    back = {PARAMETER + name for name in feature_names(spec)}
    arrays = {name: array for name, array in frame.arrays.items() if name not in back}
    layout = {PARAMETER + n: s for n, s in parameter_layout(spec).items()}
    names = {"cell_counts", "cell_sums", "class_table"} | (set(layout) - back)
    _known(replace(frame, arrays=arrays), UPDATE, {"example_count", "loss"}, names)
    for name in set(layout) - back:
        _shaped(arrays, name, "<f4", layout[name])
    return UpdateReply(
        _parameters(arrays),
        _count(frame.fields["example_count"]),
        _number(frame.fields["loss"]),
        _groups(arrays, "cell", (cell_count, spec.embedding_width)),
        _shaped(arrays, "class_table", "<i8", (3, spec.class_count)),
    )


def report_frame(reply: ReportReply) -> Frame:
    """Returns the frame of a report: counts and sums only."""
    calibration = reply.calibration
    arrays: dict[str, NDArray[Any]] = {
        "class_table": reply.table,
        "class_counts": reply.classes.counts,
        "class_sums": reply.classes.sums,
        "cell_counts": reply.cells.counts,
        "cell_sums": reply.cells.sums,
        "loss_sums": calibration.loss_sums,
        "bin_counts": calibration.bin_counts,
        "bin_confidences": calibration.bin_confidences,
        "bin_correct": calibration.bin_correct,
    }
    fields = {"example_count": reply.example_count, "loss_count": calibration.loss_count}
    return Frame(REPORT, fields, arrays)


def read_report(frame: Frame, spec: NetworkSpec, cell_count: int) -> ReportReply:
    """Reads a report at the centre; values are judged by `screening`.

    Raises:
        FrameInvalid: Keys, shapes or dtypes are not the known ones.
    """
    keys = {"class_table", "class_counts", "class_sums", "cell_counts", "cell_sums", "loss_sums"}
    keys |= {"bin_counts", "bin_confidences", "bin_correct"}
    _known(frame, REPORT, {"example_count", "loss_count"}, keys)
    arrays, width = frame.arrays, spec.embedding_width
    bins = (len(TEMPERATURES), RELIABILITY_BINS)
    calibration = Calibration(
        _shaped(arrays, "loss_sums", "<f8", (len(TEMPERATURES),)),
        _count(frame.fields["loss_count"]),
        _shaped(arrays, "bin_counts", "<i8", bins),
        _shaped(arrays, "bin_confidences", "<f8", bins),
        _shaped(arrays, "bin_correct", "<i8", bins),
    )
    return ReportReply(
        _shaped(arrays, "class_table", "<i8", (3, spec.class_count)),
        _groups(arrays, "class", (spec.class_count, width)),
        _groups(arrays, "cell", (cell_count, width)),
        calibration,
        _count(frame.fields["example_count"]),
    )


def refused_frame(error: Exception) -> Frame:
    """Returns the frame of a refusal: the error's kind only where its text may name site data."""
    return Frame(REFUSED, {"reason": type(error).__name__[:REASON_CHARACTERS_MAX]})


def refusal_of(frame: Frame) -> str | None:
    """Returns the reason of a refusal, as `refused_frame` gave it; None for any other frame."""
    if frame.kind != REFUSED:
        return None
    return str(frame.fields.get("reason", ""))[:REASON_CHARACTERS_MAX]


def _known(frame: Frame, kind: str, fields: set[str], arrays: set[str]) -> None:
    reason = refusal_of(frame)
    if reason is not None:
        raise FrameInvalid(f"the site's trainer refused: {reason}")
    if frame.kind != kind or set(frame.fields) != fields or set(frame.arrays) != arrays:
        raise FrameInvalid(f"the reply is not a {kind} with the known keys")


def _layer(frame: Frame, layers: Mapping[str, Arrays]) -> Arrays:
    if "layer" not in frame.fields:
        return {}
    try:
        return layers[str(frame.fields["layer"])]
    except KeyError:
        raise LayerUnknown("the command names a layer that this site does not hold") from None


def _campaign(value: Any) -> str:
    if len(str(value)) != 32 or not set(str(value)) <= set("0123456789abcdef"):
        raise FrameInvalid("campaign_id must have 32 hex digits")
    return str(value)


def _parameters(arrays: Mapping[str, NDArray[Any]], prefix: str = PARAMETER) -> Arrays:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _groups(arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, int]) -> GroupSums:
    counts = _shaped(arrays, f"{name}_counts", "<i8", shape[:1])
    return GroupSums(counts, _shaped(arrays, f"{name}_sums", "<f4", shape))


def _shaped(
    arrays: Mapping[str, NDArray[Any]], name: str, dtype: str, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    array = arrays[name]
    fits = len(shape) == array.ndim and all(
        want in (None, size) for want, size in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != np.dtype(dtype):
        raise FrameInvalid(f"{name} is {array.dtype}{array.shape}, expected {dtype}{shape}")
    return array


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise FrameInvalid(f"a count must be a whole number from 0, not {value!r}")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise FrameInvalid(f"a measurement must be a number, not {value!r}")
    return float(value)
