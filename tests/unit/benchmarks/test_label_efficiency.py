"""The label-efficiency protocol: who plays, that it goes on where it was, what its figures say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.label_efficiency import figures, pooled, protocol
from benchmarks.label_efficiency.runs import Job, play_all, read_lines
from benchmarks.label_efficiency.tables import fill_in, write_tables
from simulations.config import config_of
from simulations.strategies import find_strategy, strategy_names

LABELS = (10, 20, 30)


def line(entrant: str, seed: int, *accuracy: float) -> dict[str, Any]:
    curve = [
        {"labels": n, "accuracy": a, "macro_f1": a} for n, a in zip(LABELS, accuracy, strict=True)
    ]
    return {"cell": "c", "entrant": entrant, "seed": seed, "curve": curve, "stopped_at": 0}


def test_every_strategy_that_the_simulator_lists_plays() -> None:
    playing = {entrant.strategy for entrant in protocol.entrants()}
    assert set(strategy_names()) - {"margin-equal"} <= playing
    for name in playing - {protocol.OURS_BY_SITE}:
        find_strategy(name)


def test_both_leagues_hold_the_product_and_no_rival_is_left_out() -> None:
    a, b = protocol.league_a(), protocol.league_b()
    assert protocol.OURS_BY_SITE in a
    assert protocol.OURS in b
    rivals = {n for n in strategy_names() if not n.startswith("perimeter")} - {"margin-equal"}
    assert rivals <= {*a, *b}


def test_the_whole_system_is_what_an_operator_gets_who_asks_for_learned_features() -> None:
    playing = {entrant.name: entrant for entrant in protocol.entrants()}
    for cell in protocol.cells():
        found = protocol.configuration(cell, Path("data"), playing[protocol.WHOLE_SYSTEM])
        data = {"path": found.data.path, "kind": cell.subject.kind, "features": "learned"}
        wanted = config_of({"data": data})
        assert (found.data, found.training) == (wanted.data, wanted.training)


def test_random_choice_learns_from_frozen_features_and_the_own_network_only_where_it_has_one() -> (
    None
):
    playing = {entrant.name: entrant for entrant in protocol.entrants()}
    text, image = (
        next(cell for cell in protocol.cells() if cell.subject.name == name)
        for name in ("banking77", "fashion_mnist")
    )
    plain = protocol.configuration(text, Path("data"), playing["random"])
    assert (plain.data.features, plain.data.width, plain.training.rounds) == ("frozen", 200, 40)
    native = [
        protocol.configuration(cell, Path("data"), playing["random-native"]).data.features
        for cell in (text, image)
    ]
    assert native == ["frozen", "native"]


def test_rivals_with_the_systems_training_differ_from_it_in_the_choice_alone() -> None:
    playing = {entrant.name: entrant for entrant in protocol.entrants()}
    system = playing[protocol.WHOLE_SYSTEM]
    for cell in protocol.cells():
        wanted = protocol.configuration(cell, Path("data"), system)
        for name in ("perimeter-steady", "margin-global-steady", "badge-global-steady"):
            found = protocol.configuration(cell, Path("data"), playing[name])
            assert (found.data, found.training) == (wanted.data, wanted.training)
            assert (found.budget.start, wanted.budget.start) == ("random", "policy")


def test_labels_are_read_off_where_a_curve_crosses_randoms_last_accuracy() -> None:
    found = figures.Results([line("random", 0, 0.5, 0.6, 0.7), line("good", 0, 0.5, 0.9, 0.9)])
    assert figures.label_ratio(found, "c", "good") == pytest.approx(0.5)
    assert figures.label_ratio(found, "c", "random") == pytest.approx(1.0)


def test_a_strategy_that_never_gets_there_costs_more_than_random() -> None:
    found = figures.Results([line("random", 0, 0.5, 0.6, 0.7), line("bad", 0, 0.5, 0.5, 0.6)])
    assert figures.label_ratio(found, "c", "bad") == pytest.approx(1.5)


def test_ranks_and_duels_use_only_runs_that_all_have_finished() -> None:
    lines = [line("perimeter", s, 0.5, 0.7, 0.9) for s in range(3)]
    lines += [line("random", s, 0.5, 0.6, 0.7) for s in range(2)]
    found = figures.Results(lines)
    ranked = figures.ranks(found, ["perimeter", "random"], figures.final("macro_f1"), ["c"])
    assert ranked == {"perimeter": 1.0, "random": 2.0}
    duel = figures.duel(found, ["c"], "perimeter", ["random"])
    assert duel is not None
    assert (duel["rival"], duel["pairs"]) == ("random", 2)
    assert duel["shift"] == pytest.approx(0.2)


def test_a_short_run_of_the_protocol_goes_on_where_it_was_and_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "CYCLES", 1)
    quick = {"rounds": 2, "local_epochs": 1}
    cell = next(cell for cell in protocol.cells(("digits",)) if cell.alpha == 0.1)
    jobs = [
        Job(
            cell,
            protocol.Entrant(name, name, protocol.Preparation(training=quick)),
            0,
            Path(),
            tmp_path,
        )
        for name in ("random", "perimeter", "perimeter-site")
    ]
    said: list[str] = []
    play_all(jobs[:1], tmp_path, said.append, processes=1)
    with (tmp_path / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"cut short')
    play_all(jobs, tmp_path, said.append, processes=1)
    assert [found["entrant"] for found in read_lines(tmp_path)] == [j.entrant.name for j in jobs]
    assert len(said) == 3
    text = write_tables(tmp_path)
    assert "| perimeter |" in text
    page = tmp_path / "page.md"
    page.write_text("before <!-- tables --> old <!-- end of tables --> after")
    fill_in(page, text)
    assert "old" not in page.read_text()
    assert "| perimeter |" in page.read_text()
    summary = json.loads((tmp_path / "results.json").read_text())["summary"][cell.name]
    assert summary["perimeter"]["pooled_ratio"] > 0
    assert all(len(found["curve"]) == 2 for found in read_lines(tmp_path))


def test_federated_and_pooled_training_learn_from_the_same_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = protocol.Preparation("learned", {"rounds": 6, "local_steps_max": 6}, 32)
    entrant = protocol.Entrant(protocol.WHOLE_SYSTEM, "perimeter", quick, start="policy")
    monkeypatch.setattr(protocol, "entrants", lambda: [entrant])
    cell = next(iter(pooled.cells(("digits",))))
    apart, together = pooled.measure(cell, 0, tmp_path, tmp_path)
    assert apart > 0.8
    assert together > 0.8
    assert pooled.main(["--features", str(tmp_path), "--sets", "digits", "--seeds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"| {cell.name} | 0 | {100 * apart:.1f} | {100 * together:.1f} |")
    own = {(c.subject.name, c.alpha) for c in pooled.cells(("medquad",))}
    assert own == {("medquad", 0.1), ("medquad", 0.0)}
