"""The trainer behind one door: a frame comes in, a checked frame goes out.

A desk keeps the site's examples and the last network warm. Examples are read again when a new run
begins and the label store has changed, and stay fixed while a run lasts, so that a resumed round
equals the lost one. The socket service and the in-process simulations share this class.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from federation import frames, messages, survey
from federation.dataset import SiteData
from federation.errors import FederationError
from federation.feature_layer import Trainer, make_trainer
from federation.layer_arrays import fixed_arrays, layer_digest
from federation.networks import Arrays, NetworkSpec
from federation.reply_rules import check_report, check_survey, check_update
from federation.statistics import GroupSums
from federation.survey_stages import SAMPLES_MIN, no_sums, sums_layout
from federation.training import SiteReport, SiteUpdate, TrainTask

LoadExamples = Callable[[bytes, NetworkSpec], SiteData]
StoreStamp = Callable[[], object]
LAYERS_MAX = 4
"""Fixed layers that a trainer holds, the latest ones."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeskLimits:
    """What the site allows, whatever the centre asks.

    Attributes:
        group_count_min: Smallest number of examples behind a reported sum.
        device: auto, cpu or cuda.
        thread_count: CPU threads for training.
        survey_samples_min: Surveys over fewer different samples get zeros; 0 for all surveys.
    """

    group_count_min: int = 3
    device: str = "auto"
    thread_count: int = 1
    survey_samples_min: int = SAMPLES_MIN


@dataclass(frozen=True, eq=False)
class _Warm:
    """A trainer with its examples, the store's stamp when they were read, and the run."""

    spec: NetworkSpec
    run_key: str
    stamp: object
    data: SiteData
    trainer: Trainer


class TrainerDesk:
    """Answers `train`, `assess` and `survey` commands for one site.

    Args:
        load: Reads the examples of a campaign (16 bytes) for a network.
        stamp: A value that changes whenever the label store does.
        limits: The site's own limits.
    """

    def __init__(
        self, load: LoadExamples, stamp: StoreStamp, limits: DeskLimits | None = None
    ) -> None:
        self._load, self._stamp = load, stamp
        self._limits = limits or DeskLimits()
        self._warm: dict[str, _Warm] = {}
        self._layers: dict[str, Arrays] = {}

    def handle(self, raw: bytes) -> bytes:
        """Answers one frame. A failure becomes a refusal that names its kind and no data."""
        try:
            frame = frames.decode(raw)
            if frame.kind == messages.SURVEY:
                return frames.encode(self._survey(messages.read_survey(frame)))
            return frames.encode(self._answer(self._read(frame)))
        except FederationError as error:
            _log.warning("refused a command: %s", error)
            return frames.encode(messages.refused_frame(error))
        except Exception as error:  # noqa: BLE001 - see below
            # A bad command, or a full GPU, must not end a process that other runs count on.
            _log.exception("a command failed")
            return frames.encode(messages.refused_frame(error))

    def _read(self, frame: frames.Frame) -> messages.Command:
        """Reads a command; a fixed layer stays here, so that it need not come again."""
        command = messages.read_command(frame, self._layers)
        layer = fixed_arrays(command.arrays, command.spec)
        if layer and "layer" not in frame.fields:
            self._layers[layer_digest(layer, command.spec)] = layer
            while len(self._layers) > LAYERS_MAX:
                del self._layers[next(iter(self._layers))]
        return command

    def _answer(self, command: messages.Command) -> frames.Frame:
        trainer = self._opened(command).trainer
        count_min = max(self._limits.group_count_min, command.local.group_count_min)
        if command.kind == messages.ASSESS:
            report = trainer.assess(
                command.arrays, code_book=command.code_book, count_min=count_min
            )
            reply = _report(report, command)
            check_report(reply, count_min)
            return messages.report_frame(reply)
        task = TrainTask(command.seed, command.code_book, teacher=command.teacher)
        update = _update(trainer.train(command.arrays, command.local, task), command)
        check_update(command.arrays, update, command.spec, count_min)
        return messages.update_frame(update, command.spec)

    def _survey(self, command: messages.SurveyCommand) -> frames.Frame:
        spec, asked = command.spec, command.question
        count_min = max(self._limits.group_count_min, asked.count_min)
        layout = sums_layout(spec, asked.stage, asked.cell_count)
        least = self._limits.survey_samples_min
        samples = survey.site_samples(self._opened(command).data, spec)
        reply = survey.answer(spec, replace(asked, count_min=count_min), samples)
        if not least or reply.sample_count < least:
            reply = no_sums(layout)
        check_survey(reply, layout, count_min)
        _log.info("survey, %s: %d samples", asked.stage, reply.sample_count)
        return messages.sums_frame(reply)

    def _opened(self, command: messages.Command | messages.SurveyCommand) -> _Warm:
        warm = self._warm.get(command.campaign_id)
        stamp = self._stamp()
        if (
            warm
            and warm.spec == command.spec
            and (warm.run_key == command.run_key or warm.stamp == stamp)
        ):
            warm = replace(warm, run_key=command.run_key)
            self._warm[command.campaign_id] = warm
            return warm
        data = self._load(bytes.fromhex(command.campaign_id), command.spec)
        trainer = make_trainer(
            data,
            command.spec,
            device=self._limits.device,
            thread_count=self._limits.thread_count,
        )
        warm = _Warm(command.spec, command.run_key, stamp, data, trainer)
        self._warm[command.campaign_id] = warm
        _log.info("campaign %s: %d examples", command.campaign_id, trainer.example_count)
        return warm


def _no_cells(command: messages.Command) -> GroupSums:
    cells, width = command.code_book.shape
    return GroupSums(np.zeros(cells, np.int64), np.zeros((cells, width), np.float32))


def _update(update: SiteUpdate, command: messages.Command) -> messages.UpdateReply:
    cells = update.cells or _no_cells(command)
    return messages.UpdateReply(
        update.arrays, update.example_count, update.loss, cells, update.table
    )


def _report(report: SiteReport, command: messages.Command) -> messages.ReportReply:
    cells = report.cells or _no_cells(command)
    return messages.ReportReply(
        report.table, report.classes, cells, report.calibration, report.example_count
    )
