"""Where the device's keys lie: files, or the keyring of the operating system. One seam.

A key is 32 bytes under a name: `queue` for the device itself, a campaign's id in hex for its
content.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import secrets
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, Protocol

from edge_agent.errors import StorageError
from edge_agent.queue.sealing import KEY_BYTES, load_or_make_key

DEVICE = "queue"


class KeyStore(Protocol):
    """Keeps keys apart from what they seal."""

    def get(self, name: str) -> bytes | None:
        """Returns a key, or None when there is none.

        Raises:
            StorageError: The key is there and cannot be used.
        """
        ...

    def make(self, name: str) -> bytes:
        """Returns a key that is durable now; the one that is there, or a new one."""
        ...

    def delete(self, name: str) -> bool:
        """Destroys a key; False when there was none."""
        ...

    def place(self, name: str) -> str:
        """Says where a key lies, for people."""
        ...


class FileKeys:
    """Key files that only their owner can read.

    Args:
        device_path: File of the device's key; those of campaigns lie in `<device_path>.d/`.
    """

    def __init__(self, device_path: Path) -> None:
        self._device_path = device_path

    def get(self, name: str) -> bytes | None:
        """See `KeyStore.get`."""
        path = self._path(name)
        return load_or_make_key(path) if path.exists() or path.is_symlink() else None

    def make(self, name: str) -> bytes:
        """See `KeyStore.make`."""
        path = self._path(name)
        key = load_or_make_key(path)
        _sync(path.parent)
        return key

    def delete(self, name: str) -> bool:
        """See `KeyStore.delete`. The file is overwritten first."""
        path = self._path(name)
        if not path.exists():
            return False
        with path.open("r+b") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        _sync(path.parent)
        return True

    def place(self, name: str) -> str:
        """See `KeyStore.place`."""
        return f"key file {self._path(name)}"

    def _path(self, name: str) -> Path:
        if name == DEVICE:
            return self._device_path
        return self._device_path.with_name(f"{self._device_path.name}.d") / f"{name}.key"


class KeyringKeys:
    """The keyring of the operating system, through the package `keyring`.

    Args:
        service: Name under which this device's keys stand there.

    Raises:
        StorageError: The package is missing, or finds no keyring that keeps anything.
    """

    def __init__(self, service: str) -> None:
        try:
            import keyring
            from keyring.backends import fail, null
        except ImportError:
            raise StorageError(
                'key_store = "keyring" needs the package keyring: '
                "pip install 'perimeter[keyring]', or use key_store = \"file\""
            ) from None
        found = keyring.get_keyring()
        if isinstance(found, (fail.Keyring, null.Keyring)):
            raise StorageError(
                f"the operating system offers no keyring ({type(found).__module__}); start one, "
                'such as the Secret Service, or use key_store = "file"'
            )
        self._keyring: Any = found
        self._service = service

    def get(self, name: str) -> bytes | None:
        """See `KeyStore.get`."""
        stored = self._ask("read", lambda: self._keyring.get_password(self._service, name))
        if stored is None:
            return None
        with contextlib.suppress(binascii.Error, ValueError):
            key = b64decode(stored, validate=True)
            if len(key) == KEY_BYTES:
                return key
        raise StorageError(f"{self.place(name)} is damaged; restore it from its backup")

    def make(self, name: str) -> bytes:
        """See `KeyStore.make`. Reads the key back: some keyrings forget without a word."""
        known = self.get(name)
        if known is not None:
            return known
        key = secrets.token_bytes(KEY_BYTES)
        encoded = b64encode(key).decode()
        self._ask("write", lambda: self._keyring.set_password(self._service, name, encoded))
        if self.get(name) != key:
            raise StorageError(f'{self.place(name)} was not kept; use key_store = "file"')
        return key

    def delete(self, name: str) -> bool:
        """See `KeyStore.delete`."""
        if self.get(name) is None:
            return False
        self._ask("delete from", lambda: self._keyring.delete_password(self._service, name))
        return True

    def place(self, name: str) -> str:
        """See `KeyStore.place`."""
        return f"key {name!r} of {self._service!r} in {self._keyring.name}"

    def _ask(self, what: str, call: Any) -> Any:
        from keyring.errors import KeyringError

        try:
            return call()
        except KeyringError as error:
            raise StorageError(
                f"cannot {what} the keyring ({type(error).__name__}); unlock it, "
                "or run the agent in a session that can"
            ) from None


def _sync(folder: Path) -> None:
    """Makes entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
