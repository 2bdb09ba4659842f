"""The tables of `docs/label-efficiency.md`, from finished runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.label_efficiency import figures, protocol
from benchmarks.label_efficiency.figures import Results, final, whole
from benchmarks.label_efficiency.runs import read_lines

MARKS = ("<!-- tables -->", "<!-- end of tables -->")
Rows = Sequence[Sequence[str]]


def write_tables(out: Path) -> str:
    """Writes `results.json` and `table.md` into the folder of results; returns the tables."""
    lines = read_lines(out)
    order = [cell.name for cell in protocol.cells()]
    lines.sort(key=lambda line: order.index(line["cell"]) if line["cell"] in order else len(order))
    results = Results(lines)
    text = "\n\n".join(part for part in _parts(results) if part) + "\n"
    (out / "table.md").write_text(text, "utf-8")
    summary = {cell: _cell_figures(results, cell) for cell in results.cells}
    (out / "results.json").write_text(
        json.dumps({"runs": lines, "summary": summary}, indent=0), "utf-8"
    )
    return text


def fill_in(page: Path, text: str) -> None:
    """Puts the tables between the page's two marks.

    Raises:
        ValueError: the page lacks a mark.
    """
    before, mark, rest = page.read_text("utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not mark or not end:
        raise ValueError(f"{page} lacks {MARKS[0]} or {MARKS[1]}")
    page.write_text(f"{before}{mark}\n\n{text}\n{end}{after}", "utf-8")


def _parts(results: Results) -> list[str]:
    ours = [protocol.OURS_BY_SITE, protocol.OURS, protocol.WHOLE_SYSTEM]
    groups = {
        "alpha 0.1, rho 20": _named(results, "alpha 0.1 rho 20"),
        "alpha 0.1": _named(results, "alpha 0.1 rho 1"),
        "alpha 0.5": _named(results, "alpha 0.5 rho 1"),
        "near IID (alpha 100)": _named(results, "alpha 100"),
        "own sites": _named(results, "own sites"),
        "all cells": results.cells,
    }
    a, b = protocol.league_a(), protocol.league_b()
    sections = {
        "Labels for random's final accuracy, as a share of its labels": [_label_table(results)],
        "League B: one global budget": [
            _rank_table(results, b),
            _duel_table(results, groups, protocol.OURS, b),
        ],
        "League A: equal site quotas": [
            _rank_table(results, a),
            _duel_table(results, groups, protocol.OURS_BY_SITE, a),
        ],
        "Final accuracy / macro F1 / area under the accuracy curve, in per cent": [
            _quality_table(results, [*b, *a], ours)
        ],
        "Parts switched off": [_ablation_table(results)],
        "Federated over pooled accuracy on the same labels": [_pooled_table(results)],
        "What the advice to stop saves": [_stop_table(results)],
        "Seconds spent selecting in all cycles": [_seconds_table(results)],
    }
    parts = []
    for title, texts in sections.items():
        if any(texts):
            parts += [f"### {title}", *texts]
    return parts


def _label_table(results: Results) -> str:
    names = _present(results, [*protocol.league_b(), *protocol.league_a()])
    names = list(dict.fromkeys([*(e.name for e in protocol.BEYOND), *names]))
    names = [n for n in _present(results, names) if n != figures.REFERENCE]
    rows = []
    for name in names:
        ratios = [figures.label_ratio(results, cell, name) for cell in results.cells]
        mean = figures.geometric_mean(ratios)
        rows.append((mean if mean is not None else 9.0, [name, *map(_ratio, [mean, *ratios])]))
    rows.sort(key=lambda row: row[0])
    return _table(["", "geometric mean", *map(_short, results.cells)], [row for _, row in rows])


def _rank_table(results: Results, league: Sequence[str]) -> str:
    names = _present(results, league)
    by = {
        "final macro F1": final("macro_f1"),
        "final accuracy": final("accuracy"),
        "area, macro F1": whole("macro_f1"),
        "area, accuracy": whole("accuracy"),
    }
    found = {k: figures.ranks(results, names, f, results.cells) for k, f in by.items()}
    if not found["final macro F1"]:
        return ""
    order = sorted(names, key=lambda name: found["final macro F1"][name])
    rows = [[name, *(f"{found[k][name]:.2f}" for k in by)] for name in order]
    pairs = sum(len(results.seeds(cell, *names)) for cell in results.cells)
    head = f"Mean rank of {len(names)} over {pairs} runs (cells x seeds), 1 is best."
    return f"{head}\n\n" + _table(["", *by], rows)


def _duel_table(
    results: Results, groups: dict[str, list[str]], name: str, league: Sequence[str]
) -> str:
    rivals = [n for n in _present(results, league) if not n.startswith(protocol.OURS)]
    rows = []
    for title, cells in {**groups, **{cell: [cell] for cell in results.cells}}.items():
        found = figures.duel(results, cells, name, rivals) if cells else None
        if found:
            shift = f"{100 * found['shift']:+.2f}"
            span = f"{100 * found['low']:+.2f} to {100 * found['high']:+.2f}"
            p, gain = f"{found['p_value']:.3g}", f"{100 * found['gain']:+.2f}"
            rows.append([title, found["rival"], gain, shift, span, p, str(found["pairs"])])
    head = ["", "best rival", "mean gain", "Hodges-Lehmann", "interval", "p", "pairs"]
    title = f"`{name}` against the rival that is best there: points of final macro F1."
    return f"{title}\n\n" + _table(head, rows)


def _quality_table(results: Results, names: Sequence[str], ours: Sequence[str]) -> str:
    names = _present(
        results, list(dict.fromkeys([*reversed(ours), *(e.name for e in protocol.BEYOND), *names]))
    )
    rows = []
    for name in names:
        row = [name]
        for cell in results.cells:
            if name not in results.entrants(cell):
                row.append("–")
                continue
            parts = (final("accuracy"), final("macro_f1"), whole("accuracy"))
            row.append(" / ".join(f"{100 * results.mean(cell, name, f):.1f}" for f in parts))
        rows.append(row)
    return _table(["", *map(_short, results.cells)], rows)


def _ablation_table(results: Results) -> str:
    rows = []
    for name in _present(results, protocol.ablations()):
        gaps = [_gaps(results, name, by) for by in (final("macro_f1"), whole("accuracy"))]
        if gaps[0]:
            means = (f"{100 * float(np.mean(found)):+.2f}" for found in gaps)
            rows.append([name, *means, str(len(gaps[0]))])
    head = ["", "final macro F1, points", "area, accuracy, points", "pairs"]
    return _table(head, rows) if rows else ""


def _gaps(results: Results, name: str, figure: figures.Figure) -> list[float]:
    """What an entrant has more than the default policy, run by run."""
    found: list[float] = []
    for cell in results.cells:
        seeds = results.seeds(cell, protocol.OURS, name)
        own = results.values(cell, name, figure, seeds) if seeds else np.zeros(0)
        other = results.values(cell, protocol.OURS, figure, seeds) if seeds else np.zeros(0)
        found += (own - other).tolist()
    return found


def _pooled_table(results: Results) -> str:
    names = [n for n in ("random", protocol.OURS, protocol.WHOLE_SYSTEM) if _present(results, [n])]
    rows = []
    for cell in results.cells:
        found = [figures.pooled_ratio(results, cell, name) for name in names]
        rows.append([cell, *("–" if v is None else f"{100 * v:.1f} %" for v in found)])
    return _table(["", *names], rows)


def _stop_table(results: Results) -> str:
    rows = []
    for cell in results.cells:
        found = figures.stopping(results, cell, protocol.OURS)
        if found:
            stopped, kept = f"{100 * found['stopped_ratio']:.0f} %", found["labels_ratio"]
            lost = f"{100 * found['accuracy_lost']:+.2f}"
            rows.append([cell, stopped, f"{100 * kept:.0f} %", lost])
    head = ["", "runs that stop", "labels used", "accuracy lost, points"]
    return _table(head, rows)


def _seconds_table(results: Results) -> str:
    names = _present(results, [*protocol.league_b(), *protocol.league_a()])
    rows = []
    for name in dict.fromkeys(names):
        lines = [line for cell in results.cells for line in results.lines(cell, name)]
        seconds = [line["selection_seconds"] for line in lines]
        rows.append([name, f"{np.median(seconds):.2f}", f"{np.max(seconds):.2f}"])
    return _table(["", "median", "most"], rows)


def _cell_figures(results: Results, cell: str) -> dict[str, Any]:
    return {
        name: {
            "seeds": len(results.seeds(cell, name)),
            "accuracy": results.mean(cell, name, final("accuracy")),
            "macro_f1": results.mean(cell, name, final("macro_f1")),
            "aulc": results.mean(cell, name, whole("accuracy")),
            "aulc_macro_f1": results.mean(cell, name, whole("macro_f1")),
            "label_ratio": figures.label_ratio(results, cell, name),
            "pooled_ratio": figures.pooled_ratio(results, cell, name),
        }
        for name in results.entrants(cell)
    }


def _present(results: Results, names: Sequence[str]) -> list[str]:
    """Entrants that have runs on every cell that has any."""
    return [n for n in names if all(n in results.entrants(c) for c in results.cells)]


def _named(results: Results, ending: str) -> list[str]:
    return [cell for cell in results.cells if ending in cell]


def _short(cell: str) -> str:
    return cell.replace("own sites", "own").replace("alpha ", "").replace(" rho ", " / ")


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Rows) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| --: " * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
