"""The signed description of a model version, and the file that carries both.

A bundle file is: magic, length of the manifest, manifest, number of signatures, signatures, parts.
The manifest is canonical JSON (sorted keys, no spaces, ASCII), names every part with its size and
SHA-256, and is what the signatures cover; protobuf bytes are not canonical and are never signed.
Reading and writing files, downloading and trust decisions over time are not done here.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from model_bundle.errors import BundleExpired, MalformedBundle
from model_bundle.features import FeatureSpec
from model_bundle.label_schema import LabelSchema

MAGIC = b"PERIMETER-BUNDLE-1\n"
MANIFEST_BYTES_MAX = 1 << 20
BUNDLE_BYTES_MAX = 512 << 20
SIGNATURE_COUNT_MAX = 8
SIGNATURE_BYTES = 64
PART_MODEL = "model.onnx"
PART_PROTOTYPES = "prototypes.f32"
PART_CODE_BOOK = "code_book.f32"
FITTED_CELLS = "fitted_cells"
"""True, among a manifest's facts of training, where the sites found a first code book together."""
PART_NAMES = (PART_MODEL, PART_PROTOTYPES, PART_CODE_BOOK)
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Part:
    """One file inside a bundle: its name, size in bytes and SHA-256 in hex."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelManifest:
    """Everything that a device must know before it runs a model.

    Attributes:
        campaign_id: 32 hex digits.
        version: Strictly increasing per campaign, from 1.
        parent_version: Version that training started from, 0 for none.
        family: text, image, series, record or encoder.
        label_schema: Ordered classes.
        features: How samples become input.
        embedding_width: Columns of the `embedding` output.
        cell_count: Rows of the code book, 0 for none.
        temperature: Divides the logits before softmax; above 0.
        site_temperatures: The same for sites whose own examples ask for another one, by site id;
            left out of the bytes when empty.
        calibration_error: Expected calibration error in [0, 1] where measured, else -1.
        created_at: Seconds since 1970-01-01 UTC.
        expires_at: After this time the version is not installed.
        training: Facts of the training run (rounds, sites, counts); free-form numbers and names.
        parts: The files of the bundle.
    """

    campaign_id: str
    version: int
    parent_version: int
    family: str
    label_schema: LabelSchema
    features: FeatureSpec
    embedding_width: int
    cell_count: int
    temperature: float
    created_at: int
    expires_at: int
    calibration_error: float = -1.0
    training: Mapping[str, Any] = field(default_factory=dict)
    site_temperatures: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    def canonical_json(self) -> bytes:
        """Returns the one byte form that signatures cover."""
        values = dict(vars(self))
        values["label_schema"] = json.loads(self.label_schema.canonical_json())
        values["features"] = self.features.to_mapping()
        values["parts"] = [dict(vars(part)) for part in self.parts]
        values["training"] = dict(self.training)
        values["site_temperatures"] = dict(self.site_temperatures)
        if not self.site_temperatures:
            del values["site_temperatures"]
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> ModelManifest:
        """Reads a manifest and checks that the bytes were canonical.

        Raises:
            MalformedBundle: Unknown or missing keys, wrong values, or another byte form.
        """
        try:
            values = _known_values(raw, {f.name for f in fields(cls)})
            _check_temperatures(values["temperature"], *values["site_temperatures"].values())
            values["label_schema"] = LabelSchema.from_mapping(values["label_schema"])
            values["features"] = FeatureSpec.from_mapping(values["features"])
            values["parts"] = tuple(Part(**part) for part in values["parts"])
            manifest = cls(**values)
        except MalformedBundle:
            raise
        except Exception as error:
            raise MalformedBundle(f"the manifest cannot be read: {error}") from error
        if manifest.canonical_json() != raw:
            raise MalformedBundle("the manifest is not in its canonical form")
        return manifest

    def temperature_at(self, site_id: str) -> float:
        """Returns the softmax temperature for the samples of a site."""
        return float(self.site_temperatures.get(site_id, self.temperature))

    def check_time(self, now: float) -> None:
        """Raises `BundleExpired` when `now` (seconds since 1970) is past `expires_at`."""
        if now > self.expires_at:
            raise BundleExpired(f"model version {self.version} expired; publish a new version")


@dataclass(frozen=True)
class Bundle:
    """A manifest, its signatures (64 bytes each) and the bytes of its parts by name."""

    manifest: ModelManifest
    signatures: tuple[bytes, ...]
    parts: Mapping[str, bytes]


def describe_parts(parts: Mapping[str, bytes]) -> tuple[Part, ...]:
    """Returns the manifest entries of the parts, in name order.

    >>> describe_parts({"model.onnx": b"x"})[0].size_bytes
    1
    """
    return tuple(
        Part(name, len(parts[name]), hashlib.sha256(parts[name]).hexdigest())
        for name in sorted(parts)
    )


def pack(bundle: Bundle) -> bytes:
    """Returns the bundle file."""
    manifest = bundle.manifest.canonical_json()
    head = MAGIC + _LENGTH.pack(len(manifest)) + manifest
    head += _LENGTH.pack(len(bundle.signatures)) + b"".join(bundle.signatures)
    return head + b"".join(bundle.parts[part.name] for part in bundle.manifest.parts)


def unpack(raw: bytes) -> Bundle:
    """Reads a bundle file and checks every size and digest. Signatures are not judged here.

    Raises:
        MalformedBundle: The bytes are cut, grown, changed, or name unknown parts.
    """
    if len(raw) > BUNDLE_BYTES_MAX or not raw.startswith(MAGIC):
        raise MalformedBundle("this is not a Perimeter bundle, or it is larger than 512 MiB")
    manifest_raw, offset = _take_counted(raw, len(MAGIC), 1, MANIFEST_BYTES_MAX)
    manifest = ModelManifest.from_json(manifest_raw)
    joined, offset = _take_counted(raw, offset, SIGNATURE_BYTES, SIGNATURE_COUNT_MAX)
    signatures = tuple(
        joined[i : i + SIGNATURE_BYTES] for i in range(0, len(joined), SIGNATURE_BYTES)
    )
    return Bundle(manifest, signatures, _take_parts(raw, offset, manifest))


def _known_values(raw: bytes, names: set[str]) -> dict[str, Any]:
    values = json.loads(raw)
    if not isinstance(values, dict) or set(values) | {"site_temperatures"} != names:
        raise MalformedBundle("the manifest's keys are not the known ones")
    return {"site_temperatures": {}, **values}


def _check_temperatures(*temperatures: Any) -> None:
    if not all(type(t) in (int, float) and 0 < t < math.inf for t in temperatures):
        raise MalformedBundle("a temperature of the manifest is not a positive number")


def _take_counted(raw: bytes, offset: int, width: int, count_max: int) -> tuple[bytes, int]:
    start = offset + _LENGTH.size
    if len(raw) < start:
        raise MalformedBundle("the bundle is cut short; download it again")
    (count,) = _LENGTH.unpack_from(raw, offset)
    end = start + count * width
    if count > count_max or len(raw) < end:
        raise MalformedBundle("the bundle is cut short or announces too much; download it again")
    return raw[start:end], end


def _take_parts(raw: bytes, offset: int, manifest: ModelManifest) -> dict[str, bytes]:
    names = [part.name for part in manifest.parts]
    if names != sorted(set(names)) or not set(names) <= set(PART_NAMES) or PART_MODEL not in names:
        raise MalformedBundle("the bundle's parts are not the known ones")
    parts: dict[str, bytes] = {}
    for part in manifest.parts:
        content = raw[offset : offset + part.size_bytes]
        if hashlib.sha256(content).hexdigest() != part.sha256 or len(content) != part.size_bytes:
            raise MalformedBundle(f"part {part.name} differs from the manifest; download it again")
        parts[part.name] = content
        offset += part.size_bytes
    if offset != len(raw):
        raise MalformedBundle("the bundle has bytes after its last part")
    return parts
