"""Makes the signed bundle of a finished run: export, parity check, manifest, signature, files.

The exported graph is compared with torch on probe inputs every time; a graph that computes
anything else is never signed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from numpy.typing import NDArray

from federation import onnx_engine, run_files
from federation.central import Assessment, final_arrays, load_assessment
from federation.errors import ExportFailed, RequestInvalid
from federation.first_layer import FirstFit
from federation.fixed_columns import fixed_width, is_fitted
from federation.networks import INPUT_NAMES, Arrays, NetworkSpec, initial_arrays
from federation.probes import probe_inputs
from federation.requests import TrainingRequest
from federation.statistics import GroupSums, group_sums, nearest_cells, next_code_book
from federation.statistics import seeded_code_book as _seeded_code_book
from model_bundle.manifest import (
    FITTED_CELLS,
    PART_CODE_BOOK,
    PART_MODEL,
    PART_PROTOTYPES,
    Bundle,
    ModelManifest,
    describe_parts,
    pack,
)
from model_bundle.signing import signed

PROBE_COUNT = 64
PROBE_SEED = 20
TOLERANCE = 1e-4
"""Largest difference of any output, relative to the largest output of that name (at least 1)."""
_CELL_STEPS = 12
_RUN_ROWS = 256


def publish(request: TrainingRequest) -> None:
    """Writes `evaluation.json`, `bundle` and the state `candidate`, in that order.

    Raises:
        CheckpointInvalid: The run is not finished, or its files are damaged.
        ExportFailed: The exported graph differs from what was trained.
        RequestInvalid: The release key cannot be read.
    """
    found = load_assessment(request.folder, request.digest())
    arrays = final_arrays(request, str(found.facts.get("kept", "")))
    rounds = request.settings.rounds.rounds
    facts = {"rounds": rounds, "rule": request.settings.aggregation.rule, **found.facts}
    bundle = make_bundle(
        request,
        arrays,
        {PART_PROTOTYPES: found.prototypes, PART_CODE_BOOK: found.code_book},
        {
            "temperature": found.temperature,
            "calibration_error": found.calibration_error,
            "site_temperatures": _site_temperatures(found),
            "training": facts,
        },
    )
    run_files.write_json(request.folder / run_files.EVALUATION_NAME, found.evaluation)
    run_files.write_whole(request.folder / run_files.BUNDLE_NAME, bundle)
    run_files.write_state(request.folder, "candidate", round_number=rounds, rounds=rounds)


def publish_untrained(request: TrainingRequest, fit: FirstFit | None = None) -> None:
    """Makes a campaign's first version: seeded parameters and no prototypes.

    With fitted cells its embedding is that of the columns that they lie among, and its manifest
    says so; without, the code book comes from probes and says nothing of any pool.

    Args:
        request: The run's order.
        fit: What a survey gave.

    Raises:
        RequestInvalid: The release key cannot be read.
        ExportFailed: The exported graph differs from the network.
    """
    spec = request.network
    layer, cells = (fit.layer, fit.cells) if fit else ({}, None)
    arrays = initial_arrays(spec, seed=request.seed) | layer
    facts: dict[str, Any] = {"rounds": 0, "rule": "untrained"}
    if spec.unsupervised_width:
        facts["fitted"] = is_fitted(arrays, spec)
    if cells is not None:
        facts[FITTED_CELLS] = True
    book = first_code_book(request, arrays) if cells is None else cells
    width = spec.embedding_width if cells is None else fixed_width(spec)
    parts = {
        PART_PROTOTYPES: np.zeros((spec.class_count, width), dtype=np.float32),
        PART_CODE_BOOK: book,
    }
    measured = {"temperature": 1.0, "calibration_error": -1.0, "training": facts}
    bundle = make_bundle(request, arrays, parts, measured, untaught=cells is not None)
    run_files.write_whole(request.folder / run_files.BUNDLE_NAME, bundle)
    run_files.write_state(request.folder, "candidate")


def make_bundle(
    request: TrainingRequest,
    arrays: Arrays,
    tables: dict[str, NDArray[np.float32]],
    measured: dict[str, Any],
    *,
    untaught: bool = False,
) -> bytes:
    """Returns the signed bundle file.

    Args:
        request: The run's order.
        arrays: Parameters of the network.
        tables: Prototypes and code book by part name.
        measured: Manifest fields temperature, calibration_error, site_temperatures and training.
        untaught: As for `networks.network`.
    """
    model = onnx_engine.build(request.network, arrays, untaught=untaught)
    check_parity(request.network, arrays, model, untaught=untaught)
    parts = {PART_MODEL: model}
    parts |= {name: np.ascontiguousarray(t, dtype="<f4").tobytes() for name, t in tables.items()}
    manifest = ModelManifest(
        campaign_id=request.campaign_id,
        version=request.version,
        parent_version=request.parent_version,
        family=request.network.family,
        label_schema=request.label_schema,
        features=request.network.features,
        embedding_width=tables[PART_PROTOTYPES].shape[1],
        cell_count=len(tables[PART_CODE_BOOK]),
        created_at=request.created_at,
        expires_at=request.expires_at,
        parts=describe_parts(parts),
        **measured,
    )
    return pack(signed(Bundle(manifest, (), parts), read_release_key(request.release_key)))


def _site_temperatures(found: Assessment) -> dict[str, float]:
    """Temperatures of the sites whose own examples moved them away from the shared one."""
    sites = found.evaluation["per_site"].items()
    own = {site: float(figures["temperature"]) for site, figures in sites}
    return {site: value for site, value in own.items() if value != found.temperature}


def check_parity(
    spec: NetworkSpec, arrays: Arrays, model: bytes, *, untaught: bool = False
) -> None:
    """Compares the graph under onnxruntime with the network under torch on probe inputs.

    Raises:
        ExportFailed: An output differs; the message names it and by how much.
    """
    x = probe_inputs(spec, PROBE_COUNT, seed=PROBE_SEED)
    expected, found = run_torch(spec, arrays, x, untaught=untaught), run_onnx(spec, model, x)
    for name, output in expected.items():
        gap = float(np.abs(output - found[name]).max())
        if not gap <= TOLERANCE * max(1.0, float(np.abs(output).max())):
            raise ExportFailed(f"output {name} of the exported graph differs by {gap:.3g}")


def run_torch(
    spec: NetworkSpec, arrays: Arrays, x: NDArray[Any], *, untaught: bool = False
) -> dict[str, NDArray[Any]]:
    """Returns the outputs of the network under torch, on the CPU in float32."""
    import torch

    from federation import torch_engine

    device = torch.device("cpu")
    parameters = torch_engine.to_parameters(arrays, device)
    tensor = torch_engine.input_tensor(spec, {INPUT_NAMES[spec.family]: x}, device)
    with torch.no_grad():
        parts = [
            torch_engine.forward(spec, parameters, part, untaught=untaught)
            for part in torch.split(tensor, _RUN_ROWS)
        ]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def run_onnx(spec: NetworkSpec, model: bytes, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Returns the outputs of the graph under onnxruntime, with one thread, from bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT_NAMES[spec.family]: x}), strict=True))


def first_code_book(request: TrainingRequest, arrays: Arrays) -> NDArray[np.float32]:
    """Returns cells for a model that nobody has trained: k-means over embeddings of probes."""
    cells, spec = request.settings.rounds.cell_count, request.network
    book = _seeded_code_book(cells, spec.embedding_width, seed=request.seed)
    if not cells:
        return book
    x = probe_inputs(spec, min(8 * cells, 4096), seed=request.seed)
    embedding = run_torch(spec, arrays, x)["embedding"]
    rng = np.random.default_rng(request.seed)
    for _ in range(_CELL_STEPS):
        groups = nearest_cells(embedding, book)
        total: GroupSums = group_sums(embedding, groups, group_count=cells, count_min=1)
        book = next_code_book(book, total, rng)
    return book


def read_release_key(path: Path) -> Ed25519PrivateKey:
    """Reads the Ed25519 key that signs bundles.

    Raises:
        RequestInvalid: The file is missing or holds another kind of key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise RequestInvalid(f"release key {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise RequestInvalid(f"release key {path} is not an unencrypted PEM key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RequestInvalid(f"release key {path} is not an Ed25519 key")
    return key
