"""Hugging Face `datasets` layout: Parquet files by split, features in the schema's metadata.

`datasets.load_dataset(folder)` opens it offline with class names, images and spans typed. Nothing
is lost. Reading takes any Parquet file whose labels are names or carry their names in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Answer, Kind
from review_portal.interchange.contents import (
    content_from,
    plain_png,
    record_content,
    series_array,
    series_content,
)
from review_portal.interchange.errors import FileUnreadable, FormatUnsuited
from review_portal.interchange.records import (
    ExportedItem,
    ExportReport,
    ImportedRow,
    ReadRow,
    classes_of,
)
from review_portal.interchange.row_errors import (
    RowProblem,
    class_answer,
    rows,
    source_id_of,
    span_of,
    split_of,
    with_spans,
)
from review_portal.interchange.whole_files import new_folder

ROWS_PER_GROUP = 500
"""Items that are in memory at a time."""
_CARD = """---
configs:
- config_name: default
  data_files:
{files}
---
Labels of one site, exported by Perimeter. The content was masked by software before experts saw it:
that lowers the risk, and it is no anonymisation.
"""


def write(records: Iterable[ExportedItem], target: Path, schema: LabelSchema) -> ExportReport:
    """Writes `data/<split>-00000-of-00001.parquet` for each split, and a dataset card.

    Raises:
        TargetExists: There is something at `target` already.
        FormatUnsuited: The items differ in kind.
    """
    remaining, count = iter(records), 0
    writers: dict[str, pq.ParquetWriter] = {}
    with new_folder(target) as folder:
        (folder / "data").mkdir()
        try:
            kind: Kind | None = None
            while group := list(islice(remaining, ROWS_PER_GROUP)):
                kind = kind or group[0].kind
                _write_group(group, kind, schema, folder=folder, writers=writers)
                count += len(group)
        finally:
            for writer in writers.values():
                writer.close()
        files = "\n".join(f"  - split: {s}\n    path: data/{s}-*.parquet" for s in sorted(writers))
        (folder / "README.md").write_text(_CARD.format(files=files), encoding="utf-8")
    return ExportReport((), count)


def _write_group(
    group: list[ExportedItem],
    kind: Kind,
    schema: LabelSchema,
    *,
    folder: Path,
    writers: dict[str, pq.ParquetWriter],
) -> None:
    columns = arrow_schema(kind, schema)
    for split in sorted({record.split for record in group}):
        part = [_row(record, kind) for record in group if record.split == split]
        if split not in writers:
            path = folder / "data" / f"{split}-00000-of-00001.parquet"
            writers[split] = pq.ParquetWriter(path, columns)
        writers[split].write_table(pa.Table.from_pylist(part, schema=columns))


def arrow_schema(kind: Kind, schema: LabelSchema) -> Any:
    """Returns the Arrow schema with the features that `datasets` reads from its metadata."""
    span = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.int64())])
    shown = {
        Kind.TEXT: pa.string(),
        Kind.RECORD: pa.string(),
        Kind.IMAGE: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        Kind.SERIES: pa.list_(pa.list_(pa.float32())),
    }[kind]
    annotation = pa.struct([
        ("annotator", pa.string()), ("labels", pa.list_(pa.int64())), ("spans", pa.list_(span)),
        ("active_seconds", pa.float64()), ("decided_at", pa.string()), ("purpose", pa.string()),
        ("note", pa.string()), ("suggestion_shown", pa.bool_()),
    ])  # fmt: skip
    fields = [
        ("item_id", pa.string()), (kind.value, shown), ("label", pa.int64()),
        ("labels", pa.list_(pa.int64())), ("spans", pa.list_(span)), ("settlement", pa.string()),
        ("schema_version", pa.int64()), ("settled_at", pa.string()),
        ("suggested_label", pa.int64()), ("confidence", pa.float64()),
        ("model_version", pa.int64()), ("annotations", pa.list_(annotation)),
        ("provenance", pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))),
    ]  # fmt: skip
    metadata = json.dumps({"info": {"features": _features(kind, schema)}}, ensure_ascii=False)
    return pa.schema(fields, metadata={"huggingface": metadata})


def _features(kind: Kind, schema: LabelSchema) -> dict[str, object]:
    name: dict[str, object] = {"names": list(schema.classes), "_type": "ClassLabel"}
    text, whole, number = _value("string"), _value("int64"), _value("float64")
    spans = [{"start": whole, "end": whole, "label": name}]
    shown: dict[Kind, object] = {
        Kind.TEXT: text, Kind.RECORD: text, Kind.IMAGE: {"_type": "Image"},
        Kind.SERIES: [[_value("float32")]],
    }  # fmt: skip
    annotation = {
        "annotator": text, "labels": [name], "spans": spans, "active_seconds": number,
        "decided_at": text, "purpose": text, "note": text, "suggestion_shown": _value("bool"),
    }  # fmt: skip
    return {
        "item_id": text, kind.value: shown[kind], "label": name, "labels": [name], "spans": spans,
        "settlement": text, "schema_version": whole, "settled_at": text, "suggested_label": name,
        "confidence": number, "model_version": whole, "annotations": [annotation],
        "provenance": [{"name": text, "value": text}],
    }  # fmt: skip


def _value(dtype: str) -> dict[str, object]:
    return {"dtype": dtype, "_type": "Value"}


def _row(record: ExportedItem, kind: Kind) -> dict[str, object]:
    if record.kind is not kind:
        raise FormatUnsuited(f"the items are {kind.value} and {record.kind.value}; export one kind")
    label, suggestion = record.label, record.suggestion
    chosen = classes_of(label.answer) if label else ()
    return {
        "item_id": record.item_id,
        kind.value: _shown(record),
        "label": chosen[0] if chosen else None,
        "labels": list(chosen),
        "spans": _spans(label.answer if label else None),
        "settlement": label.settlement if label else None,
        "schema_version": label.schema_version if label else None,
        "settled_at": label.settled_at if label else None,
        "suggested_label": suggestion.class_index if suggestion else None,
        "confidence": suggestion.confidence if suggestion else None,
        "model_version": suggestion.model_version if suggestion else None,
        "annotations": [
            {
                "annotator": given.annotator, "labels": list(classes_of(given.answer)),
                "spans": _spans(given.answer), "active_seconds": given.active_seconds,
                "decided_at": given.decided_at, "purpose": given.purpose, "note": given.note,
                "suggestion_shown": given.suggestion_shown,
            }
            for given in record.annotations
        ],
        "provenance": [{"name": name, "value": value} for name, value in record.provenance],
    }  # fmt: skip


def _shown(record: ExportedItem) -> object:
    if record.kind is Kind.IMAGE:
        return {"bytes": record.content, "path": f"{record.item_id}.png"}
    if record.kind is Kind.SERIES:
        return series_array(record.content).tolist()
    return record.content.decode()


def _spans(answer: Answer | None) -> list[dict[str, int]]:
    return [
        {"start": start, "end": end, "label": index}
        for start, end, index in (answer.spans if answer else ())
    ]


def read(path: Path, schema: LabelSchema, kind: Kind) -> Iterator[ReadRow]:
    """Reads one Parquet file, or all of a folder and its `data` folder in the order of names.

    Raises:
        FileUnreadable: There is no Parquet file, or one cannot be opened.
    """
    folder = path if path.is_dir() else path.parent
    files = (
        sorted({*path.glob("*.parquet"), *path.glob("data/*.parquet")}) if path.is_dir() else [path]
    )
    if not files:
        raise FileUnreadable(f"{path} holds no .parquet file; name the folder of the dataset")

    def build(number: int, row: Mapping[str, object]) -> ImportedRow:
        content = _content(row.get(kind.value), kind, folder)
        answer = _answer(row, content, schema)
        source_id = source_id_of(row, ("item_id", "id"))
        return ImportedRow(number, source_id, kind, content, answer, split_of(row.get("split")))

    return rows(_parquet_rows(files), build, id_keys=("item_id", "id"))


def _parquet_rows(files: Iterable[Path]) -> Iterator[tuple[int, dict[str, object]]]:
    number = 0
    for file in files:
        try:
            opened = pq.ParquetFile(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise FileUnreadable(f"{file.name} is no readable Parquet file: {error}") from None
        names = _class_names(opened.schema_arrow)
        split = file.name.partition("-")[0].partition(".")[0]
        for batch in opened.iter_batches(batch_size=ROWS_PER_GROUP):
            for row in batch.to_pylist():
                number += 1
                known = {"split": split} if split in ("train", "test") else {}
                yield number, {**known, **row, "_names": names}


def _class_names(arrow: Any) -> dict[str, list[str]]:
    """Class names of each label column, as `datasets` keeps them in the metadata."""
    raw = (arrow.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(raw).get("info", {}).get("features", {})
    found: dict[str, list[str]] = {}
    for column, feature in features.items():
        inner = feature
        while isinstance(inner, list) and inner:
            inner = inner[0]
        while isinstance(inner, dict) and isinstance(inner.get("feature"), dict):
            inner = inner["feature"]
        if column == "spans" and isinstance(inner, dict):
            inner = inner.get("label", {})
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            found[column] = [str(name) for name in inner.get("names", [])]
    return found


def _content(value: object, kind: Kind, folder: Path) -> bytes:
    if kind is Kind.IMAGE and isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return plain_png(value["bytes"])
    if kind is Kind.IMAGE and isinstance(value, Mapping):
        return content_from(value.get("path"), kind, folder)
    if kind is Kind.SERIES:
        return series_content(value)
    if kind is Kind.RECORD and isinstance(value, Mapping):
        return record_content(value)
    return content_from(value, kind, folder)


def _answer(row: Mapping[str, object], content: bytes, schema: LabelSchema) -> Answer | None:
    names = row["_names"]
    assert isinstance(names, dict)
    many, single, spans = row.get("labels"), row.get("label"), row.get("spans")
    column = "labels" if isinstance(many, list) and many else "label"
    listed = many if column == "labels" else ([] if single is None else [single])
    assert isinstance(listed, list)
    chosen = [_named(value, names.get(column)) for value in listed]
    text = content.decode("utf-8", "replace")
    read_spans = [
        span_of(
            (span["start"], span["end"], _named(span["label"], names.get("spans"))), text, schema
        )
        for span in (spans if isinstance(spans, list) else [])
    ]
    return with_spans(class_answer(chosen or None, schema), read_spans)


def _named(value: object, names: list[str] | None) -> object:
    if not isinstance(value, int):
        return value
    if names is None or not 0 <= value < len(names):
        raise RowProblem(
            f"label {value} is a number without a name",
            "store the label as its class name, or as a ClassLabel feature",
        )
    return names[value]
