"""The site trainer: all that touches a site's labelled examples while a model learns.

The same object serves a deployed site (behind a socket, `trainer_service`) and a simulation:

    trainer = SiteTrainer(SiteData(train, test), spec)
    update = trainer.train(arrays, LocalSettings(), TrainTask(seed=1, code_book=book))
    report = trainer.assess(arrays, code_book=book, count_min=3)

`arrays` are never changed. With the same data, arrays, settings and seed a CPU gives the same
bytes. Replies hold parameters, counts and sums only; `reply_rules` checks them before they leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from federation import batches, dense_steps, torch_engine, views
from federation.dataset import VIEWS, Examples, SiteData, from_samples
from federation.ensemble import single, split_members
from federation.local_settings import OPTIMIZERS, LocalSettings
from federation.networks import Arrays, NetworkSpec, check_arrays, initial_arrays
from federation.pool_lessons import PoolLessons, Taught
from federation.statistics import (
    Calibration,
    Counts,
    Floats,
    GroupSums,
    calibration_sums,
    class_table,
    group_sums,
    nearest_cells,
)
from model_bundle.features import ColumnSpec, FeatureSpec

PREDICT_BATCH = 512


@dataclass(frozen=True, eq=False)
class TrainTask:
    """What differs from round to round.

    Attributes:
        seed: Fixes order of examples, dropout and committee resampling.
        code_book: float32[K, d], or None when no cells are wanted.
        measure: Whether to count right answers of the incoming model on the test split.
        teacher: Parameters that guess the classes of unlabelled samples; empty for the incoming.
    """

    seed: int
    code_book: Floats | None = None
    measure: bool = True
    teacher: Arrays = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SiteUpdate:
    """What one round of local training gives.

    Attributes:
        arrays: Parameters after training.
        example_count: Examples that were learned from; with 0 the arrays are the incoming ones.
        loss: Mean training loss of the last epoch, 0 without examples.
        cells: Embedding sums of the training examples by cell, under the incoming model.
        table: int64[3, C] class table of the test split, under the incoming model.
    """

    arrays: Arrays
    example_count: int
    loss: float
    cells: GroupSums | None
    table: Counts


@dataclass(frozen=True, eq=False)
class SiteReport:
    """What a site measures of a finished model.

    Attributes:
        table: int64[3, C] class table of the test split.
        classes: Embedding sums of the training examples by class, for prototypes.
        cells: The same by cell, for the code book.
        calibration: Sums for the temperature.
        example_count: Training examples.
    """

    table: Counts
    classes: GroupSums
    cells: GroupSums | None
    calibration: Calibration
    example_count: int


class Prediction(NamedTuple):
    """Logits float32[n, C], unit embeddings float32[n, d], and the logits of a plain head."""

    logits: Floats
    embedding: Floats
    acquisition_logits: Floats | None = None


class SiteTrainer:
    """Learns and measures on the examples of one site.

    Args:
        data: The site's examples.
        spec: The network.
        device: `auto` (CUDA where present), `cpu` or `cuda`.
        thread_count: CPU threads of torch.
    """

    def __init__(
        self, data: SiteData, spec: NetworkSpec, *, device: str = "auto", thread_count: int = 1
    ) -> None:
        self.spec, self._one = spec, single(spec)
        self._device = torch_engine.choose_device(device)
        torch_engine.reproducible(self._device, thread_count=thread_count)
        self._train, self._test = data.train, data.test
        self._test_input = self._on_device(data.test)
        self._lesson_classes = np.concatenate([data.train.classes, data.named.classes])
        self._targets = torch.from_numpy(self._lesson_classes).to(self._device)
        self._pool = PoolLessons(spec, data, self._device)
        self._train_input = self._pool.labelled if len(data.train) else None
        parts = [x for x in (self._train_input, self._on_device(data.named)) if x is not None]
        self._lesson_input = torch.cat(parts) if len(parts) > 1 else self._train_input
        copies = data.train.inputs.get(VIEWS)
        self._views = None if copies is None else torch.from_numpy(copies).to(self._device)

    @property
    def example_count(self) -> int:
        """Training examples."""
        return len(self._train)

    def train(self, arrays: Arrays, local: LocalSettings, task: TrainTask) -> SiteUpdate:
        """Trains from `arrays` for `local.local_epochs` passes.

        Raises:
            NetworkInvalid: The arrays are not this network's.
        """
        check_arrays(arrays, self.spec)
        parameters = torch_engine.to_parameters(arrays, self._device)
        table = self._table(parameters) if task.measure else _no_table(self.spec)
        cells = self._cells(parameters, task.code_book, local.group_count_min)
        if not len(self._train):
            return SiteUpdate(arrays, 0, 0.0, cells, table)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch_engine.seed(self._device, task.seed)
            if local.objective == "views":
                loss = self._pool.pretrain(parameters, local, task.seed)
            else:
                parameters, loss = self._taught(parameters, local, task)
        trained = torch_engine.to_arrays(parameters)
        return SiteUpdate(trained, len(self._train), loss, cells, table)

    def assess(self, arrays: Arrays, *, code_book: Floats | None, count_min: int) -> SiteReport:
        """Measures a model on the test split and sums its embeddings of the training examples.

        Raises:
            NetworkInvalid: The arrays are not this network's.
        """
        check_arrays(arrays, self.spec)
        parameters = torch_engine.to_parameters(arrays, self._device)
        logits, _ = self._predict(parameters, self._test_input, len(self._test))
        _, embedding = self._predict(parameters, self._train_input, len(self._train))
        predicted = logits.argmax(axis=1).astype(np.int64)
        count = self.spec.class_count
        return SiteReport(
            class_table(predicted, self._test.classes, class_count=count),
            group_sums(embedding, self._train.classes, group_count=count, count_min=count_min),
            _cell_sums(embedding, code_book, count_min),
            calibration_sums(logits, self._test.classes, self._test.calibration),
            len(self._train),
        )

    def predict(self, arrays: Arrays, examples: Examples) -> tuple[Floats, Floats]:
        """Returns logits float32[n, C] and unit embeddings float32[n, d] of any examples."""
        parameters = torch_engine.to_parameters(arrays, self._device)
        return self._predict(parameters, self._on_device(examples), len(examples))

    def outputs(self, arrays: Arrays, examples: Examples) -> Prediction:
        """What `predict` returns, by name."""
        return Prediction(*self.predict(arrays, examples))

    def _on_device(self, examples: Examples) -> Tensor | None:
        if not len(examples):
            return None
        return torch_engine.input_tensor(self.spec, examples.inputs, self._device)

    def _autocast(self) -> torch.autocast:
        cuda = self._device.type == "cuda"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=cuda)

    def _table(self, parameters: torch_engine.Parameters) -> Counts:
        logits, _ = self._predict(parameters, self._test_input, len(self._test))
        predicted = logits.argmax(axis=1).astype(np.int64)
        return class_table(predicted, self._test.classes, class_count=self.spec.class_count)

    def _cells(
        self, parameters: torch_engine.Parameters, code_book: Floats | None, count_min: int
    ) -> GroupSums | None:
        if code_book is None:
            return None
        _, embedding = self._predict(parameters, self._train_input, len(self._train))
        return _cell_sums(embedding, code_book, count_min)

    def _predict(
        self, parameters: torch_engine.Parameters, x: Tensor | None, rows: int
    ) -> tuple[Floats, Floats]:
        logits = np.zeros((rows, self.spec.class_count), dtype=np.float32)
        embedding = np.zeros((rows, self.spec.embedding_width), dtype=np.float32)
        if x is None:
            return logits, embedding
        with torch.no_grad():
            for start in range(0, rows, PREDICT_BATCH):
                part = slice(start, start + PREDICT_BATCH)
                outputs = torch_engine.forward(self.spec, parameters, x[part])
                logits[part] = outputs["logits"].float().cpu().numpy()
                embedding[part] = outputs["embedding"].float().cpu().numpy()
        return logits, embedding

    def _descend(
        self,
        parameters: torch_engine.Parameters,
        local: LocalSettings,
        seed: int,
        taught: Taught | None,
    ) -> float:
        inputs = self._round_inputs(local, seed)
        start = {name: tensor.clone() for name, tensor in parameters.items()}
        for tensor in parameters.values():
            tensor.requires_grad = True
        optimizer = _optimizer(parameters, local)
        members = split_members(parameters, self.spec.ensemble_size)
        classes, rows = self._lesson_classes, len(self._lesson_classes)
        weights = batches.class_weights(classes, self.spec.class_count, local.balance)
        lesson = _Lesson(
            inputs,
            torch.from_numpy(weights).to(self._device),
            batches.resampling(rows, self.spec.committee_count, seed).to(self._device),
            local.input_noise,
            taught,
        )
        epoch_loss = 0.0
        for order in batches.epochs(rows, local, seed):
            loss_sum = torch.zeros((), device=self._device)
            for batch in order:
                index = batch.to(self._device)
                loss = self._loss(members, index, lesson)
                if local.proximal_mu:
                    loss = loss + local.proximal_mu / 2 * _distance(parameters, start)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                for own in members:
                    torch.nn.utils.clip_grad_norm_(list(own.values()), local.gradient_norm)
                optimizer.step()
                loss_sum += loss.detach() * len(batch) / len(members)
            epoch_loss = float(loss_sum) / rows
        return epoch_loss

    def _taught(
        self, parameters: torch_engine.Parameters, local: LocalSettings, task: TrainTask
    ) -> tuple[torch_engine.Parameters, float]:
        guessing = parameters
        if task.teacher and local.unlabelled_weight:
            check_arrays(task.teacher, self.spec)
            guessing = torch_engine.to_parameters(task.teacher, self._device)
        taught = self._pool.taught(guessing, local, task.code_book, task.seed)
        if local.unlabelled_weight:
            local = replace(local, input_noise=local.input_noise * self._pool.share)
        if dense_steps.are_possible(self.spec, local, self._device):
            return self._descend_dense(parameters, local, task.seed, taught)
        return parameters, self._descend(parameters, local, task.seed, taught)

    def _descend_dense(
        self,
        parameters: torch_engine.Parameters,
        local: LocalSettings,
        seed: int,
        taught: Taught | None,
    ) -> tuple[torch_engine.Parameters, float]:
        """The same descent for small dense networks, without automatic differentiation."""
        steps = dense_steps.DenseSteps(self.spec, parameters, local)
        inputs, classes = self._round_inputs(local, seed).numpy(), self._lesson_classes
        weights = batches.class_weights(classes, self.spec.class_count, local.balance)[classes]
        targets = np.eye(self.spec.class_count, dtype=np.float32)[classes]
        epoch_loss = 0.0
        for rows in batches.epochs(len(classes), local, seed):
            order, loss_sum, start = torch.cat(rows).numpy(), 0.0, 0
            inputs_now, targets_now, weights_now = inputs[order], targets[order], weights[order]
            for batch in rows:
                part = slice(start, start + len(batch))
                x, wanted = inputs_now[part], targets_now[part]
                shares = weights_now[part] / weights_now[part].sum()
                if taught is not None:
                    x, wanted, shares = taught.joined(x, wanted, shares)
                if local.input_noise:
                    x = self._changed(torch.from_numpy(x), local.input_noise).numpy()
                loss_sum += steps.step(x, wanted, shares) * len(batch)
                start = part.stop
            epoch_loss = loss_sum / len(classes)
        return steps.parameters(), epoch_loss

    def _round_inputs(self, local: LocalSettings, seed: int) -> Tensor:
        """The training examples, as they are or, by chance, as moved copies; then named ones."""
        assert self._lesson_input is not None
        if self._views is None or not local.input_views:
            return self._lesson_input
        rows, count = self._views.shape[:2]
        chosen = np.random.default_rng([seed, 8]).integers(0, count + 1, rows)
        moved = np.flatnonzero(chosen)
        found = self._lesson_input.clone()
        found[moved] = self._views[moved, chosen[moved] - 1]
        return found

    def _changed(self, x: Tensor, strength: float) -> Tensor:
        return views.changed(self.spec.family, x, strength, self._pool.spread)

    def _loss(
        self, members: list[torch_engine.Parameters], index: Tensor, lesson: _Lesson
    ) -> Tensor:
        classes, rows = self._targets[index], len(index)
        x, taught = lesson.inputs[index], lesson.taught
        if taught is not None:
            x = torch.cat([x, taught.draw()])
        with self._autocast():
            x = self._changed(x, lesson.input_noise)
            said = [torch_engine.forward(self._one, own, x, training=True) for own in members]
        loss = torch.zeros((), device=self._device)
        for outputs in said:
            logits = outputs["logits"].float()
            loss = loss + F.cross_entropy(logits[:rows], classes, weight=lesson.class_weights)
            if taught is not None:
                loss = loss + taught.loss(logits[rows:])
        if self.spec.committee_count:
            ballots = said[0]["committee_logits"][:rows].float().transpose(1, 2)
            targets = classes[:, None].expand(-1, self.spec.committee_count)
            each = F.cross_entropy(ballots, targets, reduction="none")
            loss = loss + (each * lesson.votes[index]).mean()
        return loss


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What stays the same in all steps of a round.

    Attributes:
        inputs: Rows of the training examples, or of moved copies of them.
        class_weights: float32[C].
        votes: float32[n, members], weight of each example for each member of the committee.
        input_noise: Strength of changes to inputs.
        taught: Guessed classes of the pool, None where they do not count.
    """

    inputs: Tensor
    class_weights: Tensor
    votes: Tensor
    input_noise: float
    taught: Taught | None


def warm_up(device: str = "auto") -> None:
    """Takes a tiny step, so that no round waits for torch's optimisers or the CUDA context."""
    features = FeatureSpec("record", columns=(ColumnSpec("x"),))
    examples = from_samples([{"x": 0.0}, {"x": 1.0}], [0, 1], features)
    spec = NetworkSpec("record", features, 2, embedding_width=2, hidden_width=2)
    trainer = SiteTrainer(SiteData(examples, examples), spec, device=device)
    for optimizer in OPTIMIZERS:
        local = LocalSettings(local_epochs=1, optimizer=optimizer)
        trainer.train(initial_arrays(spec, seed=0), local, TrainTask(seed=0))


def _no_table(spec: NetworkSpec) -> Counts:
    return np.zeros((3, spec.class_count), dtype=np.int64)


def _cell_sums(embedding: Floats, code_book: Floats | None, count_min: int) -> GroupSums | None:
    if code_book is None or not len(code_book):
        return None
    cells = nearest_cells(embedding, code_book)
    return group_sums(embedding, cells, group_count=len(code_book), count_min=count_min)


def _optimizer(parameters: torch_engine.Parameters, local: LocalSettings) -> torch.optim.Optimizer:
    tensors = list(parameters.values())
    if local.optimizer == "adam":
        return torch.optim.AdamW(tensors, lr=local.learning_rate, weight_decay=local.weight_decay)
    return torch.optim.SGD(
        tensors, lr=local.learning_rate, momentum=0.9, weight_decay=local.weight_decay
    )


def _distance(parameters: torch_engine.Parameters, start: torch_engine.Parameters) -> Tensor:
    return torch.stack([(p - start[name]).square().sum() for name, p in parameters.items()]).sum()
