"""Our own JSON Lines: one object an item, nothing lost.

The smallest row to import is `{"text": "…", "label": "name"}`; `label` may be left out, be a list
(multiple choice), and `spans` holds `[start, end, "name"]`. Other kinds use `image` (data URI or a
file beside), `series` (steps × channels) or `record` (an object).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Kind
from review_portal.interchange.contents import content_from, value_of
from review_portal.interchange.records import (
    ExportedItem,
    ExportReport,
    ImportedRow,
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
    span_of,
    split_of,
    with_spans,
)
from review_portal.interchange.whole_files import json_lines, new_text_file, to_json


def write(records: Iterable[ExportedItem], target: Path, schema: LabelSchema) -> ExportReport:
    """Writes one line an item.

    Raises:
        TargetExists: There is something at `target` already.
    """
    count = 0
    with new_text_file(target) as stream:
        for record in records:
            stream.write(to_json(_row_of(record, schema)) + "\n")
            count += 1
    return ExportReport((), count)


def _row_of(record: ExportedItem, schema: LabelSchema) -> dict[str, object]:
    row: dict[str, object] = {"item_id": record.item_id}
    row[record.kind.value] = value_of(record.content, record.kind)
    if record.label is not None:
        names = [schema.classes[index] for index in classes_of(record.label.answer)]
        row["label"] = names[0] if len(names) == 1 else names
        row["spans"] = [
            [start, end, schema.classes[index]] for start, end, index in record.label.answer.spans
        ]
    return row | describe_item(record, schema.classes)


def read(path: Path, schema: LabelSchema, kind: Kind) -> Iterator[ReadRow]:
    """Reads rows; a bad one becomes a `RefusedRow` and the others go on.

    Raises:
        FileUnreadable: The file is missing or not UTF-8.
    """

    def build(number: int, row: Mapping[str, object]) -> ImportedRow:
        content = content_from(row.get(kind.value), kind, path.parent)
        answer = with_spans(class_answer(row.get("label"), schema), _spans(row, content, schema))
        source_id = source_id_of(row, ("item_id", "id"))
        return ImportedRow(number, source_id, kind, content, answer, split_of(row.get("split")))

    return rows(json_lines(path), build, id_keys=("item_id", "id"))


def _spans(
    row: Mapping[str, object], content: bytes, schema: LabelSchema
) -> list[tuple[int, int, int]]:
    return list(listed_spans(list_at(row, "spans"), content.decode("utf-8", "replace"), schema))


def listed_spans(
    spans: Iterable[object], text: str, schema: LabelSchema
) -> Iterator[tuple[int, int, int]]:
    """Reads spans that are given as [start, end, class name].

    Raises:
        RowProblem: A span has another shape or does not fit the text.
    """
    for span in spans:
        if not isinstance(span, list) or len(span) != 3:
            raise RowProblem(
                "a span is not [start, end, class]", "write each span with three parts"
            )
        yield span_of((span[0], span[1], span[2]), text, schema)
