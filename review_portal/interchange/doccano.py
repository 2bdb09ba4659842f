"""doccano JSON Lines in a folder: `dataset.jsonl`, and beside it the files of images.

Classes alone use `label` as a list of names, spans alone `label` as [start, end, name], both
together `cats` and `entities`, which are the column names of doccano's own exports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Answer, Kind
from review_portal.interchange.contents import content_from
from review_portal.interchange.errors import FormatUnsuited
from review_portal.interchange.native_jsonl import listed_spans
from review_portal.interchange.records import (
    ExportedItem,
    ExportReport,
    ImportedRow,
    LossLedger,
    ReadRow,
    classes_of,
    describe_item,
)
from review_portal.interchange.row_errors import (
    RowProblem,
    class_answer,
    list_at,
    rows,
    source_id_of,
    split_of,
    with_spans,
)
from review_portal.interchange.whole_files import json_lines, new_folder, to_json

_ID_KEYS = ("item_id", "id")
_RECORD = "records are shown as their JSON text"
_META = "answers of single experts, suggestions and provenance become metadata columns of doccano"


def write(records: Iterable[ExportedItem], target: Path, schema: LabelSchema) -> ExportReport:
    """Writes a folder with `dataset.jsonl` and, for images, one PNG an item.

    Raises:
        TargetExists: There is something at `target` already.
        FormatUnsuited: An item is a series.
    """
    losses, count = LossLedger(), 0
    with (
        new_folder(target) as folder,
        (folder / "dataset.jsonl").open("w", encoding="utf-8", newline="\n") as stream,
    ):
        for record in records:
            stream.write(to_json(_row(record, schema, folder, losses=losses)) + "\n")
            count += 1
    return ExportReport(losses.lossy_steps(), count)


def _row(
    record: ExportedItem, schema: LabelSchema, folder: Path, *, losses: LossLedger
) -> dict[str, object]:
    if record.kind is Kind.SERIES:
        raise FormatUnsuited("doccano shows no series; export them as huggingface or label-studio")
    row: dict[str, object] = {}
    if record.kind is Kind.IMAGE:
        row["filename"] = f"{record.item_id}.png"
        (folder / f"{record.item_id}.png").write_bytes(record.content)
    else:
        row["text"] = record.content.decode()
    if record.kind is Kind.RECORD:
        losses.note(_RECORD)
    losses.note(_META)
    answer = record.label.answer if record.label else None
    return row | _answer_fields(answer, schema) | describe_item(record, schema.classes)


def _answer_fields(answer: Answer | None, schema: LabelSchema) -> dict[str, object]:
    names = [schema.classes[index] for index in classes_of(answer)]
    spans = [[s, e, schema.classes[index]] for s, e, index in (answer.spans if answer else ())]
    if names and spans:
        return {"cats": names, "entities": spans}
    return {"label": spans or names}


def read(path: Path, schema: LabelSchema, kind: Kind) -> Iterator[ReadRow]:
    """Reads `dataset.jsonl` of a folder, or a doccano JSONL file.

    Raises:
        FileUnreadable: The file is missing or not UTF-8.
    """
    file = path / "dataset.jsonl" if path.is_dir() else path

    def build(number: int, row: Mapping[str, object]) -> ImportedRow:
        shown = row.get("filename" if kind is Kind.IMAGE else "text")
        content = content_from(shown, kind, file.parent)
        source_id = source_id_of(row, _ID_KEYS)
        answer = _read_answer(row, content.decode("utf-8", "replace"), schema)
        return ImportedRow(number, source_id, kind, content, answer, split_of(row.get("split")))

    return rows(json_lines(file), build, id_keys=_ID_KEYS)


def _read_answer(row: Mapping[str, object], text: str, schema: LabelSchema) -> Answer | None:
    if "label" in row and isinstance(row["label"], str):
        return class_answer(row["label"], schema)
    listed = [*list_at(row, "label"), *list_at(row, "cats"), *list_at(row, "entities")]
    names = [value for value in listed if isinstance(value, str)]
    spans = [value for value in listed if isinstance(value, list)]
    entities = [value for value in listed if isinstance(value, Mapping)]
    if len(names) + len(spans) + len(entities) != len(listed):
        raise RowProblem("a label is neither a name nor a span", "export the project again")
    spans += [[v.get("start_offset"), v.get("end_offset"), v.get("label")] for v in entities]
    return with_spans(class_answer(names or None, schema), listed_spans(spans, text, schema))
