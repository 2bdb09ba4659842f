"""Writes a pack: gazetteer, tagger, header with digests, card."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_agent.masking.gazetteer import save_flags
from edge_agent.masking.pack import FORMAT, Threshold

LABELS = ("O", "PERSON", "LOCATION", "ORGANIZATION", "NRP", "DATE_TIME", "AGE", "TITLE")


def write_pack(
    folder: Path,
    *,
    flags: Mapping[int, int],
    thresholds: Mapping[str, Threshold],
    tagger: bytes | None = None,
    labels: Sequence[str] = LABELS,
) -> None:
    """Write a pack folder; `pack.json` seals the rest, `pins.json` beside the folder seals it.

    Args:
        folder: Target; made when missing.
        flags: Gazetteer flags by word hash.
        thresholds: Threshold by level name.
        tagger: ONNX graph, or None for a pack with rules only.
        labels: Labels of the tagger.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"gazetteer.npz": save_flags(flags)}
    if tagger is not None:
        parts["tagger.onnx"] = tagger
    for name, part in parts.items():
        (folder / name).write_bytes(part)
    header = {
        "format": FORMAT,
        "labels": list(labels),
        "thresholds": dict(sorted(thresholds.items())),
        "files": {name: hashlib.sha256(parts[name]).hexdigest() for name in sorted(parts)},
    }
    content = json.dumps(header, indent=2, sort_keys=True) + "\n"
    (folder / "pack.json").write_text(content)
    pins = folder.parent / "pins.json"
    known = json.loads(pins.read_text()) if pins.is_file() else {}
    known[folder.name] = hashlib.sha256(content.encode()).hexdigest()
    pins.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
