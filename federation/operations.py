"""What a network is written in, and the engine that computes with shapes alone.

`torch_engine` and `onnx_engine` are the other two engines; all three have the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

PATCH_VARIANCE_FLOOR = 0.01
"""Added to a patch's variance, so that an even patch has no loud noise."""
SHARE_FLOOR = 1e-9
"""Smallest sum that shares are taken of."""
Shape = tuple[int, ...]
T = TypeVar("T")


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

    def responses(self, x: T, name: str, count: int, side: int) -> T:
        """Rectified answers of `count` filters to every patch of `side` at stride 1.

        A patch q holds the numbers of all channels in a window, minus their mean, over the square
        root of their variance plus `PATCH_VARIANCE_FLOOR`; the answer is relu(weight . q + bias).
        """
        ...

    def pooled(self, x: T, cells: NDArray[np.float32]) -> T:
        """Weighted sums of each map's positions, float32[positions, parts], side by side."""
        ...

    def root(self, x: T) -> T:
        """Square roots of each row's shares of its sum; zeros for a row of zeros."""
        ...

    def scaled(self, x: T, factor: float) -> T:
        """Every value times one number."""
        ...

    def added(self, x: T, y: T) -> T:
        """Two values of one shape, added."""
        ...


def layout_of(
    network: Callable[[Operations[Shape], Shape], object], shape: Shape, *, buckets: int
) -> dict[str, Shape]:
    """Returns name and shape of every parameter of a network, in its order.

    Args:
        network: Applies itself to its input in an engine.
        shape: One row of its input.
        buckets: Rows of its n-gram table.

    >>> layout_of(lambda ops, x: ops.linear(x, "head", 2), (5,), buckets=0)
    {'head.weight': (2, 5), 'head.bias': (2,)}
    """
    shapes = _Shapes(buckets)
    network(shapes, shape)
    return shapes.layout


def mean_cells(sides: Iterable[tuple[int, int]]) -> NDArray[np.float32]:
    """Returns float32[positions, parts], which takes the mean of each part of a map.

    Positions run over the last axis first. Parts are as even as whole positions allow; a part
    without a position stays empty.

    Args:
        sides: Positions and parts of each axis.

    >>> mean_cells([(3, 2)]).tolist()
    [[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]]
    """
    found: NDArray[np.float32] = np.ones((1, 1), dtype=np.float32)
    for positions, parts in sides:
        axis = np.zeros((positions, parts), dtype=np.float32)
        for part, places in enumerate(np.array_split(np.arange(positions), parts)):
            axis[places, part] = 1.0 / max(1, len(places))
        found = np.asarray(np.kron(found, axis), dtype=np.float32)
    return found


class _Shapes:
    """The engine that computes with shapes (without the row axis) and notes the parameters."""

    def __init__(self, buckets: int) -> None:
        self.layout: dict[str, Shape] = {}
        self._buckets = buckets

    def linear(self, x: Shape, name: str, width: int) -> Shape:
        self.layout |= {f"{name}.weight": (width, x[-1]), f"{name}.bias": (width,)}
        return (*x[:-1], width)

    def relu(self, x: Shape) -> Shape:
        return x

    def convolve(self, x: Shape, name: str, channels: int) -> Shape:
        kernel = (3, 3) if len(x) == 3 else (5,)
        self.layout |= {f"{name}.weight": (channels, x[0], *kernel), f"{name}.bias": (channels,)}
        return (channels, *x[1:])

    def halve(self, x: Shape) -> Shape:
        return (x[0], *(side // 2 for side in x[1:]))

    def flatten(self, x: Shape) -> Shape:
        return (math.prod(x),)

    def token_mean(self, x: Shape, name: str, width: int) -> Shape:
        del x
        self.layout[f"{name}.weight"] = (self._buckets, width)
        return (width,)

    def drop(self, x: Shape, ratio: float) -> Shape:
        del ratio
        return x

    def unit(self, x: Shape) -> Shape:
        return x

    def split(self, x: Shape, count: int, width: int) -> Shape:
        del x
        return (count, width)

    def responses(self, x: Shape, name: str, count: int, side: int) -> Shape:
        window = [side] * (len(x) - 1)
        self.layout |= {f"{name}.weight": (count, x[0], *window), f"{name}.bias": (count,)}
        return (count, *(size - side + 1 for size in x[1:]))

    def pooled(self, x: Shape, cells: NDArray[np.float32]) -> Shape:
        return (x[0] * cells.shape[1],)

    def root(self, x: Shape) -> Shape:
        return x

    def scaled(self, x: Shape, factor: float) -> Shape:
        del factor
        return x

    def added(self, x: Shape, y: Shape) -> Shape:
        del y
        return x
