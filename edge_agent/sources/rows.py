"""Rows of growing files: complete records out of bytes, and one sample out of each. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.config import SourceConfig
from edge_agent.errors import SampleRefused
from edge_agent.sources.decoding import canonical_record, canonical_text, checked_text


@dataclass(frozen=True)
class Stretch:
    """Complete records at the start of a stretch of bytes.

    Attributes:
        records: Each without its line end.
        consumed: Bytes that the records and their line ends take.
    """

    records: tuple[bytes, ...]
    consumed: int


def split_records(stretch: bytes, *, quoted: bool, count_max: int) -> Stretch:
    """Cuts complete records off the front; a last one without line end waits.

    Args:
        stretch: Bytes from the position onwards.
        quoted: True for CSV, where a line end inside quotes belongs to the record.
        count_max: At most this many records.

    >>> lines = bytes([97, 10, 98, 10]) + b"half"
    >>> split_records(lines, quoted=False, count_max=9).records
    (b'a', b'b')
    """
    records: list[bytes] = []
    start = position = 0
    while len(records) < count_max:
        end = stretch.find(b"\n", position)
        if end < 0:
            break
        position = end + 1
        if quoted and stretch.count(b'"', start, end) % 2:
            continue
        records.append(stretch[start:end].removesuffix(b"\r"))
        start = position
    return Stretch(tuple(records), start)


def csv_fields(record: bytes) -> list[str]:
    """Parses one CSV record.

    Raises:
        SampleRefused: Not UTF-8, or broken quoting.

    >>> csv_fields(b'"a, b",2')
    ['a, b', '2']
    """
    try:
        text = record.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError:
        raise SampleRefused("the row is not UTF-8; convert the file", reason="not-utf8") from None
    except csv.Error as error:
        raise SampleRefused(f"the row is not CSV: {error}", reason="bad-row") from None
    return rows[0] if rows else []


def csv_row(record: bytes, header: Sequence[str]) -> dict[str, Any]:
    """Names the fields of a CSV record; refuses another number of fields than the header's."""
    fields = csv_fields(record)
    if len(fields) != len(header):
        raise SampleRefused(
            f"the row has {len(fields)} fields, the header has {len(header)}", reason="bad-row"
        )
    return dict(zip(header, fields, strict=True))


def json_row(record: bytes) -> dict[str, Any]:
    """Parses one line of a JSONL file."""
    try:
        row = json.loads(record.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise SampleRefused("the line is not UTF-8; convert the file", reason="not-utf8") from None
    except (ValueError, RecursionError):
        raise SampleRefused("the line is not JSON", reason="bad-row") from None
    if not isinstance(row, dict):
        raise SampleRefused("the line is not a JSON object", reason="bad-row")
    return row


def row_content(row: Mapping[str, Any], source: SourceConfig) -> bytes:
    """Turns a row into canonical content: its text column, or the whole record.

    Raises:
        SampleRefused: The text column is missing or empty, or a value is no number or text.

    >>> row_content({"text": "hi", "id": 1}, SourceConfig(
    ...     name="s", campaign="c", kind="text", type="file", path="f"))
    b'hi'
    """
    if source.kind == "record":
        return canonical_record({k: v for k, v in row.items() if k not in source.exclude_columns})
    if source.text_column not in row:
        raise SampleRefused(missing_column(source, list(row)), reason="no-text-column")
    text = row[source.text_column]
    if text is None:
        raise SampleRefused("the text is empty", reason="empty")
    if isinstance(text, bytes):
        return canonical_text(text)
    if not isinstance(text, str):
        raise SampleRefused(f"column {source.text_column!r} must hold a text", reason="bad-row")
    return checked_text(text)


def missing_column(source: SourceConfig, columns: Sequence[str]) -> str:
    """Says which column is missing and what to do."""
    listed = ", ".join(repr(column) for column in columns[:8])
    return (
        f"there is no column {source.text_column!r} (there are: {listed}); "
        f"set text_column of source {source.name!r}"
    )
