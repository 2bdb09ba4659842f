"""Writes `report.json` and a self-contained `report.html`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulations.demo.charts import (
    SITE_COLOURS,
    class_mix_svg,
    egress_svg,
    learning_curve_svg,
    site_share_svg,
)

TEMPLATES = Path(__file__).parent / "templates"


def write_report(report: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes both files, each at once or not at all.

    Args:
        report: What `outcome.report_mapping` returns.
        folder: Made when it is missing.

    Returns:
        Paths of `report.json` and `report.html`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return (
        _written(folder / "report.json", json.dumps(report, indent=2) + "\n"),
        _written(folder / "report.html", report_html(report)),
    )


def report_html(report: Mapping[str, Any]) -> str:
    """Returns the page: no script, no request to any other host, pictures inside."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    names = list(report["campaigns"])
    return environment.get_template("report.html").render(
        report=report,
        headline=headline(report),
        device_count=sum(len(site["devices"]) for site in report["sites"].values()),
        curve=learning_curve_svg(report),
        shares={name: site_share_svg(report, name) for name in names},
        mixes={name: class_mix_svg(report, name) for name in names},
        egress=egress_svg(report),
        legend=_legend(report),
        pct=lambda ratio: f"{100 * ratio:.0f} %",
        pct1=lambda ratio: f"{100 * ratio:.1f} %",
        kib=kib,
        share=lambda part, whole: round(100 * part / whole, 2) if whole else 0,
    )


def headline(report: Mapping[str, Any]) -> str:
    """Returns the page's first sentence.

    >>> headline({"ledger": {"spent": 240}, "campaigns": {"digits": {"pool_count": 1437}}})
    '240 labels out of 1,437 samples, and no sample left its site'
    """
    pool = sum(campaign["pool_count"] for campaign in report["campaigns"].values())
    return (
        f"{report['ledger']['spent']} labels out of {pool:,} samples, and no sample left its site"
    )


def kib(size: int) -> str:
    """Returns a size in bytes for people.

    >>> kib(2048), kib(5_000_000)
    ('2 KiB', '4.8 MiB')
    """
    return f"{size / 1024:,.0f} KiB" if size < 1 << 20 else f"{size / (1 << 20):,.1f} MiB"


def _legend(report: Mapping[str, Any]) -> str:
    from markupsafe import escape

    return "".join(
        f'<span class="key" style="background:{colour}"></span>{escape(site)}'
        for colour, site in zip(itertools.cycle(SITE_COLOURS), report["sites"], strict=False)
    )


def _written(path: Path, text: str) -> Path:
    draft = path.with_suffix(path.suffix + ".part")
    draft.write_text(text, encoding="utf-8")
    return draft.replace(path)
