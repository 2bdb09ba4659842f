"""Federated training inside a simulation: production trainer, aggregation and statistics.

`fast` runs the site trainers one after the other in this process and hands their updates to the
production round (`federation.round_loop.next_state`), without frames and transport in between.
A test shows that it gives the same parameters as the deployed message path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.aggregation import ServerState, Update
from federation.checkpoint import RoundState
from federation.dataset import VIEWS, Examples, SiteData, no_examples, unlabelled_examples
from federation.feature_fit import fit_cells
from federation.feature_layer import Trainer, make_trainer
from federation.fixed_columns import fixed_width
from federation.local_settings import LocalSettings
from federation.messages import UpdateReply
from federation.networks import Arrays, NetworkSpec, initial_arrays
from federation.round_loop import RunPlan, local_of, next_state
from federation.screening import UpdateVerdict
from federation.statistics import (
    GroupSums,
    group_sums,
    nearest_cells,
    next_code_book,
    prototypes,
    seeded_code_book,
)
from federation.survey import ask_of, unit_columns
from federation.survey_stages import CELLS_MAX
from federation.training import Prediction, TrainTask
from simulations.config import TrainingConfig
from simulations.datasets import Dataset
from simulations.production import aggregation_settings, local_settings, round_settings

Floats = NDArray[np.float32]
CODE_BOOK_STEPS = 12


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model and the parts of its bundle that scoring needs.

    Attributes:
        arrays: parameters.
        prototypes: float32[classes, d].
        code_book: float32[cells, d].
        has_fitted_cells: the sites found the cells together, without labels, among the columns that
            no label changes; the embedding is that of these columns.
    """

    arrays: Arrays
    prototypes: Floats
    code_book: Floats
    has_fitted_cells: bool = False


@dataclass(frozen=True, eq=False)
class Learner:
    """Trains and applies the network of one simulation.

    Attributes:
        dataset: gives the inputs.
        spec: the network.
        config: rounds and rates.
        seed: fixes initial parameters and order of examples.
        flower: train on Flower's simulation engine instead of in this process.
    """

    dataset: Dataset
    spec: NetworkSpec
    config: TrainingConfig
    seed: int
    flower: bool = False

    def initial(self) -> Model:
        """The seeded model that knows nothing."""
        width = self.spec.embedding_width
        return Model(
            initial_arrays(self.spec, seed=self.seed),
            np.zeros((self.spec.class_count, width), dtype=np.float32),
            seeded_code_book(self.config.cell_count, width, seed=self.seed),
        )

    def first(self, sites: list[NDArray[Any]], *, cell_count: int) -> Model:
        """The model that chooses the first labels: a campaign's first version.

        Args:
            sites: input rows of each site.
            cell_count: labels of the first cycle, for as many cells.
        """
        model, width = self.initial(), fixed_width(self.spec)
        if not width or not len(model.code_book):
            return model
        ask = ask_of(self.spec, sites, seed=self.seed, count_min=self.local().group_count_min)
        count = min(cell_count, CELLS_MAX)
        cells = fit_cells(self.spec, model.arrays, ask, count, self.seed)
        if cells is None:
            return model
        blank = np.zeros((self.spec.class_count, width), dtype=np.float32)
        return Model(model.arrays, blank, cells, has_fitted_cells=True)

    def local(self) -> LocalSettings:
        """Local training as configured."""
        return local_settings(self.config)

    def plan(self) -> RunPlan:
        """The production plan of rounds."""
        return RunPlan(
            campaign_id="00" * 16,
            run_key="simulation",
            spec=self.spec,
            rounds=round_settings(self.config),
            local=self.local(),
            aggregation=aggregation_settings(self.config),
            label_counts={},
            seed=self.seed,
        )

    def train(
        self, start: Model, sites: dict[str, Examples], free: dict[str, Examples] | None = None
    ) -> Model:
        """Federated training on the sites' labelled examples, and on unlabelled ones where given.

        Args:
            start: where to start.
            sites: labelled examples by site; sites without any take no part.
            free: unlabelled samples by site.
        """
        free = free or {}
        named = self._named()
        trainers = {n: self.trainer(e, free.get(n), named) for n, e in sites.items() if len(e)}
        plan, book = self.plan(), start.code_book
        state = RoundState(0, start.arrays, ServerState(), np.zeros((0, book.shape[1]), np.float32))
        if self.flower:
            from simulations.flower_engine import train_rounds

            arrays = train_rounds(plan, state, sites, free, named).arrays
            return self._described(arrays, book, trainers, sites)
        for _ in range(plan.rounds.rounds):
            state = self._round(plan, state, trainers, book)
        return self._described(state.arrays, book, trainers, sites)

    def pretrain(
        self, start: Model, sites: dict[str, Examples], free: dict[str, Examples]
    ) -> Model:
        """The start after rounds that learn from unlabelled samples alone, if any are wanted.

        In production they are the first rounds of a campaign's first run; later runs begin with
        the released version. Here every cycle begins with the model that this gives.
        """
        count = self.config.pretrain_rounds
        if not count:
            return start
        plan, book = self.plan(), start.code_book
        rounds = replace(plan.rounds, rounds=count + 1, pretrain_rounds=count)
        plan = replace(plan, rounds=rounds)
        trainers = {n: self.trainer(e, free.get(n)) for n, e in sites.items() if len(e)}
        state = RoundState(0, start.arrays, ServerState(), np.zeros((0, book.shape[1]), np.float32))
        for _ in range(count):
            state = self._round(plan, state, trainers, book)
        return replace(start, arrays=state.arrays)

    def _round(
        self, plan: RunPlan, state: RoundState, trainers: dict[str, Trainer], book: Floats
    ) -> RoundState:
        number = state.round_number
        seed = int(np.random.default_rng([self.seed, number]).integers(1 << 31))
        task = TrainTask(seed, book, measure=False, teacher=state.server.average)
        local = local_of(plan, number)
        replies = {n: self._reply(t, state, local, task) for n, t in trainers.items()}
        updates = tuple(Update(n, r.arrays, float(r.example_count)) for n, r in replies.items())
        return next_state(plan, state, UpdateVerdict(updates, replies, {}))[0]

    def train_alone(self, start: Model, examples: Examples, *, epochs: int) -> Arrays:
        """Training at one site only, for strategies that compare a local model."""
        local = LocalSettings(
            local_epochs=epochs,
            batch_size=self.config.batch_size,
            learning_rate=self.config.learning_rate,
        )
        task = TrainTask(self.seed, measure=False)
        return self.trainer(examples).train(start.arrays, local, task).arrays

    def trainer(
        self, examples: Examples, free: Examples | None = None, named: Examples | None = None
    ) -> Trainer:
        """The production trainer on some examples, without a test split."""
        data = SiteData(examples, no_examples(), free or no_examples(), named or no_examples())
        return make_trainer(data, self.spec, device="cpu")

    def _named(self) -> Examples:
        """What the classes are called, as examples; none where that does not teach."""
        rows, classes = self.dataset.named, self.dataset.named_classes
        return no_examples() if rows is None or classes is None else self.examples(rows, classes)

    def predict(self, arrays: Arrays, inputs: NDArray[Any]) -> tuple[Floats, Floats]:
        """Logits of the served head, and embeddings, of input rows."""
        found = self.outputs(arrays, inputs)
        return found.logits, found.embedding

    def model_outputs(self, model: Model, inputs: NDArray[Any]) -> Prediction:
        """What devices have of a model version."""
        found = self.outputs(model.arrays, inputs)
        if not model.has_fitted_cells:
            return found
        return found._replace(embedding=unit_columns(self.spec, model.arrays, inputs))

    def outputs(self, arrays: Arrays, inputs: NDArray[Any]) -> Prediction:
        """What `predict` gives, and the logits of the plain head, where the network has one."""
        examples = self.examples(inputs, np.zeros(len(inputs), dtype=np.int64))
        return self.trainer(self.empty()).outputs(arrays, examples)

    def examples(
        self, inputs: NDArray[Any], classes: NDArray[np.int64], views: Floats | None = None
    ) -> Examples:
        """Wraps input rows, and moved copies of them, as production examples."""
        named = {self.dataset.input_name: inputs}
        if views is not None:
            named[VIEWS] = views
        return Examples(named, classes, np.zeros(len(classes), dtype=np.bool_))

    def empty(self) -> Examples:
        """No examples."""
        return no_examples()

    def unlabelled(self, inputs: NDArray[Any]) -> Examples:
        """Wraps input rows that nobody has labelled."""
        return unlabelled_examples({self.dataset.input_name: inputs}, len(inputs))

    def _reply(
        self, trainer: Trainer, state: RoundState, local: LocalSettings, task: TrainTask
    ) -> UpdateReply:
        found = trainer.train(state.arrays, local, task)
        none = GroupSums(
            np.zeros(0, np.int64), np.zeros((0, self.spec.embedding_width), np.float32)
        )
        return UpdateReply(found.arrays, found.example_count, found.loss, none, found.table)

    def _described(
        self,
        arrays: Arrays,
        book: Floats,
        trainers: dict[str, Trainer],
        sites: dict[str, Examples],
    ) -> Model:
        """Prototypes and code book from the sites' sums, by the production's federated steps."""
        found = [
            (trainers[name].predict(arrays, sites[name])[1], sites[name].classes)
            for name in trainers
        ]
        rng = np.random.default_rng([self.seed, 3])
        if not found:
            return Model(arrays, np.zeros((self.spec.class_count, book.shape[1]), np.float32), book)
        embedding = np.concatenate([part for part, _ in found])
        classes = np.concatenate([part for _, part in found])
        total = _sums(embedding, classes, self.spec.class_count)
        for _ in range(CODE_BOOK_STEPS if len(book) else 0):
            cells = nearest_cells(embedding, book)
            book = next_code_book(book, _sums(embedding, cells, len(book)), rng)
        return Model(arrays, prototypes(total), book)


def _sums(embedding: Floats, groups: NDArray[np.int64], count: int) -> GroupSums:
    return group_sums(embedding, groups, group_count=count, count_min=1)


def make_learner(
    dataset: Dataset, config: TrainingConfig, seed: int, *, flower: bool = False
) -> Learner:
    """Builds the learner of one seed."""
    spec = NetworkSpec(
        dataset.family,
        dataset.features,
        len(dataset.class_names),
        embedding_width=config.embedding_width,
        hidden_width=config.hidden_width,
        encoder_width=dataset.input_width,
        plain_head=config.plain_head,
        linear_skip=config.linear_skip,
        ensemble_size=config.ensemble_size,
    )
    return Learner(dataset, spec, config, seed, flower)
