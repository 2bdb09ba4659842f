"""Trains what lies on a layer of features that learned without labels and stays as it is.

    trainer = make_trainer(SiteData(train, test, unlabelled), spec)
    update = trainer.train(arrays, LocalSettings(), TrainTask(seed=1))

The features of a site's samples depend on the fixed parameters alone. They are computed once for a
layer; a `SiteTrainer` of the family `encoder` then learns and measures on them, so that all it does
for frozen features (dense steps, guessed classes, noise) holds here too. Images may also be seen
moved a little, a few times each: such copies go through the layer once, too, and rounds take turns
with them. Names of classes of texts go through it as samples do. Updates carry the fixed
parameters as they came.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch

from federation import dense_steps, torch_engine, views
from federation.class_texts import check_label_names, named_examples
from federation.dataset import VIEWS, Examples, SiteData
from federation.errors import RequestInvalid
from federation.layer_arrays import fixed_arrays, layer_digest, trained_arrays
from federation.local_settings import LocalSettings, check_views
from federation.networks import INPUT_NAMES, Arrays, NetworkSpec, check_arrays, head_spec
from federation.statistics import Floats
from federation.training import Prediction, SiteReport, SiteTrainer, SiteUpdate, TrainTask
from federation.twin_head import TwinTrainer


class Trainer(Protocol):
    """What learns and measures on the examples of one site; see `training.SiteTrainer`."""

    @property
    def example_count(self) -> int:
        """Training examples."""
        ...

    def train(self, arrays: Arrays, local: LocalSettings, task: TrainTask) -> SiteUpdate:
        """Trains from `arrays` for a round."""
        ...

    def assess(self, arrays: Arrays, *, code_book: Floats | None, count_min: int) -> SiteReport:
        """Measures a model on the test split."""
        ...

    def predict(self, arrays: Arrays, examples: Examples) -> tuple[Floats, Floats]:
        """Returns logits and unit embeddings of any examples."""
        ...

    def outputs(self, arrays: Arrays, examples: Examples) -> Prediction:
        """The same, and what a plain head says."""
        ...


def make_trainer(
    data: SiteData, spec: NetworkSpec, *, device: str = "auto", thread_count: int = 1
) -> Trainer:
    """Returns the trainer of a network.

    One that keeps features where a layer is fixed; on these, as on inputs, one of two heads where
    the network has a plain one.

    Args:
        data: The site's examples.
        spec: The network.
        device: `auto` (CUDA where present, for networks that gain by it), `cpu` or `cuda`.
        thread_count: CPU threads of torch.
    """
    if device == "auto" and spec.family in dense_steps.FAMILIES:
        device = "cpu"  # an H100 took six times as long over steps of this size
    kind: type[FeatureTrainer | TwinTrainer | SiteTrainer] = SiteTrainer
    if spec.unsupervised_width or spec.plain_head:
        kind = FeatureTrainer if spec.unsupervised_width else TwinTrainer
    return kind(data, spec, device=device, thread_count=thread_count)


def encoded(
    spec: NetworkSpec, arrays: Arrays, examples: Examples, device: torch.device
) -> Examples:
    """Returns the same examples as input of `head_spec`: their features, float32[n, width]."""
    if not len(examples):
        return examples
    fixed = fixed_arrays(arrays, spec)
    x = torch_engine.input_tensor(spec, examples.inputs, device)
    rows = torch_engine.features(spec, torch_engine.to_parameters(fixed, device), x)
    return replace(examples, inputs={INPUT_NAMES["encoder"]: rows.cpu().numpy()})


def with_views(
    spec: NetworkSpec, arrays: Arrays, examples: Examples, count: int, device: torch.device
) -> Examples:
    """Returns what `encoded` does, with the features of so many moved copies of each image."""
    found = encoded(spec, arrays, examples, device)
    if not count or not len(examples):
        return found
    check_views(count, spec.family, spec.unsupervised_width)
    x = torch_engine.input_tensor(spec, examples.inputs, device)
    fixed = torch_engine.to_parameters(fixed_arrays(arrays, spec), device)
    copies = [
        torch_engine.features(spec, fixed, views.moved(x, seed)).cpu() for seed in range(count)
    ]
    return replace(found, inputs={**found.inputs, VIEWS: torch.stack(copies, dim=1).numpy()})


class FeatureTrainer:
    """Learns and measures on the examples of one site, as features of a fixed layer.

    Args:
        data: The site's examples.
        spec: A network with `unsupervised_width`.
        device: `auto` (CUDA where present), `cpu` or `cuda`.
        thread_count: CPU threads of torch.
    """

    def __init__(
        self, data: SiteData, spec: NetworkSpec, *, device: str = "auto", thread_count: int = 1
    ) -> None:
        self.spec = spec
        self._data, self._thread_count, self._wanted = data, thread_count, device
        self._device = torch_engine.choose_device(device)
        torch_engine.reproducible(self._device, thread_count=thread_count)
        self._view_count = 0
        self._texts: tuple[str, ...] = ()
        self._kept: tuple[tuple[Any, ...], Trainer] | None = None

    @property
    def example_count(self) -> int:
        """Training examples."""
        return len(self._data.train)

    def train(self, arrays: Arrays, local: LocalSettings, task: TrainTask) -> SiteUpdate:
        """Trains the head from `arrays` for `local.local_epochs` passes.

        Raises:
            NetworkInvalid: The arrays are not this network's.
            RequestInvalid: The round would learn views, which would change the fixed layer, move
                inputs that are no images, or read names of classes beside samples that are no
                texts or as many as it has not.
        """
        if local.objective == "views":
            raise RequestInvalid(
                "objective views changes a layer that unsupervised_width keeps as it is; "
                "set pretrain_rounds or unsupervised_width to 0"
            )
        self._view_count, self._texts = local.input_views, local.class_texts
        head = self._head(arrays)
        task = replace(task, teacher=trained_arrays(task.teacher, self.spec))
        update = head.train(trained_arrays(arrays, self.spec), local, task)
        return replace(update, arrays={**arrays, **update.arrays})

    def assess(self, arrays: Arrays, *, code_book: Floats | None, count_min: int) -> SiteReport:
        """Measures a model on the test split and sums its embeddings of the training examples.

        Raises:
            NetworkInvalid: The arrays are not this network's.
        """
        head, own = self._head(arrays), trained_arrays(arrays, self.spec)
        return head.assess(own, code_book=code_book, count_min=count_min)

    def predict(self, arrays: Arrays, examples: Examples) -> tuple[Floats, Floats]:
        """Returns logits float32[n, C] and unit embeddings float32[n, d] of any examples."""
        rows = encoded(self.spec, arrays, examples, self._device)
        return self._head(arrays).predict(trained_arrays(arrays, self.spec), rows)

    def outputs(self, arrays: Arrays, examples: Examples) -> Prediction:
        """What `predict` returns, and float32[n, C] logits of a plain head, None without one."""
        rows = encoded(self.spec, arrays, examples, self._device)
        return self._head(arrays).outputs(trained_arrays(arrays, self.spec), rows)

    def _head(self, arrays: Arrays) -> Trainer:
        """The trainer on the features of this layer and of as many copies as rounds want."""
        check_arrays(arrays, self.spec)
        key = layer_digest(arrays, self.spec), self._view_count, self._texts
        if self._kept is None or self._kept[0] != key:
            train = with_views(self.spec, arrays, self._data.train, self._view_count, self._device)
            others = (self._data.test, self._data.unlabelled)
            test, free = (encoded(self.spec, arrays, s, self._device) for s in others)
            named = encoded(self.spec, arrays, self._named(), self._device)
            rows = SiteData(train, test, free, named)
            head = make_trainer(
                rows,
                head_spec(self.spec),
                device=self._wanted,
                thread_count=self._thread_count,
            )
            self._kept = key, head
        return self._kept[1]

    def _named(self) -> Examples:
        """What the round's message calls the classes, else what the site's data has for it."""
        if not self._texts:
            return self._data.named
        check_label_names(True, self.spec.family, self.spec.unsupervised_width)
        if len(self._texts) != self.spec.class_count:
            wanted = self.spec.class_count
            raise RequestInvalid(f"class_texts has {len(self._texts)} texts for {wanted} classes")
        return named_examples(self._texts, self.spec.features)
