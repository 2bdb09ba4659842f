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

With `unsupervised_width` the network begins with a layer that is learned from samples without
labels and then stays as it is (`feature_names`), while the rest (`head_spec`) learns from labels:

    image, series   answers of a dictionary of patch filters, pooled, as roots of shares, projected
                    (Coates and Ng, "Learning feature representations with k-means", 2012)
    text            latent semantic analysis of weighted n-grams (Deerwester et al., 1990)

With `linear_skip` a linear map of the columns that the hidden layers read is added to what these
say (the wide part of Cheng et al., "Wide & deep learning for recommender systems", 2016).

With `ensemble_size` above 1 so many heads of one size learn apart from each other, from starts of
their own, and `logits` are the mean of what they say (Lakshminarayanan et al., "Simple and scalable
predictive uncertainty estimation using deep ensembles", 2017). The embedding is that of the first.

With `plain_head` a second head of the same size stands beside the served one, on the same rows. It
learns from labels alone (`twin_head`), gives `acquisition_logits` float32[n, classes], which say
what is worth a label, and the embedding; `logits` stay those of the served head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from federation.errors import NetworkInvalid, RequestInvalid
from federation.heads import heads
from federation.operations import Operations, layout_of, mean_cells
from federation.seeding import seeded_arrays
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
FEATURE_NAMES = {
    "text": ("tokens.weight",),
    "image": ("dictionary.weight", "dictionary.bias", "projection.weight", "projection.bias"),
    "series": ("dictionary.weight", "dictionary.bias", "projection.weight", "projection.bias"),
}
"""Families whose first layer can learn without labels, and its parameters in network order."""
POOL_GRID = {"image": (2, 2), "series": (1,)}
"""Parts of each axis of a map, for pooling; one for series: a window may start anywhere."""
YOUNGER = ("unsupervised_width", "filter_count", "plain_head", "linear_skip", "ensemble_size")
"""Settings that older trainers refuse to read."""
FILTER_COUNTS = range(8, 1025)
WIDTH_MAX = 4096
ENSEMBLE_MAX = 16
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
        unsupervised_width: text, image, series: columns of a layer that is learned without labels
            and stays as it is while the rest is trained, to 4096; 0 where all learns from labels.
        filter_count: Patch filters of that layer for image and series, 8 to 1024.
        plain_head: A second head learns from labels alone and says what is worth a label. For
            record, encoder, and families with `unsupervised_width`; not with a committee.
        linear_skip: What the hidden layers say is added to a linear map of the columns that they
            read, which learns faster from few labels; for the same families.
        ensemble_size: Heads that learn apart and answer together, 1 to 16; for the same families,
            above 1 not with a committee or a plain head.
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
    unsupervised_width: int = 0
    filter_count: int = 128
    plain_head: bool = False
    linear_skip: bool = False
    ensemble_size: int = 1

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
        if type(self.filter_count) is not int or self.filter_count not in FILTER_COUNTS:
            raise RequestInvalid(f"filter_count must be 8 to 1024, not {self.filter_count!r}")
        if self.unsupervised_width != 0:
            _check_feature_layer(self)
        _check_switches(self)

    def to_mapping(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values; `YOUNGER` ones only where they are set."""
        default = {field.name: field.default for field in fields(self) if field.name in YOUNGER}
        named = {n: v for n, v in vars(self).items() if n not in default or v != default[n]}
        return {**named, "features": self.features.to_mapping()}

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


def _check_feature_layer(spec: NetworkSpec) -> None:
    width, features = spec.unsupervised_width, spec.features
    if type(width) is not int or not 1 <= width <= WIDTH_MAX:
        raise RequestInvalid(f"unsupervised_width must be 0 to {WIDTH_MAX}, not {width!r}")
    if spec.family not in FEATURE_NAMES:
        raise RequestInvalid(
            f"unsupervised_width is for {', '.join(FEATURE_NAMES)}; set it to 0 for {spec.family}"
        )
    if spec.family == "text":
        if width >= features.buckets:
            raise RequestInvalid(
                f"unsupervised_width {width} needs more buckets than {features.buckets}; "
                "lower it or raise buckets"
            )
        return
    side = patch_side(spec)
    if min(input_shape(spec)[1:]) < side:
        raise RequestInvalid(
            f"unsupervised_width needs samples of at least {side} along each axis, not "
            f"{input_shape(spec)[1:]}; set it to 0 or enlarge the samples"
        )
    if width > pooled_width(spec):
        raise RequestInvalid(
            f"unsupervised_width {width} is more than the {pooled_width(spec)} pooled responses; "
            "lower it or raise filter_count"
        )


def _check_switches(spec: NetworkSpec) -> None:
    for name in ("plain_head", "linear_skip"):
        value = getattr(spec, name)
        if type(value) is not bool:
            raise RequestInvalid(f"{name} must be true or false, not {value!r}")
        if value:
            _check_fixed_input(spec, name, "false")
    size = spec.ensemble_size
    if type(size) is not int or not 1 <= size <= ENSEMBLE_MAX:
        raise RequestInvalid(f"ensemble_size must be 1 to {ENSEMBLE_MAX}, not {size!r}")
    if size > 1:
        _check_fixed_input(spec, "ensemble_size", "1")
        if spec.plain_head or spec.committee_count:
            raise RequestInvalid(
                "an ensemble scores by itself; set plain_head to false and committee_count to 0, "
                "or ensemble_size to 1"
            )
    if spec.plain_head and spec.committee_count:
        raise RequestInvalid("plain_head and a committee both score; set committee_count to 0")


def _check_fixed_input(spec: NetworkSpec, name: str, without: str) -> None:
    if spec.family in FEATURE_NAMES and not spec.unsupervised_width:
        raise RequestInvalid(
            f"{name} needs a {spec.family} network whose first layer no label changes; "
            f"set unsupervised_width, or {name} to {without}"
        )


def network(spec: NetworkSpec, ops: Operations[T], x: T, *, untaught: bool = False) -> dict[str, T]:
    """Applies the family's network to its input and returns the named outputs.

    Args:
        spec: The network.
        ops: The engine.
        x: Its input.
        untaught: The embedding is that of the fixed columns, which seeded units only blur; for
            networks with a `fixed_width`.
    """
    body = feature_layer if spec.unsupervised_width else _BODIES[spec.family]
    rows = body(spec, ops, x)
    return heads(spec, ops, rows, untaught=untaught)


def feature_layer(spec: NetworkSpec, ops: Operations[T], x: T) -> T:
    """The layer that learns without labels: `unsupervised_width` columns."""
    width = spec.unsupervised_width
    if spec.family == "text":
        return ops.scaled(ops.unit(ops.token_mean(x, "tokens", width)), math.sqrt(width))
    return ops.linear(response_shares(spec, ops, x), "projection", width)


def response_shares(spec: NetworkSpec, ops: Operations[T], x: T) -> T:
    """Pooled answers of the patch filters as roots of their shares: `pooled_width` columns."""
    answers = ops.responses(x, "dictionary", spec.filter_count, patch_side(spec))
    return ops.root(ops.pooled(answers, pooling_cells(spec)))


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


def patch_side(spec: NetworkSpec) -> int:
    """Returns the side of the patches that the filters of an image or a series look at.

    >>> patch_side(NetworkSpec("image", FeatureSpec("image", height=28, width=40), 2))
    7
    >>> patch_side(NetworkSpec("series", FeatureSpec("series", steps=100), 2))
    16
    """
    if spec.family == "series":
        return max(3, min(16, spec.features.steps // 6))
    return max(3, min(8, min(spec.features.height, spec.features.width) // 4))


def pooled_width(spec: NetworkSpec) -> int:
    """Returns the columns of `response_shares`: every filter in every part of the map."""
    return spec.filter_count * math.prod(POOL_GRID[spec.family])


def pooling_cells(spec: NetworkSpec) -> NDArray[np.float32]:
    """Returns float32[positions, parts], which takes the mean of each part of a map of answers."""
    counts = [size - patch_side(spec) + 1 for size in input_shape(spec)[1:]]
    return mean_cells(zip(counts, POOL_GRID[spec.family], strict=True))


def feature_names(spec: NetworkSpec) -> tuple[str, ...]:
    """Returns the parameters that stay as they are while the rest is trained; () for none.

    >>> feature_names(NetworkSpec("text", FeatureSpec("text"), 2, unsupervised_width=8))
    ('tokens.weight',)
    """
    return FEATURE_NAMES[spec.family] if spec.unsupervised_width else ()


def head_spec(spec: NetworkSpec) -> NetworkSpec:
    """Returns what is trained on top of the features, as a network that takes them as input.

    >>> spec = NetworkSpec("text", FeatureSpec("text"), 2, unsupervised_width=8)
    >>> head_spec(spec).family, head_spec(spec).encoder_width
    ('encoder', 8)
    """
    width = spec.unsupervised_width
    return replace(spec, family="encoder", encoder_width=width, unsupervised_width=0)


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
    layout = layout_of(
        lambda ops, x: network(spec, ops, x), input_shape(spec), buckets=spec.features.buckets
    )
    if sum(math.prod(shape) for shape in layout.values()) > PARAMETER_COUNT_MAX:
        raise NetworkInvalid(f"the network has more than {PARAMETER_COUNT_MAX} parameters")
    return layout


def initial_arrays(spec: NetworkSpec, *, seed: int) -> Arrays:
    """Returns seeded parameters (`seeding`); the same seed gives the same bytes on any machine.

    A layer that is yet to learn without labels is random, so that even version 1 spreads samples by
    what they hold. Both heads of a network with `plain_head` start alike.
    """
    return seeded_arrays(parameter_layout(spec), seed=seed)


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
