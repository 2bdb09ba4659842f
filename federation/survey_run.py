"""The survey before a run's first round: fits the layer that no label teaches, once for a model.

A campaign's first version may have that layer (`first_layer`). A run whose start has none asks all
sites for sums, stage by stage, and gives what it fitted to all its courses. Rounds carry the layer
in their checkpoints, so that a run that was killed after its first round does not ask again; one
that was killed before does, and finds the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation import frames, messages, run_files
from federation.checkpoint import RoundState
from federation.courier import Transport
from federation.errors import QuorumMissed
from federation.feature_fit import fit_features
from federation.fixed_columns import is_fitted
from federation.layer_arrays import fixed_arrays
from federation.networks import initial_arrays
from federation.round_loop import RunPlan, quorum
from federation.screening import norm_limit, screen_sums
from federation.survey_stages import Question, SurveySums

_log = logging.getLogger(__name__)


def surveyed(
    plan: RunPlan, transport: Transport, start: RoundState, begun: RoundState, folder: Path
) -> RoundState:
    """Returns the start of a run with its layer of features.

    A head that learned on other features knows nothing of these: it starts anew with them.

    Args:
        plan: The run's first course.
        transport: Reaches the sites.
        start: The state before the first round.
        begun: The state that the first course goes on from.
        folder: The run's folder; takes the facts of a survey.

    Raises:
        QuorumMissed: Too few sites answered a stage in all attempts.
    """
    spec = plan.spec
    if not spec.unsupervised_width or is_fitted(start.arrays, spec):
        return start
    arrays = begun.arrays
    if not begun.round_number:
        survey = Survey(plan, transport)
        arrays = fit_features(spec, start.arrays, survey.ask, plan.seed)
        facts = {**survey.facts(), "fitted": is_fitted(arrays, spec)}
        run_files.write_json(folder / run_files.SURVEY_NAME, facts)
        _log.info("survey: %s", facts)
    if not is_fitted(arrays, spec):
        _log.warning("too few samples at the sites: the layer of features stays a seeded one")
        return start
    fitted = fixed_arrays(arrays, spec)
    return replace(start, arrays=initial_arrays(spec, seed=plan.seed) | fitted)


@dataclass(eq=False)
class Survey:
    """Asks the sites one stage after the other, and notes what came.

    Attributes:
        plan: The run's course.
        transport: Reaches the sites.
        on_stage: Gets the number of each exchange, from 1, before it begins.
        once: Whether a site that was silent is left alone from then on.
    """

    plan: RunPlan
    transport: Transport
    on_stage: Callable[[int], None] = lambda _: None
    once: bool = False
    samples: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    stages: int = 0

    def ask(self, stage: str, arrays: Mapping[str, NDArray[np.float32]]) -> list[SurveySums]:
        """Returns the answers that hold samples; none where too few sites have enough of them.

        Raises:
            QuorumMissed: Too few sites answered usably in all attempts.
        """
        plan, rounds = self.plan, self.plan.rounds
        question = Question(stage, arrays, plan.seed, plan.local.group_count_min)
        command = messages.SurveyCommand(plan.campaign_id, plan.run_key, plan.spec, question)
        frame = frames.encode(messages.survey_frame(command))
        self.stages += 1
        self.on_stage(self.stages)
        for _ in range(rounds.round_attempts):
            left_alone = self.silent if self.once else {}
            sites = [site for site in self.transport.sites() if site not in left_alone]
            replies = self.transport.exchange(
                frame, sites, timeout_seconds=rounds.round_timeout_seconds
            )
            taken, refused = screen_sums(replies.frames, plan.spec, question)
            self.refused |= refused
            self.silent |= replies.silent
            if len(taken) >= quorum(rounds, len(sites)):
                return self._enough(taken)
        reasons = "; ".join(f"{s}: {r}" for s, r in sorted({**replies.silent, **refused}.items()))
        raise QuorumMissed(f"the survey had no quorum ({reasons or 'no site is online'})")

    def _enough(self, taken: Mapping[str, SurveySums]) -> list[SurveySums]:
        full = {site: one for site, one in taken.items() if one.sample_count}
        if len(full) < self.plan.rounds.quorum_count:
            return []
        self.samples |= {site: one.sample_count for site, one in full.items()}
        limit = norm_limit(
            [float(one.sample_count) for one in full.values()], self.plan.rounds.norm_ratio_max
        )
        return [limited(full[site], limit) for site in sorted(full)]

    def facts(self) -> dict[str, Any]:
        """Returns what happened, JSON-ready."""
        return {
            "stages": self.stages,
            "samples": dict(sorted(self.samples.items())),
            "refused": dict(sorted(self.refused.items())),
            "silent": dict(sorted(self.silent.items())),
        }


def limited(one: SurveySums, limit: float) -> SurveySums:
    """Scales an answer down to what `limit` samples would weigh: no site alone fits the layer.

    >>> one = SurveySums(40, np.int64([80]), np.float32([[8]]), np.float32([[4]]))
    >>> half = limited(one, 20)
    >>> half.counts.tolist(), half.sums.tolist(), half.moments.tolist()
    ([40], [[4.0]], [[2.0]])
    """
    if one.sample_count <= limit:
        return one
    share = limit / one.sample_count
    return SurveySums(
        one.sample_count,
        np.rint(one.counts * share).astype(np.int64),
        np.asarray(one.sums * np.float32(share)),
        np.asarray(one.moments * np.float32(share)),
    )
