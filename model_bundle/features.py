"""Feature extraction: decoded samples to model input. The same code trains and scores.

What a sample is, by kind:

- text: `str`
- image: `uint8[height, width]` or `uint8[height, width, 3]`
- series: `float32[steps, channels]`
- record: mapping of column name to number, text or None

Changing a single bit here changes the meaning of every signed model, so a `FeatureSpec` carries a
version that the manifest holds and `extract` checks. Decoding files is the caller's work.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_bundle.errors import FeatureInvalid

FEATURES_VERSION = 1
KINDS = ("text", "image", "series", "record")
TEXT_CHARACTERS_MAX = 20_000
WORD_WEIGHT_MAX = 8
_WORD = re.compile(r"<[A-Z_]+_\d+>|\w+|[^\w\s]")
_PLACEHOLDER = re.compile(r"<([A-Z_]+)_\d+>")
_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193

Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a record.

    Attributes:
        name: Column name in the sample.
        role: `number` (standardised) or `category` (hashed to one of `buckets`).
        mean: Subtracted from a number.
        scale: Divides a number; above 0.
        buckets: Width of a hashed category.
    """

    name: str
    role: str = "number"
    mean: float = 0.0
    scale: float = 1.0
    buckets: int = 16


@dataclass(frozen=True)
class FeatureSpec:
    """How samples of one campaign become model input.

    Attributes:
        kind: text, image, series or record.
        version: Version of the extraction rules.
        buckets: text: rows of the embedding table; bucket 0 is padding.
        tokens_max: text: hashed n-grams kept per sample.
        word_ngrams: text: longest run of words hashed together.
        char_ngrams: text: lengths of hashed character n-grams inside words; empty for none.
        word_weight: text: times that words and runs of them count, 1 to 8; character n-grams, many
            to a word, count once.
        height: image: rows after resizing.
        width: image: columns after resizing.
        channels: image: 1 or 3; series: number of channels.
        steps: series: window length.
        mean: series: subtracted per channel.
        scale: image: divisor of pixel values (one number); series: divisor per channel.
        columns: record: the columns in order.
    """

    kind: str
    version: int = FEATURES_VERSION
    buckets: int = 16384
    tokens_max: int = 512
    word_ngrams: int = 2
    char_ngrams: tuple[int, ...] = (3, 4)
    height: int = 28
    width: int = 28
    channels: int = 1
    steps: int = 100
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = (255.0,)
    columns: tuple[ColumnSpec, ...] = field(default=())
    word_weight: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FeatureInvalid(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.version != FEATURES_VERSION:
            raise FeatureInvalid(
                f"feature rules version {self.version} are not known here; update the software"
            )
        if type(self.word_weight) is not int or not 1 <= self.word_weight <= WORD_WEIGHT_MAX:
            raise FeatureInvalid(
                f"word_weight must be 1 to {WORD_WEIGHT_MAX}, not {self.word_weight!r}"
            )

    def to_mapping(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values; `word_weight` only where it is set.

        Older software refuses to read it.
        """
        fields = dict(vars(self))
        if self.word_weight == 1:
            del fields["word_weight"]
        fields["columns"] = [dict(vars(column)) for column in self.columns]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> FeatureSpec:
        """Reads what `to_mapping` wrote.

        Raises:
            FeatureInvalid: A key is unknown or a value has the wrong type.

        >>> FeatureSpec.from_mapping(FeatureSpec("text").to_mapping()) == FeatureSpec("text")
        True
        """
        values = dict(fields)
        try:
            values["columns"] = tuple(ColumnSpec(**column) for column in values.get("columns", ()))
            for name in ("char_ngrams", "mean", "scale"):
                if name in values:
                    values[name] = tuple(values[name])
            return cls(**values)
        except TypeError as error:
            raise FeatureInvalid(f"feature settings are wrong: {error}") from None


def fnv1a(raw: bytes) -> int:
    """FNV-1a, 32 bit (Fowler, Noll, Vo; IETF draft-eastlake-fnv).

    >>> fnv1a(b"a") == 0xE40C292C
    True
    """
    value = _FNV_OFFSET
    for byte in raw:
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return value


@lru_cache(maxsize=8_192)
def _bucket(token: str, buckets: int) -> int:
    return 1 + fnv1a(token.encode()) % (buckets - 1)


def words_of(text: str) -> list[str]:
    """Splits a text into lower-case words and signs; a typed placeholder becomes its type.

    >>> words_of("Call <PERSON_1> now!")
    ['call', '<PERSON>', 'now', '!']
    """
    folded = unicodedata.normalize("NFKC", text[:TEXT_CHARACTERS_MAX])
    words = []
    for word in _WORD.findall(folded):
        placeholder = _PLACEHOLDER.fullmatch(word)
        words.append(f"<{placeholder.group(1)}>" if placeholder else word.lower())
    return words


def _text_buckets(text: str, spec: FeatureSpec) -> list[int]:
    words = words_of(text)
    tokens = list(words)
    for length in range(2, spec.word_ngrams + 1):
        tokens += [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]
    if spec.word_weight > 1:
        tokens = tokens[: spec.tokens_max // spec.word_weight] * spec.word_weight
    for length in spec.char_ngrams:
        for word in words:
            if len(word) > 2 and not word.startswith("<"):
                marked = f"#{word}#"
                tokens += [marked[i : i + length] for i in range(len(marked) - length + 1)]
    return [_bucket(token, spec.buckets) for token in tokens[: spec.tokens_max]]


def _extract_text(samples: Sequence[str], spec: FeatureSpec) -> Inputs:
    rows = [_text_buckets(sample, spec) for sample in samples]
    longest = max((len(row) for row in rows), default=0) or 1
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return {"token_ids": ids}


def _resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear resize with pixel centres at half positions; float32[height, width, channels]."""
    pixels = image.astype(np.float32)
    if image.shape[:2] == (height, width):
        return pixels
    rows = np.clip((np.arange(height) + 0.5) * image.shape[0] / height - 0.5, 0, image.shape[0] - 1)
    cols = np.clip((np.arange(width) + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
    top, left = np.floor(rows).astype(int), np.floor(cols).astype(int)
    bottom = np.minimum(top + 1, image.shape[0] - 1)
    right = np.minimum(left + 1, image.shape[1] - 1)
    down = (rows - top).astype(np.float32)[:, None, None]
    across = (cols - left).astype(np.float32)[None, :, None]
    upper = pixels[top][:, left] * (1 - across) + pixels[top][:, right] * across
    lower = pixels[bottom][:, left] * (1 - across) + pixels[bottom][:, right] * across
    resized: NDArray[np.float32] = upper * (1 - down) + lower * down
    return resized


def _one_image(image: NDArray[np.uint8], spec: FeatureSpec) -> NDArray[np.float32]:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise FeatureInvalid(
            f"an image must be uint8[height, width(, 3)], not {image.dtype}{image.shape}"
        )
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.shape[2] != spec.channels:
        gray = pixels[:, :, :3].astype(np.float32).mean(axis=2, keepdims=True).round()
        pixels = np.repeat(gray.astype(np.uint8), spec.channels, axis=2)
    return np.moveaxis(_resized(pixels, spec.height, spec.width), 2, 0) / np.float32(spec.scale[0])


def _one_series(window: NDArray[np.float32], spec: FeatureSpec) -> NDArray[np.float32]:
    if window.ndim != 2 or window.shape != (spec.steps, spec.channels):
        raise FeatureInvalid(
            f"a series must be float32[{spec.steps}, {spec.channels}], not {window.shape}"
        )
    if not np.isfinite(window).all():
        raise FeatureInvalid("a series holds a value that is not finite; drop or repair the window")
    mean = np.array(spec.mean or (0.0,), dtype=np.float32)
    scale = np.array(spec.scale or (1.0,), dtype=np.float32)
    scaled: NDArray[np.float32] = ((window.astype(np.float32) - mean) / scale).T
    return scaled


def _one_record(record: Mapping[str, Any], spec: FeatureSpec) -> NDArray[np.float32]:
    parts: list[float] = []
    for column in spec.columns:
        value = record.get(column.name)
        if column.role == "number":
            missing = value is None or value == ""
            try:
                number = 0.0 if missing else (float(str(value)) - column.mean) / column.scale
            except ValueError:
                raise FeatureInvalid(f"column {column.name!r} must hold a number") from None
            parts += [number, float(missing)]
        else:
            hot = [0.0] * column.buckets
            hot[fnv1a(f"{column.name}={value}".encode()) % column.buckets] = 1.0
            parts += hot
    return np.array(parts, dtype=np.float32)


def record_width(columns: Sequence[ColumnSpec]) -> int:
    """Returns the length of a record's feature vector.

    >>> record_width([ColumnSpec("age"), ColumnSpec("ward", role="category", buckets=4)])
    6
    """
    return sum(2 if column.role == "number" else column.buckets for column in columns)


def extract(samples: Sequence[Any], spec: FeatureSpec) -> Inputs:
    """Turns decoded samples of one kind into the named inputs of the model.

    Args:
        samples: One or more samples of the kind in `spec` (see the module's docstring).
        spec: The campaign's feature settings.

    Returns:
        text: `token_ids` int64[n, longest], 0 pads. image: `pixels` float32[n, channels, height,
        width]. series: `signal` float32[n, channels, steps]. record: `values` float32[n, width].

    Raises:
        FeatureInvalid: A sample does not fit; the message names what was expected.

    >>> spec = FeatureSpec("text", word_ngrams=1, char_ngrams=())
    >>> extract(["hello world"], spec)["token_ids"].shape
    (1, 2)
    """
    if spec.kind == "text":
        return _extract_text(samples, spec)
    if spec.kind == "image":
        return {"pixels": np.stack([_one_image(sample, spec) for sample in samples])}
    if spec.kind == "series":
        return {"signal": np.stack([_one_series(sample, spec) for sample in samples])}
    return {"values": np.stack([_one_record(sample, spec) for sample in samples])}
