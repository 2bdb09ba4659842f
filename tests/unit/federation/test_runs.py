"""Whole runs in one process: real messages, trainers and digits, and sites that misbehave."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.inference import Predictor
from federation import central, checkpoint, frames, messages, run_files
from federation.client_app import Handle
from federation.dataset import Examples, SiteData
from federation.errors import CheckpointInvalid, ExportFailed, QuorumMissed, RequestInvalid
from federation.flower_transport import FlowerTransport
from federation.in_process import desk_for, simulate, transport_for
from federation.publish import check_parity, publish, publish_untrained
from federation.requests import TrainingRequest
from federation.statistics import nearest_cells
from federation.training import SiteTrainer
from model_bundle.manifest import Bundle, unpack
from model_bundle.signing import verify

pytestmark = pytest.mark.federation
MakeRequest = Callable[..., TrainingRequest]
QUICK = {"node_wait_seconds": 0, "local_epochs": 1, "batch_size": 32, "cell_count": 8}
Sites = Mapping[str, SiteData]


def facts_of(request: TrainingRequest, number: int) -> dict[str, Any]:
    path = checkpoint.round_folder(request.folder, number) / "round.json"
    return dict(json.loads(path.read_text())["facts"])


def handles(digits: Sites) -> dict[str, Handle]:
    return {site: desk_for(data).handle for site, data in digits.items()}


def train(request: TrainingRequest, sites: Mapping[str, Handle]) -> None:
    central.train_run(request, transport_for(sites), pause=lambda _: None)


def final_bytes(request: TrainingRequest) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in central.final_arrays(request).items()}


def replace_update(handle: Handle, change: Callable[[frames.Frame], frames.Frame]) -> Handle:
    """A site that changes its trainer's reply before it leaves."""

    def changed(raw: bytes) -> bytes:
        frame = frames.decode(handle(raw))
        return frames.encode(change(frame) if frame.kind == messages.UPDATE else frame)

    return changed


def scaled(factor: float) -> Callable[[frames.Frame], frames.Frame]:
    def change(frame: frames.Frame) -> frames.Frame:
        arrays = {
            name: (array * np.float32(factor)) if name.startswith("parameter/") else array
            for name, array in frame.arrays.items()
        }
        return dataclasses.replace(frame, arrays=arrays)

    return change


def test_non_iid_digits_are_learned_and_signed(
    digits: Sites, make_request: MakeRequest, release_key: Ed25519PrivateKey
) -> None:
    request = make_request(network={}, settings={"rounds": 10, "node_wait_seconds": 0})
    simulate(request, digits)
    publish(request)
    evaluation = json.loads((request.folder / "evaluation.json").read_text())
    assert evaluation["accuracy"] > 0.9
    assert evaluation["macro_f1"] > 0.89
    assert evaluation["example_count"] == 450
    assert sum(c["example_count"] for c in evaluation["per_class"]) == 450
    assert set(evaluation["per_site"]) == set(digits)
    assert run_files.read_state(request.folder)["state"] == "candidate"
    bundle = unpack((request.folder / "bundle").read_bytes())
    assert not Predictor(bundle).is_untrained
    verify(bundle, [release_key.public_key().public_bytes_raw()])
    manifest = bundle.manifest
    assert (manifest.version, manifest.parent_version, manifest.cell_count) == (2, 1, 64)
    assert manifest.temperature > 0
    assert 0 <= manifest.calibration_error < 0.2
    for site, figures in evaluation["per_site"].items():
        assert manifest.temperature_at(site) == figures["temperature"]
        assert -1 <= figures["calibration_error"] < 0.5
    assert evaluation["calibration_error"] == manifest.calibration_error
    assert_prototypes_and_cells_describe_the_data(request, digits, bundle)


def assert_prototypes_and_cells_describe_the_data(
    request: TrainingRequest, digits: Sites, bundle: Bundle
) -> None:
    prototypes = np.frombuffer(bundle.parts["prototypes.f32"], "<f4").reshape(10, -1)
    code_book = np.frombuffer(bundle.parts["code_book.f32"], "<f4").reshape(64, -1)
    assert np.linalg.norm(prototypes, axis=1) == pytest.approx(1.0, abs=1e-5)
    arrays = central.final_arrays(request)
    right, cells = [], set()
    for data in digits.values():
        trainer = SiteTrainer(data, request.network, device="cpu")
        _, embedding = trainer.predict(arrays, data.test)
        nearest = (embedding @ prototypes.T).argmax(axis=1)
        right.append((nearest == data.test.classes).mean())
        cells |= set(nearest_cells(embedding, code_book).tolist())
    assert np.mean(right) > 0.85
    assert len(cells) >= 8


def test_the_first_version_is_seeded_and_untrained(
    make_request: MakeRequest, release_key: Ed25519PrivateKey
) -> None:
    bundles = []
    for folder in ("one", "two"):
        request = make_request(folder, run=0, version=1, parent_version=0)
        publish_untrained(request)
        bundles.append(unpack((request.folder / "bundle").read_bytes()))
    verify(bundles[0], [release_key.public_key().public_bytes_raw()])
    assert bundles[0].parts == bundles[1].parts
    assert not any(bundles[0].parts["prototypes.f32"])
    assert Predictor(bundles[0]).is_untrained
    assert bundles[0].manifest.temperature == 1.0
    book = np.frombuffer(bundles[0].parts["code_book.f32"], "<f4").reshape(8, -1)
    assert np.linalg.norm(book, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_a_run_starts_from_its_parent(
    digits: Sites, make_request: MakeRequest, release_key: Ed25519PrivateKey
) -> None:
    parent = make_request("parent", settings={**QUICK, "rounds": 2})
    simulate(parent, digits)
    publish(parent)
    child = make_request("child", parent_bundle="../parent/bundle", version=3, run=2)
    simulate(child, digits)
    evaluation = json.loads((parent.folder / "evaluation.json").read_text())
    assert facts_of(child, 1)["accuracy_before"] == pytest.approx(evaluation["accuracy"])


def test_a_resumed_run_equals_the_uninterrupted_one(
    digits: Sites, make_request: MakeRequest
) -> None:
    whole, broken = make_request("whole"), make_request("broken")
    train(whole, handles(digits))
    calls = 0

    def dying(raw: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        return desk.handle(raw)

    desk = desk_for(digits["north"])
    with pytest.raises(KeyboardInterrupt):
        train(broken, handles(digits) | {"north": dying})
    assert not (broken.folder / "round-00003").exists()
    train(broken, handles(digits))
    assert final_bytes(broken) == final_bytes(whole)
    one, two = (central.load_assessment(r.folder, r.digest()) for r in (whole, broken))
    assert one.code_book.tobytes() == two.code_book.tobytes()
    assert one.evaluation == two.evaluation


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "other request"])
def test_a_damaged_round_is_trained_again(
    digits: Sites, make_request: MakeRequest, damage: str
) -> None:
    request = make_request()
    train(request, handles(digits))
    expected = final_bytes(request)
    path = checkpoint.round_folder(request.folder, 3) / checkpoint.ARRAYS_NAME
    raw = bytearray(path.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
        path.write_bytes(bytes(raw))
    elif damage == "cut":
        path.write_bytes(bytes(raw[:100]))
    elif damage == "gone":
        path.unlink()
    else:
        facts = path.with_name("round.json")
        facts.write_text(facts.read_text().replace(request.digest(), "0" * 64))
    with pytest.raises(CheckpointInvalid, match="only 2 valid rounds"):
        central.final_arrays(request)
    train(request, handles(digits))
    assert final_bytes(request) == expected


@pytest.mark.parametrize("lie", ["nan", "huge", "odd key", "no frame", "raises", "wrong shape"])
def test_one_bad_site_neither_ends_nor_spoils_a_run(
    digits: Sites, make_request: MakeRequest, lie: str
) -> None:
    request = make_request(settings={**QUICK, "rounds": 5})
    honest = desk_for(digits["east"]).handle

    def raising(raw: bytes) -> bytes:
        raise ValueError("out of memory")

    def odd(frame: frames.Frame) -> frames.Frame:
        return dataclasses.replace(frame, fields={**frame.fields, "accuracy": 1.0})

    def reshaped(frame: frames.Frame) -> frames.Frame:
        arrays = {**frame.arrays, "parameter/head.bias": np.zeros(11, np.float32)}
        return dataclasses.replace(frame, arrays=arrays)

    bad: dict[str, Handle] = {
        "nan": replace_update(honest, scaled(np.nan)),
        "huge": replace_update(honest, scaled(1e3)),
        "odd key": replace_update(honest, odd),
        "no frame": lambda raw: b"\x80\x04pickle",
        "raises": raising,
        "wrong shape": replace_update(honest, reshaped),
    }
    train(request, handles(digits) | {"east": bad[lie]})
    for number in range(1, 6):
        facts = facts_of(request, number)
        assert set(facts["sites"]) == {"north", "south"}
        assert "east" in facts["refused"] | facts["silent"]
    found = central.load_assessment(request.folder, request.digest())
    assert 0 <= found.evaluation["accuracy"] <= 1
    assert all(np.isfinite(array).all() for array in central.final_arrays(request).values())


def test_a_site_cannot_weigh_more_than_its_known_labels(
    digits: Sites, make_request: MakeRequest
) -> None:
    def boast(frame: frames.Frame) -> frames.Frame:
        return dataclasses.replace(frame, fields={**frame.fields, "example_count": 10**6})

    request = make_request(label_counts={"east": 20, "north": 90, "south": 90})
    liar = replace_update(desk_for(digits["east"]).handle, boast)
    train(request, handles(digits) | {"east": liar})
    assert facts_of(request, 1)["sites"]["east"]["examples"] == 20


def test_a_round_without_a_quorum_keeps_what_is_done(
    digits: Sites, make_request: MakeRequest
) -> None:
    request = make_request()
    calls = 0

    def failing(raw: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise ValueError
        return desk_for(digits["north"]).handle(raw)

    with pytest.raises(QuorumMissed, match="round 3 had no quorum"):
        train(request, handles(digits) | {"north": failing, "south": failing})
    assert (request.folder / "round-00002").exists()
    state = run_files.read_state(request.folder)
    assert (state["state"], state["round"]) == ("training", 2)


def test_a_site_without_labels_does_not_count_for_the_quorum(
    digits: Sites, make_request: MakeRequest
) -> None:
    nothing = Examples({}, np.zeros(0, np.int64), np.zeros(0, bool))
    empty = SiteData(nothing, digits["east"].test)
    request = make_request()
    train(request, handles({**digits, "east": empty, "south": empty}))
    assert set(facts_of(request, 4)["sites"]) == {"north"}
    found = central.load_assessment(request.folder, request.digest())
    assert set(found.evaluation["per_site"]) == {"east", "north", "south"}


def test_silent_sites_are_named_when_a_round_closes(
    digits: Sites, make_request: MakeRequest
) -> None:
    transport = transport_for(handles(digits))
    seconds = iter(range(10_000))

    class Late(FlowerTransport):
        def _collect(self, waiting: Any, silent: Any, end: float) -> Any:
            first = next(iter(waiting))
            kept = waiting.pop(first)
            found = super()._collect(waiting, silent, end)
            waiting[first] = kept
            return found

    transport.__class__ = Late
    transport._clock = lambda: float(next(seconds))
    request = make_request(settings={**QUICK, "rounds": 1})
    central.train_run(request, transport, pause=lambda _: None)
    assert facts_of(request, 1)["silent"] == {"east": "no answer in time"}


def test_noise_needs_a_clip_and_changes_the_mean(digits: Sites, make_request: MakeRequest) -> None:
    with pytest.raises(RequestInvalid, match="update_clip_norm"):
        make_request(settings={"noise_multiplier": 1.0})
    quiet = {**QUICK, "rounds": 2, "update_clip_norm": 0.5, "rule": "fedavg"}
    clipped, noised = (
        make_request(name, settings=quiet | {"noise_multiplier": noise})
        for name, noise in (("clipped", 0.0), ("noised", 0.5))
    )
    for request in (clipped, noised):
        train(request, handles(digits))
    assert final_bytes(clipped) != final_bytes(noised)
    start = central.start_state(clipped).arrays
    after = checkpoint._load(clipped.folder, 1, "").arrays
    moved = np.sqrt(sum(np.square(after[n] - start[n]).sum() for n in start))
    assert moved <= 0.5 + 1e-5


def test_publishing_an_unfinished_run_is_refused(digits: Sites, make_request: MakeRequest) -> None:
    request = make_request()
    with pytest.raises(CheckpointInvalid, match="cannot be read"):
        publish(request)
    train(request, handles(digits))
    other = make_request(seed=4)
    with pytest.raises(CheckpointInvalid, match="another request"):
        publish(other)


def test_a_graph_that_computes_something_else_is_never_signed(make_request: MakeRequest) -> None:
    from federation import onnx_engine
    from federation.networks import initial_arrays

    spec = make_request().network
    arrays = initial_arrays(spec, seed=1)
    other = {**arrays, "head.bias": arrays["head.bias"] + np.float32(0.01)}
    with pytest.raises(ExportFailed, match="logits"):
        check_parity(spec, arrays, onnx_engine.build(spec, other))


@pytest.mark.parametrize("content", [None, b"no key", "rsa"])
def test_a_wrong_release_key_is_named(
    make_request: MakeRequest, tmp_path: Path, content: object
) -> None:
    request = make_request(run=0, version=1, release_key=str(tmp_path / "other.key"))
    if isinstance(content, bytes):
        (tmp_path / "other.key").write_bytes(content)
    elif content == "rsa":
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (tmp_path / "other.key").write_bytes(pem)
    with pytest.raises(RequestInvalid, match=r"other\.key"):
        publish_untrained(request)
    assert not (request.folder / "bundle").exists()
