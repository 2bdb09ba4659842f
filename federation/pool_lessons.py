"""How a site's trainer learns from its unlabelled samples: guessed classes, and views.

The pool never leaves the trainer; parameters change because of it, and nothing else does.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from federation import pool, torch_engine, views
from federation.dataset import Examples, SiteData
from federation.local_settings import LocalSettings
from federation.networks import NetworkSpec
from federation.statistics import Floats

PREDICT_BATCH = 512
RAW_FAMILIES = ("encoder", "record")
"""Their inputs already say which samples are close to each other."""
VIEW_BATCH = 128
VIEW_STEPS_MAX = 20
VIEW_RATE = 0.003
VIEW_NOISE = 0.3
"""Strength of changes for pre-training where the settings name none."""
VIEW_TEMPERATURE = 0.2


class Taught:
    """Guessed classes of a pool, drawn batch by batch in one round.

    Args:
        x: Inputs of the pool.
        lessons: Targets and weights of its samples.
        local: Weight and batch size.
        seed: Fixes which samples are drawn.
    """

    def __init__(self, x: Tensor, lessons: pool.Lessons, local: LocalSettings, seed: int) -> None:
        self._x, self._local = x, local
        self._targets = torch.from_numpy(lessons.targets).to(x.device)
        self._weights = torch.from_numpy(lessons.weights).to(x.device)
        self._rng = np.random.default_rng([seed, 4])
        self._rows = torch.zeros(0, dtype=torch.int64)

    def draw(self) -> Tensor:
        """Inputs of the next batch."""
        chosen = self._rng.integers(0, len(self._x), self._local.unlabelled_batch)
        self._rows = torch.from_numpy(chosen).to(self._x.device)
        return self._x[self._rows]

    def joined(self, x: Floats, targets: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Labelled rows, their targets and weights, with those of the next batch below them."""
        more = self.draw().numpy()
        weight = self._local.unlabelled_weight / len(self._rows)
        return (
            np.concatenate([x, more]),
            np.concatenate([targets, self._targets[self._rows].numpy()]),
            np.concatenate([weights, self._weights[self._rows].numpy() * np.float32(weight)]),
        )

    def loss(self, logits: Tensor) -> Tensor:
        """Weighted cross entropy of the batch drawn last."""
        each = -(self._targets[self._rows] * F.log_softmax(logits, dim=1)).sum(dim=1)
        return self._local.unlabelled_weight * (each * self._weights[self._rows]).mean()


class PoolLessons:
    """A site's unlabelled samples beside its labelled ones.

    Args:
        spec: The network.
        data: The site's data.
        device: Where the trainer computes.

    Attributes:
        labelled: Inputs of the training examples, on the device.
        spread: Root mean square of all inputs.
        share: How much guesses count in this round, by the pool's cohesion, 0 to 1.
    """

    def __init__(self, spec: NetworkSpec, data: SiteData, device: torch.device) -> None:
        self._spec, self._data, self._device = spec, data, device
        self.labelled = self._tensor(data.train)
        self._free = self._tensor(data.unlabelled)
        if spec.family == "text":
            self.labelled, self._free = _same_width(self.labelled, self._free)
        self._chosen: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._links: Floats | None = None
        self._near: pool.Nearest | None = None
        self.share = 0.0
        self.spread = views.spread_of(spec.family, [self.labelled, self._free])

    def taught(
        self,
        parameters: torch_engine.Parameters,
        local: LocalSettings,
        code_book: Floats | None,
        seed: int,
    ) -> Taught | None:
        """Guesses the pool's classes with the incoming parameters; None where they do not count."""
        self.share = 0.0
        if not local.unlabelled_weight or not len(self._free):
            return None
        x = self._free[torch.from_numpy(self._choose(local.unlabelled_max)).to(self._device)]
        logits, embedding = self._predict(parameters, x)
        counts = self._label_counts()
        guesses = pool.adapted(_softmax(logits), counts, strength=local.pool_prior)
        near = self._neighbours(parameters, embedding)
        self.share = self._share(near, guesses, local.cohesion_floor)
        if not self.share:
            return None
        trust = self._trust(parameters, guesses, embedding) ** local.trust_power
        if local.spread == "graph":
            guesses = self._spread(parameters, guesses, embedding)
        if local.spread == "cells" and code_book is not None:
            guesses = self._agreed(parameters, guesses, embedding, code_book)
        lessons = self._lessons(parameters, guesses, local)
        lessons.weights[:] *= np.float32(trust * self.share)
        if local.agreement_power:
            agreed = pool.agreement(near, self._beliefs(guesses), guesses)
            lessons.weights[:] *= agreed ** np.float32(local.agreement_power)
        return Taught(x, lessons, local, seed)

    def pretrain(
        self, parameters: torch_engine.Parameters, local: LocalSettings, seed: int
    ) -> float:
        """One round of contrast between views: two views of a sample, among those of others.

        Sources: Chen et al., "A simple framework for contrastive learning of visual
        representations", 2020; for texts the views are two halves of the n-grams, as in Logeswaran
        and Lee, "An efficient framework for learning sentence representations", 2018.
        """
        parts = [part for part in (self.labelled, self._free) if len(part)]
        x = torch.cat(parts)
        body = [t for n, t in parameters.items() if not n.startswith(("head", "skip", "committee"))]
        for tensor in body:
            tensor.requires_grad = True
        optimizer = torch.optim.AdamW(body, lr=VIEW_RATE)
        losses = []
        for batch in _view_batches(len(x), local.local_epochs, seed):
            rows = x[torch.from_numpy(batch).to(self._device)]
            if len(rows) < 2:
                continue
            loss = self._contrast(parameters, rows, local.input_noise or VIEW_NOISE)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(body, local.gradient_norm)
            optimizer.step()
            losses.append(float(loss.detach()))
        return float(np.mean(losses)) if losses else 0.0

    def _contrast(self, parameters: torch_engine.Parameters, x: Tensor, noise: float) -> Tensor:
        family = self._spec.family
        if family == "text":
            left, right = views.halves(x)
        else:
            left, right = (views.changed(family, x, noise, self.spread) for _ in range(2))
        both = torch.cat([left, right])
        outputs = torch_engine.forward(self._spec, parameters, both, training=True)
        embedding = outputs["embedding"].float()
        closeness = embedding @ embedding.T / VIEW_TEMPERATURE
        closeness.fill_diagonal_(-math.inf)
        rows = len(x)
        partner = torch.arange(2 * rows, device=x.device).roll(rows)
        return F.cross_entropy(closeness, partner)

    def _lessons(
        self,
        parameters: torch_engine.Parameters,
        guesses: NDArray[np.float64],
        local: LocalSettings,
    ) -> pool.Lessons:
        if local.pseudo_labels == "soft":
            return pool.Lessons(guesses.astype(np.float32), pool.certainty(guesses))
        held = self._data.test
        known = self._tensor(held)[torch.from_numpy(held.calibration).to(self._device)]
        bars = pool.class_thresholds(
            guesses,
            _softmax(self._predict(parameters, known)[0]),
            held.classes[held.calibration],
            precision=local.pseudo_precision,
        )
        return pool.above(guesses, bars)

    def _agreed(
        self,
        parameters: torch_engine.Parameters,
        guesses: NDArray[np.float64],
        embedding: Floats,
        code_book: Floats,
    ) -> NDArray[np.float64]:
        """Guesses in pure cells meet the cell's class half way: a young code book errs as well."""
        classes = self._data.train.classes
        _, known = self._predict(parameters, self.labelled)
        count = self._spec.class_count
        named = pool.pure_cells(embedding, known, classes, code_book, class_count=count)
        agreed = guesses.copy()
        agreed[named >= 0] = (guesses[named >= 0] + np.eye(count)[named[named >= 0]]) / 2
        return agreed

    def _trust(
        self, parameters: torch_engine.Parameters, guesses: NDArray[np.float64], embedding: Floats
    ) -> float:
        known, rows = self._places(parameters, embedding)
        return pool.trust(known, self._data.train.classes, rows, guesses)

    def _neighbours(self, parameters: torch_engine.Parameters, embedding: Floats) -> pool.Nearest:
        if self._near is not None:
            return self._near
        known, rows = self._places(parameters, embedding)
        near = pool.nearest(rows, np.concatenate([known, rows]), skip=len(known))
        self._near = near if self._spec.family in RAW_FAMILIES else None
        return near

    def _share(self, near: pool.Nearest, guesses: NDArray[np.float64], floor: float) -> float:
        if floor <= -1:
            return 1.0
        return pool.cohesion_share(pool.cohesion(near, self._beliefs(guesses), guesses), floor)

    def _beliefs(self, guesses: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[m + n, C]: labels as certainties, and guesses."""
        sure = np.eye(self._spec.class_count)[self._data.train.classes]
        return np.concatenate([sure, guesses])

    def _places(
        self, parameters: torch_engine.Parameters, embedding: Floats
    ) -> tuple[Floats, Floats]:
        """Where labelled examples and the pool lie: by input where that says enough."""
        if self._spec.family in RAW_FAMILIES:
            rows = self._free[torch.from_numpy(self._chosen).to(self._device)]
            return self.labelled.cpu().numpy(), rows.cpu().numpy()
        return self._predict(parameters, self.labelled)[1], embedding

    def _spread(
        self,
        parameters: torch_engine.Parameters,
        guesses: NDArray[np.float64],
        embedding: Floats,
    ) -> NDArray[np.float64]:
        """Frozen features and records make the graph once; other families with each embedding."""
        rows = len(self.labelled)
        links = self._links
        if links is None:
            links = pool.graph(np.concatenate(self._places(parameters, embedding)))
            self._links = links if self._spec.family in RAW_FAMILIES else None
        return pool.spread(links, self._beliefs(guesses))[rows:]

    def _choose(self, most: int) -> NDArray[np.int64]:
        """The same samples all through a run, so that the graph stays."""
        count = min(most, len(self._free))
        if len(self._chosen) != count:
            order = np.random.default_rng(len(self._free)).permutation(len(self._free))
            self._chosen, self._links, self._near = np.sort(order[:count]), None, None
        return self._chosen

    def _label_counts(self) -> NDArray[np.int64]:
        counts = np.bincount(self._data.train.classes, minlength=self._spec.class_count)
        return counts.astype(np.int64)

    def _tensor(self, examples: Examples) -> Tensor:
        if not len(examples):
            return torch.zeros((0, 0), device=self._device)
        return torch_engine.input_tensor(self._spec, examples.inputs, self._device)

    def _predict(self, parameters: torch_engine.Parameters, x: Tensor) -> tuple[Floats, Floats]:
        logits = np.zeros((len(x), self._spec.class_count), dtype=np.float32)
        embedding = np.zeros((len(x), self._spec.embedding_width), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(x), PREDICT_BATCH):
                part = slice(start, start + PREDICT_BATCH)
                outputs = torch_engine.forward(self._spec, parameters, x[part])
                logits[part] = outputs["logits"].float().cpu().numpy()
                embedding[part] = outputs["embedding"].float().cpu().numpy()
        return logits, embedding


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def _view_batches(rows: int, epochs: int, seed: int) -> list[NDArray[np.int64]]:
    """Batches of row numbers for some passes, `VIEW_STEPS_MAX` at most."""
    rng = np.random.default_rng([seed, 5])
    parts = max(1, math.ceil(rows / VIEW_BATCH))
    batches = [b for _ in range(epochs) for b in np.array_split(rng.permutation(rows), parts)]
    return batches[:VIEW_STEPS_MAX]


def _same_width(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Pads rows of token ids with 0 to the longer of two widths."""
    width = max(left.shape[1], right.shape[1])
    padded = [F.pad(part, (0, width - part.shape[1])) for part in (left, right)]
    return padded[0], padded[1]
