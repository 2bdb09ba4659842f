"""`report.html`: one file, no script, no network, from which an operator can decide."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.advice import make_plan, plan_text
from simulations.config import SimulationConfig
from simulations.pictures import Line, bars, curves, lengths
from simulations.summary import area, paired_test
from simulations.sweep import Finished

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
h1,h2{line-height:1.2}svg{width:100%;max-width:46rem}svg text{font:12px system-ui,sans-serif}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;text-align:right;
border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left;white-space:nowrap}
pre{background:#f4f4f2;padding:1rem;overflow:auto}
"""
FEWEST_IN_BIN = 10
"""A bin with fewer samples says nothing of calibration and is not drawn."""
_FIGURES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "worst_class_recall": "Recall of the worst class",
}


def make_report(
    config: SimulationConfig, runs: Sequence[Finished], summary: dict[str, dict[str, Any]]
) -> str:
    """The whole page."""
    names = list(summary)
    parts = [
        "<h1>What one label budget buys</h1>",
        f"<p>{escape(_describe(config, runs))}</p>",
        "<h2>Plan</h2>",
        f"<pre>{escape(plan_text(make_plan(config, runs, None)))}</pre>",
        "<h2>Summary</h2>",
        _summary_table(runs, summary),
        "<h2>Labels and money at equal quality</h2>",
        "<p>What each strategy pays to reach the accuracy that random choice ends with.</p>",
        _savings(config, runs, summary),
        "<h2>Learning curves</h2>",
        "<p>Lines are means over seeds, bands reach from the worst to the best seed.</p>",
    ]
    for figure, title in _FIGURES.items():
        lines = [_line(runs, name, figure) for name in names]
        parts += [f"<h3>{title}</h3>", curves(lines, x_name="labels", y_name=title)]
    parts += [
        "<h2>Is the difference real?</h2>",
        "<p>Area under macro F1, paired by seed: Hodges-Lehmann shift with its interval, and the "
        "one-sided Wilcoxon test that the first is better.</p>",
        _tests_table(runs, names),
        "<h2>Where the budget went</h2>",
        _liar_table(config, runs, names),
        "<h3>By site</h3>",
        _share_bars(runs, names, "site_labels", "site"),
        "<h3>By class</h3>",
        _share_bars(runs, names, "class_labels", "class"),
        "<h2>Calibration</h2>",
        "<p>Mean confidence against accuracy on the test part after the last cycle, in bins of at "
        f"least {FEWEST_IN_BIN} samples; in the legend the expected calibration error of all.</p>",
        _calibration(runs, names),
        "<h2>Cost plan</h2>",
        _cost_table(config, runs, names),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Simulation report</title><style>{_STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>"
    )


def _describe(config: SimulationConfig, runs: Sequence[Finished]) -> str:
    seeds = len({run.seed for run in runs})
    sites = len(runs[0].curve[-1]["site_labels"])
    chosen = "random labels" if config.budget.start == "random" else "labels of their own choice"
    name = config.data.path.rsplit("/", 1)[-1]
    return (
        f"{name}: {_of(sites, 'site')}, {config.budget.initial} {chosen} to start, "
        f"{config.budget.per_cycle} cost units in each of "
        f"{_of(config.budget.cycles, 'cycle')}, {_of(seeds, 'seed')}.{_describe_scenario(config)}"
    )


def _of(count: int, noun: str) -> str:
    """A count with its noun.

    >>> _of(1, "seed"), _of(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _describe_scenario(config: SimulationConfig) -> str:
    """What is unusual in this world, a sentence each."""
    scenario, expert, federation = config.scenario, config.expert, config.federation
    told = {
        f"Site {scenario.liar_site} claims top scores for everything.": scenario.liar_site >= 0,
        f"Site {scenario.drop_out_site} leaves before cycle {scenario.drop_out_cycle}.": (
            scenario.drop_out_site >= 0
        ),
        f"The pool shifts in cycle {scenario.drift_cycle}.": scenario.drift_cycle > 0,
        f"The first {federation.clones} sites hold the same samples.": federation.clones > 0,
        "The rarest class lives at site 0 only.": federation.rare_class_site,
        f"An expert is right in {expert.accuracy:.0%} of cases.": expert.accuracy < 1,
        f"Experts are split over {expert.disagreement:.0%} of the samples.": (
            expert.disagreement > 0
        ),
        f"They cannot tell in {expert.abstain_ratio:.0%} of cases.": expert.abstain_ratio > 0,
    }
    return "".join(f" {sentence}" for sentence, holds in told.items() if holds)


def _liar_table(config: SimulationConfig, runs: Sequence[Finished], names: Sequence[str]) -> str:
    """The lying site's share of the labels of each cycle; the worst seed in brackets."""
    liar = config.scenario.liar_site
    if liar < 0 or len(runs[0].curve) < 2:
        return ""
    rows = []
    for name in names:
        taken = np.array(
            [[p["site_labels"][liar] for p in r.curve] for r in runs if r.strategy == name]
        )
        labels = _stack(runs, name, "labels")
        shares = np.diff(taken, axis=1) / np.maximum(np.diff(labels, axis=1), 1)
        cells = [f"<td>{s.mean():.1%} ({s.max():.0%})</td>" for s in shares.T]
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    heads = "".join(f"<th>cycle {i + 1}</th>" for i in range(len(runs[0].curve) - 1))
    return (
        f"<h3>What the lying site {liar} took</h3><p>Share of each cycle's labels, mean over seeds "
        "and in brackets the worst seed.</p>"
        f"<table><tr><th>strategy</th>{heads}</tr>{''.join(rows)}</table>"
    )


def _summary_table(runs: Sequence[Finished], summary: dict[str, dict[str, Any]]) -> str:
    whole = _whole(runs)
    rows = []
    for name, found in sorted(summary.items(), key=lambda item: -item[1]["aulc_macro_f1"]):
        labels = found["labels_to_random_final"]
        saved = "—" if labels is None else f"{labels:.0f} ({1 - labels / whole:.0%} saved)"
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{found['final_accuracy']:.3f}</td>"
            f"<td>{found['final_macro_f1']:.3f}</td><td>{found['aulc']:.3f}</td><td>{saved}</td>"
            f"<td>{found['wins']}/{found['ties']}/{found['losses']}</td></tr>"
        )
    return (
        "<table><tr><th>strategy</th><th>final accuracy</th><th>final macro F1</th>"
        "<th>area, accuracy</th><th>labels to random's final</th><th>won/tied/lost</th></tr>"
        f"{''.join(rows)}</table>"
    )


def _savings(
    config: SimulationConfig, runs: Sequence[Finished], summary: dict[str, dict[str, Any]]
) -> str:
    """Labels to random's final accuracy, and what experts cost until there."""
    price = config.expert.seconds / 3600 * config.expert.hourly_price
    whole = _whole(runs)
    values, texts = [], []
    for found in summary.values():
        labels = found["labels_to_random_final"]
        values.append(whole if labels is None else float(labels))
        if labels is None:
            texts.append("not reached with the whole budget")
            continue
        saved = 1 - labels / whole
        texts.append(f"{labels:.0f} labels, {labels * price:.0f} in money ({saved:.0%} saved)")
    return lengths(list(summary), values, texts)


def _whole(runs: Sequence[Finished]) -> float:
    """Most labels that a run bought; cost units would be another number where costs differ."""
    return max(float(run.curve[-1]["labels"]) for run in runs)


def _line(runs: Sequence[Finished], name: str, figure: str) -> Line:
    labels = _stack(runs, name, "labels").mean(axis=0)
    values = _stack(runs, name, figure)
    return Line(
        name,
        labels.tolist(),
        values.mean(axis=0).tolist(),
        values.min(axis=0).tolist(),
        values.max(axis=0).tolist(),
    )


def _stack(runs: Sequence[Finished], name: str, figure: str) -> NDArray[np.float64]:
    return np.array(
        [[point[figure] for point in run.curve] for run in runs if run.strategy == name],
        dtype=np.float64,
    )


def _tests_table(runs: Sequence[Finished], names: Sequence[str]) -> str:
    best = "perimeter" if "perimeter" in names else names[0]
    areas = {
        name: {run.seed: area(run, "macro_f1") for run in runs if run.strategy == name}
        for name in names
    }
    rows = []
    for rival in names:
        seeds = sorted(set(areas[best]) & set(areas[rival]))
        if rival == best or not seeds:
            continue
        found = paired_test(
            np.array([areas[best][s] for s in seeds]), np.array([areas[rival][s] for s in seeds])
        )
        rows.append(
            f"<tr><td>{escape(best)} against {escape(rival)}</td>"
            f"<td>{found.shift * 100:+.2f}</td>"
            f"<td>{found.low * 100:+.2f} to {found.high * 100:+.2f}</td>"
            f"<td>{found.p_value:.3f}</td><td>{found.pairs}</td></tr>"
        )
    return (
        "<table><tr><th>pair</th><th>points</th><th>interval</th><th>p</th><th>seeds</th></tr>"
        f"{''.join(rows)}</table>"
    )


def _share_bars(runs: Sequence[Finished], names: Sequence[str], key: str, what: str) -> str:
    shares = []
    for name in names:
        counts = np.mean([r.curve[-1][key] for r in runs if r.strategy == name], axis=0)
        shares.append((counts / max(float(counts.sum()), 1e-9)).tolist())
    return bars(names, shares, [f"{what} {i}" for i in range(len(shares[0]))])


def _calibration(runs: Sequence[Finished], names: Sequence[str]) -> str:
    lines = []
    for name in names:
        error = _calibration_error([run for run in runs if run.strategy == name])
        found: dict[int, list[list[float]]] = {}
        for run in runs:
            if run.strategy == name:
                for confidence, accuracy, count in run.curve[-1]["reliability"]:
                    found.setdefault(int(confidence * 10), []).append([confidence, accuracy, count])
        points = []
        for key in sorted(found):
            table = np.array(found[key])
            if table[:, 2].sum() < FEWEST_IN_BIN:
                continue
            weights = table[:, 2] / table[:, 2].sum()
            points.append(((table[:, 0] * weights).sum(), (table[:, 1] * weights).sum()))
        x, y = [p[0] for p in points], [p[1] for p in points]
        lines.append(Line(f"{name} {error:.3f}", x, y, y, y))
    return curves(lines, x_name="confidence", y_name="accuracy", diagonal=True)


def _calibration_error(runs: Sequence[Finished]) -> float:
    """Mean over the seeds of the gap between confidence and accuracy, weighted by samples."""
    errors = []
    for run in runs:
        table = np.array(run.curve[-1]["reliability"])
        gaps = np.abs(table[:, 0] - table[:, 1])
        errors.append(float((gaps * table[:, 2]).sum() / table[:, 2].sum()))
    return float(np.mean(errors))


def _cost_table(config: SimulationConfig, runs: Sequence[Finished], names: Sequence[str]) -> str:
    expert = config.expert
    rows = []
    for name in names:
        ends = [run.curve[-1] for run in runs if run.strategy == name]
        labels = float(np.mean([end["labels"] for end in ends]))
        hours = labels * expert.seconds / 3600
        seconds = float(np.mean([run.selection_seconds for run in runs if run.strategy == name]))
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{labels:.0f}</td>"
            f"<td>{np.mean([end['cost'] for end in ends]):.0f}</td><td>{hours:.1f}</td>"
            f"<td>{hours * expert.hourly_price:.0f}</td><td>{seconds:.2f}</td></tr>"
        )
    return (
        "<table><tr><th>strategy</th><th>labels</th><th>cost units</th><th>expert hours</th>"
        f"<th>money</th><th>seconds to select</th></tr>{''.join(rows)}</table>"
    )
