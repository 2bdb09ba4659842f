"""Pictures of the report as inline SVG."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

INK = "#1f2a37"
QUIET = "#7b8794"
GRID = "#e4e8ee"
CAMPAIGN_COLOURS = ("#1b6ca8", "#d9822b", "#4c956c", "#8f5aa8")
SITE_COLOURS = (
    "#1b6ca8",
    "#d9822b",
    "#4c956c",
    "#8f5aa8",
    "#c44e52",
    "#937860",
    "#64b5cd",
    "#b8a038",
    "#7f7f7f",
)

# So many classes stay readable on the narrow picture: one or two characters, or names.
DIGITS_MAX = 20
NAMES_MAX = 10

Report = Mapping[str, Any]


def learning_curve_svg(report: Report) -> str:
    """Draws accuracy (line) and macro F1 (dashes) over labels spent, one colour a campaign."""
    figure, axes = _figure(6.6, 3.6)
    for colour, (name, campaign) in zip(
        itertools.cycle(CAMPAIGN_COLOURS), report["campaigns"].items(), strict=False
    ):
        cycles = campaign["cycles"]
        labels = [cycle["budget_spent"] for cycle in cycles]
        accuracy = [100 * cycle["accuracy"] for cycle in cycles]
        macro_f1 = [100 * cycle["macro_f1"] for cycle in cycles]
        axes.plot(labels, accuracy, "-o", color=colour, linewidth=2.2, markersize=6, label=name)
        axes.plot(labels, macro_f1, "--", color=colour, linewidth=1.3, alpha=0.75)
        for x, y in zip(labels, accuracy, strict=True):
            axes.annotate(
                f"{y:.0f}",
                (x, y),
                textcoords="offset points",
                xytext=(0, 8),
                ha="center",
                fontsize=9,
                color=colour,
                fontweight="bold",
            )
    axes.set_ylim(0, 105)
    axes.set_xlim(left=0)
    axes.set_xlabel("labels spent")
    axes.set_ylabel("per cent")
    axes.legend(loc="lower right", frameon=False, title="line: accuracy, dashes: macro F1")
    return _svg(figure)


def site_share_svg(report: Report, campaign: str) -> str:
    """Draws where each cycle's labels were spent: one stacked bar a cycle, one colour a site."""
    cycles = report["campaigns"][campaign]["cycles"]
    sites = list(report["sites"])
    figure, axes = _figure(4.2, 0.9 + 0.42 * max(1, len(cycles)))
    before = dict.fromkeys(sites, 0)
    for row, cycle in enumerate(cycles):
        left = 0
        for colour, site in zip(itertools.cycle(SITE_COLOURS), sites, strict=False):
            total = cycle["labels_by_site"].get(site, 0)
            width = max(0, total - before[site])
            before[site] = total
            axes.barh(row, width, left=left, color=colour, height=0.62)
            if width >= 3:
                axes.text(
                    left + width / 2,
                    row,
                    str(width),
                    ha="center",
                    va="center",
                    color="white",
                    fontsize=9,
                )
            left += width
    axes.set_yticks(range(len(cycles)), [f"cycle {cycle['cycle']}" for cycle in cycles])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("labels bought")
    return _svg(figure)


def class_mix_svg(report: Report, campaign: str) -> str:
    """Draws how unevenly the classes lie: dot area is a site's pool count of a class.

    Of many classes the largest are shown, as many as their names leave room for.
    """
    sites = {name: site["class_counts"].get(campaign, {}) for name, site in report["sites"].items()}
    classes, everything = _largest_classes(sites)
    shown = [name if len(name) <= 16 else name[:15] + "…" for name in classes]
    longest = max((len(name) for name in shown), default=1)
    slanted = 0.09 * longest if longest > 2 else 0.0
    figure, axes = _figure(4.2, 0.9 + 0.42 * max(1, len(sites)) + slanted)
    largest = max((sites[site].get(name, 0) for site in sites for name in classes), default=1) or 1
    for row, (colour, site) in enumerate(zip(itertools.cycle(SITE_COLOURS), sites, strict=False)):
        sizes = [380 * sites[site].get(name, 0) / largest for name in classes]
        axes.scatter(range(len(classes)), [row] * len(classes), s=sizes, color=colour)
    axes.set_xticks(range(len(classes)), shown, rotation=0 if longest <= 2 else 40, ha="center")
    if longest > 2:
        for tick in axes.get_xticklabels():
            tick.set_ha("right")
    axes.set_yticks(range(len(sites)), list(sites))
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.set_xlim(-0.6, len(classes) - 0.4)
    if len(classes) < everything:
        axes.set_xlabel(f"the largest {len(classes)} of {everything} classes")
    return _svg(figure)


def _largest_classes(sites: Mapping[str, Mapping[str, int]]) -> tuple[list[str], int]:
    """Returns the classes to draw, in schema order, and how many there are in all.

    >>> _largest_classes({"a": {"x": 1, "y": 5}, "b": {"x": 2}})
    (['x', 'y'], 2)
    """
    totals: Counter[str] = Counter()
    for counts in sites.values():
        totals.update(counts)
    room = DIGITS_MAX if all(len(name) <= 2 for name in totals) else NAMES_MAX
    largest = {name for name, _ in totals.most_common(room)}
    return [name for name in totals if name in largest], len(totals)


def egress_svg(report: Report) -> str:
    """Draws on one scale what stayed at the sites and what left them."""
    egress = report["egress"]
    bars: Sequence[tuple[str, float, str]] = (
        ("raw samples, stayed", egress["raw_bytes_kept"], SITE_COLOURS[2]),
        ("messages, left", egress["bytes"], SITE_COLOURS[1]),
    )
    figure, axes = _figure(4.2, 1.5)
    for row, (_, size, colour) in enumerate(bars):
        axes.barh(row, max(1, size) / 1024, color=colour, height=0.6)
        axes.text(
            max(1, size) / 1024,
            row,
            f"  {size / 1024:,.0f} KiB",
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.3)
    axes.set_xlabel("KiB")
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(b=True)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.xaxis.label.set_color(QUIET)
    axes.yaxis.label.set_color(QUIET)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(GRID)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    target = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "perimeter"}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"font: ([^;\"]*)'[^']*'[^;\"]*", r"font: \1system-ui, sans-serif", svg)
