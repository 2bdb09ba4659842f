"""AES-256-GCM seals for everything at rest that holds content or says something of it.

A seal binds its value to its place (table and row) as associated data, so that a value that was
moved to another row does not open. Random 96-bit nonces; well under 2**32 seals a key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edge_agent.errors import SealBroken, StorageError

KEY_BYTES = 32
_NONCE_BYTES = 12


class Sealer:
    """Seals and opens values with one key, and derives keyed ids from it.

    Args:
        key: 32 bytes.

    >>> sealer = Sealer(bytes(32))
    >>> sealer.open(sealer.seal(b"x", b"place"), b"place")
    b'x'
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise StorageError(f"the queue key must have {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(_derived(key, b"seal"))
        self._id_key = _derived(key, b"id")

    def seal(self, value: bytes, place: bytes) -> bytes:
        """Returns nonce and ciphertext; 28 bytes longer than the value."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Returns the value.

        Raises:
            SealBroken: The bytes were changed, moved, or sealed by another key.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            raise SealBroken(
                "a sealed value cannot be opened: it was changed or belongs to another key file"
            ) from None

    def keyed_id(self, *parts: bytes) -> bytes:
        """Returns 16 bytes that name `parts` to holders of the key and mean nothing to others."""
        code = hmac.new(self._id_key, digestmod=hashlib.sha256)
        for part in parts:
            code.update(len(part).to_bytes(8, "little") + part)
        return code.digest()[:16]


def load_or_make_key(path: Path) -> bytes:
    """Reads the key file, or makes one that only its owner can read.

    Raises:
        StorageError: Others can read the file, it is a link, or its length is wrong.
    """
    if not path.exists() and not path.is_symlink():
        _write_key(path)
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise StorageError(
            f"key file {path} must be a plain file that only its owner can read; "
            "run `chmod 600` on it and check who could read it before"
        )
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise StorageError(
            f"key file {path} must have {KEY_BYTES} bytes; restore it from its backup"
        )
    return key


def _write_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.rename(path)


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, b"perimeter-queue-" + purpose, hashlib.sha256).digest()
