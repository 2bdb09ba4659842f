"""A file that grows: JSONL, CSV or Parquet. The position is stored with the samples it led to.

JSONL and CSV go on at a byte; a last line without its end waits for the rest. Parquet files cannot
grow in place: writers replace them by longer ones, so reading goes on at a row. A file that became
shorter or starts differently was rotated and is read from its start; rows that are known already
change nothing.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.config import Limits, SourceConfig
from edge_agent.errors import SampleRefused
from edge_agent.queue.journal import Journal, Refusal
from edge_agent.sources.decoding import check_size
from edge_agent.sources.intake import Delivery
from edge_agent.sources.rows import (
    csv_fields,
    csv_row,
    json_row,
    missing_column,
    row_content,
    split_records,
)

_HEAD_BYTES = 256
_HEADER_BYTES_MAX = 1 << 20
_PARQUET_SECONDS = 120


@dataclass(frozen=True)
class Position:
    """Where reading goes on.

    Attributes:
        offset: Byte (JSONL, CSV) or row (Parquet).
        row: Rows read so far, for messages.
        head: Digest of the file's first bytes, to notice rotation.
        head_bytes: How many bytes `head` covers.
        skipping: True inside a row that was refused for its size.
        stamp: Size and time of a Parquet file that was read to its end.
    """

    offset: int = 0
    row: int = 0
    head: str = ""
    head_bytes: int = 0
    skipping: bool = False
    stamp: str = ""

    def pack(self) -> bytes:
        """Returns the bytes that the journal keeps."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, raw: bytes | None) -> Position:
        """Reads what `pack` wrote; the start of the file for None."""
        return cls(**json.loads(raw)) if raw else cls()


class GrowingFile:
    """Reads new rows of a JSONL, CSV or Parquet file, by its ending.

    Args:
        config: The source.
        limits: Sizes.
        journal: Keeps the position.
    """

    def __init__(self, config: SourceConfig, limits: Limits, journal: Journal) -> None:
        self.config = config
        self._limits = limits
        self._journal = journal
        self._path = Path(config.path)

    def poll(self, now: float) -> Delivery:  # noqa: ARG002 - one face for all sources
        """Reads up to the limit of new rows.

        Raises:
            SampleRefused: The file as a whole cannot be used; says why.
            OSError: The file cannot be read.
        """
        position = Position.unpack(self._journal.position(self.config.name))
        if self._path.suffix.lower() in {".parquet", ".pq"}:
            return self._poll_parquet(position)
        return self._poll_lines(self._checked(position))

    def took(self, delivery: Delivery) -> None:
        """Nothing to remember: the position is in the queue."""

    def _checked(self, position: Position) -> Position:
        """The position, or the start when the file was rotated."""
        size = self._path.stat().st_size
        if position.head and (
            size < position.offset or self._head(position.head_bytes) != position.head
        ):
            position = Position()
        if not position.head or position.head_bytes < min(_HEAD_BYTES, position.offset):
            covered = min(_HEAD_BYTES, position.offset)
            head = self._head(covered) if covered else ""
            return replace(position, head=head, head_bytes=covered)
        return position

    def _head(self, length: int) -> str:
        with self._path.open("rb") as file:
            return hashlib.sha256(file.read(length)).hexdigest()

    def _poll_lines(self, position: Position) -> Delivery:
        is_csv = self._path.suffix.lower() in {".csv", ".tsv"}
        with self._path.open("rb") as file:
            header, body = self._header(file.readline(_HEADER_BYTES_MAX)) if is_csv else ([], 0)
            if is_csv and not body:
                return Delivery()
            start = max(position.offset, body)
            file.seek(start)
            stretch = file.read(self._limits.sample_bytes_max + _HEADER_BYTES_MAX)
        if position.skipping:
            return self._skip(stretch, replace(position, offset=start))
        cut = split_records(stretch, quoted=is_csv, count_max=self._limits.poll_samples_max)
        if not cut.records:
            return self._without_record(stretch, replace(position, offset=start))
        read = partial(csv_row, header=header) if is_csv else json_row
        rows = [(n, record) for n, record in enumerate(cut.records, position.row + 1) if record]
        contents, refusals = self._samples((n, partial(read, r)) for n, r in rows)
        after = replace(position, offset=start + cut.consumed, row=position.row + len(cut.records))
        more = len(cut.records) == self._limits.poll_samples_max or cut.consumed < len(stretch)
        more = more and b"\n" in stretch[cut.consumed :]
        return Delivery(contents, refusals, self._checked(after).pack(), (), more)

    def _header(self, line: bytes) -> tuple[list[str], int]:
        """Column names and the length of the header; 0 while it is not complete."""
        if not line.endswith(b"\n"):
            return [], 0
        header = csv_fields(line.rstrip(b"\r\n"))
        if self.config.kind == "text" and self.config.text_column not in header:
            raise SampleRefused(missing_column(self.config, header), reason="no-text-column")
        return header, len(line)

    def _without_record(self, stretch: bytes, position: Position) -> Delivery:
        """No complete row: it waits, unless it is larger than any row may be."""
        if len(stretch) <= self._limits.sample_bytes_max:
            return Delivery()
        refusal = self._refusal(
            position.row + 1,
            SampleRefused("the row is larger than limits.sample_bytes_max", reason="too-large"),
        )
        after = replace(position, row=position.row + 1, skipping=True)
        return Delivery((), [refusal], after.pack(), (), more=True)

    def _skip(self, stretch: bytes, position: Position) -> Delivery:
        """Passes over the rest of a refused row."""
        end = stretch.find(b"\n")
        passed = end + 1 if end >= 0 else len(stretch)
        after = replace(position, offset=position.offset + passed, skipping=end < 0)
        return Delivery((), (), after.pack(), (), more=bool(stretch))

    def _poll_parquet(self, position: Position) -> Delivery:
        status = self._path.stat()
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
        if position.stamp == stamp:
            return Delivery()
        count = self._limits.poll_samples_max
        answer = read_parquet(self._path, position.offset, count)
        if position.offset > answer["rows_total"]:
            position = Position()
            answer = read_parquet(self._path, 0, count)
        if self.config.kind == "text" and self.config.text_column not in answer["columns"]:
            raise SampleRefused(
                missing_column(self.config, answer["columns"]), reason="no-text-column"
            )
        rows = answer["rows"]
        contents, refusals = self._samples(
            (n, partial(dict, row)) for n, row in enumerate(rows, position.row + 1)
        )
        reached = position.offset + len(rows)
        done = reached >= answer["rows_total"]
        after = Position(offset=reached, row=reached, stamp=stamp if done else "")
        return Delivery(contents, refusals, after.pack(), (), more=not done)

    def _samples(
        self, rows: Iterable[tuple[int, Callable[[], dict[str, Any]]]]
    ) -> tuple[list[bytes], list[Refusal]]:
        contents: list[bytes] = []
        refusals: list[Refusal] = []
        for number, read in rows:
            try:
                content = row_content(read(), self.config)
                check_size(len(content), self._limits)
                contents.append(content)
            except SampleRefused as error:
                refusals.append(self._refusal(number, error))
        return contents, refusals

    def _refusal(self, number: int, error: SampleRefused) -> Refusal:
        location = f"{self._path.name}, row {number}"
        return Refusal(self.config.name, error.reason, str(error), location)


def read_parquet(path: Path, start: int, count: int) -> dict[str, Any]:
    """Reads rows of a Parquet file in a child process.

    The reader needs 50 MB and more; a daemon on a small device must not keep that.

    Returns:
        `columns`, `rows_total` and `rows`, a list of mappings.

    Raises:
        SampleRefused: The file is damaged or not finished.
    """
    command = [sys.executable, "-m", "edge_agent.sources.parquet_rows"]
    done = subprocess.run(
        [*command, str(path), str(start), str(count)],
        capture_output=True,
        timeout=_PARQUET_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise SampleRefused(
            f"{path.name} is not a readable Parquet file (yet); "
            "write it under another name and rename it when it is complete",
            reason="bad-file",
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
