"""A trainer for tests: reads the order, waits as told, and leaves a really signed bundle behind.

It keeps every promise of the real one that the coordinator relies on (files, states, signature) and
trains nothing. `settings.pause_seconds` makes it slow; `settings.fail` makes it fail.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from model_bundle.features import FeatureSpec
from model_bundle.label_schema import LabelSchema
from model_bundle.manifest import Bundle, ModelManifest, describe_parts, pack
from model_bundle.signing import signed


def write(path: Path, values: object) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(values))
    temporary.replace(path)


def main() -> None:
    action, request_path = sys.argv[1], Path(sys.argv[2])
    folder = request_path.parent
    request = json.loads(request_path.read_text())
    with (folder / "starts.txt").open("a") as starts:
        starts.write(f"{action} {os.getpid()}\n")
    settings = request["settings"]
    write(folder / "state.json", {"state": "training", "round": 1, "rounds": 2, "error": ""})
    time.sleep(settings.get("pause_seconds", 0) if action == "train" else 0)
    if settings.get("fail") and action == "train":
        state = {"state": "failed", "round": 1, "rounds": 2, "error": "no quorum"}
        write(folder / "state.json", state)
        return
    parts = {"model.onnx": b"model of version %d" % request["version"]}
    manifest = ModelManifest(
        campaign_id=request["campaign_id"],
        version=request["version"],
        parent_version=request["parent_version"],
        family=request["family"],
        label_schema=LabelSchema.from_mapping(request["label_schema"]),
        features=FeatureSpec.from_mapping(request["features"]),
        embedding_width=4,
        cell_count=0,
        temperature=1.0,
        created_at=request["created_at"],
        expires_at=request["expires_at"],
        parts=describe_parts(parts),
    )
    key_file = Path(request["release_key"]).read_bytes()
    key = serialization.load_pem_private_key(key_file, password=None)
    (folder / "bundle").write_bytes(pack(signed(Bundle(manifest, (), parts), key)))
    accuracy = settings.get("accuracies", {}).get(str(request["version"]), 0.5)
    evaluation = {"accuracy": accuracy, "macro_f1": accuracy, "example_count": 10}
    if "calibration_error" in settings:
        evaluation["calibration_error"] = settings["calibration_error"]
    write(folder / "evaluation.json", evaluation)
    write(folder / "state.json", {"state": "candidate", "round": 2, "rounds": 2, "error": ""})


main()
