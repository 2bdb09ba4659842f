"""Training steps of networks without convolutions, written out in numpy.

The families `record` and `encoder` have three small dense layers. Automatic differentiation and an
optimiser object cost several times the arithmetic of such a step, so on a CPU it is written out:
softmax cross-entropy, clipping by the norm of all gradients, descent with momentum. The members of
an ensemble take their steps side by side, each on its own loss and norm. The numbers are those of
the same step in torch up to rounding; the dropout of a single head draws from torch's generator in
the same order. A test compares the two.

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

from federation.ensemble import joined_members, single, split_members
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
    """Parameters, momentum and gradients in one row of memory a member, with a view per layer.

    Args:
        spec: A dense network without a committee.
        parameters: Where to start; they are copied.
        local: Step size, clipping and weight decay.
    """

    def __init__(
        self, spec: NetworkSpec, parameters: Mapping[str, Tensor], local: LocalSettings
    ) -> None:
        self._layout = parameter_layout(single(spec))
        self._local = local
        self._has_skip = spec.linear_skip
        self._keep = 1.0 - spec.dropout_ratio
        members = split_members(parameters, spec.ensemble_size)
        rows = [
            np.concatenate([own[name].detach().numpy().ravel() for name in self._layout])
            for own in members
        ]
        self._values = np.stack(rows)
        self._gradient = np.zeros_like(self._values)
        self._momentum = np.zeros_like(self._values)
        self._at = self._views(self._values)
        self._slope = self._views(self._gradient)

    def step(self, x: Floats, targets: Floats, weights: Floats) -> float:
        """Takes one step with every member and returns their mean loss before it.

        Args:
            x: float32[n, width], input rows.
            targets: float32[n, classes], shares of each row's class, of sum 1.
            weights: float32[n], what each row counts in the sum of cross-entropies.
        """
        active = self._linear("hidden", x)
        np.maximum(active, 0, out=active)
        dropped = self._drop(active.shape)
        hidden = active if dropped is None else np.multiply(active, dropped, dtype=np.float32)
        embedding = self._linear("embedding", hidden)
        np.maximum(embedding, 0, out=embedding)
        logits = self._linear("head", embedding)
        if self._has_skip:
            logits += self._linear("skip", x)
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
        members = [
            {name: torch.from_numpy(view[member].copy()) for name, view in self._at.items()}
            for member in range(len(self._values))
        ]
        return joined_members(members)

    def _linear(self, name: str, came_in: Floats) -> Floats:
        """float32[members, n, width] of a layer."""
        weight, bias = self._at[f"{name}.weight"], self._at[f"{name}.bias"]
        out: Floats = np.matmul(came_in, weight.transpose(0, 2, 1))
        out += bias[:, None]
        return out

    def _layer(self, name: str, error: Floats, came_in: Floats, *, last: bool = False) -> Floats:
        """Writes the gradients of a layer; returns the error at what came in."""
        np.matmul(error.transpose(0, 2, 1), came_in, out=self._slope[f"{name}.weight"])
        error.sum(axis=1, out=self._slope[f"{name}.bias"])
        return error if last else np.matmul(error, self._at[f"{name}.weight"])

    def _drop(self, shape: tuple[int, ...]) -> Floats | None:
        if self._keep >= 1.0:
            return None
        kept: Floats = torch.empty(shape).bernoulli_(self._keep).numpy()
        kept *= np.float32(1.0 / self._keep)
        return kept

    def _move(self) -> None:
        gradient, local = self._gradient, self._local
        for member, row in enumerate(gradient):
            norm = float(np.sqrt(row @ row))
            if norm > local.gradient_norm:
                gradient[member] *= np.float32(local.gradient_norm / (norm + 1e-6))
        if local.weight_decay:
            gradient += np.float32(local.weight_decay) * self._values
        self._momentum *= np.float32(MOMENTUM)
        self._momentum += gradient
        self._values -= np.float32(local.learning_rate) * self._momentum

    def _views(self, rows: Floats) -> dict[str, Floats]:
        found, start = {}, 0
        for name, shape in self._layout.items():
            size = int(np.prod(shape))
            found[name] = rows[:, start : start + size].reshape(len(rows), *shape)
            start += size
        return found


def _cross_entropy(logits: Floats, targets: Floats, weights: Floats) -> tuple[float, Floats]:
    """Weighted sum of cross-entropies, mean over members, and each one's slope by its logits."""
    logits -= logits.max(axis=2, keepdims=True)
    powers = np.exp(logits)
    total = powers.sum(axis=2, keepdims=True)
    loss = np.log(total[..., 0]) - (logits * targets).sum(axis=2)
    powers /= total
    powers -= targets
    powers *= weights[:, None]
    return float((loss @ weights).mean()), powers
