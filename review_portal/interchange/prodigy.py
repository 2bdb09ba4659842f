"""Prodigy JSON Lines: one task an item, `choice` view for classes, `spans` for spans.

The settled label is the accepted answer; what single experts said stays in `meta`, where Prodigy
carries it along. Hashes are left to Prodigy, which adds them when a file is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Answer, Kind
from review_portal.interchange.contents import content_from, value_of
from review_portal.interchange.errors import FormatUnsuited
from review_portal.interchange.records import (
    ExportedItem,
    ExportReport,
    ImportedRow,
    LossLedger,
    ReadRow,
    classes_of,
    describe_item,
    is_abstention,
)
from review_portal.interchange.row_errors import (
    RowProblem,
    class_answer,
    list_at,
    mapping_at,
    rows,
    span_of,
    split_of,
    with_spans,
)
from review_portal.interchange.whole_files import json_lines, new_text_file, to_json

_RECORD = "records are shown as their JSON text"
_EXPERTS = "answers of single experts travel in meta; Prodigy counts the settled label only"


def write(records: Iterable[ExportedItem], target: Path, schema: LabelSchema) -> ExportReport:
    """Writes one task an item.

    Raises:
        TargetExists: There is something at `target` already.
        FormatUnsuited: An item is a series.
    """
    losses, count = LossLedger(), 0
    with new_text_file(target) as stream:
        for record in records:
            stream.write(to_json(_task(record, schema, losses)) + "\n")
            count += 1
    return ExportReport(losses.lossy_steps(), count)


def _task(record: ExportedItem, schema: LabelSchema, losses: LossLedger) -> dict[str, object]:
    if record.kind is Kind.SERIES:
        raise FormatUnsuited("Prodigy shows no series; export them as huggingface or label-studio")
    task: dict[str, object] = {}
    if record.kind is Kind.IMAGE:
        task["image"] = value_of(record.content, record.kind)
    else:
        task["text"] = record.content.decode()
    if record.kind is Kind.RECORD:
        losses.note(_RECORD)
    if record.annotations:
        losses.note(_EXPERTS)
    task["options"] = [{"id": name, "text": name} for name in schema.classes]
    if record.label is not None:
        task |= _answered(record.label.answer, schema)
    task["_view_id"] = "choice"
    task["meta"] = describe_item(record, schema.classes)
    return task


def _answered(answer: Answer, schema: LabelSchema) -> dict[str, object]:
    fields: dict[str, object] = {"accept": [schema.classes[i] for i in classes_of(answer)]}
    if answer.spans:
        fields["spans"] = [
            {"start": start, "end": end, "label": schema.classes[index]}
            for start, end, index in answer.spans
        ]
    fields["answer"] = "ignore" if is_abstention(answer) else "accept"
    return fields


def read(path: Path, schema: LabelSchema, kind: Kind) -> Iterator[ReadRow]:
    """Reads tasks of the views choice, classification (`label` with accept) and spans.

    Ignored tasks come without a label. Rejected ones are refused: they say what an item is not.

    Raises:
        FileUnreadable: The file is missing or not UTF-8.
    """

    def build(number: int, task: Mapping[str, object]) -> ImportedRow:
        shown = task.get("image" if kind is Kind.IMAGE else "text")
        content = content_from(shown, kind, path.parent)
        ours = mapping_at(task, "meta")
        source_id = str(ours.get("item_id", task.get("id", "")))
        answer = _read_answer(task, content, schema)
        return ImportedRow(number, source_id, kind, content, answer, split_of(ours.get("split")))

    return rows(json_lines(path), build)


def _read_answer(task: Mapping[str, object], content: bytes, schema: LabelSchema) -> Answer | None:
    verdict = task.get("answer")
    if verdict == "reject":
        raise RowProblem(
            "the task was rejected, which names no class", "leave rejected tasks out of the file"
        )
    if verdict not in ("accept", "ignore", None):
        raise RowProblem(f"answer {verdict!r} is not known", "use accept, reject or ignore")
    if verdict != "accept":
        return None
    accepted = list_at(task, "accept")
    names = accepted or ([task["label"]] if "label" in task else [])
    text = content.decode("utf-8", "replace")
    return with_spans(class_answer(names or None, schema), _read_spans(task, text, schema))


def _read_spans(
    task: Mapping[str, object], text: str, schema: LabelSchema
) -> Iterator[tuple[int, int, int]]:
    for span in list_at(task, "spans"):
        if not isinstance(span, Mapping):
            raise RowProblem("a span is not an object", "write spans with start, end and label")
        yield span_of((span.get("start"), span.get("end"), span.get("label")), text, schema)
