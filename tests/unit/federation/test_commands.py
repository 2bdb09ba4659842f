"""Settings, requests, the train command, the supervisor and the other parts of the shell."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_control import FakeControl

from federation import central, run_files, train_command
from federation.app_bundle import app_files, build_app_bundle
from federation.children import ChildSpec, Family
from federation.dataset import SiteData
from federation.enrollment import read_token
from federation.errors import ControlFailed, EnrollmentFailed, RequestInvalid
from federation.file_watch import FileWatch
from federation.in_process import simulate
from federation.pacing import PacedTime
from federation.proxy import is_published
from federation.requests import TrainingRequest, TrainingSettings, read_request
from federation.round_loop import local_of
from federation.settings import (
    NodeSettings,
    ProxySettings,
    SuperlinkSettings,
    TrainerSettings,
    read_settings,
)
from federation.superlink import check_loopback
from federation.train_command import Pace

pytestmark = pytest.mark.federation
ROOT = Path(__file__).resolve().parents[3]
KINDS = {
    "trainer": TrainerSettings,
    "superlink": SuperlinkSettings,
    "proxy": ProxySettings,
    "node": NodeSettings,
}


@pytest.mark.parametrize("name", KINDS)
def test_the_example_file_of_each_process_names_every_key(name: str) -> None:
    path = ROOT / "docs" / "examples" / f"{name}.toml"
    settings = read_settings(KINDS[name], path, {})
    text = path.read_text()
    assert all(f"\n{key} = " in text for key in vars(settings))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('label_store = "a"\nsocket = "b"\ncolour = 1', "colour"),
        ('label_store = "a"', "socket"),
        ('label_store = "a"\nsocket = "b"\nthread_count = "many"', "thread_count"),
        ('label_store = 3\nsocket = "b"', "label_store"),
        ("label_store = ", "not TOML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "trainer.toml"
    path.write_text(text)
    with pytest.raises(RequestInvalid, match=named):
        read_settings(TrainerSettings, path, {})


def test_the_environment_wins_over_the_file_and_paths_start_at_it(tmp_path: Path) -> None:
    path = tmp_path / "trainer.toml"
    path.write_text('label_store = "labels"\nsocket = "/run/t.sock"\nthread_count = 1')
    found = read_settings(TrainerSettings, path, {"PERIMETER_TRAINER_THREAD_COUNT": "4"})
    assert (found.thread_count, found.label_store) == (4, tmp_path / "labels")
    with pytest.raises(RequestInvalid, match="cannot be read"):
        read_settings(TrainerSettings, tmp_path / "none.toml", {})


def test_a_superlink_that_others_could_reach_does_not_start() -> None:
    for address in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        check_loopback(address)
    for address in ("0.0.0.0:8000", "10.0.0.1:8000", "coordinator.example:8000", "8000"):
        with pytest.raises(RequestInvalid):
            check_loopback(address)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"campaign_id": "../x"}, "campaign_id"),
        ({"version": 0}, "version"),
        ({"seed": 1.5}, "seed"),
        ({"settings": {"rounds": 0}}, "rounds"),
        ({"settings": {"speed": 1}}, "speed"),
        ({"network": {"depth": 1}}, "depth"),
        ({"label_schema": {"classes": ["a"], "version": 1}}, "2 to"),
        ({"features": {"kind": "smell"}}, "smell"),
        ({"family": "text"}, "features of kind"),
        ({"label_counts": {"a": -1}}, "'a'"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    make_request: Callable[..., TrainingRequest], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(RequestInvalid, match=named):
        make_request(**changes)


def test_a_request_file_that_is_no_request_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    with pytest.raises(RequestInvalid, match="cannot be read"):
        read_request(path)
    path.write_text("{")
    with pytest.raises(RequestInvalid, match="not JSON"):
        read_request(path)
    path.write_text("[]")
    with pytest.raises(RequestInvalid, match="object"):
        read_request(path)


def test_the_step_size_falls_along_a_half_cosine(
    make_request: Callable[..., TrainingRequest],
) -> None:
    request = make_request(settings={"rounds": 5, "learning_rate": 0.2, "final_rate_ratio": 0.1})
    plan = central.plan_of(request)
    rates = [local_of(plan, done).learning_rate for done in range(5)]
    assert rates == pytest.approx([0.2, 0.1736, 0.11, 0.0464, 0.02], abs=1e-4)
    single = central.plan_of(make_request(settings={"rounds": 1, "learning_rate": 0.2}))
    assert local_of(single, 0).learning_rate == 0.2


def test_text_gets_the_optimiser_that_learns_rare_rows() -> None:
    assert TrainingSettings.from_mapping({}, "text").local.optimizer == "adam"
    assert TrainingSettings.from_mapping({}, "image").local.optimizer == "sgd"
    assert TrainingSettings.from_mapping({"optimizer": "sgd"}, "text").local.optimizer == "sgd"


@pytest.fixture
def order(
    make_request: Callable[..., TrainingRequest], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Path, FakeControl]]:
    def make(script: list[str], sites: dict[str, SiteData]) -> tuple[Path, FakeControl]:
        request = make_request(superlink="127.0.0.1:1")
        control = FakeControl(script, lambda: simulate(request, sites))
        monkeypatch.setattr(train_command, "read_request", lambda path: request)
        monkeypatch.setattr(train_command, "Control", lambda *_: control)
        request.folder.mkdir(parents=True)
        return request.folder / "request.json", control

    return make


def fast_pace() -> Pace:
    ticks = iter(range(10**9))
    return Pace(clock=lambda: float(next(ticks)), pause=lambda _: None)


def test_a_failed_run_is_submitted_again(order: Any, digits: dict[str, SiteData]) -> None:
    path, control = order(["fails", "completes"], digits)
    train_command.train(path, fast_pace())
    assert [run["attempt"] for run in control.runs] == [1, 2]
    assert run_files.read_state(path.parent)["state"] == "candidate"


def test_a_run_that_nobody_works_on_is_stopped_and_submitted_again(
    order: Any, digits: dict[str, SiteData]
) -> None:
    path, control = order(["hangs", "completes"], digits)
    train_command.train(path, fast_pace())
    assert control.stopped == [0]
    assert len(control.runs) == 2


def test_a_second_command_finds_the_first_ones_run(order: Any, digits: dict[str, SiteData]) -> None:
    path, control = order(["completes", "completes"], digits)
    request = train_command.read_request(path)
    key = f"{request.run_key}/{request.digest()[:16]}"
    control.start_run({"run-key": key, "attempt": 1})
    train_command.train(path, fast_pace())
    assert len(control.runs) == 1


def test_three_failures_are_told_to_the_coordinator(
    order: Any, digits: dict[str, SiteData]
) -> None:
    path, control = order(["fails"] * 5, digits)
    with pytest.raises(ControlFailed, match="3 times; heartbeat lost"):
        train_command.train(path, fast_pace())
    assert len(control.runs) == 3
    state = run_files.read_state(path.parent)
    assert state["state"] == "failed"
    assert "heartbeat lost" in state["error"]


def test_a_finished_run_is_published_again_without_training(
    order: Any, digits: dict[str, SiteData]
) -> None:
    path, control = order(["completes"], digits)
    train_command.train(path, fast_pace())
    first = (path.parent / "bundle").read_bytes()
    (path.parent / "bundle").unlink()
    train_command.train(path, fast_pace())
    assert (path.parent / "bundle").read_bytes() == first
    assert len(control.runs) == 1
    assert central.load_assessment(path.parent, train_command.read_request(path).digest())


def test_the_app_bundle_holds_this_package_and_nothing_else() -> None:
    content, digest = build_app_bundle()
    names = set(zipfile.ZipFile(io.BytesIO(content)).namelist())
    own = {p.relative_to(ROOT).as_posix() for p in (ROOT / "federation").rglob("*.py")}
    assert names == own | {"pyproject.toml", ".info/CONTENT"}
    assert len(content) < 1_000_000
    assert build_app_bundle() == (content, digest)
    assert set(app_files()) == own | {"pyproject.toml"}


def test_a_checkout_that_is_bundled_by_hand_holds_no_more() -> None:
    import tomllib

    app = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert app["fab-include"] == ["federation/**/*.py"]


@pytest.mark.parametrize(
    ("method", "path", "published"),
    [
        ("POST", "/v1/fleet/pull-messages", True),
        ("POST", "/v1/fleet/heartbeat", True),
        ("GET", "/v1/fleet/pull-messages", False),
        ("POST", "/v1/control/start-run", False),
        ("POST", "/v1/runtime/acquire-task", False),
        ("POST", "/v1/fleet/../control/start-run", False),
        ("POST", "/v1/fleet/%2e%2e/control/start-run", False),
        ("POST", "/v1/fleet/x/../../control/start-run", False),
        ("POST", "//v1/fleet/pull-messages", False),
        ("POST", "/v1/fleet/pull-messages/", False),
        ("POST", "/v1/fleet/pull-messages\n", False),
        ("POST", "/V1/FLEET/pull-messages", False),
        ("POST", "", False),
    ],
)
def test_only_fleet_calls_are_passed_on(method: str, path: str, published: bool) -> None:
    assert is_published(method, path) is published


def test_waits_are_short_after_work_and_long_when_idle() -> None:
    waits: list[float] = []
    now = [0.0]
    paced = PacedTime(
        busy_seconds=0.1,
        idle_seconds=2.0,
        calm_after_seconds=10.0,
        sleep=waits.append,
        clock=lambda: now[0],
    )
    paced.sleep(3)
    paced.note_work()
    paced.sleep(3)
    now[0] = 20.0
    paced.sleep(3)
    paced.sleep(0.5)
    paced.sleep(3)
    assert waits == [2.0, 0.1, 2.0, 0.1, 0.1]


def spec(tmp_path: Path, name: str, code: str) -> ChildSpec:
    return ChildSpec(name, [sys.executable, "-c", code], tmp_path, tmp_path / f"{name}.log")


def test_a_dead_child_comes_back_after_its_back_off(tmp_path: Path) -> None:
    now = [0.0]
    family = Family(lambda: now[0])
    family.start(spec(tmp_path, "worker", "import time; time.sleep(60)"))
    first = family.pid("worker")
    family._children["worker"].process.kill()
    family._children["worker"].process.wait()
    family.tend()
    family.tend()
    assert family.pid("worker") == first
    now[0] = 0.6
    family.tend()
    assert family.pid("worker") != first
    family.stop()


def test_stopping_leaves_no_child_not_even_a_stubborn_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation.children.STOP_SECONDS", 0.3)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); "
    code += "print('up', flush=True); time.sleep(60)"
    family = Family()
    family.start(spec(tmp_path, "stubborn", code))
    process = family._children["stubborn"].process
    end = time.monotonic() + 60
    while "up" not in (tmp_path / "stubborn.log").read_text() and time.monotonic() < end:
        time.sleep(0.02)
    family.stop()
    assert process.returncode == -9


def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from federation.children import *; "
        "family = Family(); home = Path(sys.argv[1]); "
        "wait = [sys.executable, '-c', 'import time; time.sleep(60)']; "
        "family.start(ChildSpec('c', wait, home, home / 'c.log')); "
        "print(family.pid('c'), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    end = time.monotonic() + 60
    while is_running(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path, torn = tmp_path / "state.json", []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                json.loads(path.read_bytes())
            except FileNotFoundError:
                pass
            except ValueError as error:
                torn.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        run_files.write_json(path, {"round": number, "text": "x" * 5000})
    stop.set()
    reader.join()
    assert torn == []
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    run_files.write_json(path, {"round": 1})
    with pytest.raises(ValueError, match="JSON"):
        run_files.write_json(path, {"round": float("nan")})
    assert json.loads(path.read_text()) == {"round": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_replaced_file_is_noticed_once(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("one")
    watch = FileWatch(path)
    assert not watch.changed()
    path.unlink()
    assert not watch.changed()
    path.write_text("two")
    assert watch.changed()
    assert not watch.changed()


def token(**changes: Any) -> str:
    values = {
        "enroll": "127.0.0.1:1",
        "coordinator": "127.0.0.1:2",
        "authority": base64.b64encode(b"der").decode(),
        "secret": base64.b64encode(bytes(32)).decode(),
        "site": "north",
        "role": "node",
        "name": "node-1",
    }
    raw = json.dumps({k: v for k, v in (values | changes).items() if v is not None})
    return "pmt1." + base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def test_a_join_token_says_where_and_as_what() -> None:
    found = read_token(token())
    assert (found.site_id, found.name, found.enroll) == ("north", "node-1", "127.0.0.1:1")


@pytest.mark.parametrize(
    "bad", ["", "pmt1.", "pmt1.%%%", token()[:-20], token(role="agent"), token(site=None)]
)
def test_a_token_that_is_cut_or_for_another_role_is_refused(bad: str) -> None:
    with pytest.raises(EnrollmentFailed):
        read_token(bad)


def test_a_token_may_come_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import federation.enrollment
    from federation.__main__ import main

    given: list[str] = []
    monkeypatch.setattr(sys, "stdin", io.StringIO(token() + "\n"))
    monkeypatch.setattr(sys, "argv", ["x", "node", "enroll", "--identity", str(tmp_path), "-"])
    monkeypatch.setattr(
        federation.enrollment, "enroll", lambda text, _: given.append(text) or "north/node-1"
    )
    assert main() == 0
    assert given == [token()]
    assert "north/node-1" in capsys.readouterr().out


def test_help_is_quick_and_errors_are_sentences(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "federation"]
    code = (
        "import sys, federation.__main__; sys.exit('torch' in sys.modules or 'flwr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    ended = subprocess.run(
        [*command, "trainer", str(tmp_path / "none.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("perimeter-federation: settings file")
    assert "Traceback" not in ended.stderr
