"""Where the keys of a site's campaigns lie: files, or the keyring of the operating system.

The folder of the keys says which by itself, so that every process that opens the store, a site's
trainer as well, looks in the right place.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import secrets
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from review_portal.errors import ConfigInvalid, KeyExposed, KeyMissing, KeysUnusable

KEY_BYTES = 32
MARK = "in-keyring"
"""A file of this name in the folder of the keys says that they lie in the keyring."""


class KeyPlace(Protocol):
    """Keeps keys by campaign, apart from the database."""

    def read(self, campaign_id: bytes) -> bytes | None:
        """Returns a key, or None when there is none.

        Raises:
            StoreError: It is there, or may be, and cannot be used.
        """
        ...

    def make(self, campaign_id: bytes) -> None:
        """Makes a key, durably; the first of two processes wins."""
        ...

    def delete(self, campaign_id: bytes) -> bool:
        """Destroys a key; False when there was none."""
        ...

    def name(self, campaign_id: bytes) -> str:
        """Says where a key lies, for people."""
        ...


class KeyFiles:
    """Key files, `<folder>/<campaign hex>.key`, mode 0600.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, campaign_id: bytes) -> bytes | None:
        """See `KeyPlace.read`."""
        path = self._path(campaign_id)
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise KeyExposed(f"{path} must be a plain file of mode 0600; run `chmod 600 {path}`")
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise KeyMissing(f"{path} holds {len(key)} bytes instead of {KEY_BYTES}; restore it")
        return key

    def make(self, campaign_id: bytes) -> None:
        """See `KeyPlace.make`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(campaign_id)
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

    def delete(self, campaign_id: bytes) -> bool:
        """See `KeyPlace.delete`. The file is overwritten first."""
        path = self._path(campaign_id)
        if not path.exists():
            return False
        with path.open("r+b") as key_file:
            key_file.write(secrets.token_bytes(KEY_BYTES))
            key_file.flush()
            os.fsync(key_file.fileno())
        path.unlink()
        return True

    def name(self, campaign_id: bytes) -> str:
        """See `KeyPlace.name`."""
        return str(self._path(campaign_id))

    def _path(self, campaign_id: bytes) -> Path:
        return self._folder / f"{campaign_id.hex()}.key"


class KeyringEntries:
    """Entries in the keyring of the operating system, through the package `keyring`.

    Args:
        service: Name under which this portal's keys stand there.

    Raises:
        KeysUnusable: The package is missing, or finds no keyring that keeps anything.
    """

    def __init__(self, service: str) -> None:
        try:
            import keyring
            from keyring.backends import fail, null
        except ImportError:
            raise KeysUnusable(
                "the keys lie in the keyring of the operating system, which needs the package "
                "keyring: pip install 'perimeter[keyring]'"
            ) from None
        found = keyring.get_keyring()
        if isinstance(found, (fail.Keyring, null.Keyring)):
            raise KeysUnusable(
                f"the operating system offers no keyring ({type(found).__module__}); start one, "
                "such as the Secret Service, in the session of the portal"
            )
        self._keyring: Any = found
        self._service = service

    def read(self, campaign_id: bytes) -> bytes | None:
        """See `KeyPlace.read`."""
        entry = campaign_id.hex()
        stored = self._ask("read", lambda: self._keyring.get_password(self._service, entry))
        if stored is None:
            return None
        with contextlib.suppress(binascii.Error, ValueError):
            key = b64decode(stored, validate=True)
            if len(key) == KEY_BYTES:
                return key
        raise KeysUnusable(f"{self.name(campaign_id)} is damaged; restore it from its backup")

    def make(self, campaign_id: bytes) -> None:
        """See `KeyPlace.make`. Reads the key back: some keyrings forget without a word."""
        if self.read(campaign_id) is not None:
            return
        entry, encoded = campaign_id.hex(), b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        self._ask("write", lambda: self._keyring.set_password(self._service, entry, encoded))
        if self.read(campaign_id) is None:
            raise KeysUnusable(f"{self.name(campaign_id)} was not kept by the keyring")

    def delete(self, campaign_id: bytes) -> bool:
        """See `KeyPlace.delete`."""
        if self.read(campaign_id) is None:
            return False
        entry = campaign_id.hex()
        self._ask("delete from", lambda: self._keyring.delete_password(self._service, entry))
        return True

    def name(self, campaign_id: bytes) -> str:
        """See `KeyPlace.name`."""
        return f"entry {campaign_id.hex()} of {self._service!r} in {self._keyring.name}"

    def _ask(self, what: str, call: Callable[[], Any]) -> Any:
        from keyring.errors import KeyringError

        try:
            return call()
        except KeyringError as error:
            raise KeysUnusable(
                f"cannot {what} the keyring ({type(error).__name__}); unlock it, "
                "or run the portal in a session that can"
            ) from None


def place_of(folder: Path) -> KeyPlace:
    """Returns where the keys of a store lie, as their folder says.

    Raises:
        KeysUnusable: In a keyring that is not there.
    """
    if (folder / MARK).exists():
        return KeyringEntries(f"perimeter-portal {folder.resolve()}")
    return KeyFiles(folder)


def choose(folder: Path, wanted: str) -> None:
    """Settles where the keys of a new store lie; later only checks that it still is what is wanted.

    Args:
        folder: The folder of the keys.
        wanted: `file` or `keyring`.

    Raises:
        ConfigInvalid: The store began with the other one; keys are not moved.
        KeysUnusable: There is no keyring that keeps anything.
    """
    has_files = any(folder.glob("*.key"))
    if wanted == "keyring" and not (folder / MARK).exists():
        if has_files:
            raise ConfigInvalid(
                f'key_store = "keyring", but keys lie in {folder} already; keys are not moved'
            )
        KeyringEntries(f"perimeter-portal {folder.resolve()}")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / MARK).touch(mode=0o600)
    elif wanted == "file" and (folder / MARK).exists():
        raise ConfigInvalid('key_store = "file", but this store has its keys in the keyring')
