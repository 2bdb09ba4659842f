"""Tiny real models for the agent's tests, as signed bundles."""

from __future__ import annotations

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from model_bundle import signing
from model_bundle.features import FeatureSpec, record_width
from model_bundle.label_schema import LabelSchema
from model_bundle.manifest import FITTED_CELLS, Bundle, ModelManifest, describe_parts, pack

CLASSES = ("billing", "refund", "other")
SCHEMA = LabelSchema(CLASSES)
WIDTH = 4
CELLS = 5
BUCKETS = 512
TEXT = FeatureSpec("text", buckets=BUCKETS, tokens_max=64, char_ngrams=())
IMAGE = FeatureSpec("image", height=8, width=8)
SERIES = FeatureSpec("series", steps=10, channels=2, mean=(0.0, 0.0), scale=(1.0, 1.0))


def onnx_model(features: FeatureSpec, seed: int, *, spoil: float = 0.0, asked: int = 0) -> bytes:
    """A model of one linear layer over an embedding.

    `spoil` is added to the logits; `asked` are the columns of a second head, 0 for none.
    """
    rng = np.random.default_rng(seed)
    nodes, constants = [], []

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    if features.kind == "text":
        source = helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["n", "t"])
        table = constant("table", rng.normal(size=(BUCKETS, WIDTH)).astype(np.float32))
        axes = constant("axes", np.int64([1]))
        nodes.append(helper.make_node("Gather", [table, "token_ids"], ["tokens"]))
        nodes.append(helper.make_node("ReduceSum", ["tokens", axes], ["raw"], keepdims=0))
    else:
        name, shape = {
            "image": ("pixels", [1, 8, 8]),
            "series": ("signal", [2, 10]),
            "record": ("values", [record_width(features.columns)]),
        }[features.kind]
        source = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        size = int(np.prod(shape))
        weights = constant("weights", rng.normal(size=(size, WIDTH)).astype(np.float32))
        nodes.append(helper.make_node("Flatten", [name], ["flat"]))
        nodes.append(helper.make_node("MatMul", ["flat", weights], ["raw"]))
    nodes += [
        helper.make_node("Add", ["raw", constant("away", np.float32([0.1] * WIDTH))], ["moved"]),
        helper.make_node("LpNormalization", ["moved"], ["embedding"], axis=1, p=2),
        helper.make_node(
            "MatMul",
            ["embedding", constant("head", rng.normal(size=(WIDTH, 3)).astype(np.float32) * 3)],
            ["plain"],
        ),
        helper.make_node("Add", ["plain", constant("spoil", np.float32([spoil] * 3))], ["logits"]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", WIDTH]),
    ]
    if asked:
        head = constant("second", rng.normal(size=(WIDTH, asked)).astype(np.float32) * 3)
        nodes.append(helper.make_node("MatMul", ["embedding", head], ["acquisition_logits"]))
        shape = ["n", asked]
        more = helper.make_tensor_value_info("acquisition_logits", TensorProto.FLOAT, shape)
        outputs.append(more)
    graph = helper.make_graph(nodes, "tiny", [source], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def bundle(campaign_id: bytes, version: int, **changes) -> Bundle:
    """An unsigned bundle; `changes` are `features`, `model`, `site_temperatures`, `untrained`, …"""
    features = changes.get("features", TEXT)
    rng = np.random.default_rng(version)
    parts = {
        "model.onnx": changes.get("model") or onnx_model(features, changes.get("seed", version)),
        "prototypes.f32": rng.normal(size=(3, WIDTH)).astype("<f4").tobytes(),
        "code_book.f32": rng.normal(size=(CELLS, WIDTH)).astype("<f4").tobytes(),
    }
    if changes.get("untrained"):
        parts["prototypes.f32"] = bytes(4 * 3 * WIDTH)
    manifest = ModelManifest(
        campaign_id=campaign_id.hex(),
        version=version,
        parent_version=max(0, version - 1),
        family=features.kind,
        label_schema=changes.get("schema", SCHEMA),
        features=features,
        embedding_width=WIDTH,
        cell_count=CELLS,
        temperature=1.5,
        site_temperatures=changes.get("site_temperatures", {}),
        created_at=1_700_000_000,
        expires_at=changes.get("expires_at", 2_500_000_000),
        training={FITTED_CELLS: True} if changes.get("fitted_cells") else {},
        parts=describe_parts(parts),
    )
    return Bundle(manifest, (), parts)


def signed_bundle(campaign_id: bytes, version: int, key: Ed25519PrivateKey, **changes) -> bytes:
    """A bundle file that `key` signed."""
    return pack(signing.signed(bundle(campaign_id, version, **changes), key))
