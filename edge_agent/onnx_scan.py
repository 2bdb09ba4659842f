"""Looks through an ONNX file without loading it; refuses what reaches beyond the file. Pure.

A model may name files beside it as the place of its weights, and a runtime would read them: that is
how a key file becomes a model output. It may also bring operators of other domains. The file is
protobuf, and its wire format is simple enough to walk; the `onnx` package, whose file handling has
had several holes, stays off the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ALLOWED_DOMAINS = frozenset({b"", b"ai.onnx"})
NESTING_MAX = 32
_TENSOR_EXTERNAL = 1


class ModelUnsafe(ValueError):
    """The file holds something that a model has no need of, or is not an ONNX file."""


@dataclass(frozen=True)
class Shape:
    """What to look for in one kind of message, by field number.

    Attributes:
        children: Fields that hold messages of another kind.
        forbidden: Fields that must not be there, with what they are.
        domains: Fields that name an operator domain.
        location: Field that says where a tensor's bytes are, 0 for none.
    """

    children: Mapping[int, str]
    forbidden: Mapping[int, str]
    domains: tuple[int, ...] = ()
    location: int = 0


# Field numbers of onnx.proto (ONNX IR specification).
_SHAPES = {
    "model": Shape({7: "graph", 8: "opset"}, {20: "training code", 25: "functions"}),
    "opset": Shape({}, {}, domains=(1,)),
    "graph": Shape({1: "node", 5: "tensor", 15: "sparse"}, {}),
    "node": Shape({5: "attribute"}, {}, domains=(7,)),
    "attribute": Shape(
        {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}, {}
    ),
    "sparse": Shape({1: "tensor", 2: "tensor"}, {}),
    "tensor": Shape({}, {13: "weights in another file"}, location=14),
}


def check_model(raw: bytes) -> None:
    """Refuses external data, foreign operator domains, functions, and what is no model.

    Raises:
        ModelUnsafe: Says what was found.

    >>> check_model(b"not a model")
    Traceback (most recent call last):
    ...
    edge_agent.onnx_scan.ModelUnsafe: the file is not an ONNX model
    """
    numbers = {number for number, _ in _fields(memoryview(raw))}
    if 7 not in numbers or 8 not in numbers:
        raise ModelUnsafe("the file is not an ONNX model")
    _check(memoryview(raw), "model", 0)


def _check(message: memoryview, kind: str, depth: int) -> None:
    if depth > NESTING_MAX:
        raise ModelUnsafe("the model is nested too deeply")
    shape = _SHAPES[kind]
    for number, value in _fields(message):
        if number in shape.forbidden:
            raise ModelUnsafe(f"the model brings {shape.forbidden[number]}")
        if number == shape.location and value == _TENSOR_EXTERNAL:
            raise ModelUnsafe("the model keeps weights in another file")
        if isinstance(value, int):
            continue
        if number in shape.domains and bytes(value) not in ALLOWED_DOMAINS:
            raise ModelUnsafe("the model uses operators of a foreign domain")
        if number in shape.children:
            _check(value, shape.children[number], depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yields number and value of each field; bytes for length-delimited ones, else an int."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
        elif wire_type == 2:
            length, position = _varint(message, position)
            yield number, message[position : position + length]
            position += length
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        else:
            raise ModelUnsafe("the file is not an ONNX model")
        if position > len(message) or not number:
            raise ModelUnsafe("the file is not an ONNX model")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ModelUnsafe("the file is not an ONNX model")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ModelUnsafe("the file is not an ONNX model")
