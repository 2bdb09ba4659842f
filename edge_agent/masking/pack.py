"""The model pack on disk: tagger, gazetteer, thresholds, card. Read once, checked by hash.

pins.json              SHA-256 of the pack.json of each pack in the package
<pack>/pack.json       format, thresholds per level, SHA-256 of the other files
<pack>/gazetteer.npz   hashed word lists
<pack>/tagger.onnx     the name tagger; absent in a pack that only has rules
<pack>/CARD.md         data, licences, attribution, measured recall
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_agent.masking.errors import PackError
from edge_agent.masking.gazetteer import load_flags

FORMAT = "perimeter-name-pack-1"
MAX_FILE_BYTES = 8 << 20


class Threshold(NamedTuple):
    """Lowest probability of "not outside" at which a token is masked.

    Attributes:
        ordinary: For words that people write in lower case, and for signs.
        other: For all other words, and for numbers: they are more often personal.
        hasty_ordinary: `ordinary` in a text with signs of haste, where the tagger misses more.
        hasty_other: `other` in such a text.
        organization: Least probability for what looks most like an organisation. It names nobody
            by itself, so a faint doubt does not count.
        title: The same for titles and jobs.
    """

    ordinary: float
    other: float
    hasty_ordinary: float
    hasty_other: float
    organization: float = 0.0
    title: float = 0.0


@dataclass(frozen=True, slots=True)
class Pack:
    """A loaded pack.

    Attributes:
        name: Name of the pack.
        digest: SHA-256 of `pack.json`, which holds the digests of the other files; 32 bytes.
        flags: Gazetteer flags by word hash.
        tagger: ONNX graph, or None.
        labels: Label of each output column of the tagger; the first is the outside label.
        thresholds: Threshold by level name.
    """

    name: str
    digest: bytes
    flags: Mapping[int, int]
    tagger: bytes | None
    labels: tuple[str, ...]
    thresholds: Mapping[str, Threshold]


def load_pack(folder: Path, *, expected_sha256: str = "") -> Pack:
    """Read and check a pack.

    Args:
        folder: Folder of the pack.
        expected_sha256: Digest of `pack.json`, hex; empty takes the one in `pins.json` beside the
            folder.

    Raises:
        PackError: A file is missing, too large or altered.
    """
    content = _read(folder / "pack.json")
    digest = hashlib.sha256(content)
    if digest.hexdigest() != (expected_sha256 or _pinned(folder)):
        raise PackError(f"pack {folder.name} is not the pinned one (pack.json differs)")
    try:
        header = json.loads(content)
        files: dict[str, str] = header["files"]
        if header["format"] != FORMAT:
            raise PackError(f"pack {folder.name} has format {header['format']}, wanted {FORMAT}")
        labels = tuple(header["labels"])
        thresholds = {n: Threshold(*map(float, t)) for n, t in header["thresholds"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise PackError(f"pack {folder.name}: pack.json is unreadable") from error
    parts = {name: _checked(folder / name, sha256) for name, sha256 in files.items()}
    if "gazetteer.npz" not in parts:
        raise PackError(f"pack {folder.name} has no gazetteer.npz")
    return Pack(
        name=folder.name,
        digest=digest.digest(),
        flags=load_flags(parts["gazetteer.npz"]),
        tagger=parts.get("tagger.onnx"),
        labels=labels,
        thresholds=thresholds,
    )


def _pinned(folder: Path) -> str:
    """The digest that the package states for one of its own packs."""
    try:
        pins: dict[str, str] = json.loads(_read(folder.parent / "pins.json"))
        return str(pins[folder.name])
    except (ValueError, KeyError, TypeError) as error:
        raise PackError(f"no digest is pinned for pack {folder.name}") from error


def _checked(path: Path, sha256: str) -> bytes:
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PackError(f"{path.name} of pack {path.parent.name} was altered; install it again")
    return content


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PackError(f"{path.name} of pack {path.parent.name} is too large")
        return path.read_bytes()
    except OSError as error:
        raise PackError(f"pack {path.parent.name} has no readable {path.name}") from error
