"""The trainer behind its socket, reading a real label store."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from federation import dataset, frames, messages
from federation.dataset import SiteData, decode, from_samples
from federation.errors import DatasetInvalid, FrameInvalid, TrainerUnavailable
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, initial_arrays
from federation.trainer_desk import TrainerDesk
from federation.trainer_service import store_stamp
from federation.trainer_socket import ask, ask_patiently
from model_bundle.features import FeatureSpec
from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Kind, MaskView, NewItem
from review_portal.label_store import ImportedItem, LabelStore, UnlabeledItem
from review_portal.store.campaigns import NewCampaign, settings_of
from review_portal.store.items import Intake

pytestmark = pytest.mark.federation
CAMPAIGN = bytes(range(16))
FEATURES = FeatureSpec("text", buckets=256)
SPEC = NetworkSpec("text", FEATURES, 2, embedding_width=4, hidden_width=4, token_width=4)


def fill(folder: Path, texts: Sequence[tuple[str, str | None, str]], *, first: int = 0) -> None:
    """Puts (text, answer or None, split) into a label store."""
    with LabelStore.open(folder) as store:
        schema = LabelSchema(("calm", "urgent"))
        store.put_campaign(NewCampaign(CAMPAIGN, "mail", Kind("text"), schema), 1.0)
        settings = store.database.read(lambda c: settings_of(c, CAMPAIGN))
        intake = Intake(store.campaign("mail"), settings, store.keys, 1.0)
        mask = MaskView("none", "none", verified=False)
        new = [
            ImportedItem(
                NewItem(
                    (first + i).to_bytes(16, "big"),
                    CAMPAIGN,
                    Kind("text"),
                    text.encode(),
                    mask,
                    split=split,
                ),
                answer,
            )
            for i, (text, answer, split) in enumerate(texts)
        ]
        assert store.import_items(intake, new) == len(texts)


MAIL = [("all is well", "0", "train"), ("come now", "1", "train"), ("hurry", "1", "test")]
WAITING = [(f"nobody answered {n}", None, "train") for n in range(4)]
FROM_POOL = LocalSettings(unlabelled_weight=1.0, input_noise=0.3, cohesion_floor=-1.0)


def command(
    kind: str = messages.TRAIN,
    *,
    run_key: str = "run-1",
    local: LocalSettings | None = None,
    teacher: Arrays | None = None,
) -> bytes:
    arrays = initial_arrays(SPEC, seed=1)
    book = np.ones((2, 4), np.float32) / 2
    told = local or LocalSettings()
    made = messages.Command(
        kind, CAMPAIGN.hex(), run_key, SPEC, told, 7, arrays, book, teacher or {}
    )
    return frames.encode(messages.command_frame(made))


def example_count(raw: bytes) -> int:
    return messages.read_update(frames.decode(raw), SPEC, 2).example_count


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    fill(tmp_path / "labels", [*MAIL, *WAITING])
    config = tmp_path / "trainer.toml"
    config.write_text('label_store = "labels"\nsocket = "t.sock"\ndevice = "cpu"\n')
    process = subprocess.Popen([sys.executable, "-m", "federation", "trainer", str(config)])
    path = tmp_path / "t.sock"
    end = time.monotonic() + 60
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    yield process, path
    process.terminate()
    process.wait(timeout=60)


def test_a_trainer_answers_its_own_user_only_and_ends_cleanly(
    trainer: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, path = trainer
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert example_count(ask(path, command())) == 2
    report = messages.read_report(frames.decode(ask(path, command(messages.ASSESS))), SPEC, 2)
    assert report.table[2].tolist() == [0, 1]
    refused = frames.decode(ask(path, frames.encode(frames.Frame("shutdown"))))
    assert refused.kind == messages.REFUSED
    with pytest.raises(TrainerUnavailable):
        ask(path, b"no frame at all, but long enough for a prefix", timeout_seconds=0.5)
    assert example_count(ask(path, command())) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert not path.exists()


def test_a_trainer_process_learns_from_items_that_wait_and_counts_only_labels(
    trainer: tuple[subprocess.Popen[bytes], Path],
) -> None:
    _, path = trainer
    found = []
    for weight, seed in ((0.0, 1), (1.0, 1), (1.0, 2)):
        local = replace(FROM_POOL, unlabelled_weight=weight)
        sure = {n: 8 * a for n, a in initial_arrays(SPEC, seed=seed).items()}
        raw = ask(path, command(local=local, teacher=sure))
        found.append(messages.read_update(frames.decode(raw), SPEC, 2))
    assert [update.example_count for update in found] == [2, 2, 2]
    alone, taught, otherwise = (update.arrays["head.weight"] for update in found)
    assert (alone != taught).any()
    assert (taught != otherwise).any()


def test_new_labels_are_seen_by_the_next_run_and_not_in_mid_run(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    fill(folder, MAIL)
    loads = []

    def load(campaign_id: bytes, spec: NetworkSpec) -> SiteData:
        loads.append(campaign_id)
        return dataset.load(folder, campaign_id, spec.features, dataset.Wanted(spec.class_count))

    desk = TrainerDesk(load, lambda: store_stamp(folder))
    assert example_count(desk.handle(command())) == 2
    assert example_count(desk.handle(command(run_key="run-2"))) == 2
    assert len(loads) == 1
    fill(folder, [("one more", "0", "train")], first=100)
    assert example_count(desk.handle(command(run_key="run-2"))) == 2
    assert example_count(desk.handle(command(run_key="run-3"))) == 3


def test_items_without_a_label_teach_as_far_as_the_site_allows(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    fill(folder, [*MAIL, *WAITING, ("for the test", None, "test")])
    found = dataset.load(folder, CAMPAIGN, FEATURES, dataset.Wanted(2, unlabelled_max=100))
    assert (len(found.train), len(found.test), len(found.unlabelled)) == (2, 1, 4)
    assert set(found.unlabelled.classes.tolist()) == {dataset.UNKNOWN_CLASS}
    fewer = dataset.load(folder, CAMPAIGN, FEATURES, dataset.Wanted(2, unlabelled_max=3))
    assert len(fewer.unlabelled) == 3
    assert len(dataset.load(folder, CAMPAIGN, FEATURES, dataset.Wanted(2)).unlabelled) == 0


def test_a_sample_without_a_label_that_cannot_be_read_is_left_out() -> None:
    stored = [
        UnlabeledItem(bytes(16), "text", b"fine"),
        UnlabeledItem(bytes(16), "text", b"\xff\xfe not text"),
        UnlabeledItem(bytes(16), "image", b"of another kind"),
    ]
    assert len(dataset.to_unlabelled(stored, FEATURES)) == 1


def test_a_failure_at_the_site_tells_the_centre_its_kind_only() -> None:
    def load(campaign_id: bytes, spec: NetworkSpec) -> SiteData:
        raise DatasetInvalid("item 17 says: Ada Lovelace is ill")

    def broken(campaign_id: bytes, spec: NetworkSpec) -> SiteData:
        raise ZeroDivisionError("Ada Lovelace")

    for loader, kind in ((load, "DatasetInvalid"), (broken, "ZeroDivisionError")):
        raw = TrainerDesk(loader, lambda: None).handle(command())
        assert b"Ada" not in raw
        assert frames.decode(raw).fields == {"reason": kind}


def test_updates_of_a_diverging_training_do_not_leave(tmp_path: Path) -> None:
    fill(tmp_path / "labels", MAIL)
    arrays = {n: a * np.float32(1e20) for n, a in initial_arrays(SPEC, seed=1).items()}
    made = messages.Command(
        messages.TRAIN,
        CAMPAIGN.hex(),
        "run",
        SPEC,
        LocalSettings(optimizer="adam", learning_rate=10.0, local_epochs=20),
        7,
        arrays,
        np.zeros((0, 4), np.float32),
    )
    desk = TrainerDesk(
        lambda campaign, spec: dataset.load(
            tmp_path / "labels", campaign, spec.features, dataset.Wanted(2)
        ),
        lambda: None,
    )
    reply = frames.decode(desk.handle(frames.encode(messages.command_frame(made))))
    assert reply.kind == messages.REFUSED


def test_a_caller_waits_for_a_trainer_that_restarts(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "late.sock"

    def serve() -> None:
        time.sleep(0.6)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fspath(path))
            listener.listen()
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(frames.encode(frames.Frame("update")))

    thread = threading.Thread(target=serve)
    thread.start()
    raw = ask_patiently(path, frames.encode(frames.Frame("train")), patience_seconds=20)
    thread.join()
    assert frames.decode(raw).kind == "update"
    with pytest.raises(TrainerUnavailable, match="perimeter-federation trainer"):
        ask_patiently(tmp_path / "none.sock", b"", patience_seconds=0)


def test_the_client_app_loads_neither_torch_nor_the_trainer() -> None:
    code = (
        "import sys, json, federation.client_app; "
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'onnx', 'onnxruntime', 'review_portal', 'sqlalchemy') "
        "or m in ('federation.training', 'federation.dataset')]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(ended.stdout) == []


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def test_every_kind_comes_back_as_it_went_in() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    window = np.ones((5, 2), np.float32)
    assert (decode("image", png(gray)) == gray).all()
    assert (decode("image", png(colour)) == colour).all()
    assert (decode("series", npy(window)) == window).all()
    assert decode("record", b'{"age":3}') == {"age": 3}
    assert decode("text", "grüezi".encode()) == "grüezi"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text", b"\xff\xfe broken"),
        ("image", png(np.zeros((4, 4), np.uint8))[:30]),
        ("image", b"GIF89a"),
        ("series", npy(np.zeros((2, 2), np.float32))[:40]),
        ("series", b"\x80\x04pickle"),
        ("record", b"[1]"),
        ("record", b"{"),
        ("video", b""),
    ],
)
def test_content_that_cannot_be_read_says_which_kind(kind: str, content: bytes) -> None:
    with pytest.raises(DatasetInvalid, match=kind):
        decode(kind, content)


def test_pickled_arrays_are_never_loaded() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetInvalid):
        decode("series", stream.getvalue())


def test_a_bad_example_is_named_by_its_item(tmp_path: Path) -> None:
    fill(tmp_path / "labels", MAIL)
    with pytest.raises(DatasetInvalid, match="takes image"):
        dataset.load(tmp_path / "labels", CAMPAIGN, FeatureSpec("image"), dataset.Wanted(2))
    with pytest.raises(DatasetInvalid, match=r"item 0{31}1 is text of class 1"):
        dataset.load(tmp_path / "labels", CAMPAIGN, FEATURES, dataset.Wanted(1))


def test_a_sample_that_does_not_fit_the_features_is_refused() -> None:
    window = np.zeros((5, 2), np.float32)
    with pytest.raises(DatasetInvalid, match="model input"):
        from_samples([window], [0], FeatureSpec("series", steps=4, channels=2))


def test_a_frame_that_ends_early_is_no_frame(tmp_path: Path) -> None:
    import socket

    from federation.trainer_socket import receive

    left, right = socket.socketpair()
    with left, right:
        left.sendall(command()[:50])
        left.shutdown(socket.SHUT_WR)
        with pytest.raises(FrameInvalid, match="closed"):
            receive(right)
