"""Label Studio: a folder with `tasks.json` and the labeling interface `label_config.xml`.

Import and export share the shape of a task. Images travel inside the file as data URIs, so no file
server is needed. Offsets of spans are code points, as newer versions of Label Studio count; older
exports counted UTF-16 units, and on import the quoted text tells which of the two was meant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Answer, Kind
from review_portal.interchange.contents import content_from, png_size, series_array, value_of
from review_portal.interchange.records import (
    ExportedAnnotation,
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
from review_portal.interchange.whole_files import json_array, new_folder, to_json

_AUTHORS = (
    "who annotated travels in data.perimeter; Label Studio shows the importing user as the author"
)
_NOTES = "notes of experts travel in data.perimeter; Label Studio shows no such field"
_OBJECTS = {
    Kind.TEXT: '<Text name="content" value="$text"/>',
    Kind.IMAGE: '<Image name="content" value="$image" zoom="true"/>',
    Kind.RECORD: '<Table name="content" value="$record"/>',
}


def write(records: Iterable[ExportedItem], target: Path, schema: LabelSchema) -> ExportReport:
    """Writes a folder with `tasks.json` and `label_config.xml`.

    The settled label becomes an annotation with `ground_truth`; each expert's own follows.

    Raises:
        TargetExists: There is something at `target` already.
    """
    losses, count, config = LossLedger(), 0, ""
    is_multiple = False
    with new_folder(target) as folder:
        with (folder / "tasks.json").open("w", encoding="utf-8") as stream:
            stream.write("[")
            for record in records:
                stream.write(",\n" if count else "\n")
                stream.write(to_json(_task(record, schema, losses)))
                is_multiple = is_multiple or _has_many(record)
                config = config or _object_tag(record)
                count += 1
            stream.write("\n]\n")
        tag = config or _OBJECTS[Kind.TEXT]
        (folder / "label_config.xml").write_text(
            label_config(schema, tag, is_multiple=is_multiple), encoding="utf-8"
        )
    return ExportReport(losses.lossy_steps(), count)


def _has_many(record: ExportedItem) -> bool:
    answers = [annotation.answer for annotation in record.annotations]
    if record.label is not None:
        answers.append(record.label.answer)
    return any(len(classes_of(answer)) > 1 for answer in answers)


def _object_tag(record: ExportedItem) -> str:
    if record.kind is not Kind.SERIES:
        return _OBJECTS[record.kind]
    channels = "".join(
        f'<Channel column="channel_{index}" legend="channel {index}"/>'
        for index in range(series_array(record.content).shape[1])
    )
    return (
        '<TimeSeries name="content" value="$series" valueType="json" timeColumn="step">'
        f"{channels}</TimeSeries>"
    )


def label_config(schema: LabelSchema, object_tag: str, *, is_multiple: bool) -> str:
    """Returns the labeling interface: the object, its choices and, for texts, its span labels.

    >>> tag = '<Text name="content" value="$text"/>'
    >>> "Choices" in label_config(LabelSchema(("a", "b")), tag, is_multiple=False)
    True
    """
    choice = "multiple" if is_multiple else "single"
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in schema.classes)
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in schema.classes)
    spans = f'<Labels name="span" toName="content">{labels}</Labels>\n'
    return (
        f"<View>\n{spans if object_tag.startswith('<Text ') else ''}{object_tag}\n"
        f'<Choices name="label" toName="content" choice="{choice}">{choices}</Choices>\n</View>\n'
    )


def _task(record: ExportedItem, schema: LabelSchema, losses: LossLedger) -> dict[str, object]:
    shown = value_of(record.content, record.kind)
    if record.kind is Kind.SERIES:
        shown = _columns(record.content)
    annotations: list[object] = []
    if record.label is not None:
        annotations.append(
            _annotation(record, record.label.answer, schema) | {"ground_truth": True}
        )
    annotations += [_expert_annotation(record, given, schema) for given in record.annotations]
    if record.annotations:
        losses.note(_AUTHORS)
    if any(annotation.note for annotation in record.annotations):
        losses.note(_NOTES)
    return {
        "data": {record.kind.value: shown, "perimeter": describe_item(record, schema.classes)},
        "annotations": annotations,
        "predictions": _predictions(record, schema),
    }


def _columns(content: bytes) -> dict[str, object]:
    """A time series as Label Studio wants it: one list a column, with a column of steps."""
    values = series_array(content)
    columns: dict[str, object] = {"step": list(range(len(values)))}
    for index in range(values.shape[1]):
        columns[f"channel_{index}"] = values[:, index].tolist()
    return columns


def _expert_annotation(
    record: ExportedItem, given: ExportedAnnotation, schema: LabelSchema
) -> dict[str, object]:
    return _annotation(record, given.answer, schema) | {
        "ground_truth": False,
        "was_cancelled": is_abstention(given.answer),
        "lead_time": given.active_seconds,
    }


def _annotation(record: ExportedItem, answer: Answer, schema: LabelSchema) -> dict[str, object]:
    return {"result": _results(record, answer, schema), "was_cancelled": is_abstention(answer)}


def _results(record: ExportedItem, answer: Answer, schema: LabelSchema) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    names = [schema.classes[index] for index in classes_of(answer)]
    if names:
        choices: dict[str, object] = {
            "id": _region_id(record, "choices"), "type": "choices", "from_name": "label",
            "to_name": "content", "value": {"choices": names},
        }  # fmt: skip
        if record.kind is Kind.IMAGE:
            width, height = png_size(record.content)
            choices |= {"original_width": width, "original_height": height, "image_rotation": 0}
        results.append(choices)
    text = record.content.decode() if answer.spans else ""
    for start, end, index in answer.spans:
        name = schema.classes[index]
        value = {"start": start, "end": end, "text": text[start:end], "labels": [name]}
        results.append({
            "id": _region_id(record, f"{start}-{end}-{index}"), "type": "labels",
            "from_name": "span", "to_name": "content", "value": value,
        })  # fmt: skip
    return results


def _region_id(record: ExportedItem, part: str) -> str:
    return hashlib.sha256(f"{record.item_id}/{part}".encode()).hexdigest()[:10]


def _predictions(record: ExportedItem, schema: LabelSchema) -> list[object]:
    if record.suggestion is None:
        return []
    answer = Answer(record.suggestion.class_index)
    return [
        {
            "model_version": str(record.suggestion.model_version),
            "score": record.suggestion.confidence,
            "result": _results(record, answer, schema),
        }
    ]


def read(path: Path, schema: LabelSchema, kind: Kind) -> Iterator[ReadRow]:
    """Reads tasks from `tasks.json`, a Label Studio JSON export, or a folder with `tasks.json`.

    A task's label is its annotation with `ground_truth`; without one, all annotations that were
    not cancelled must agree.

    Raises:
        FileUnreadable: The file is missing or no JSON array.
    """
    file = path / "tasks.json" if path.is_dir() else path

    def build(number: int, task: Mapping[str, object]) -> ImportedRow:
        inner = mapping_at(task, "data")
        ours = mapping_at(inner, "perimeter")
        content = content_from(_shown(inner, kind), kind, file.parent)
        source_id = str(ours.get("item_id", task.get("id", "")))
        answer = _settled(list_at(task, "annotations"), content, schema)
        return ImportedRow(number, source_id, kind, content, answer, split_of(ours.get("split")))

    return rows(json_array(file), build)


def _shown(inner: Mapping[str, object], kind: Kind) -> object:
    shown = inner.get(kind.value)
    if kind is not Kind.SERIES or not isinstance(shown, Mapping):
        return shown
    columns = [values for name, values in shown.items() if name not in ("step", "time")]
    lengths = {len(values) if isinstance(values, list) else -1 for values in columns}
    if len(lengths) != 1 or lengths == {-1}:
        raise RowProblem(
            "the channels differ in length", "give one list of values for each channel"
        )
    return [list(step) for step in zip(*columns, strict=True)]


def _settled(annotations: Sequence[object], content: bytes, schema: LabelSchema) -> Answer | None:
    kept = [a for a in annotations if isinstance(a, Mapping) and not a.get("was_cancelled")]
    trusted = [annotation for annotation in kept if annotation.get("ground_truth")] or kept
    answers = [_answer(annotation, content, schema) for annotation in trusted]
    if len({answer.key if answer is not None else None for answer in answers}) > 1:
        raise RowProblem(
            f"its {len(answers)} annotations differ",
            "mark one of them as ground truth in Label Studio and export again",
        )
    return answers[0] if answers else None


def _answer(annotation: Mapping[str, object], content: bytes, schema: LabelSchema) -> Answer | None:
    names: list[object] = []
    spans: list[tuple[int, int, int]] = []
    for result in list_at(annotation, "result"):
        if not isinstance(result, Mapping):
            raise RowProblem("a result is not an object", "export the project again as JSON")
        value = mapping_at(result, "value")
        if result.get("type") == "choices":
            names += list_at(value, "choices")
        elif result.get("type") == "labels":
            spans += _read_span(value, content.decode("utf-8", "replace"), schema)
        else:
            raise RowProblem(
                f"a result of type {result.get('type')!r} cannot be imported",
                "keep choices and text labels, or convert the annotation",
            )
    return with_spans(class_answer(names or None, schema), spans)


def _read_span(
    value: Mapping[str, object], text: str, schema: LabelSchema
) -> Iterator[tuple[int, int, int]]:
    start, end, quoted = value.get("start"), value.get("end"), value.get("text")
    if isinstance(start, int) and isinstance(end, int) and isinstance(quoted, str):
        start, end = _in_code_points(start, end, text=text, quoted=quoted)
    for name in list_at(value, "labels"):
        yield span_of((start, end, name), text, schema)


def _in_code_points(start: int, end: int, *, text: str, quoted: str) -> tuple[int, int]:
    """Offsets in code points, whichever unit makes them fit the quoted text."""
    if text[start:end] == quoted or not quoted:
        return start, end
    units = text.encode("utf-16-le")
    try:
        if units[2 * start : 2 * end].decode("utf-16-le") == quoted:
            before = len(units[: 2 * start].decode("utf-16-le"))
            return before, before + len(quoted)
    except UnicodeDecodeError:
        pass
    raise RowProblem(
        f"span {start} to {end} does not hold the quoted text",
        "export again from the same text that is imported",
    )
