"""A bundle is taken whole, signed and unchanged, or not at all."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from model_bundle.errors import BundleExpired, MalformedBundle, SchemaInvalid, SignatureInvalid
from model_bundle.features import FeatureSpec
from model_bundle.label_schema import LabelSchema
from model_bundle.manifest import Bundle, ModelManifest, describe_parts, pack, unpack
from model_bundle.signing import signed, verify

PARTS = {"code_book.f32": b"c" * 64, "model.onnx": b"m" * 300, "prototypes.f32": b"p" * 32}


def example(version: int = 3) -> ModelManifest:
    return ModelManifest(
        campaign_id="ab" * 16,
        version=version,
        parent_version=version - 1,
        family="text",
        label_schema=LabelSchema(("refund", "Überweisung")),
        features=FeatureSpec("text", char_ngrams=(3,)),
        embedding_width=4,
        cell_count=4,
        temperature=1.25,
        created_at=1_700_000_000,
        expires_at=1_800_000_000,
        training={"rounds": 8, "sites": 3},
        parts=describe_parts(PARTS),
    )


def public_key(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"k" * 32)


@pytest.fixture(scope="module")
def bundle(key: Ed25519PrivateKey) -> Bundle:
    return signed(Bundle(example(), (), PARTS), key)


def test_a_packed_bundle_reads_back_equal(bundle: Bundle, key: Ed25519PrivateKey) -> None:
    read = unpack(pack(bundle))
    assert read == bundle
    verify(read, [b"\0" * 32, public_key(key)])


def test_every_flipped_byte_is_noticed(bundle: Bundle, key: Ed25519PrivateKey) -> None:
    raw = pack(bundle)
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 0x01
        with pytest.raises((MalformedBundle, SignatureInvalid, SchemaInvalid)):
            verify(unpack(bytes(changed)), [public_key(key)])


@given(st.integers(0, 2000), st.binary(max_size=64))
def test_cut_or_grown_bytes_are_refused(cut: int, tail: bytes) -> None:
    raw = pack(Bundle(example(), (b"s" * 64,), PARTS))
    for changed in (raw[: cut % len(raw)], raw + b"x" + tail):
        with pytest.raises(MalformedBundle):
            unpack(changed)


def test_a_stranger_cannot_sign(bundle: Bundle) -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    with pytest.raises(SignatureInvalid, match="version 3"):
        verify(bundle, [public_key(stranger)])


def test_a_signature_of_another_manifest_does_not_fit(
    bundle: Bundle, key: Ed25519PrivateKey
) -> None:
    moved = dataclasses.replace(bundle, manifest=example(version=4))
    with pytest.raises(SignatureInvalid):
        verify(moved, [public_key(key)])


def test_an_expired_manifest_is_named(bundle: Bundle) -> None:
    bundle.manifest.check_time(1_800_000_000)
    with pytest.raises(BundleExpired, match="version 3"):
        bundle.manifest.check_time(1_800_000_001)


def test_a_part_with_an_unknown_name_is_refused() -> None:
    parts = {**PARTS, "../agent.key": b"x"}
    manifest = dataclasses.replace(example(), parts=describe_parts(parts))
    with pytest.raises(MalformedBundle, match="known"):
        unpack(pack(Bundle(manifest, (), parts)))


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": ["one"]},
        {"classes": ["a", "a"]},
        {"classes": ["a", " b"]},
        {"classes": "ab"},
        {"classes": ["a", "b"], "colour": 1},
        {"classes": ["a", 2]},
        [],
    ],
)
def test_a_bad_label_schema_is_refused(fields: object) -> None:
    with pytest.raises(SchemaInvalid):
        LabelSchema.from_mapping(fields)  # type: ignore[arg-type]


def test_the_schema_digest_depends_on_order() -> None:
    assert LabelSchema(("a", "b")).digest() != LabelSchema(("b", "a")).digest()


def test_a_site_has_its_own_temperature_where_the_manifest_names_one() -> None:
    manifest = dataclasses.replace(example(), site_temperatures={"north": 2.0})
    read = ModelManifest.from_json(manifest.canonical_json())
    assert (read.temperature_at("north"), read.temperature_at("south")) == (2.0, 1.25)


def test_a_manifest_without_site_temperatures_has_the_bytes_it_always_had() -> None:
    assert b"site_temperatures" not in example().canonical_json()
    assert ModelManifest.from_json(example().canonical_json()) == example()


@pytest.mark.parametrize("wrong", [0.0, -1.0, True, "2"])
def test_a_temperature_that_is_no_positive_number_is_refused(wrong: object) -> None:
    for change in ({"temperature": wrong}, {"site_temperatures": {"north": wrong}}):
        manifest = dataclasses.replace(example(), **change)
        with pytest.raises(MalformedBundle, match="temperature"):
            ModelManifest.from_json(manifest.canonical_json())
