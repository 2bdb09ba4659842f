"""The networks of the model families, each written once and read by three engines.

A network is a function over `Operations`. `parameter_layout` reads it with shapes only (no torch),
`torch_engine.forward` computes it, `onnx_engine.build` writes it as an ONNX graph: what is trained
is what is exported, by construction, and the parity check at export proves it.

    spec = NetworkSpec("image", FeatureSpec("image", height=8, width=8), class_count=10)
    arrays = initial_arrays(spec, seed=7)       # dict of name to float32 array, same anywhere
    outputs = torch_engine.forward(spec, parameters, x)     # logits, embedding, …

Inputs are what `model_bundle.features.extract` returns. Outputs: `logits` float32[n, classes],
`embedding` float32[n, d] of unit length, and `committee_logits` float32[n, k, classes] where the
spec asks for a committee.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from federation.errors import NetworkInvalid, RequestInvalid
from model_bundle.errors import BundleError
from model_bundle.features import FeatureSpec, record_width

Arrays = dict[str, NDArray[np.float32]]
"""Parameters by name: what is trained, sent, averaged and exported."""

FAMILIES = ("text", "image", "series", "record", "encoder")
INPUT_NAMES = {
    "text": "token_ids",
    "image": "pixels",
    "series": "signal",
    "record": "values",
    "encoder": "encoded",
}
WIDTH_MAX = 4096
PARAMETER_COUNT_MAX = 64_000_000
_MAP_SIDE_MAX = 8
T = TypeVar("T")


@dataclass(frozen=True)
class NetworkSpec:
    """Size of a network.

    Attributes:
        family: text, image, series, record or encoder.
        features: How samples become input.
        class_count: Classes of the label schema, from 2.
        embedding_width: Columns of the embedding, 2 to 4096.
        hidden_width: Units of the hidden layer, 1 to 4096.
        channels: image, series: channels of the first convolution; later ones have twice as many.
        token_width: text: columns of the n-gram table.
        committee_count: Extra heads whose disagreement is an acquisition score, 0 to 16.
        dropout_ratio: Share of hidden units dropped while training, 0 to below 1.
        encoder_width: encoder: columns that the frozen encoder gives.
    """

    family: str
    features: FeatureSpec
    class_count: int
    embedding_width: int = 64
    hidden_width: int = 128
    channels: int = 32
    token_width: int = 64
    committee_count: int = 0
    dropout_ratio: float = 0.1
    encoder_width: int = 0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise RequestInvalid(f"family {self.family!r} is not one of {', '.join(FAMILIES)}")
        if self.family not in (self.features.kind, "encoder"):
            raise RequestInvalid(
                f"family {self.family} cannot read features of kind {self.features.kind}"
            )
        widths = (self.embedding_width, self.hidden_width, self.channels, self.token_width)
        if not 2 <= self.class_count <= WIDTH_MAX or not all(1 <= w <= WIDTH_MAX for w in widths):
            raise RequestInvalid(f"a width of the network lies outside 1 to {WIDTH_MAX}")
        if not 0 <= self.committee_count <= 16 or not 0 <= self.dropout_ratio < 1:
            raise RequestInvalid("committee_count must be 0 to 16, dropout_ratio 0 to below 1")
        if (self.family == "encoder") != (self.encoder_width > 0):
            raise RequestInvalid("encoder_width belongs to the family encoder, and only there")

    def to_mapping(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return {**vars(self), "features": self.features.to_mapping()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> NetworkSpec:
        """Reads what `to_mapping` wrote.

        Raises:
            RequestInvalid: A key is unknown or missing, or a value is out of range.

        >>> spec = NetworkSpec("text", FeatureSpec("text"), 2)
        >>> NetworkSpec.from_mapping(spec.to_mapping()) == spec
        True
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise RequestInvalid(f"unknown network settings: {', '.join(sorted(unknown))}")
        try:
            features = FeatureSpec.from_mapping(values["features"])
            return cls(**{**values, "features": features})
        except (KeyError, TypeError, ValueError, BundleError) as error:
            raise RequestInvalid(f"network settings are wrong: {error}") from None


class Operations(Protocol[T]):
    """What a network is written in. `T` is an engine's value: a shape, a tensor, a graph edge."""

    def linear(self, x: T, name: str, width: int) -> T:
        """Affine map of the last axis to `width` columns."""
        ...

    def relu(self, x: T) -> T:
        """Largest of 0 and x."""
        ...

    def convolve(self, x: T, name: str, channels: int) -> T:
        """Convolution that keeps the size: 3 x 3 on images, 5 on series."""
        ...

    def halve(self, x: T) -> T:
        """Largest value of each 2 (x 2) window; an odd rest is dropped."""
        ...

    def flatten(self, x: T) -> T:
        """All axes but the first become one."""
        ...

    def token_mean(self, x: T, name: str, width: int) -> T:
        """Mean of the table rows of the token ids that are not 0; zeros where there is none."""
        ...

    def drop(self, x: T, ratio: float) -> T:
        """Dropout while training, else nothing."""
        ...

    def unit(self, x: T) -> T:
        """Rows of unit length."""
        ...

    def split(self, x: T, count: int, width: int) -> T:
        """Columns count * width become two axes."""
        ...


def network(spec: NetworkSpec, ops: Operations[T], x: T) -> dict[str, T]:
    """Applies the family's network to its input and returns the named outputs."""
    body = _BODIES[spec.family]
    hidden = ops.relu(ops.linear(body(spec, ops, x), "hidden", spec.hidden_width))
    hidden = ops.drop(hidden, spec.dropout_ratio)
    embedding = ops.relu(ops.linear(hidden, "embedding", spec.embedding_width))
    outputs = {
        "logits": ops.linear(embedding, "head", spec.class_count),
        "embedding": ops.unit(embedding),
    }
    if spec.committee_count:
        votes = ops.linear(embedding, "committee", spec.committee_count * spec.class_count)
        outputs["committee_logits"] = ops.split(votes, spec.committee_count, spec.class_count)
    return outputs


def _text(spec: NetworkSpec, ops: Operations[T], x: T) -> T:
    return ops.drop(ops.token_mean(x, "tokens", spec.token_width), spec.dropout_ratio)


def _convolutions(spec: NetworkSpec, ops: Operations[T], x: T) -> T:
    features = spec.features
    size = features.steps if spec.family == "series" else max(features.height, features.width)
    halvings = max(1, math.ceil(math.log2(max(size, 2) / _MAP_SIDE_MAX)))
    x = ops.relu(ops.convolve(x, "convolution0", spec.channels))
    for step in range(1, halvings + 1):
        x = ops.relu(ops.convolve(x, f"convolution{step}", 2 * spec.channels))
        x = ops.halve(x)
    return ops.flatten(x)


def _vector(spec: NetworkSpec, ops: Operations[T], x: T) -> T:
    del spec, ops
    return x


_BODIES: dict[str, Callable[[NetworkSpec, Operations[Any], Any], Any]] = {
    "text": _text,
    "image": _convolutions,
    "series": _convolutions,
    "record": _vector,
    "encoder": _vector,
}


class _Shapes:
    """The engine that computes with shapes (without the row axis) and notes the parameters."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.layout: dict[str, tuple[int, ...]] = {}
        self._buckets = spec.features.buckets

    def linear(self, x: tuple[int, ...], name: str, width: int) -> tuple[int, ...]:
        self.layout |= {f"{name}.weight": (width, x[-1]), f"{name}.bias": (width,)}
        return (*x[:-1], width)

    def relu(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return x

    def convolve(self, x: tuple[int, ...], name: str, channels: int) -> tuple[int, ...]:
        kernel = (3, 3) if len(x) == 3 else (5,)
        self.layout |= {f"{name}.weight": (channels, x[0], *kernel), f"{name}.bias": (channels,)}
        return (channels, *x[1:])

    def halve(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return (x[0], *(side // 2 for side in x[1:]))

    def flatten(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(x),)

    def token_mean(self, x: tuple[int, ...], name: str, width: int) -> tuple[int, ...]:
        del x
        self.layout[f"{name}.weight"] = (self._buckets, width)
        return (width,)

    def drop(self, x: tuple[int, ...], ratio: float) -> tuple[int, ...]:
        del ratio
        return x

    def unit(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return x

    def split(self, x: tuple[int, ...], count: int, width: int) -> tuple[int, ...]:
        del x
        return (count, width)


def input_shape(spec: NetworkSpec) -> tuple[int, ...]:
    """Returns the shape of one row of the network's input; text rows have any length, here 1.

    >>> input_shape(NetworkSpec("image", FeatureSpec("image", height=8, width=8), 10))
    (1, 8, 8)
    """
    features = spec.features
    if spec.family == "encoder":
        return (spec.encoder_width,)
    if spec.family == "text":
        return (1,)
    if spec.family == "image":
        return (features.channels, features.height, features.width)
    if spec.family == "series":
        return (features.channels, features.steps)
    return (record_width(features.columns),)


def parameter_layout(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Returns the name and shape of every parameter, in network order.

    Raises:
        NetworkInvalid: The network has no input, or too many parameters.

    >>> from model_bundle.features import ColumnSpec
    >>> features = FeatureSpec("record", columns=(ColumnSpec("age"),))
    >>> layout = parameter_layout(NetworkSpec("record", features, 3, hidden_width=4))
    >>> layout["hidden.weight"], layout["head.bias"]
    ((4, 2), (3,))
    """
    if 0 in input_shape(spec):
        raise NetworkInvalid("the feature settings give no input; name at least one column")
    shapes = _Shapes(spec)
    network(spec, shapes, input_shape(spec))
    if sum(math.prod(shape) for shape in shapes.layout.values()) > PARAMETER_COUNT_MAX:
        raise NetworkInvalid(f"the network has more than {PARAMETER_COUNT_MAX} parameters")
    return shapes.layout


def initial_arrays(spec: NetworkSpec, *, seed: int) -> Arrays:
    """Returns seeded parameters; the same seed gives the same bytes on any machine.

    Weights before a rectifier follow He et al., "Delving deep into rectifiers", 2015; heads follow
    Glorot and Bengio, 2010; the n-gram table is standard normal.
    """
    arrays: Arrays = {}
    for name, shape in parameter_layout(spec).items():
        label = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(label[:8], "little"))
        arrays[name] = (rng.standard_normal(shape) * _scale(name, shape)).astype(np.float32)
    return arrays


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 1:
        return 0.0
    if name == "tokens.weight":
        return 1.0
    fan_in = math.prod(shape[1:])
    gain = 1.0 if name.startswith(("head", "committee")) else 2.0
    return math.sqrt(gain / fan_in)


def check_arrays(arrays: Mapping[str, NDArray[Any]], spec: NetworkSpec) -> None:
    """Checks that the arrays are this network's: names, shapes, float32, finite.

    Raises:
        NetworkInvalid: Names the first difference.
    """
    layout = parameter_layout(spec)
    if set(arrays) != set(layout):
        odd = sorted(set(arrays) ^ set(layout))[:3]
        raise NetworkInvalid(f"the parameters are not this network's: {', '.join(odd)}")
    for name, shape in layout.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise NetworkInvalid(f"{name} is {array.dtype}{array.shape}, expected float32{shape}")
        if not np.isfinite(array).all():
            raise NetworkInvalid(f"{name} holds a value that is not finite")
