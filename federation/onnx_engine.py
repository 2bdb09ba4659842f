"""Writes a network as an ONNX graph whose initialisers carry the parameters' names.

The graph is built directly, not traced: it costs milliseconds, needs no torch, and reading the
initialisers back (`arrays_of`) gives the exact arrays for a warm start from any bundle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from federation.errors import NetworkInvalid
from federation.fixed_columns import fixed_width
from federation.networks import (
    INPUT_NAMES,
    Arrays,
    NetworkSpec,
    check_arrays,
    input_shape,
    network,
    parameter_layout,
)
from federation.operations import PATCH_VARIANCE_FLOOR, SHARE_FLOOR

OPSET = 17
IR_VERSION = 8
_LENGTH_FLOOR = 1e-12


class _Graph:
    """The engine that computes with names of graph edges."""

    def __init__(self, map_rank: int) -> None:
        self._window = [2] * map_rank
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"edge{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _integers(self, *values: int) -> str:
        return self._constant(np.array(values, dtype=np.int64))

    def linear(self, x: str, name: str, width: int) -> str:
        del width
        return self._node("Gemm", x, f"{name}.weight", f"{name}.bias", transB=1)

    def relu(self, x: str) -> str:
        return self._node("Relu", x)

    def convolve(self, x: str, name: str, channels: int) -> str:
        del channels
        return self._node("Conv", x, f"{name}.weight", f"{name}.bias", auto_pad="SAME_UPPER")

    def halve(self, x: str) -> str:
        return self._node("MaxPool", x, kernel_shape=self._window, strides=self._window)

    def flatten(self, x: str) -> str:
        return self._node("Flatten", x)

    def token_mean(self, x: str, name: str, width: int) -> str:
        del width
        zero, one = self._integers(0), self._constant(np.ones(1, dtype=np.float32))
        last, middle = self._integers(2), self._integers(1)
        real = self._node("Not", self._node("Equal", x, zero))
        mask = self._node("Unsqueeze", self._node("Cast", real, to=TensorProto.FLOAT), last)
        rows = self._node("Mul", self._node("Gather", f"{name}.weight", x), mask)
        total = self._node("ReduceSum", rows, middle, keepdims=0)
        count = self._node("Max", self._node("ReduceSum", mask, middle, keepdims=0), one)
        return self._node("Div", total, count)

    def drop(self, x: str, ratio: float) -> str:
        del ratio
        return x

    def unit(self, x: str) -> str:
        length = self._node("ReduceL2", x, axes=[1], keepdims=1)
        return self._node("Div", x, self._node("Max", length, self._number(_LENGTH_FLOOR)))

    def split(self, x: str, count: int, width: int) -> str:
        return self._node("Reshape", x, self._integers(-1, count, width))

    def responses(self, x: str, name: str, count: int, side: int) -> str:
        weight, x = self._centred(f"{name}.weight"), self._centred(x)
        level = self._window_mean(x, side)
        power = self._window_mean(self._node("Mul", x, x), side)
        variance = self._node("Sub", power, self._node("Mul", level, level))
        floor = self._number(PATCH_VARIANCE_FLOOR)
        spread = self._node("Add", self._node("Relu", variance), floor)
        answers = self._node("Div", self._node("Conv", x, weight), self._node("Sqrt", spread))
        shape = self._integers(1, count, *[1] * len(self._window))
        bias = self._node("Reshape", f"{name}.bias", shape)
        return self._node("Relu", self._node("Add", answers, bias))

    def pooled(self, x: str, cells: NDArray[np.float32]) -> str:
        maps = self._node("Reshape", x, self._integers(0, 0, -1))
        return self._node("Flatten", self._node("MatMul", maps, self._constant(cells)))

    def root(self, x: str) -> str:
        total = self._node("ReduceSum", x, self._integers(1), keepdims=1)
        floor = self._number(SHARE_FLOOR)
        return self._node("Sqrt", self._node("Div", x, self._node("Max", total, floor)))

    def scaled(self, x: str, factor: float) -> str:
        return self._node("Mul", x, self._number(factor))

    def added(self, x: str, y: str) -> str:
        return self._node("Add", x, y)

    def _centred(self, x: str) -> str:
        axes = list(range(1, 2 + len(self._window)))
        return self._node("Sub", x, self._node("ReduceMean", x, axes=axes, keepdims=1))

    def _window_mean(self, x: str, side: int) -> str:
        over_channels = self._node("ReduceMean", x, axes=[1], keepdims=1)
        window = [side] * len(self._window)
        return self._node("AveragePool", over_channels, kernel_shape=window)

    def _number(self, value: float) -> str:
        return self._constant(np.full(1, value, dtype=np.float32))


def build(spec: NetworkSpec, arrays: Arrays, *, untaught: bool = False) -> bytes:
    """Returns the network with its parameters as one self-contained ONNX file.

    Args:
        spec: The network.
        arrays: All its parameters.
        untaught: As for `networks.network`.

    Raises:
        NetworkInvalid: The arrays are not this network's.
    """
    check_arrays(arrays, spec)
    graph = _Graph(map_rank=1 if spec.family == "series" else 2)
    outputs = network(spec, graph, INPUT_NAMES[spec.family], untaught=untaught)
    width = fixed_width(spec) if untaught else spec.embedding_width
    for name, edge in outputs.items():
        graph.nodes.append(helper.make_node("Identity", [edge], [name]))
    parameters = [numpy_helper.from_array(arrays[name], name) for name in parameter_layout(spec)]
    proto = helper.make_graph(
        graph.nodes,
        "perimeter",
        [_input(spec)],
        [_output(spec, name, width) for name in outputs],
        initializer=[*parameters, *graph.constants],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    model.producer_name = "perimeter"
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _input(spec: NetworkSpec) -> onnx.ValueInfoProto:
    element = TensorProto.INT64 if spec.family == "text" else TensorProto.FLOAT
    rest: tuple[str | int, ...] = ("length",) if spec.family == "text" else input_shape(spec)
    return helper.make_tensor_value_info(INPUT_NAMES[spec.family], element, ["n", *rest])


def _output(spec: NetworkSpec, name: str, width: int) -> onnx.ValueInfoProto:
    shapes: dict[str, list[Any]] = {
        "logits": ["n", spec.class_count],
        "acquisition_logits": ["n", spec.class_count],
        "embedding": ["n", width],
        "committee_logits": ["n", spec.committee_count, spec.class_count],
    }
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])


def arrays_of(model: bytes, spec: NetworkSpec) -> Arrays:
    """Reads the parameters back from a graph that `build` wrote.

    Raises:
        NetworkInvalid: The graph holds other parameters than this network has.
    """
    try:
        graph = onnx.load_model_from_string(model).graph
    except DecodeError as error:
        raise NetworkInvalid(f"the parent model cannot be read: {error}") from None
    found = {tensor.name: tensor for tensor in graph.initializer}
    missing = sorted(set(parameter_layout(spec)) - set(found))
    if missing:
        raise NetworkInvalid(
            f"the parent model lacks {missing[0]}; it was trained with another network, "
            "so start again from a seed or keep the network's settings"
        )
    arrays = {name: numpy_helper.to_array(found[name]).copy() for name in parameter_layout(spec)}
    check_arrays(arrays, spec)
    return arrays
