"""Additional detectors from a local folder: larger models that a site installs itself.

They only ever add findings: the built-in chain runs as well, so installing one never lowers recall.
Nothing is fetched; the folder must be there and its digest must be the pinned one.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from edge_agent.masking.errors import MaskingConfigError, PackError
from edge_agent.masking.findings import Finding

_TYPES = {
    "PER": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "ORG": "ORGANIZATION",
    "NORP": "NRP",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
    "PERSON": "PERSON",
    "LOCATION": "LOCATION",
    "ORGANIZATION": "ORGANIZATION",
}
_GLINER_LABELS = ("person", "location", "organization", "address", "date", "age", "nationality")
CHUNK_CHARS = 1500
OVERLAP_CHARS = 150


class Detector(Protocol):
    """Finds personal data in normalised text."""

    def find(self, text: str) -> list[Finding]:
        """Findings, any order."""
        ...


class _ChunkedDetector:
    """Runs a model over overlapping chunks, because models have a longest input."""

    def __init__(self, run: Callable[[str], Iterator[Finding]]) -> None:
        self._run = run

    def find(self, text: str) -> list[Finding]:
        findings: list[Finding] = []
        for offset in range(0, max(1, len(text)), CHUNK_CHARS):
            low = max(0, offset - OVERLAP_CHARS)
            findings += [
                found._replace(start=found.start + low, end=found.end + low)
                for found in self._run(text[low : offset + CHUNK_CHARS])
            ]
        return findings


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files below a folder, hex.

    Raises:
        PackError: The folder is missing or empty.
    """
    if not folder.is_dir():
        raise PackError(f"detector folder {folder} is missing")
    total = hashlib.sha256()
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    if not paths:
        raise PackError(f"detector folder {folder} is empty")
    for path in paths:
        name = path.relative_to(folder).as_posix().encode()
        total.update(len(name).to_bytes(4, "big") + name)
        with path.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def load_detector(setting: str, sha256: str) -> Detector | None:
    """Load the additional detector of a policy, or None for `builtin`.

    Args:
        setting: `builtin`, `spacy:DIR`, `transformers:DIR` or `gliner:DIR`.
        sha256: Pinned digest of the folder, hex.

    Raises:
        PackError: The folder is missing or is not the pinned one.
        MaskingConfigError: The library that the detector needs is not installed.
    """
    if setting == "builtin":
        return None
    kind, _, path = setting.partition(":")
    folder = Path(path)
    if folder_digest(folder) != sha256:
        raise PackError(f"detector folder {folder} is not the pinned one")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    loaders = {"spacy": _spacy, "transformers": _transformers, "gliner": _gliner}
    try:
        return _ChunkedDetector(loaders[kind](folder))
    except ImportError as error:
        raise MaskingConfigError(f"detector {kind} needs the package {error.name}") from error


def _spacy(folder: Path) -> Callable[[str], Iterator[Finding]]:
    import spacy

    model: Any = spacy.load(folder)

    def run(text: str) -> Iterator[Finding]:
        for entity in model(text).ents:
            yield Finding(entity.start_char, entity.end_char, _type_of(entity.label_), 0.85)

    return run


def _transformers(folder: Path) -> Callable[[str], Iterator[Finding]]:
    from transformers import pipeline

    model: Any = pipeline(
        "token-classification", model=str(folder), aggregation_strategy="simple", device=-1
    )

    def run(text: str) -> Iterator[Finding]:
        for entity in model(text):
            kind = _type_of(entity["entity_group"])
            yield Finding(entity["start"], entity["end"], kind, float(entity["score"]))

    return run


def _gliner(folder: Path) -> Callable[[str], Iterator[Finding]]:
    from gliner import GLiNER

    model: Any = GLiNER.from_pretrained(str(folder), local_files_only=True)

    def run(text: str) -> Iterator[Finding]:
        for entity in model.predict_entities(text, list(_GLINER_LABELS), threshold=0.3):
            kind = _type_of(entity["label"].upper())
            yield Finding(entity["start"], entity["end"], kind, float(entity["score"]))

    return run


def _type_of(label: str) -> str:
    """Our name of an entity type.

    >>> _type_of("B-PER"), _type_of("GPE"), _type_of("street address")
    ('PERSON', 'LOCATION', 'STREET_ADDRESS')
    """
    bare = label.upper().removeprefix("B-").removeprefix("I-").replace(" ", "_")
    return _TYPES.get(bare, bare)
