"""The parts of the demo that need no service: data, knowledge, processes, files, report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import psutil
import pytest

from simulations.demo.config_files import toml_text
from simulations.demo.digits import digits_campaign
from simulations.demo.errors import ProcessEnded, TableInvalid, WorkFolderTaken
from simulations.demo.materialise import import_row, png_bytes
from simulations.demo.run import MARK, claim_folder
from simulations.demo.samples import SourceSample
from simulations.demo.supervisor import ProcessSpec, Supervisor, run_command
from simulations.demo.table import table_campaign
from simulations.demo.tickets import marker_strings, tickets_campaign
from simulations.demo.truth import read_truth, write_truth
from simulations.demo.watch import search_markers

SITES = ("alder", "birch", "cedar")


def test_the_digits_are_spread_unevenly_and_none_is_lost() -> None:
    campaign = digits_campaign(SITES, seed=1)
    assert len(campaign.samples) == 1797
    assert len({sample.key for sample in campaign.samples}) == 1797
    counts = np.array([list(campaign.class_counts(site).values()) for site in SITES])
    assert counts.sum() == sum(sample.split == "train" for sample in campaign.samples)
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert np.abs(shares[0] - shares[1]).max() > 0.1


def test_every_site_holds_out_samples_of_its_own() -> None:
    campaign = tickets_campaign(SITES, seed=2, count=300)
    for site in SITES:
        assert campaign.held_by(site)
        for device in ("device-1", "device-2"):
            assert campaign.held_by(site, device)


def test_tickets_are_the_same_for_the_same_seed_and_hold_the_markers() -> None:
    markers = marker_strings(20, rng=np.random.default_rng(0))
    one = tickets_campaign(SITES, seed=5, count=120, markers=markers)
    other = tickets_campaign(SITES, seed=5, count=120, markers=markers)
    assert [s.content for s in one.samples] == [s.content for s in other.samples]
    pool = " ".join(str(s.content) for s in one.samples if s.device)
    assert all(marker in pool for marker in markers)


def test_an_expert_knows_a_masked_text_and_an_image_again(tmp_path: Path) -> None:
    rows = [
        SourceSample("a", "Hello, Ada Byron wants her money back, call 0301234567", "refund", "s"),
        SourceSample("b", "Hello, Bo Li wants a new card, call 0409876543", "card", "s"),
        SourceSample("c", np.eye(8, dtype=np.uint8) * 255, "one", "s"),
    ]
    write_truth(tmp_path / "truth.jsonl", rows)
    truth = read_truth(tmp_path / "truth.jsonl")
    masked = "Hello, <PERSON_1> wants her money back, call <PHONE_NUMBER_1>"
    assert truth.class_of_text(masked) == "refund"
    assert truth.class_of_text("Something that nobody wrote") is None
    assert truth.class_of_image(png_bytes(np.eye(8, dtype=np.uint8) * 255)) == "one"
    assert truth.class_of_image(png_bytes(np.zeros((8, 8), np.uint8))) is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"text,kind\nhello,x\n", "no column 'label'"),
        ("t.jsonl", b'{"label": "a"}\n', "no column 'text'"),
        ("t.csv", "text,label\nf\xfcr,x\n".encode("latin-1"), "not UTF-8"),
        ("t.parquet", b"PAR1 but not really", "cannot be read"),
        ("t.xlsx", b"x", "tables end in"),
        ("t.csv", b"text,label\n", "holds no row"),
        ("t.csv", b"text,label\na,x\nb,x\n", "1 class"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_with_the_remedy(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TableInvalid, match=words):
        table_campaign(path, SITES, seed=0)


def test_a_table_without_sites_is_spread_and_held_out_by_class(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(200)]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    campaign = table_campaign(path, SITES, seed=0)
    assert campaign.name == "mine"
    assert len(campaign.samples) == 200
    held_out = [sample for sample in campaign.samples if sample.split == "test"]
    assert 20 <= len(held_out) <= 60


def test_natural_sites_of_a_table_are_kept(real_data: Path) -> None:
    campaign = table_campaign(real_data / "medquad_qtype.parquet", SITES, seed=0, pool_max=1500)
    assert len(campaign.sites) == 9
    assert sum(bool(sample.device) for sample in campaign.samples) == 1500
    assert any("drawn by chance" in note for note in campaign.notes)


def test_configuration_files_read_back_as_they_were_meant() -> None:
    values = {
        "name": 'a "quoted" \\ name',
        "sites": ["a", "b"],
        "ratio": 0.5,
        "on": True,
        "training": {"rounds": 3},
        "sources": [{"path": "/x"}, {"path": "/ü"}],
    }
    assert tomllib.loads(toml_text(values)) == values


def test_an_image_is_imported_as_a_data_uri() -> None:
    row = import_row(SourceSample("k", np.zeros((2, 2), np.uint8), "0", "s"))
    assert row["image"].startswith("data:image/png;base64,")


def test_only_a_folder_that_a_demo_made_is_emptied(tmp_path: Path) -> None:
    own = tmp_path / "own"
    claim_folder(own)
    (own / "old").write_text("x")
    claim_folder(own)
    assert [path.name for path in own.iterdir()] == [MARK]
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("years of work")
    with pytest.raises(WorkFolderTaken, match="choose another folder"):
        claim_folder(foreign)
    assert (foreign / "chapter.tex").exists()


def test_the_marker_search_finds_a_marker_in_any_file(tmp_path: Path) -> None:
    markers = marker_strings(3, rng=np.random.default_rng(1))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "blob.bin").write_bytes(b"\0\1" + markers[1].lower().encode() + b"\xff")
    outcome = search_markers(tmp_path, markers)
    assert (outcome.planted, outcome.found, outcome.files_searched) == (3, 1, 1)


def sleeper(tmp_path: Path, name: str = "sleeper") -> ProcessSpec:
    script = "import subprocess; subprocess.run(['sleep', '60'])"
    return ProcessSpec(name, (sys.executable, "-c", script), tmp_path / f"{name}.log")


def wait_for_child(pid: int) -> psutil.Process:
    for _ in range(1200):
        children = psutil.Process(pid).children()
        if children:
            return children[0]
        time.sleep(0.05)
    raise AssertionError("the process started no child")


def test_a_stopped_process_takes_its_children_with_it(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        child = wait_for_child(supervisor.start(sleeper(tmp_path)))
        supervisor.kill("sleeper")
        assert not supervisor.alive("sleeper")
        supervisor.restart("sleeper")
        assert supervisor.alive("sleeper")
        assert supervisor.restart_counts == {"sleeper": 1}
    child.wait(timeout=60)
    assert supervisor.names == ()


def test_processes_end_even_when_their_owner_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from simulations.demo.supervisor import ProcessSpec, Supervisor\n"
        "with Supervisor() as s:\n"
        "    spec = ProcessSpec('x', ('sleep', '60'), Path(sys.argv[1]) / 'x.log')\n"
        "    print(s.start(spec), flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    for _ in range(1200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the process outlived its owner")


def test_a_process_that_ends_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        spec = ProcessSpec(
            "bad", (sys.executable, "-c", "raise SystemExit('no disk')"), tmp_path / "l"
        )
        supervisor.start(spec)
        for _ in range(1200):
            if not supervisor.alive("bad"):
                break
            time.sleep(0.05)
        with pytest.raises(ProcessEnded, match="no disk"):
            supervisor.check()


def test_a_set_up_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    from simulations.demo.errors import CommandFailed

    with pytest.raises(CommandFailed, match="wrong token"):
        run_command((sys.executable, "-c", "raise SystemExit('wrong token')"), log=tmp_path / "log")


def test_a_picture_of_many_classes_says_how_many_it_leaves_out() -> None:
    from simulations.demo.charts import class_mix_svg

    counts = {f"class-{number:02d}": number + 1 for number in range(77)}
    report = {"sites": {f"s{n}": {"class_counts": {"mine": counts}} for n in range(12)}}
    picture = class_mix_svg(report, "mine")
    assert "the largest 10 of 77 classes" in picture
    assert "class-76" in picture
    assert "class-00" not in picture
    assert ">s11<" in picture, "a twelfth site is drawn although its colour comes again"
