"""Training steps of networks without convolutions, written out in numpy.

The families `record` and `encoder` have three small dense layers. Automatic differentiation and an
optimiser object cost several times the arithmetic of such a step, so on a CPU it is written out:
softmax cross-entropy, clipping by the norm of all gradients, descent with momentum. The numbers are
those of the same step in torch up to rounding; dropout draws from torch's generator in the same
order. A test compares the two.

    steps = DenseSteps(spec, parameters, local)
    loss = steps.step(x, targets, weights)
    steps.parameters()
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from federation.local_settings import LocalSettings
from federation.networks import NetworkSpec, parameter_layout

FAMILIES = ("record", "encoder")
MOMENTUM = 0.9
Floats = NDArray[np.float32]


def are_possible(spec: NetworkSpec, local: LocalSettings, device: torch.device) -> bool:
    """Whether a network and its training are of the kind that is written out here."""
    plain = local.optimizer == "sgd" and not local.proximal_mu and not spec.committee_count
    return device.type == "cpu" and spec.family in FAMILIES and plain


class DenseSteps:
    """Parameters, momentum and gradients in one row of memory each, with a view per layer.

    Args:
        spec: A dense network without a committee.
        parameters: Where to start; they are copied.
        local: Step size, clipping and weight decay.
    """

    def __init__(
        self, spec: NetworkSpec, parameters: Mapping[str, Tensor], local: LocalSettings
    ) -> None:
        self._layout = parameter_layout(spec)
        self._local = local
        self._has_skip = spec.linear_skip
        self._keep = 1.0 - spec.dropout_ratio
        self._values = np.concatenate(
            [parameters[name].detach().numpy().ravel() for name in self._layout]
        )
        self._gradient = np.zeros_like(self._values)
        self._momentum = np.zeros_like(self._values)
        self._at = self._views(self._values)
        self._slope = self._views(self._gradient)

    def step(self, x: Floats, targets: Floats, weights: Floats) -> float:
        """Takes one step and returns the loss before it.

        Args:
            x: float32[n, width], input rows.
            targets: float32[n, classes], shares of each row's class, of sum 1.
            weights: float32[n], what each row counts in the sum of cross-entropies.
        """
        at = self._at
        active: Floats = x @ at["hidden.weight"].T + at["hidden.bias"]
        np.maximum(active, 0, out=active)
        dropped = self._drop(active.shape)
        hidden = active if dropped is None else np.multiply(active, dropped, dtype=np.float32)
        embedding: Floats = hidden @ at["embedding.weight"].T + at["embedding.bias"]
        np.maximum(embedding, 0, out=embedding)
        logits: Floats = embedding @ at["head.weight"].T + at["head.bias"]
        if self._has_skip:
            logits += x @ at["skip.weight"].T + at["skip.bias"]
        loss, error = _cross_entropy(logits, targets, weights)
        if self._has_skip:
            self._layer("skip", error, x, last=True)
        back = self._layer("head", error, embedding)
        back *= embedding > 0
        back = self._layer("embedding", back, hidden)
        if dropped is not None:
            back *= dropped
        back *= active > 0
        self._layer("hidden", back, x, last=True)
        self._move()
        return loss

    def parameters(self) -> dict[str, Tensor]:
        """The parameters as they are now."""
        return {name: torch.from_numpy(view.copy()) for name, view in self._at.items()}

    def _layer(self, name: str, error: Floats, came_in: Floats, *, last: bool = False) -> Floats:
        """Writes the gradients of a layer; returns the error at what came in."""
        np.matmul(error.T, came_in, out=self._slope[f"{name}.weight"])
        error.sum(axis=0, out=self._slope[f"{name}.bias"])
        return error if last else error @ self._at[f"{name}.weight"]

    def _drop(self, shape: tuple[int, ...]) -> Floats | None:
        if self._keep >= 1.0:
            return None
        kept: Floats = torch.empty(shape).bernoulli_(self._keep).numpy()
        kept *= np.float32(1.0 / self._keep)
        return kept

    def _move(self) -> None:
        gradient, local = self._gradient, self._local
        norm = float(np.sqrt(gradient @ gradient))
        if norm > local.gradient_norm:
            gradient *= np.float32(local.gradient_norm / (norm + 1e-6))
        if local.weight_decay:
            gradient += np.float32(local.weight_decay) * self._values
        self._momentum *= np.float32(MOMENTUM)
        self._momentum += gradient
        self._values -= np.float32(local.learning_rate) * self._momentum

    def _views(self, row: Floats) -> dict[str, Floats]:
        found, start = {}, 0
        for name, shape in self._layout.items():
            size = int(np.prod(shape))
            found[name] = row[start : start + size].reshape(shape)
            start += size
        return found


def _cross_entropy(logits: Floats, targets: Floats, weights: Floats) -> tuple[float, Floats]:
    """Weighted sum of cross-entropies, and its slope by the logits."""
    logits -= logits.max(axis=1, keepdims=True)
    powers = np.exp(logits)
    total = powers.sum(axis=1, keepdims=True)
    loss = np.log(total[:, 0]) - (logits * targets).sum(axis=1)
    powers /= total
    powers -= targets
    powers *= weights[:, None]
    return float(loss @ weights), powers
