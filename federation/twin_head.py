"""Trains two heads on the same rows: one that is served, and one that learns from labels alone.

    trainer = make_trainer(SiteData(train, test, unlabelled), replace(spec, plain_head=True))
    update = trainer.train(arrays, LocalSettings(unlabelled_weight=3.0), TrainTask(seed=1))

A model that also learns from guessed classes of unlabelled samples confirms itself: it is sure
where it guessed, so that its doubt asks for the wrong samples. The served head learns as the
settings say; the plain head learns the same round without guesses and changed inputs, from a
trainer that never holds an unlabelled sample; moved copies of images are examples to both. The
result is that of two separate trainings.

Class table, calibration and loss are the served head's; class sums, cell sums and the embedding are
the plain head's, as in the network's outputs. Rounds that learn views change the served head only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from federation.dataset import Examples, SiteData, no_examples
from federation.local_settings import LocalSettings, check_spread
from federation.networks import Arrays, NetworkSpec, check_arrays
from federation.seeding import PLAIN_PREFIX
from federation.statistics import Floats
from federation.training import Prediction, SiteReport, SiteTrainer, SiteUpdate, TrainTask


def served_arrays(arrays: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """Returns the parameters of the served head.

    >>> one = np.ones(1, dtype=np.float32)
    >>> list(served_arrays({"head.bias": one, "plain_head.bias": one}))
    ['head.bias']
    """
    return {name: array for name, array in arrays.items() if not name.startswith(PLAIN_PREFIX)}


def plain_arrays(arrays: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """Returns the parameters of the plain head under the names of the served one's.

    >>> one = np.ones(1, dtype=np.float32)
    >>> list(plain_arrays({"head.bias": one, "plain_head.bias": one}))
    ['head.bias']
    """
    start = len(PLAIN_PREFIX)
    return {name[start:]: a for name, a in arrays.items() if name.startswith(PLAIN_PREFIX)}


def joined_arrays(served: Arrays, plain: Arrays) -> Arrays:
    """Returns the parameters of both heads; undoes `served_arrays` and `plain_arrays`.

    >>> one = np.ones(1, dtype=np.float32)
    >>> list(joined_arrays({"head.bias": one}, {"head.bias": one}))
    ['head.bias', 'plain_head.bias']
    """
    return {**served, **{f"{PLAIN_PREFIX}{name}": array for name, array in plain.items()}}


class TwinTrainer:
    """Learns and measures two heads on the examples of one site.

    Args:
        data: The site's examples.
        spec: A network with `plain_head` whose input is read as it is: `record` or `encoder`.
        device: `auto` (CUDA where present), `cpu` or `cuda`.
        thread_count: CPU threads of torch.
    """

    def __init__(
        self, data: SiteData, spec: NetworkSpec, *, device: str = "auto", thread_count: int = 1
    ) -> None:
        self.spec = spec
        one = replace(spec, plain_head=False)
        labels = SiteData(data.train, no_examples())
        self._served, self._plain = (
            SiteTrainer(part, one, device=device, thread_count=thread_count)
            for part in (data, labels)
        )

    @property
    def example_count(self) -> int:
        """Training examples."""
        return self._served.example_count

    def train(self, arrays: Arrays, local: LocalSettings, task: TrainTask) -> SiteUpdate:
        """Trains both heads from `arrays` for `local.local_epochs` passes.

        Raises:
            NetworkInvalid: The arrays are not this network's.
            RequestInvalid: Guesses would follow the code book, whose cells are the plain head's.
        """
        check_arrays(arrays, self.spec)
        check_spread(local)
        # The code book divides the plain head's embeddings; it says nothing of the served one's.
        taught = replace(task, code_book=None, teacher=served_arrays(task.teacher))
        served = self._served.train(served_arrays(arrays), local, taught)
        plain = self._train_plain(plain_arrays(arrays), local, task)
        return replace(served, arrays=joined_arrays(served.arrays, plain.arrays), cells=plain.cells)

    def assess(self, arrays: Arrays, *, code_book: Floats | None, count_min: int) -> SiteReport:
        """Measures the served head on the test split; sums the plain head's embeddings.

        Raises:
            NetworkInvalid: The arrays are not this network's.
        """
        check_arrays(arrays, self.spec)
        served = self._served.assess(served_arrays(arrays), code_book=None, count_min=count_min)
        plain = self._plain.assess(plain_arrays(arrays), code_book=code_book, count_min=count_min)
        return replace(served, classes=plain.classes, cells=plain.cells)

    def predict(self, arrays: Arrays, examples: Examples) -> tuple[Floats, Floats]:
        """Returns the served head's logits and the plain head's unit embeddings."""
        found = self.outputs(arrays, examples)
        return found.logits, found.embedding

    def outputs(self, arrays: Arrays, examples: Examples) -> Prediction:
        """What `predict` returns, and float32[n, C] logits of the plain head."""
        logits, _ = self._served.predict(served_arrays(arrays), examples)
        asked, embedding = self._plain.predict(plain_arrays(arrays), examples)
        return Prediction(logits, embedding, asked)

    def _train_plain(self, arrays: Arrays, local: LocalSettings, task: TrainTask) -> SiteUpdate:
        own = replace(local, unlabelled_weight=0.0, input_noise=0.0, objective="labels")
        update = self._plain.train(arrays, own, replace(task, teacher={}, measure=False))
        return replace(update, arrays=arrays) if local.objective == "views" else update
