"""Ed25519 signatures over manifests (RFC 8032). The only module here that uses cryptography."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from model_bundle.errors import SignatureInvalid
from model_bundle.manifest import Bundle

DOMAIN = b"perimeter-bundle-v1\0"


def signed(bundle: Bundle, key: Ed25519PrivateKey) -> Bundle:
    """Returns the bundle with one more signature."""
    signature = key.sign(DOMAIN + bundle.manifest.canonical_json())
    return dataclasses.replace(bundle, signatures=(*bundle.signatures, signature))


def verify(bundle: Bundle, trusted_keys: Sequence[bytes]) -> None:
    """Checks that at least one trusted key signed the manifest.

    Args:
        bundle: An unpacked bundle, so that its parts match its manifest.
        trusted_keys: Ed25519 public keys, 32 bytes each.

    Raises:
        SignatureInvalid: No signature fits a trusted key.
    """
    message = DOMAIN + bundle.manifest.canonical_json()
    for raw in trusted_keys:
        key = Ed25519PublicKey.from_public_bytes(raw)
        for signature in bundle.signatures:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return
    raise SignatureInvalid(
        f"no trusted key signed model version {bundle.manifest.version}; ask the operator"
    )
