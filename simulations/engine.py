"""One run: a strategy on one seed's world, cycle after cycle, through the production ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.core.entries import Funded, GrantReason, GrantState, GrantTerms
from coordinator.core.estimation import ExploreLabels
from coordinator.core.ledger import Ledger, OutcomeReport, Settlement
from coordinator.core.refusals import Refusal
from edge_agent.scoring import ModelOutputs, softmax
from federation.dataset import Examples
from federation.statistics import class_table, f1_scores, nearest_cells
from simulations.config import SimulationConfig
from simulations.datasets import Dataset
from simulations.errors import SimulationError
from simulations.learner import Learner, Model
from simulations.safety import Evidence, train_safely
from simulations.view import LocalView, Selection, SelectionView
from simulations.world import World

Strategy = Callable[[SelectionView, np.random.Generator], Selection]
CAMPAIGN = bytes(16)
LOCAL_EPOCHS = 40
LIFETIME = 86_400


@dataclass(frozen=True)
class CurvePoint:
    """What was known after a cycle; cycle 0 is the random start.

    Attributes:
        cycle: from 0.
        labels: labels in all, the start included.
        cost: cost units spent, the start apart.
        accuracy: on the test part.
        macro_f1: mean F1 over classes.
        worst_class_recall: of the class with the lowest recall.
        rarest_share: share of the labels that are of the pool's rarest class.
        site_labels: labels by site.
        class_labels: labels by class.
        reliability: mean confidence, accuracy and count in ten bins of confidence on the test part.
    """

    cycle: int
    labels: int
    cost: int
    accuracy: float
    macro_f1: float
    worst_class_recall: float
    rarest_share: float
    site_labels: list[int]
    class_labels: list[int]
    reliability: list[list[float]]


@dataclass(eq=False)
class RunState:
    """The moving parts of a run."""

    labels: NDArray[np.int64]
    asked: NDArray[np.bool_]
    model: Model
    ledger: Ledger
    cost: int = 0
    grants: int = 0
    selection_seconds: float = 0.0
    judged: list[ExploreLabels] = field(default_factory=list)


class Run:
    """A strategy on one world."""

    def __init__(
        self, config: SimulationConfig, dataset: Dataset, world: World, learner: Learner
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._world = world
        self._learner = learner
        self._inputs = dataset.train[world.rows]
        self._drifted = np.zeros(dataset.train.shape[1:], dtype=np.float32)
        self._pretrained: Model | None = None
        self._evidence = Evidence()

    def play(self, strategy: Strategy, started: Model | None) -> tuple[list[CurvePoint], float]:
        """Plays all cycles.

        Args:
            strategy: selects.
            started: model trained on the random start labels, the same for all strategies; None
                where each strategy chooses its own start.

        Returns:
            One point per cycle, and the seconds spent selecting.
        """
        state = self._chosen_start(strategy) if started is None else self._random_start(started)
        curve = [self._point(0, state)]
        for cycle in range(1, self._config.budget.cycles + 1):
            self._drift(cycle)
            selection = self._select(strategy, state, cycle)
            self._ask(selection, state, cycle)
            base = state.model if self._config.training.warm_start else self._initial(state.labels)
            state.model = self._train(base, state.labels)
            curve.append(self._point(cycle, state))
        return curve, state.selection_seconds

    def start_model(self) -> Model | None:
        """The model that the random start labels give; None where strategies choose the start."""
        if self._config.budget.start == "policy":
            return None
        labels = self.start_labels()
        return self._train(self._initial(labels), labels)

    def examples(self, labels: NDArray[np.int64]) -> dict[str, Examples]:
        """Labelled examples by site, as the label stores would give them."""
        found: dict[str, Examples] = {}
        for site, name in enumerate(self._world.site_ids):
            places = np.flatnonzero((self._world.sites == site) & (labels >= 0))
            found[name] = self._labelled(places, labels)
        return found

    def _labelled(self, places: NDArray[np.int64], labels: NDArray[np.int64]) -> Examples:
        views = self._dataset.views
        copies = None if views is None else views[self._world.rows[places]] + self._drifted
        return self._learner.examples(self._inputs[places], labels[places], copies)

    def unlabelled(self, labels: NDArray[np.int64]) -> dict[str, Examples]:
        """The rest of each site's pool, where the trainer learns from it."""
        training = self._config.training
        if not training.unlabelled_weight and not training.pretrain_rounds:
            return {}
        found: dict[str, Examples] = {}
        for site, name in enumerate(self._world.site_ids):
            places = np.flatnonzero((self._world.sites == site) & (labels < 0))
            found[name] = self._learner.unlabelled(self._inputs[places])
        return found

    def _initial(self, labels: NDArray[np.int64]) -> Model:
        """The seeded model, after what the pool alone teaches, where that is wanted."""
        if self._pretrained is None:
            sites, free = self.examples(labels), self.unlabelled(labels)
            self._pretrained = self._learner.pretrain(self._learner.initial(), sites, free)
        return self._pretrained

    def _train(self, base: Model, labels: NDArray[np.int64]) -> Model:
        sites, free = self.examples(labels), self.unlabelled(labels)
        if free and self._config.training.compare_plain:
            model, self._evidence = train_safely(self._learner, base, sites, free, self._evidence)
            return model
        return self._learner.train(base, sites, free)

    def start_labels(self) -> NDArray[np.int64]:
        """The labels before the first cycle, int64[n], -1 for none."""
        labels = np.full(len(self._world), -1, dtype=np.int64)
        start = self._world.start
        labels[start] = self._world.truth[start]
        return labels

    def _random_start(self, started: Model) -> RunState:
        labels = self.start_labels()
        budget = self._config.budget
        return RunState(labels, labels >= 0, started, _funded(budget.per_cycle * budget.cycles))

    def _chosen_start(self, strategy: Strategy) -> RunState:
        """The first labels as a strategy chooses them when no model has learned anything."""
        budget = self._config.budget
        labels = np.full(len(self._world), -1, dtype=np.int64)
        ledger = _funded(budget.initial + budget.per_cycle * budget.cycles)
        world = self._world
        sites = [self._inputs[world.sites == site] for site in range(world.site_count)]
        first = self._learner.first(sites, cell_count=budget.initial)
        state = RunState(labels, labels >= 0, first, ledger)
        self._ask(self._select(strategy, state, 0), state, 0)
        state.cost = 0
        state.model = self._train(self._initial(state.labels), state.labels)
        return state

    def _drift(self, cycle: int) -> None:
        scenario = self._config.scenario
        if scenario.drift_cycle and cycle == scenario.drift_cycle:
            rng = np.random.default_rng([self._world.seed, 9])
            step = rng.standard_normal(self._inputs.shape[1:]).astype(np.float32)
            step *= scenario.drift_strength / max(float(np.linalg.norm(step)), 1e-9)
            spread = float(self._inputs.std()) * np.sqrt(step.size)
            self._drifted = step * np.float32(spread)
            self._inputs = self._inputs + self._drifted

    def _select(self, strategy: Strategy, state: RunState, cycle: int) -> Selection:
        view = self._view(state, cycle)
        rng = np.random.default_rng([self._world.seed, 2, cycle])
        began = time.perf_counter()
        selection = strategy(view, rng)
        state.selection_seconds += time.perf_counter() - began
        if not view.open[selection.places].all():
            raise SimulationError("a strategy asked for a sample that is not open")
        if view.costs[selection.places].sum() > view.budget:
            raise SimulationError("a strategy passed the budget of a cycle")
        self._note(state, view, selection)
        return selection

    def _view(self, state: RunState, cycle: int) -> SelectionView:
        world, scenario, budget = self._world, self._config.scenario, self._config.budget
        outputs = self._outputs(state.model, self._inputs)
        present = np.ones(len(world), dtype=np.bool_)
        if scenario.drop_out_site >= 0 and cycle >= scenario.drop_out_cycle:
            present &= world.sites != scenario.drop_out_site
        labelled = state.labels >= 0
        book = state.model.code_book
        cells = (
            nearest_cells(outputs.embedding[labelled], book) if len(book) else np.zeros(0, np.int64)
        )
        return SelectionView(
            cycle=cycle,
            sites=world.sites,
            site_ids=world.site_ids,
            candidate_ids=world.candidate_ids,
            open=~state.asked & present,
            labels=state.labels,
            cost_bands=world.cost_bands,
            capacity=world.capacity,
            class_count=len(self._dataset.class_names),
            class_floor=budget.class_floor,
            budget=budget.per_cycle if cycle else budget.initial,
            outputs=outputs,
            model=state.model,
            cell_labels=np.bincount(cells, minlength=len(book)).astype(np.int64),
            judged=_joined(state.judged),
            train_local=lambda tuned: self._train_local(state, tuned=tuned),
        )

    def _outputs(self, model: Model, inputs: NDArray[Any]) -> ModelOutputs:
        """What the devices' model says of the pool."""
        found = self._learner.model_outputs(model, inputs)
        asked = found.acquisition_logits
        return ModelOutputs(
            self._claimed(found.logits),
            found.embedding,
            acquisition_logits=None if asked is None else self._claimed(asked),
        )

    def _claimed(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """A liar claims to be torn between all classes, whatever its model says."""
        liar = self._config.scenario.liar_site
        if liar < 0:
            return logits
        here = (self._world.sites == liar)[:, None]
        return np.where(here, logits * 1e-3, logits).astype(np.float32)

    def _train_local(self, state: RunState, *, tuned: bool) -> LocalView:
        """A model per site from its own labels only; without labels the one it starts from."""
        world = self._world
        epochs = LOCAL_EPOCHS // 4 if tuned else LOCAL_EPOCHS
        start = state.model if tuned else self._learner.initial()
        logits = np.zeros((len(world), len(self._dataset.class_names)), dtype=np.float32)
        embedding = np.zeros((len(world), self._learner.spec.embedding_width), dtype=np.float32)
        for site in range(world.site_count):
            here = np.flatnonzero(world.sites == site)
            known = here[state.labels[here] >= 0]
            arrays = start.arrays
            if len(known):
                examples = self._labelled(known, state.labels)
                arrays = self._learner.train_alone(start, examples, epochs=epochs)
            found = self._learner.outputs(arrays, self._inputs[here])
            asked = found.acquisition_logits
            logits[here] = found.logits if asked is None else asked
            embedding[here] = found.embedding
        return LocalView(softmax(logits), embedding)

    def _ask(self, selection: Selection, state: RunState, cycle: int) -> None:
        """Reserves, asks the experts and settles, all through the production ledger."""
        places = selection.places
        terms = [self._terms(state, int(place), cycle, i) for i, place in enumerate(places)]
        state.grants += len(terms)
        made = state.ledger.reserve(terms, cycle * LIFETIME)
        if isinstance(made, Refusal):
            raise SimulationError(f"the ledger refused a cycle: {made.sentence}")
        for entry in made:
            state.ledger.apply(entry)
        answers = self._world.answers[places]
        state.asked[places] = True
        for site in np.unique(self._world.sites[places]).tolist():
            rows = np.flatnonzero(self._world.sites[places] == site).tolist()
            reports = [_report(terms[i].grant_id, int(answers[i])) for i in rows]
            settled = state.ledger.settle(self._world.site_ids[site], reports, cycle * LIFETIME)
            assert isinstance(settled, Settlement)
            for outcome in settled.entries:
                state.ledger.apply(outcome)
        known = places[answers >= 0]
        state.labels[known] = answers[answers >= 0]
        state.cost += int((self._world.cost_bands[known].astype(np.int64) + 1).sum())

    def _terms(self, state: RunState, place: int, cycle: int, number: int) -> GrantTerms:
        return GrantTerms(
            grant_id=(state.grants + number + 1).to_bytes(16, "big"),
            campaign_id=CAMPAIGN,
            candidate_id=self._world.candidate_ids[place].tobytes(),
            site_id=self._world.site_ids[int(self._world.sites[place])],
            agent_name="simulated",
            model_version=cycle,
            cycle=cycle,
            reason=GrantReason.USEFUL,
            expires_at=(cycle + 1) * LIFETIME,
        )

    def _note(self, state: RunState, view: SelectionView, selection: Selection) -> None:
        """Keeps what was claimed of each pick beside what the experts found."""
        places = selection.places
        if not len(places):
            return
        served = softmax(view.outputs.logits)[places]
        predicted = served.argmax(axis=1)
        answers = self._world.answers[places]
        correct = np.where(answers < 0, -1, (predicted == answers).astype(np.int64))
        state.judged.append(
            ExploreLabels(
                site_index=self._world.sites[places],
                predicted_classes=predicted.astype(np.int64),
                confidences=served.max(axis=1).astype(np.float64),
                inclusion_probabilities=selection.explore_probabilities,
                correct=correct,
            )
        )

    def _point(self, cycle: int, state: RunState) -> CurvePoint:
        """Measures the model on the test part."""
        dataset, world = self._dataset, self._world
        logits, _ = self._learner.predict(state.model.arrays, dataset.test)
        classes = len(dataset.class_names)
        table = class_table(
            logits.argmax(axis=1).astype(np.int64), dataset.test_classes, class_count=classes
        )
        present = table[2] > 0
        recall = table[0] / np.maximum(table[2], 1)
        known = state.labels >= 0
        rarest = int(np.bincount(world.truth, minlength=classes).argmin())
        return CurvePoint(
            cycle=cycle,
            labels=int(known.sum()),
            cost=state.cost,
            accuracy=float(table[0].sum() / max(1, table[2].sum())),
            macro_f1=float(f1_scores(table)[present].mean()),
            worst_class_recall=float(recall[present].min()),
            rarest_share=float((state.labels[known] == rarest).mean()) if known.any() else 0.0,
            site_labels=np.bincount(world.sites[known], minlength=world.site_count).tolist(),
            class_labels=np.bincount(state.labels[known], minlength=classes).tolist(),
            reliability=_reliability(logits, dataset.test_classes),
        )


def _funded(most: int) -> Ledger:
    ledger = Ledger()
    ledger.apply(ledger.fund(Funded(0, 0, CAMPAIGN, max(1, most), max(1, most), 1)))
    return ledger


def _report(grant_id: bytes, answer: int) -> OutcomeReport:
    state = GrantState.LABELED if answer >= 0 else GrantState.ABSTAINED
    return OutcomeReport(grant_id, state, class_index_plus_one=answer + 1, decision_seconds=20)


def _joined(parts: list[ExploreLabels]) -> ExploreLabels | None:
    if not parts:
        return None
    return ExploreLabels(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in (
                "site_index",
                "predicted_classes",
                "confidences",
                "inclusion_probabilities",
                "correct",
            )
        )
    )


def _reliability(logits: NDArray[np.float32], classes: NDArray[np.int64]) -> list[list[float]]:
    probabilities = softmax(logits)
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == classes
    bins = np.minimum((top * 10).astype(int), 9)
    return [
        [float(top[bins == b].mean()), float(right[bins == b].mean()), int((bins == b).sum())]
        for b in range(10)
        if (bins == b).any()
    ]
