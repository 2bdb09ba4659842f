"""Small pictures as SVG text: curves with bands, stacked bars, a diagonal; no library needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 190, 18, 44
COLOURS = (
    "#0b6e4f", "#c8553d", "#3d5a80", "#e0a458", "#7b2d8b", "#4f772d", "#9d0208", "#577590",
    "#b56576", "#2a9d8f", "#6d597a", "#bc6c25",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A curve and its band.

    Attributes:
        name: for the legend.
        x: positions.
        y: middle values.
        low: lower end of the band.
        high: upper end of the band.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Axes:
    """Ranges of a picture and their names."""

    x_name: str
    y_name: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def across(self, value: float) -> float:
        """Horizontal place of a value."""
        return LEFT + _share(value, self.x_range) * (WIDTH - LEFT - RIGHT)

    def up(self, value: float) -> float:
        """Vertical place of a value."""
        return HEIGHT - BOTTOM - _share(value, self.y_range) * (HEIGHT - TOP - BOTTOM)


def curves(lines: Sequence[Line], *, x_name: str, y_name: str, diagonal: bool = False) -> str:
    """A picture of curves with bands.

    >>> curves([Line("a", [0, 1], [0, 1], [0, 1], [0, 1])], x_name="x", y_name="y")[:4]
    '<svg'
    """
    xs = [v for line in lines for v in line.x] or [0.0, 1.0]
    ys = [v for line in lines for v in (*line.low, *line.high)] or [0.0, 1.0]
    if diagonal:
        xs, ys = [0.0, 1.0], [0.0, 1.0]
    axes = Axes(x_name, y_name, _wide(min(xs), max(xs)), _wide(min(ys), max(ys)))
    parts = [_frame(axes)]
    if diagonal:
        parts.append(_path(axes, [0, 1], [0, 1], "#999", dash=True))
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        edge = [
            *zip(line.x, line.high, strict=True),
            *reversed([*zip(line.x, line.low, strict=True)]),
        ]
        points = " ".join(f"{axes.across(x):.1f},{axes.up(y):.1f}" for x, y in edge)
        parts.append(f'<polygon points="{points}" fill="{colour}" opacity="0.13"/>')
        parts.append(_path(axes, line.x, line.y, colour))
        if diagonal:
            # A model that is sure of everything has one point, and one point has no line.
            parts += [
                f'<circle cx="{axes.across(x):.1f}" cy="{axes.up(y):.1f}" r="4" fill="{colour}"/>'
                for x, y in zip(line.x, line.y, strict=True)
            ]
        parts.append(_legend(i, line.name, colour))
    return _svg(parts, f"{y_name} by {x_name}")


def bars(names: Sequence[str], shares: Sequence[Sequence[float]], groups: Sequence[str]) -> str:
    """Stacked horizontal bars: one bar per name, one numbered segment per group."""
    height = 26
    parts = []
    for row, (name, values) in enumerate(zip(names, shares, strict=True)):
        start = 170.0
        y = 8 + row * height
        parts.append(f'<text x="162" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        for i, value in enumerate(values):
            width = value * 450
            colour = COLOURS[i % len(COLOURS)]
            title = f"{groups[i]}: {value:.1%}"
            parts.append(
                f'<rect x="{start:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{colour}">'
                f"<title>{escape(title)}</title></rect>"
            )
            if width >= 16:
                parts.append(
                    f'<text x="{start + width / 2:.1f}" y="{y + 13}" text-anchor="middle" '
                    f'style="fill:#fff;font-size:10px;pointer-events:none">{i}</text>'
                )
            start += width
    total = 20 + len(names) * height
    return (
        f'<svg viewBox="0 0 {WIDTH} {total}" role="img" aria-label="shares">{"".join(parts)}</svg>'
    )


def lengths(names: Sequence[str], values: Sequence[float], texts: Sequence[str]) -> str:
    """Horizontal bars of one amount per name, each with its text at the end.

    >>> lengths(["a"], [2.0], ["2 labels"])[:4]
    '<svg'
    """
    height, largest = 26, max([*values, 1e-9])
    parts = []
    for row, (name, value, text) in enumerate(zip(names, values, texts, strict=True)):
        y, width = 8 + row * height, value / largest * 230
        colour = COLOURS[row % len(COLOURS)]
        parts.append(
            f'<text x="162" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="170" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>'
            f'<text x="{178 + width:.1f}" y="{y + 13}">{escape(text)}</text>'
        )
    total = 20 + len(names) * height
    return (
        f'<svg viewBox="0 0 {WIDTH} {total}" role="img" aria-label="amounts">{"".join(parts)}</svg>'
    )


def _svg(parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _frame(axes: Axes) -> str:
    parts = []
    for i in range(5):
        x = axes.x_range[0] + (axes.x_range[1] - axes.x_range[0]) * i / 4
        y = axes.y_range[0] + (axes.y_range[1] - axes.y_range[0]) * i / 4
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axes.up(y):.1f}" y2="{axes.up(y):.1f}" '
            f'stroke="#e3e3e3"/><text x="{LEFT - 6}" y="{axes.up(y) + 4:.1f}" '
            f'text-anchor="end">{y:.3g}</text><text x="{axes.across(x):.1f}" '
            f'y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:.4g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(axes.x_name)}</text>'
        f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {HEIGHT / 2})">{escape(axes.y_name)}</text>'
    )
    return "".join(parts)


def _path(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: str, *, dash: bool = False
) -> str:
    points = " ".join(f"{axes.across(x):.1f},{axes.up(y):.1f}" for x, y in zip(xs, ys, strict=True))
    style = ' stroke-dasharray="4 4"' if dash else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{style}/>'


def _legend(row: int, name: str, colour: str) -> str:
    y = TOP + 10 + row * 18
    x = WIDTH - RIGHT + 14
    return (
        f'<rect x="{x}" y="{y - 8}" width="12" height="4" fill="{colour}"/>'
        f'<text x="{x + 18}" y="{y}">{escape(name)}</text>'
    )


def _share(value: float, limits: tuple[float, float]) -> float:
    return (value - limits[0]) / (limits[1] - limits[0])


def _wide(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)
