"""What a simulated expert knows: the true class of each of its own site's samples.

An expert sees a masked text, never the raw one, and recognises the message: every piece of text
between two typed placeholders must occur in the raw row, in order. An image is recognised by its
pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.demo.samples import SourceSample

_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_\d+>")
_SPACE = re.compile(r"\s+")


def folded(text: str) -> str:
    r"""Returns the text as masking may have rewritten it: NFKC, one space between words.

    >>> folded("a\u00a0 b\n")
    'a b'
    """
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip()


def segments_of(masked: str) -> list[str]:
    """Returns the pieces of a masked text between its typed placeholders, in order.

    >>> segments_of("Call <PERSON_1> on <PHONE_NUMBER_1> now")
    ['Call', 'on', 'now']
    """
    return [piece for part in _PLACEHOLDER.split(masked) if (piece := folded(part))]


def occurs_in_order(segments: Sequence[str], raw: str) -> bool:
    """Tells whether all segments occur in `raw`, one after the other.

    >>> occurs_in_order(["a", "b"], "a x b"), occurs_in_order(["b", "a"], "a x b")
    (True, False)
    """
    position = 0
    for segment in segments:
        found = raw.find(segment, position)
        if found < 0:
            return False
        position = found + len(segment)
    return True


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """Returns SHA-256 of an image's shape and gray values in hex.

    >>> len(pixel_digest(np.zeros((2, 2), np.uint8)))
    64
    """
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class SiteTruth:
    """True classes of one campaign at one site.

    Attributes:
        texts: Folded raw text and class, one a row.
        images: Class by pixel digest.
    """

    texts: tuple[tuple[str, str], ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)

    def class_of_text(self, masked: str) -> str | None:
        """Returns the class of the raw row that fits a masked text, None when none or many fit.

        Among several rows that fit, those as long as the masked text is likely to have been count
        first; rows of different classes that fit equally well give None.
        """
        segments = segments_of(masked)
        known = sum(len(segment) for segment in segments)
        if not known:
            return None
        anchored_start = not _PLACEHOLDER.match(masked.strip())
        fits = [
            (len(raw) - known, label)
            for raw, label in self.texts
            if len(raw) >= known
            and (not anchored_start or raw.startswith(segments[0]))
            and occurs_in_order(segments, raw)
        ]
        if not fits:
            return None
        if not _PLACEHOLDER.search(masked):
            closest = min(spare for spare, _ in fits)
            fits = [fit for fit in fits if fit[0] == closest]
        votes = Counter(label for _, label in fits).most_common(2)
        if len(votes) == 2 and votes[0][1] == votes[1][1]:
            return None
        return votes[0][0]

    def class_of_image(self, png: bytes) -> str | None:
        """Returns the class of an image file by its pixels, None when no such image is known."""
        from PIL import Image

        with Image.open(io.BytesIO(png)) as image:
            return self.images.get(pixel_digest(np.asarray(image.convert("L"), dtype=np.uint8)))


def write_truth(path: Path, samples: Iterable[SourceSample]) -> None:
    """Writes the true classes of a site's samples as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lines:
        for sample in samples:
            if isinstance(sample.content, str):
                row = {"text": folded(sample.content), "label": sample.label}
            else:
                row = {"pixels": pixel_digest(sample.content), "label": sample.label}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_truth(path: Path) -> SiteTruth:
    """Reads what `write_truth` wrote."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return SiteTruth(
        texts=tuple((row["text"], row["label"]) for row in rows if "text" in row),
        images={row["pixels"]: row["label"] for row in rows if "pixels" in row},
    )
