"""Simulations are deterministic, resumable, honest about bad input, and use production code."""

import dataclasses
import doctest
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from edge_agent.scoring import softmax
from federation.central import start_state
from federation.dataset import SiteData
from federation.in_process import desk_for, transport_for
from federation.requests import request_of
from federation.round_loop import run_rounds
from simulations import __main__ as command
from simulations.advice import make_plan, plan_text
from simulations.config import ConfigInvalid, config_of, read_config
from simulations.datasets import load_dataset
from simulations.engine import Run
from simulations.errors import DataInvalid
from simulations.learner import make_learner
from simulations.partition import balanced_dirichlet, long_tail, make_partition
from simulations.report import make_report
from simulations.strategies import find_strategy
from simulations.summary import labels_to_reach, paired_test, summarise
from simulations.sweep import Finished
from simulations.world import make_world

SCENARIOS = Path(command.__file__).parent / "scenarios"
SMALL = {
    "data": {"path": "builtin:digits", "kind": "image", "rows": 240, "width": 16},
    "federation": {"sites": 3, "alpha": 0.5},
    "budget": {"initial": 15, "per_cycle": 12, "cycles": 2},
    "training": {"rounds": 3, "cell_count": 8, "hidden_width": 16, "embedding_width": 8},
    "simulation": {"strategies": ["random", "perimeter"], "seeds": 1, "processes": 1},
}


def small(**sections):
    return config_of({**SMALL, **{k: {**SMALL.get(k, {}), **v} for k, v in sections.items()}})


def play(config, name, seed=0):
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, seed)
    learner = make_learner(dataset, config.training, seed)
    run = Run(config, dataset, world, learner)
    return run.play(find_strategy(name), run.start_model())[0]


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda p: p.stem)
def test_every_scenario_file_is_valid_and_plays_a_cycle(path):
    config = read_config(path)
    for name in config.simulation.strategies:
        find_strategy(name)
    assert "perimeter" in config.simulation.strategies
    quick = {"rounds": 2, "hidden_width": 16, "embedding_width": 8, "cell_count": 8}
    short = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, rows=500, width=16),
        budget=dataclasses.replace(config.budget, cycles=1),
        training=dataclasses.replace(config.training, **quick),
        # What goes wrong in a later cycle goes wrong in the first one.
        scenario=dataclasses.replace(
            config.scenario,
            drop_out_cycle=1,
            drift_cycle=min(config.scenario.drift_cycle, 1),
        ),
    )
    start, end = play(short, "perimeter")
    assert start.labels == config.budget.initial
    assert 0 < end.cost <= config.budget.per_cycle
    finished = Finished("perimeter", 0, [vars(start), vars(end)], 0.1)
    page = make_report(short, [finished], summarise([finished]))
    assert page.count("<svg") >= 6
    assert ("What the lying site" in page) == (config.scenario.liar_site >= 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budget": {"per_week": 3}}, "per_week"),
        ({"bugdet": {}}, "bugdet"),
        ({"federation": {"partition": "magic"}}, "partition"),
        ({"budget": {"cycles": "two"}}, "cycles"),
        ({"simulation": {"seeds": 0}}, "seeds"),
    ],
)
def test_a_wrong_key_is_refused_by_name(change, words):
    with pytest.raises(ConfigInvalid, match=words):
        config_of({**SMALL, **change})


def test_a_missing_file_and_an_unknown_strategy_end_the_command_with_a_sentence(tmp_path, capsys):
    assert command.main(["run", str(tmp_path / "no.toml"), "--out", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    path = tmp_path / "c.toml"
    path.write_text(
        '[data]\npath = "builtin:digits"\nkind = "image"\n[simulation]\nstrategies = ["magic"]\n'
    )
    assert command.main(["run", str(path), "--out", str(tmp_path / "o")]) == 2
    assert "magic" in capsys.readouterr().err


def test_sites_of_a_balanced_partition_have_equal_size_and_skewed_classes():
    classes = np.random.default_rng(0).integers(0, 10, 2000)
    skewed = balanced_dirichlet(classes, 10, 0.1, np.random.default_rng(1))
    even = balanced_dirichlet(classes, 10, 100.0, np.random.default_rng(1))
    assert set(np.bincount(skewed).tolist()) == {200}

    def largest_share(sites):
        tables = [np.bincount(classes[sites == s], minlength=10) for s in range(10)]
        return np.mean([table.max() / table.sum() for table in tables])

    assert largest_share(skewed) > 0.4 > 0.2 > largest_share(even)


def test_a_long_tail_has_the_asked_ratio():
    classes = np.repeat(np.arange(10), 300)
    counts = np.bincount(classes[long_tail(classes, 20.0, np.random.default_rng(0))])
    assert counts.max() == 300
    assert counts.min() == 15


def test_cloned_sites_hold_the_same_samples_and_a_rare_class_stays_at_one_site():
    classes = np.repeat(np.arange(4), 50)
    groups = np.full(200, -1)
    config = small(federation={"sites": 5, "clones": 3}).federation
    rows, sites = make_partition(classes, groups, config, np.random.default_rng(0))
    assert sorted(rows[sites == 0]) == sorted(rows[sites == 1]) == sorted(rows[sites == 2])
    config = small(federation={"sites": 5, "rho": 5.0, "rare_class_site": True}).federation
    rows, sites = make_partition(classes, groups, config, np.random.default_rng(0))
    rarest = np.bincount(classes[rows]).argmin()
    assert set(sites[classes[rows] == rarest].tolist()) == {0}


def test_a_column_partition_without_sites_is_refused():
    config = small(federation={"partition": "column"})
    dataset = load_dataset(config.data)
    with pytest.raises(DataInvalid, match="site"):
        make_world(config, dataset, 0)


def test_the_same_seed_gives_the_same_curve_and_another_does_not():
    config = small()
    assert play(config, "perimeter") == play(config, "perimeter")
    assert play(config, "perimeter") != play(config, "perimeter", seed=1)


def test_labels_and_costs_follow_the_budget():
    config = small(budget={"site_cost_bands": [0, 3]})
    for name in ("random", "perimeter"):
        curve = play(config, name)
        assert [point.cycle for point in curve] == [0, 1, 2]
        assert curve[0].labels == 15
        assert 12 <= curve[-1].cost <= 24
        assert sum(curve[-1].class_labels) == sum(curve[-1].site_labels) == curve[-1].labels


def test_experts_who_cannot_tell_give_no_label_and_a_site_that_left_gets_no_budget():
    unsure = play(small(expert={"abstain_ratio": 0.5}), "random")
    assert unsure[-1].labels < 15 + 24
    gone = play(small(scenario={"drop_out_site": 1, "drop_out_cycle": 1}), "perimeter")
    assert gone[-1].site_labels[1] == gone[0].site_labels[1]


def test_experts_are_split_over_the_samples_nearest_to_another_class():
    config, split = small(), small(expert={"disagreement": 0.4})
    dataset = load_dataset(config.data)
    plain, disputed = make_world(config, dataset, 0), make_world(split, dataset, 0)
    changed = np.flatnonzero(disputed.answers != disputed.truth)
    assert np.array_equal(plain.answers, plain.truth)
    assert np.array_equal(plain.rows, disputed.rows)
    assert np.array_equal(plain.start, disputed.start)
    assert 0.12 < len(changed) / len(plain) < 0.28
    assert np.array_equal(disputed.answers, make_world(split, dataset, 0).answers)


WITH_POOL = {
    "unlabelled_weight": 1.0,
    "input_noise": 0.3,
    "weight_power": 0.5,
    "unlabelled_max": 60,
}


@pytest.mark.parametrize("training", [{}, WITH_POOL], ids=["labels", "pool"])
def test_the_fast_trainer_gives_the_model_of_the_deployed_message_path(tmp_path, training):
    config = small(training=training)
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, 0)
    learner = make_learner(dataset, config.training, 0)
    run = Run(config, dataset, world, learner)
    labels = np.where(np.isin(np.arange(len(world)), world.start), world.truth, -1)
    sites, free = run.examples(labels), run.unlabelled(labels)
    fast = learner.train(learner.initial(), sites, free)
    plan = dataclasses.replace(learner.plan(), label_counts={n: len(e) for n, e in sites.items()})
    handles = {
        name: desk_for(SiteData(found, learner.empty(), free.get(name, learner.empty()))).handle
        for name, found in sites.items()
    }
    first = learner.initial()
    state = dataclasses.replace(_start(tmp_path, learner), arrays=first.arrays)
    deployed = run_rounds(plan, transport_for(handles), state, lambda following, _: following)
    for name, array in deployed.arrays.items():
        assert np.allclose(array, fast.arrays[name], atol=1e-5), name


def _start(folder, learner):
    values = {
        "campaign_id": "00" * 16,
        "run": 1,
        "version": 2,
        "family": learner.spec.family,
        "label_schema": {"classes": [str(c) for c in range(10)], "version": 1},
        "features": learner.spec.features.to_mapping(),
        "seed": 0,
        "created_at": 1,
        "expires_at": 2,
        "release_key": "none.pem",
        "network": {
            "hidden_width": learner.spec.hidden_width,
            "embedding_width": learner.spec.embedding_width,
            "encoder_width": learner.spec.encoder_width,
        },
    }
    return start_state(request_of(values, folder))


def test_a_run_writes_results_and_a_page_and_resumes_without_repeating(tmp_path, capsys):
    path = tmp_path / "c.toml"
    path.write_text(_toml(SMALL), "utf-8")
    out = tmp_path / "out"
    assert command.main(["run", str(path), "--out", str(out)]) == 0
    assert "2/2" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert set(results["runs"][0]) == {"strategy", "seed", "curve", "selection_seconds"}
    wanted = {"cycle", "labels", "cost", "accuracy", "macro_f1", "worst_class_recall"}
    assert wanted | {"rarest_share"} <= set(results["runs"][0]["curve"][0])
    wanted = {"aulc", "final_accuracy", "final_macro_f1", "labels_to_random_final"}
    assert wanted | {"wins", "ties", "losses"} <= set(results["summary"]["perimeter"])
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 6
    assert "at equal quality" in page
    assert "in money" in page
    assert "http" not in page.replace("http-equiv", "")
    assert command.main(["run", str(path), "--out", str(out)]) == 0
    assert "seed 0" not in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text()) == results
    assert command.main(["plan", str(path), "--out", str(out)]) == 0
    plan = capsys.readouterr().out
    assert "When to stop" in plan
    assert 'Not tried         features = "learned" in [data]' in plan


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(_toml(SMALL), "utf-8")
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "configuration.sha256").write_text("other")
    assert command.main(["run", str(path), "--out", str(tmp_path / "out")]) == 2


def _toml(values):
    lines = []
    for section, keys in values.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines)


def curve_of(values):
    return [
        {"cycle": i, "labels": 10 * (i + 1), "accuracy": v, "macro_f1": v}
        for i, v in enumerate(values)
    ]


def test_labels_to_reach_are_read_between_cycles():
    runs = [Finished("random", 0, curve_of([0.5, 0.6, 0.7]), 0.0)]
    runs.append(Finished("good", 0, curve_of([0.5, 0.9, 0.9]), 0.0))
    by_name = {run.strategy: {0: run} for run in runs}
    assert labels_to_reach(runs[1], by_name, "random") == pytest.approx(15.0)
    summary = summarise(runs)
    assert summary["good"]["wins"] == 1
    assert summary["random"]["losses"] == 1
    assert summary["random"]["labels_to_random_final"] == pytest.approx(30.0)


def test_a_paired_test_sees_a_constant_gain_and_no_gain():
    base = np.linspace(0.5, 0.6, 10)
    gain = paired_test(base + 0.02, base)
    assert gain.shift == pytest.approx(0.02)
    assert gain.p_value < 0.01
    assert gain.low > 0
    assert paired_test(base, base).p_value == 1.0


@pytest.mark.parametrize(
    "name", ["config", "partition", "quotas", "summary", "pictures", "report",
             "rivals.geometry", "rivals.ifal", "rivals.fairfal", "perimeter_strategy"],
)  # fmt: skip
def test_the_examples_in_the_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(f"simulations.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_a_lying_site_is_capped_at_once_and_ignored_after_three_cycles():
    config = config_of(
        {
            "data": {"path": "builtin:digits", "kind": "image", "width": 32},
            "federation": {"sites": 20, "alpha": 0.5},
            "budget": {"initial": 120, "per_cycle": 100, "cycles": 4},
            "training": {"rounds": 12, "hidden_width": 64, "embedding_width": 32},
            "scenario": {"liar_site": 7},
        }
    )
    counts = [point.site_labels[7] for point in play(config, "perimeter")]
    bought = np.diff(counts)
    assert bought.max() <= 10
    assert bought[3] <= 2


def finished(name, seed, accuracies):
    points = [
        {**point, "cost": point["labels"] - 10, "site_labels": [point["labels"] - 4, 4]}
        for point in curve_of(accuracies)
    ]
    return Finished(name, seed, points, 0.1)


def plan_of(rival_gains, **data):
    runs = [finished("random", seed, [0.4, 0.5, 0.6]) for seed in range(len(rival_gains))]
    for seed, gain in enumerate(rival_gains):
        runs.append(finished("perimeter", seed, [0.4, 0.7, 0.8]))
        runs.append(finished("margin-site", seed, [0.4, 0.7 + gain, 0.8 + gain]))
    return make_plan(config_of({**SMALL, "data": SMALL["data"] | data}), runs, None)


def test_a_plan_leaves_the_default_policy_only_for_one_that_is_better_in_every_seed():
    by_chance, clearly = plan_of([0.03, -0.01]), plan_of([0.03, 0.02])
    assert by_chance.strategy == "perimeter"
    assert "points ahead, within chance" in by_chance.because
    assert clearly.strategy == "margin-site"
    assert "ahead of perimeter in every seed" in clearly.because


def test_a_plan_says_what_it_costs_and_whose_experts_are_busiest():
    text = plan_text(plan_of([0.0, 0.0]))
    assert "30, the start included; 20 cost units" in text
    assert "busiest is site 0 with 26 labels" in text


def test_a_plan_names_the_layer_that_learns_without_labels_where_it_was_not_tried():
    assert 'features = "learned"' in plan_text(plan_of([0.0]))
    assert "Not tried" not in plan_text(plan_of([0.0], features="learned"))
    assert "Not tried" not in plan_text(plan_of([0.0], kind="record"))


GUESSES = {"unlabelled_weight": 3.0, "input_noise": 0.3, "cohesion_floor": -1.0, "trust_power": 0.0}
ASKING = {**GUESSES, "plain_head": True, "rounds": 8}


def asked_first(config):
    """Places of the first cycle's picks, the model that chose them, and what it said."""
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, 0)
    run = Run(config, dataset, world, make_learner(dataset, config.training, 0))
    seen = []

    def select(view, rng):
        selection = find_strategy("perimeter")(view, rng)
        seen.append((view, selection.places))
        return selection

    curve, _ = run.play(select, run.start_model())
    return seen[0][0], set(seen[0][1].tolist()), curve


def test_with_two_heads_the_second_one_chooses_and_the_first_is_measured():
    both, picks, curve = asked_first(small(training=ASKING))
    one, other, plain_curve = asked_first(small(training={**ASKING, "plain_head": False}))
    assert picks != other
    assert curve[-1].labels == 15 + 2 * 12
    asked = both.outputs.acquisition_logits
    assert one.outputs.acquisition_logits is None
    assert both.outputs.logits.tobytes() == one.outputs.logits.tobytes()
    assert curve[0].accuracy == plain_curve[0].accuracy
    assert both.probabilities.tobytes() == softmax(asked).tobytes()
    assert one.probabilities.tobytes() == softmax(one.outputs.logits).tobytes()
    quiet, picked, _ = asked_first(
        small(training={**ASKING, "unlabelled_weight": 0.0, "input_noise": 0.0})
    )
    assert quiet.outputs.logits.tobytes() == quiet.outputs.acquisition_logits.tobytes()
    assert asked.tobytes() == quiet.outputs.logits.tobytes()
    assert both.embedding.tobytes() == quiet.embedding.tobytes()
    assert picked != other


def test_what_is_claimed_of_picks_is_what_the_served_head_says():
    config = small(training=ASKING)
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, 0)
    run = Run(config, dataset, world, make_learner(dataset, config.training, 0))
    views = []

    def select(view, rng):
        views.append((view, find_strategy("margin-global")(view, rng)))
        return views[-1][1]

    run.play(select, run.start_model())
    (view, selection), (later, _) = views
    served = softmax(view.outputs.logits)[selection.places]
    assert later.judged.predicted_classes.tolist() == served.argmax(axis=1).tolist()
    assert np.allclose(later.judged.confidences, served.max(axis=1))
    assert not np.allclose(served, view.probabilities[selection.places], atol=0.01)


def test_a_lying_site_lies_with_both_heads():
    view, _, _ = asked_first(small(training=ASKING, scenario={"liar_site": 1}))
    there = view.sites == 1
    for logits in (view.outputs.logits, view.outputs.acquisition_logits):
        assert np.abs(logits[there]).max() < 0.1 < np.abs(logits[~there]).max()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"features": "native"}, "training": {"plain_head": True}}, "plain_head must be"),
        ({"training": {**ASKING, "spread": "cells"}}, "set spread to graph or none"),
        ({"training": {"plain_head": 1}}, "must be of type bool"),
    ],
)
def test_two_heads_that_cannot_be_are_refused(sections, words):
    with pytest.raises(ConfigInvalid, match=words):
        small(**sections)
    small(training=ASKING)
