"""A watched folder: each file is one sample, or several for arrays of windows.

Polling sees every file on every file system, also on network mounts that send no notice. A file is
read once it has rested for a moment, so that a half-copied one is not taken; it is read again when
its size or time changes.
"""

from __future__ import annotations

import fnmatch
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from edge_agent.config import Limits, SourceConfig
from edge_agent.errors import SampleRefused
from edge_agent.queue.journal import Journal, Refusal
from edge_agent.sources.decoding import canonical, check_size
from edge_agent.sources.intake import Delivery

_STAMP = struct.Struct("<Qq")


class FolderSource:
    """Reads new and changed files of a folder and its sub-folders.

    Args:
        config: The source.
        limits: Sizes.
        journal: Knows which files were read.
        settle_seconds: A file is read once it is this old.
    """

    def __init__(
        self, config: SourceConfig, limits: Limits, journal: Journal, *, settle_seconds: float
    ) -> None:
        self.config = config
        self._limits = limits
        self._journal = journal
        self._settle_seconds = settle_seconds
        self._seen = journal.seen_files(config.name)

    def poll(self, now: float) -> Delivery:
        """Reads up to the limit of files that are new or changed.

        Raises:
            OSError: The folder cannot be read.
        """
        contents: list[bytes] = []
        refusals: list[Refusal] = []
        files: list[tuple[bytes, bytes]] = []
        more = False
        for path, file_id, stamp in self._fresh(now):
            if len(contents) + len(refusals) >= self._limits.poll_samples_max:
                more = True
                break
            try:
                contents += self._read(path)
            except SampleRefused as error:
                name = str(path.relative_to(self.config.path))
                refusals.append(Refusal(self.config.name, error.reason, str(error), name))
            except FileNotFoundError:
                continue
            files.append((file_id, stamp))
        return Delivery(contents, refusals, None, files, more)

    def took(self, delivery: Delivery) -> None:
        """Remembers what the queue now holds, so that it is not read again."""
        self._seen.update(delivery.files)

    def _read(self, path: Path) -> list[bytes]:
        check_size(path.stat().st_size, self._limits)
        return canonical(path.read_bytes(), self.config.kind, self._limits)

    def _fresh(self, now: float) -> Iterator[tuple[Path, bytes, bytes]]:
        root = Path(self.config.path)
        for path in _files(root):
            if not fnmatch.fnmatch(path.name, self.config.pattern):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            # A time in the future is a wrong clock and must not hide the file for ever.
            if 0 <= now - status.st_mtime < self._settle_seconds:
                continue
            file_id = self._journal.file_id(self.config.name, str(path.relative_to(root)))
            stamp = _STAMP.pack(status.st_size, status.st_mtime_ns)
            if self._seen.get(file_id) != stamp:
                yield path, file_id, stamp


def _files(root: Path) -> Iterator[Path]:
    """All plain files below a folder in name order; hidden ones and links are left out."""
    with os.scandir(root) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _files(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)
