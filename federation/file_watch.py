"""Tells when a file was replaced, such as a renewed certificate."""

from __future__ import annotations

from pathlib import Path


class FileWatch:
    """Tells when a file has changed since it was last asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether the file is another one than at the last call; a missing file is no change."""
        found = self._stamp()
        if found is None or found == self._seen:
            return False
        self._seen = found
        return True

    def _stamp(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
