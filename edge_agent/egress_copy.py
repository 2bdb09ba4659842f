"""Hands the ledger of what left to the portal of the own site, line by line as it stands on disk.

The portal says which record it holds last. From a record that stands here too, the copy goes on
behind it; otherwise it starts over, and what the portal holds already changes nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edge_agent.egress_ledger import ledger_files
from edge_agent.errors import StorageError

_LINES_MAX = 1000
_BYTES_MAX = 768 << 10
"""A batch stays far below what the smallest portal takes; one line always goes."""


class LedgerTaker(Protocol):
    """Whoever takes lines: the portal's client."""

    @property
    def is_configured(self) -> bool:
        """Whether the device has a portal."""
        ...

    def record_egress(self, lines: Sequence[bytes]) -> tuple[int, bytes]:
        """Hands over lines; returns position and digest of the newest record there."""
        ...


class EgressCopy:
    """Follows the ledger.

    Args:
        folder: Folder of the ledger.
        portal: Takes the lines.
    """

    def __init__(self, folder: Path, portal: LedgerTaker) -> None:
        self._folder = folder
        self._portal = portal
        self._place: tuple[Path, int] | None = None

    def turn(self) -> bool:
        """Hands over the next lines; True when there are more.

        Raises:
            PeerError: The portal cannot be reached or refused.
            StorageError: The ledger cannot be read.
        """
        if not self._portal.is_configured:
            return False
        if self._place is None:
            self._place = self._place_after(*self._portal.record_egress([]))
        lines, place, more = self._next_lines(self._place)
        if not lines:
            return False
        # Until the portal has answered, the place counts as unknown: the next turn asks again.
        self._place = None
        self._portal.record_egress(lines)
        self._place = place
        return more

    def _place_after(self, sequence: int, digest: bytes) -> tuple[Path, int]:
        """Returns file and offset behind a record, or the start when it is not in this ledger."""
        files = ledger_files(self._folder)
        start = (files[0] if files else self._folder / "none", 0)
        older = [path for path in files if int(path.stem) <= sequence]
        if not older:
            return start
        offset = 0
        with older[-1].open("rb") as file:
            for line in file:
                offset += len(line)
                if _is_record(line, sequence, digest):
                    return older[-1], offset
        return start

    def _next_lines(self, place: tuple[Path, int]) -> tuple[list[bytes], tuple[Path, int], bool]:
        """Returns whole lines from a place on, the place behind them, and whether more may come."""
        path, offset = place
        lines: list[bytes] = []
        size = 0
        for file_path in [p for p in ledger_files(self._folder) if p >= path or not offset]:
            begin = offset if file_path == path else 0
            with file_path.open("rb") as file:
                file.seek(begin)
                for line in file:
                    full = len(lines) == _LINES_MAX or size + len(line) > _BYTES_MAX
                    if not line.endswith(b"\n") or (lines and full):
                        return lines, (path, offset), full
                    lines.append(line[:-1])
                    begin += len(line)
                    size += len(line)
                    path, offset = file_path, begin
        return lines, (path, offset), False


def _is_record(line: bytes, sequence: int, digest: bytes) -> bool:
    try:
        record = json.loads(line)
        found: bool = record["sequence"] == sequence and record["digest"] == digest.hex()
    except (ValueError, KeyError, TypeError):
        raise StorageError(
            "a line of the egress ledger is no record; see `egress verify`"
        ) from None
    return found
