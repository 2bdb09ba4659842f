"""Only a whole, signed, fitting, newer model that survives a trial run is ever installed."""

from __future__ import annotations

import doctest

import numpy as np
import onnx
import pytest
from agent_models import IMAGE, SCHEMA, SERIES, TEXT, bundle, onnx_model, signed_bundle
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper
from perimeter.v1 import model_pb2

from edge_agent import onnx_scan, warm_up
from edge_agent.inference import Predictor
from edge_agent.installer import Announcement, Installer
from edge_agent.onnx_scan import ModelUnsafe, check_model
from edge_agent.queue.stores import open_stores
from model_bundle.label_schema import LabelSchema

CAMPAIGN = b"c" * 16
KEY = Ed25519PrivateKey.generate()


def test_the_examples_in_the_docstrings_hold():
    results = [doctest.testmod(module) for module in (onnx_scan, warm_up)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 2


# -- what a model may hold ----------------------------------------------------------------------


def reference(location: str) -> onnx.ModelProto:
    """A model whose weights lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return _model([helper.make_node("Identity", ["w"], ["logits"])], [tensor])


def _model(nodes, constants=(), **options) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        list(constants),
    )
    return helper.make_model(graph, ir_version=9, **options)


def in_a_branch() -> onnx.ModelProto:
    inner = reference("agent.key").graph
    condition = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("If", ["yes"], ["logits"], then_branch=inner, else_branch=inner)
    return _model([node], [condition])


def in_a_constant() -> onnx.ModelProto:
    tensor = reference("agent.key").graph.initializer[0]
    return _model([helper.make_node("Constant", [], ["logits"], value=tensor)])


def foreign_domain() -> onnx.ModelProto:
    node = helper.make_node("Steal", [], ["logits"], domain="com.evil")
    return _model([node])


def foreign_opset() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return _model([], opset_imports=opsets)


def with_function() -> onnx.ModelProto:
    model = _model([])
    model.functions.add(name="f", domain="")
    return model


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: reference("agent.key"), "another file"),
        (in_a_branch, "another file"),
        (in_a_constant, "another file"),
        (foreign_domain, "foreign domain"),
        (foreign_opset, "foreign domain"),
        (with_function, "functions"),
    ],
)
def test_a_model_that_reaches_beyond_its_file_is_refused_unloaded(build, words):
    with pytest.raises(ModelUnsafe, match=words):
        check_model(build().SerializeToString())


@pytest.mark.parametrize(
    "raw", [b"", b"\x80", b"PK\x03\x04", b"\x3a\xff\xff\xff\xff\x0f", bytes(99)]
)
def test_what_is_no_model_is_refused(raw):
    with pytest.raises(ModelUnsafe, match="not an ONNX model"):
        check_model(raw)


def test_a_cut_model_never_passes_as_whole():
    whole = onnx_model(TEXT, 1)
    check_model(whole)
    for length in range(0, len(whole) - 1, 97):
        with pytest.raises(ModelUnsafe):
            Predictor(bundle(CAMPAIGN, 1, model=whole[:length] or b"x"))


def test_deep_nesting_is_refused():
    model = _model([])
    for _ in range(20):
        outer = helper.make_node("If", ["c"], ["logits"], then_branch=model.graph)
        model = _model([outer])
    with pytest.raises(ModelUnsafe, match="nested"):
        check_model(model.SerializeToString())


# -- running ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "samples"),
    [
        (TEXT, ["a refund please", "x" * 30_000, ""]),
        (IMAGE, [np.zeros((8, 8), np.uint8), np.ones((20, 9, 3), np.uint8)]),
        (SERIES, [np.ones((10, 2), np.float32)]),
    ],
)
def test_each_kind_of_sample_runs(features, samples):
    predictor = Predictor(bundle(CAMPAIGN, 1, features=features))
    outputs = predictor.predict(samples)
    assert outputs.logits.shape == (len(samples), 3)
    assert np.allclose(np.linalg.norm(outputs.embedding, axis=1), 1, atol=1e-5)


def test_a_second_head_is_read_where_the_model_has_one():
    texts = [f"word{n} and another" for n in range(40)]
    plain = Predictor(bundle(CAMPAIGN, 1)).predict(texts)
    both = Predictor(bundle(CAMPAIGN, 1, model=onnx_model(TEXT, 1, asked=3))).predict(texts)
    assert plain.acquisition_logits is None
    assert both.acquisition_logits.shape == both.logits.shape == (40, 3)
    assert not np.allclose(both.acquisition_logits, both.logits)
    assert both.logits.tobytes() == plain.logits.tobytes()


def test_minibatches_change_nothing():
    texts = [f"word{n} and another" for n in range(70)]
    small = Predictor(bundle(CAMPAIGN, 1), minibatch_rows=8).predict(texts)
    large = Predictor(bundle(CAMPAIGN, 1), minibatch_rows=70).predict(texts)
    assert np.allclose(small.logits, large.logits, atol=1e-5)


def test_parts_of_another_shape_are_refused():
    cut = bundle(CAMPAIGN, 1)
    cut.parts["prototypes.f32"] = b"\0" * 8
    with pytest.raises(ModelUnsafe, match=r"prototypes\.f32"):
        Predictor(cut)


# -- installing ---------------------------------------------------------------------------------


class Shelf:
    """A coordinator's registry as the installer sees it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.offsets: list[int] = []

    def download(self, campaign_id, version, offset):
        self.offsets.append(offset)
        yield from (self.raw[i : i + 500] for i in range(offset, len(self.raw), 500))


@pytest.fixture
def real_trial(device, monkeypatch):
    """The trial run in its limited child process, where that is what a test is about."""
    monkeypatch.setattr("edge_agent.installer.trial", warm_up.trial)


@pytest.fixture
def installer(device):
    stores = open_stores(device.config)
    yield Installer(
        device.folder / "models",
        stores.database,
        device.config.limits,
        KEY.public_key().public_bytes_raw(),
    )
    stores.database.close()


def announced(raw: bytes, version: int = 1) -> Announcement:
    import hashlib

    return Announcement(CAMPAIGN, version, len(raw), hashlib.sha256(raw).digest())


def offer(installer: Installer, raw: bytes, version: int = 1, **changes) -> bool:
    campaign = model_pb2.Campaign(
        campaign_id=CAMPAIGN, name="c", label_schema_json=SCHEMA.canonical_json()
    )
    now = changes.pop("now", 1_800_000_000.0)
    announcement = changes.pop("announcement", announced(raw, version))
    return installer.install(announcement, campaign, Shelf(raw), lambda: now)


def last_report(installer: Installer) -> model_pb2.ReportInstallRequest:
    return installer.book.unreported()[-1]


def test_a_good_version_becomes_current_and_the_one_before_is_kept(installer):
    for version in (1, 2, 3):
        assert offer(installer, signed_bundle(CAMPAIGN, version, KEY), version)
    known = installer.book.get(CAMPAIGN)
    assert (known.current, known.previous) == (3, 2)
    assert installer.load(CAMPAIGN).version == 3
    assert not installer.path(CAMPAIGN, 1).exists()
    assert last_report(installer).state == model_pb2.INSTALL_STATE_INSTALLED


def test_a_flipped_byte_anywhere_is_refused_and_the_running_version_stays(installer):
    good = signed_bundle(CAMPAIGN, 1, KEY)
    assert offer(installer, good)
    raw = signed_bundle(CAMPAIGN, 2, KEY)
    for place in range(0, len(raw), max(1, len(raw) // 25)):
        flipped = bytearray(raw)
        flipped[place] ^= 1
        # Announced as it is: the coordinator itself holds the damaged file.
        assert not offer(installer, bytes(flipped), 2), place
        assert last_report(installer).state == model_pb2.INSTALL_STATE_REFUSED
        assert installer.book.get(CAMPAIGN).current == 1
    assert installer.load(CAMPAIGN).version == 1


def test_bytes_that_changed_on_the_way_are_fetched_again(installer):
    raw = signed_bundle(CAMPAIGN, 1, KEY)
    flipped = bytes([raw[0] ^ 1]) + raw[1:]
    assert not offer(installer, flipped, announcement=announced(raw))
    assert last_report(installer).reason == model_pb2.INSTALL_REASON_DIGEST
    assert installer.wants(announced(raw))
    assert offer(installer, raw)


def test_a_broken_download_goes_on_where_it_ended(device, coordinator):
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    coordinator.cut_download_after = 3000
    daemon = device.enroll().daemon()
    device.until(daemon, lambda: coordinator.installs)
    assert coordinator.installs[-1].state == model_pb2.INSTALL_STATE_INSTALLED


@pytest.mark.usefixtures("real_trial")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expires_at": 1_700_000_001}, model_pb2.INSTALL_REASON_EXPIRED),
        ({"schema": LabelSchema(("a", "b", "c"))}, model_pb2.INSTALL_REASON_MALFORMED),
        ({"model": foreign_domain().SerializeToString()}, model_pb2.INSTALL_REASON_WARM_UP),
        ({"model": onnx_model(TEXT, 1, spoil=float("nan"))}, model_pb2.INSTALL_REASON_WARM_UP),
        ({"model": onnx_model(TEXT, 1, asked=4)}, model_pb2.INSTALL_REASON_WARM_UP),
    ],
)
def test_a_version_that_does_not_fit_is_refused_with_its_reason(installer, changes, reason):
    assert not offer(installer, signed_bundle(CAMPAIGN, 1, KEY, **changes))
    assert last_report(installer).reason == reason
    assert installer.book.refused_text(CAMPAIGN)
    assert installer.load(CAMPAIGN) is None


def test_a_version_that_another_key_signed_is_refused(installer):
    raw = signed_bundle(CAMPAIGN, 1, Ed25519PrivateKey.generate())
    assert not offer(installer, raw)
    assert last_report(installer).reason == model_pb2.INSTALL_REASON_SIGNATURE
    assert not installer.wants(announced(raw))


def test_a_bundle_of_another_campaign_or_version_is_refused(installer):
    for raw in (signed_bundle(b"d" * 16, 1, KEY), signed_bundle(CAMPAIGN, 7, KEY)):
        assert not offer(installer, raw)
        assert last_report(installer).reason == model_pb2.INSTALL_REASON_MALFORMED


def test_an_older_version_is_refused_but_the_previous_one_may_return(installer):
    bundles = {v: signed_bundle(CAMPAIGN, v, KEY) for v in (1, 2, 3)}
    for version, raw in bundles.items():
        offer(installer, raw, version)
    assert not offer(installer, bundles[1], 1)
    assert last_report(installer).reason == model_pb2.INSTALL_REASON_OLDER_VERSION
    assert offer(installer, bundles[2], 2)
    assert installer.load(CAMPAIGN).version == 2


@pytest.mark.usefixtures("real_trial")
def test_a_model_that_eats_all_memory_dies_in_its_trial_and_not_here(installer):
    shape = numpy_helper.from_array(np.int64([1 << 40]), "shape")
    fill = helper.make_node("ConstantOfShape", ["shape"], ["logits"])
    bomb = _model([fill], [shape]).SerializeToString()
    assert not offer(installer, signed_bundle(CAMPAIGN, 1, KEY, model=bomb))
    assert last_report(installer).reason == model_pb2.INSTALL_REASON_WARM_UP


def test_too_large_a_version_is_not_even_fetched(installer):
    huge = Announcement(CAMPAIGN, 1, 1 << 40, bytes(32))
    assert not offer(installer, b"", announcement=huge)
    assert last_report(installer).reason == model_pb2.INSTALL_REASON_TOO_LARGE


def test_a_version_that_cannot_be_loaded_twice_gives_way_to_the_previous_one(installer):
    for version in (1, 2):
        offer(installer, signed_bundle(CAMPAIGN, version, KEY), version)
    path = installer.path(CAMPAIGN, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert installer.load(CAMPAIGN).version == 1
    report = last_report(installer)
    assert (report.version, report.state) == (2, model_pb2.INSTALL_STATE_ROLLED_BACK)


def test_a_load_that_killed_the_process_twice_counts_as_failed(installer):
    for version in (1, 2):
        offer(installer, signed_bundle(CAMPAIGN, version, KEY), version)
    installer.book.begin_load(CAMPAIGN)
    installer.book.begin_load(CAMPAIGN)
    assert installer.load(CAMPAIGN).version == 1


def test_the_coordinator_hears_of_each_install_once_and_of_none_twice(device, coordinator):
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    daemon = device.enroll().daemon()
    device.until(daemon, lambda: coordinator.reports)
    for _ in range(3):
        daemon.tick(device.now)
    coordinator.publish(campaign, 2, signed_bundle(campaign, 2, Ed25519PrivateKey.generate()))
    device.until(daemon, lambda: len(coordinator.installs) == 2)
    states = [(report.version, report.state) for report in coordinator.installs]
    installed, refused = model_pb2.INSTALL_STATE_INSTALLED, model_pb2.INSTALL_STATE_REFUSED
    assert states == [(1, installed), (2, refused)]
    assert "model tickets" in daemon._parts.stores.conditions.all()
    device.put("still scored by version one")
    device.until(daemon, lambda: coordinator.rows(campaign))
    assert set(coordinator.rows(campaign).values()) == {1}
