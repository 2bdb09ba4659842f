"""Changed views of inputs, by family: a class survives them, so a model should too.

Frozen features and records get noise; images are shifted, get noise and lose a square; series get
noise, another scale and lose a stretch; texts lose n-grams. Images before a layer that stays as it
is are moved by parts of a pixel instead, a few times for good.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

SHIFT_SHARE = 8
"""Images move by at most one part of this many."""
CUT_SHARE = 4
"""The side of the square, or the stretch, that is blanked."""
TEXT_LOSS_MAX = 0.9
MOVE_SHARE = 1 / 16
"""Images before a fixed layer move by at most this share of a side, in each direction."""
MOVED_ROWS = 64
"""So many are moved at once."""


def changed(family: str, x: Tensor, strength: float, spread: float) -> Tensor:
    """Returns a changed copy; chance comes from torch's generator.

    Args:
        family: Of the network.
        x: Input rows.
        strength: Noise in units of `spread`; text: share of n-grams that are lost.
        spread: Root mean square of the site's inputs.
    """
    if not strength:
        return x
    if family == "text":
        kept = torch.rand(x.shape, device=x.device) >= min(strength, TEXT_LOSS_MAX)
        return x * kept.to(x.dtype)
    if family == "image":
        x = _cut(_shifted(x))
    if family == "series":
        scale = 1 + 0.2 * torch.randn(len(x), 1, 1, device=x.device)
        x = _cut(x) * scale
    return x + strength * spread * torch.randn_like(x)


def moved(x: Tensor, seed: int) -> Tensor:
    """Returns images that are each moved by a small step of their own; edges are drawn out.

    Rows that come first move alike, however many follow.

    Args:
        x: float32[n, channels, height, width].
        seed: Fixes the steps.

    >>> image = torch.zeros(1, 1, 16, 16)
    >>> image[0, 0, 8, 8] = 1.0
    >>> float(moved(image, seed=0).sum()), bool((moved(image, seed=0) == image).all())
    (1.0, False)
    """
    # `affine_grid` counts from -1 to 1, so that a side is 2 long.
    most = 2 * MOVE_SHARE
    steps = np.random.default_rng([seed, 7]).uniform(-most, most, (len(x), 2))
    place = torch.zeros(len(x), 2, 3)
    place[:, 0, 0] = place[:, 1, 1] = 1.0
    place[:, :, 2] = torch.from_numpy(steps.astype(np.float32))
    found = torch.empty_like(x)
    for start in range(0, len(x), MOVED_ROWS):
        part = slice(start, start + MOVED_ROWS)
        grid = F.affine_grid(place[part].to(x.device), list(x[part].shape), align_corners=False)
        found[part] = F.grid_sample(x[part], grid, padding_mode="border", align_corners=False)
    return found


def spread_of(family: str, parts: list[Tensor]) -> float:
    """Root mean square of all inputs; 1 for texts and for none."""
    parts = [part for part in parts if part.numel()]
    if family == "text" or not parts:
        return 1.0
    total = sum(float(part.square().sum()) for part in parts)
    return float((total / sum(part.numel() for part in parts)) ** 0.5) or 1.0


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two texts from one: each n-gram goes to one of them."""
    left = torch.rand(x.shape, device=x.device) < 0.5
    return x * left.to(x.dtype), x * (~left).to(x.dtype)


def _shifted(x: Tensor) -> Tensor:
    """Moves each image by its own small step; what enters is the edge's value, here zero."""
    high, wide = x.shape[-2:]
    moved = torch.zeros_like(x)
    most = max(1, max(high, wide) // SHIFT_SHARE)
    down, right = torch.randint(-most, most + 1, (2, len(x))).tolist()
    for row, (a, b) in enumerate(zip(down, right, strict=True)):
        moved[row, :, max(0, a) : high + min(0, a), max(0, b) : wide + min(0, b)] = x[
            row, :, max(0, -a) : high - max(0, a), max(0, -b) : wide - max(0, b)
        ]
    return moved


def _cut(x: Tensor) -> Tensor:
    """Blanks one square, or stretch, per row."""
    inside = torch.ones((len(x), 1, *[1] * (x.dim() - 2)), dtype=torch.bool, device=x.device)
    for axis, side in enumerate(x.shape[2:], start=2):
        length = max(1, side // CUT_SHARE)
        start = torch.randint(0, side - length + 1, (len(x), 1), device=x.device)
        place = torch.arange(side, device=x.device)
        hit = (place >= start) & (place < start + length)
        inside = inside & hit.reshape(
            len(x), *[side if a == axis else 1 for a in range(1, x.dim())]
        )
    return x * (~inside).to(x.dtype)
