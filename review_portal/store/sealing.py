"""Content at rest: AES-256-GCM under one key per campaign. Deleting the key deletes the content."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from review_portal.errors import KeyExposed, KeyMissing, SealBroken

KEY_BYTES = 32
NONCE_BYTES = 12


class KeyRing:
    """Key files of a site's campaigns, `<folder>/<campaign hex>.key`, mode 0600.

    Args:
        folder: Where the key files are.
        read_only: Never make a key; for processes that only read labels.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._folder = folder
        self._read_only = read_only
        self._ciphers: dict[bytes, AESGCM] = {}

    def seal(self, campaign_id: bytes, row: bytes, plain: bytes) -> bytes:
        """Encrypts one value for one row.

        Args:
            campaign_id: 16 bytes; chooses the key, which is made on first use.
            row: Names table and row, so that a sealed value cannot move to another row.
            plain: Any bytes.

        Returns:
            Nonce and ciphertext with tag, 28 bytes longer than `plain`.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher(campaign_id, make=True).encrypt(nonce, plain, campaign_id + row)

    def unseal(self, campaign_id: bytes, row: bytes, sealed: bytes) -> bytes:
        """Decrypts what `seal` made for the same row.

        Raises:
            KeyMissing: The campaign's key was deleted.
            SealBroken: The bytes were changed or belong to another row.
        """
        cipher = self._cipher(campaign_id, make=False)
        try:
            return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], campaign_id + row)
        except InvalidTag:
            raise SealBroken(
                f"sealed content of {row!r} in campaign {campaign_id.hex()} was changed"
            ) from None

    def has(self, campaign_id: bytes) -> bool:
        """Returns whether a campaign has a key."""
        return self._path(campaign_id).exists()

    def shred(self, campaign_id: bytes) -> bool:
        """Deletes a campaign's key, and so all of its content, in every copy of the database.

        Returns:
            False when there was no key.
        """
        self._ciphers.pop(campaign_id, None)
        path = self._path(campaign_id)
        if not path.exists():
            return False
        path.write_bytes(secrets.token_bytes(KEY_BYTES))
        with path.open("rb") as overwritten:
            os.fsync(overwritten.fileno())
        path.unlink()
        return True

    def _path(self, campaign_id: bytes) -> Path:
        return self._folder / f"{campaign_id.hex()}.key"

    def _cipher(self, campaign_id: bytes, *, make: bool) -> AESGCM:
        known = self._ciphers.get(campaign_id)
        if known is not None:
            return known
        path = self._path(campaign_id)
        if not path.exists() and (not make or self._read_only or not self._make(path)):
            raise KeyMissing(
                f"the key {path} is gone, so the content of campaign {campaign_id.hex()} is too; "
                "restore the key file from its backup if this was not meant"
            )
        cipher = AESGCM(_read_key(path))
        self._ciphers[campaign_id] = cipher
        return cipher

    def _make(self, path: Path) -> bool:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as key_file:
            key_file.write(secrets.token_bytes(KEY_BYTES))
            key_file.flush()
            os.fsync(key_file.fileno())
        # A link appears whole or not at all, and the first of two processes wins.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
        return True


def _read_key(path: Path) -> bytes:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
        raise KeyExposed(f"{path} must be a plain file of mode 0600; run `chmod 600 {path}`")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise KeyMissing(f"{path} holds {len(key)} bytes instead of {KEY_BYTES}; restore it")
    return key
