"""The formats by name: what each can hold, how to write and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Kind
from review_portal.interchange import (
    doccano,
    image_sets,
    label_studio,
    native_jsonl,
    prodigy,
)
from review_portal.interchange.errors import FormatUnknown
from review_portal.interchange.records import ExportedItem, ExportReport, ReadRow

Writer = Callable[[Iterable[ExportedItem], Path, LabelSchema], ExportReport]
Reader = Callable[[Path, LabelSchema, Kind], Iterator[ReadRow]]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format of another tool, or our own.

    Attributes:
        name: As it is given on a command line.
        title: As it is shown on a page.
        target: Whether `write` makes a file or a folder.
        kinds: Kinds of items it can hold.
        write: Writes records to a path that does not exist yet, whole or not at all.
        read: Reads rows one by one; bad rows come as `RefusedRow`.
    """

    name: str
    title: str
    target: Literal["file", "folder"]
    kinds: frozenset[Kind]
    write: Writer
    read: Reader


def _write_parquet(
    records: Iterable[ExportedItem], target: Path, schema: LabelSchema
) -> ExportReport:
    from review_portal.interchange import huggingface  # pyarrow takes 0.2 s to import

    return huggingface.write(records, target, schema)


def _read_parquet(path: Path, schema: LabelSchema, kind: Kind) -> Iterator[ReadRow]:
    from review_portal.interchange import huggingface

    return huggingface.read(path, schema, kind)


_ALL = frozenset(Kind)
_NO_SERIES = _ALL - {Kind.SERIES}
_IMAGE = frozenset({Kind.IMAGE})
FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format("jsonl", "Perimeter JSONL", "file", _ALL, native_jsonl.write, native_jsonl.read),
        Format(
            "label-studio", "Label Studio JSON", "folder", _ALL,
            label_studio.write, label_studio.read,
        ),
        Format("prodigy", "Prodigy JSONL", "file", _NO_SERIES, prodigy.write, prodigy.read),
        Format("doccano", "doccano JSONL", "folder", _NO_SERIES, doccano.write, doccano.read),
        Format(
            "huggingface", "Hugging Face datasets (Parquet)", "folder", _ALL,
            _write_parquet, _read_parquet,
        ),
        Format("coco", "COCO", "folder", _IMAGE, image_sets.write_coco, image_sets.read_coco),
        Format(
            "yolo", "YOLO classification", "folder", _IMAGE,
            image_sets.write_yolo, image_sets.read_yolo,
        ),
    )
}  # fmt: skip


def format_named(name: str) -> Format:
    """Returns a format.

    Raises:
        FormatUnknown: No format has that name.

    >>> format_named("coco").target
    'folder'
    """
    try:
        return FORMATS[name]
    except KeyError:
        raise FormatUnknown(
            f"format {name!r} is not known; use one of {', '.join(sorted(FORMATS))}"
        ) from None
