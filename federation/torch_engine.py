"""Computes a network with torch.

Parameters are a dict of tensors, so that any arrays can be tried without building a module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from federation.networks import (
    INPUT_NAMES,
    Arrays,
    NetworkSpec,
    feature_layer,
    network,
    response_shares,
)
from federation.operations import PATCH_VARIANCE_FLOOR, SHARE_FLOOR

Parameters = dict[str, Tensor]
PART_ROWS = 512
ANSWERS_MAX = 1 << 22
"""Most answers of patch filters that are held at once: 16 MiB; a core is slower with more."""


class _Tensors:
    """The engine that computes with tensors."""

    def __init__(self, parameters: Mapping[str, Tensor], *, training: bool) -> None:
        self._parameters = parameters
        self._training = training

    def linear(self, x: Tensor, name: str, width: int) -> Tensor:
        del width
        return F.linear(x, self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"])

    def relu(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def convolve(self, x: Tensor, name: str, channels: int) -> Tensor:
        del channels
        weight, bias = self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]
        if x.dim() == 4:
            return F.conv2d(x, weight, bias, padding=1)
        return F.conv1d(x, weight, bias, padding=2)

    def halve(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if x.dim() == 4 else F.max_pool1d(x, 2)

    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def token_mean(self, x: Tensor, name: str, width: int) -> Tensor:
        del width
        table = self._parameters[f"{name}.weight"]
        return F.embedding_bag(x, table, mode="mean", padding_idx=0)

    def drop(self, x: Tensor, ratio: float) -> Tensor:
        return F.dropout(x, ratio, training=self._training)

    def unit(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)

    def split(self, x: Tensor, count: int, width: int) -> Tensor:
        return x.reshape(-1, count, width)

    def responses(self, x: Tensor, name: str, count: int, side: int) -> Tensor:
        del count
        weight, bias = self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]
        flat = x.dim() == 3
        convolve, mean = (F.conv1d, F.avg_pool1d) if flat else (F.conv2d, F.avg_pool2d)
        # A patch's mean falls out of centred filters; a centred sample leaves its variance digits.
        weight, x = _centred(weight), _centred(x)
        level = mean(x.mean(dim=1, keepdim=True), side, stride=1)
        power = mean(x.square().mean(dim=1, keepdim=True), side, stride=1)
        spread = (power - level.square()).clamp(min=0) + PATCH_VARIANCE_FLOOR
        answers = convolve(x, weight) / spread.sqrt()
        return F.relu(answers + bias.reshape(-1, *[1] * (x.dim() - 2)))

    def pooled(self, x: Tensor, cells: NDArray[np.float32]) -> Tensor:
        return (x.flatten(2) @ torch.from_numpy(cells).to(x.device)).flatten(1)

    def root(self, x: Tensor) -> Tensor:
        return (x / x.sum(dim=1, keepdim=True).clamp(min=SHARE_FLOOR)).sqrt()

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def added(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def _centred(x: Tensor) -> Tensor:
    """Rows without their mean."""
    return x - x.mean(dim=tuple(range(1, x.dim())), keepdim=True)


def forward(
    spec: NetworkSpec,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    *,
    training: bool = False,
    untaught: bool = False,
) -> dict[str, Tensor]:
    """Returns the outputs of the network for one input tensor of n rows."""
    return network(spec, _Tensors(parameters, training=training), x, untaught=untaught)


def features(spec: NetworkSpec, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Returns the layer that learns without labels: float32[n, unsupervised_width], no gradient."""
    return _by_parts(spec, x, lambda part: feature_layer(spec, _fixed(parameters), part))


def responses_rows(spec: NetworkSpec, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Returns what an image's or a series' projection takes: float32[n, pooled_width]."""
    return _by_parts(spec, x, lambda part: response_shares(spec, _fixed(parameters), part))


def _fixed(parameters: Mapping[str, Tensor]) -> _Tensors:
    return _Tensors(parameters, training=False)


def _by_parts(spec: NetworkSpec, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    answers = 1 if spec.family == "text" else spec.filter_count
    step = max(1, min(PART_ROWS, ANSWERS_MAX // max(1, answers * x[0].numel() if len(x) else 1)))
    with torch.no_grad():
        parts = [compute(x[start : start + step]) for start in range(0, max(1, len(x)), step)]
        return torch.cat(parts)


def to_parameters(arrays: Mapping[str, NDArray[np.float32]], device: torch.device) -> Parameters:
    """Copies arrays to tensors on a device."""
    return {name: torch.tensor(array, device=device) for name, array in arrays.items()}


def to_arrays(parameters: Mapping[str, Tensor]) -> Arrays:
    """Copies tensors to float32 arrays."""
    return {
        name: tensor.detach().to("cpu", torch.float32).numpy().copy()
        for name, tensor in parameters.items()
    }


def input_tensor(
    spec: NetworkSpec, inputs: Mapping[str, NDArray[Any]], device: torch.device
) -> Tensor:
    """Copies the family's input to a device."""
    return torch.from_numpy(np.ascontiguousarray(inputs[INPUT_NAMES[spec.family]])).to(device)


def choose_device(wanted: str = "auto") -> torch.device:
    """Returns the device to train on: `auto` takes CUDA where present, else the CPU."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def reproducible(device: torch.device, *, thread_count: int) -> None:
    """Sets thread count and, on CUDA, the deterministic kernels, so that a seed fixes a result."""
    torch.set_num_threads(thread_count)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def seed(device: torch.device, value: int) -> None:
    """Seeds dropout; on a CPU its generator alone, since seeding all devices formats a stack."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(value)
    else:
        torch.manual_seed(value)
