"""The files of a run's folder, each written whole or not at all.

request.json        the coordinator's order
state.json          {"state", "round", "rounds", "error"}; state is submitted, training,
candidate or failed
survey.json         what came in before the first round, where features are learned without labels
layer.frame         the layer of a first version from that, empty where none could be fitted
round-00001/        checkpoint of each round
assessment/         what the sites measured of the final model
evaluation.json     accuracy, macro F1, per class, per site
bundle              the signed model
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATE_NAME = "state.json"
SURVEY_NAME = "survey.json"
EVALUATION_NAME = "evaluation.json"
BUNDLE_NAME = "bundle"
ASSESSMENT_NAME = "assessment"
STATES = ("submitted", "training", "candidate", "failed")


def write_whole(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Writes a file so that a reader, or a crash, sees the old bytes or the new ones only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file whole."""
    write_whole(path, json.dumps(values, indent=1, sort_keys=True, allow_nan=False).encode())


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder of files whole; one that is there already is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        for name, content in files.items():
            write_whole(temporary / name, content)
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def write_state(
    folder: Path, state: str, *, round_number: int = 0, rounds: int = 0, error: str = ""
) -> None:
    """Writes `state.json`. `state` is one of `STATES`."""
    assert state in STATES
    values = {"state": state, "round": round_number, "rounds": rounds, "error": error}
    write_json(folder / STATE_NAME, values)


def read_state(folder: Path) -> dict[str, Any]:
    """Returns `state.json`; {} when there is none yet."""
    try:
        return dict(json.loads((folder / STATE_NAME).read_bytes()))
    except FileNotFoundError:
        return {}


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
