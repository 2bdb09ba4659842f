"""Content at rest: AES-256-GCM under one key per campaign. Deleting the key deletes the content."""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from review_portal.errors import KeyMissing, SealBroken
from review_portal.store.key_places import place_of

NONCE_BYTES = 12


class KeyRing:
    """Keys of a site's campaigns.

    Args:
        folder: Where the key files are, or what says that they lie in the keyring.
        read_only: Never make a key; for processes that only read labels.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._place = place_of(folder)
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
        return self._place.read(campaign_id) is not None

    def shred(self, campaign_id: bytes) -> bool:
        """Deletes a campaign's key, and so all of its content, in every copy of the database.

        Returns:
            False when there was no key.
        """
        self._ciphers.pop(campaign_id, None)
        return self._place.delete(campaign_id)

    def _cipher(self, campaign_id: bytes, *, make: bool) -> AESGCM:
        known = self._ciphers.get(campaign_id)
        if known is not None:
            return known
        key = self._place.read(campaign_id)
        if key is None and make and not self._read_only:
            self._place.make(campaign_id)
            key = self._place.read(campaign_id)
        if key is None:
            raise KeyMissing(
                f"the key {self._place.name(campaign_id)} is gone, so the content of campaign "
                f"{campaign_id.hex()} is too; restore the key from its backup if this was not meant"
            )
        cipher = AESGCM(key)
        self._ciphers[campaign_id] = cipher
        return cipher
