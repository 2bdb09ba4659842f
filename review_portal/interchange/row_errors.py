"""Turning foreign values into answers, with a clear no for each way in which they can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Answer
from review_portal.interchange.records import ImportedRow, ReadRow, RefusedRow

SPAN_COUNT_MAX = 2000
"""Spans of one item."""


class RowProblem(Exception):
    """Why a row is refused. Stays inside this package, where it becomes a `RefusedRow`."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def rows(
    parsed: Iterable[tuple[int, object]],
    build: Callable[[int, Mapping[str, object]], ImportedRow],
    *,
    id_keys: tuple[str, ...] = ("id", "item_id"),
) -> Iterator[ReadRow]:
    """Builds a row from each parsed JSON object; a problem becomes a refused row.

    Args:
        parsed: (row number, JSON value); a `RowProblem` as value is refused as it is.
        build: Makes the row or raises `RowProblem`.
        id_keys: Where the source keeps its id.
    """
    for number, value in parsed:
        source_id = ""
        try:
            row = _row_object(value)
            source_id = source_id_of(row, id_keys)
            yield build(number, row)
        except RowProblem as problem:
            yield RefusedRow(number, source_id, problem.reason, problem.remedy)


def _row_object(value: object) -> Mapping[str, object]:
    if isinstance(value, RowProblem):
        raise value
    if not isinstance(value, Mapping):
        raise RowProblem(
            f"the row is {_said(value)}, not an object", "write one JSON object for each row"
        )
    return value


def source_id_of(row: Mapping[str, object], id_keys: tuple[str, ...]) -> str:
    """Returns the first id that a row has, as text; empty when it has none.

    >>> source_id_of({"id": 7}, ("item_id", "id"))
    '7'
    """
    for key in id_keys:
        if isinstance(row.get(key), str | int):
            return str(row[key])
    return ""


def class_index_of(value: object, schema: LabelSchema) -> int:
    """Returns the index of a class that is given by name.

    Raises:
        RowProblem: The schema has no such class.
    """
    if isinstance(value, str) and value in schema.classes:
        return schema.index(value)
    if not isinstance(value, str):
        raise RowProblem(f"a label is {_said(value)}, not a class name", "use class names")
    close = get_close_matches(value, schema.classes, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise RowProblem(
        f"class {value!r} is not in the label schema",
        f"{hint}correct the file, or add the class to the schema as a new version",
    )


def class_answer(names: object, schema: LabelSchema) -> Answer | None:
    """Returns the answer for a class name or a list of them; None for none.

    Raises:
        RowProblem: A name is unknown, or the value is no list of names.
    """
    listed = [names] if isinstance(names, str) else names
    if listed is None:
        return None
    if not isinstance(listed, list | tuple):
        raise RowProblem(f"the label is {_said(names)}", "give a class name or a list of them")
    indices = tuple(sorted({class_index_of(name, schema) for name in listed}))
    if not indices:
        return None
    return Answer(indices[0], class_indices=indices if len(indices) > 1 else ())


def span_of(
    parts: tuple[object, object, object], text: str, schema: LabelSchema
) -> tuple[int, int, int]:
    """Returns (start, end, class index) of a span in code points.

    Raises:
        RowProblem: Offsets lie outside the text or are in the wrong order, or the class is unknown.
    """
    start, end, name = parts
    whole = isinstance(start, int) and isinstance(end, int)
    if not whole or isinstance(start, bool) or isinstance(end, bool):
        raise RowProblem(
            f"a span reaches from {_said(start)} to {_said(end)}", "give offsets as whole numbers"
        )
    assert isinstance(start, int)
    assert isinstance(end, int)
    if not 0 <= start < end <= len(text):
        raise RowProblem(
            f"span {start} to {end} lies outside the text of {len(text)} characters",
            "count offsets in Unicode characters from 0, the end exclusive",
        )
    return start, end, class_index_of(name, schema)


def with_spans(answer: Answer | None, spans: Iterable[tuple[int, int, int]]) -> Answer | None:
    """Returns the answer with its spans sorted; None when there is nothing to say.

    Raises:
        RowProblem: There are too many spans.
    """
    ordered = tuple(sorted(set(spans)))
    if len(ordered) > SPAN_COUNT_MAX:
        raise RowProblem(
            f"the item has {len(ordered)} spans; the limit is {SPAN_COUNT_MAX}", "split the text"
        )
    if not ordered:
        return answer
    if answer is None:
        return Answer(None, spans=ordered)
    return Answer(answer.class_index, answer.class_indices, ordered)


def split_of(value: object) -> str:
    """Returns train, test or an empty text when the file does not say.

    Raises:
        RowProblem: The file names another split.
    """
    if value in (None, ""):
        return ""
    if value in ("train", "test"):
        return str(value)
    raise RowProblem(f"split {value!r} is not known", "use train or test")


def mapping_at(row: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Returns the object under a key, empty when the key is missing.

    Raises:
        RowProblem: Something else is there.
    """
    value = row.get(key, {})
    if not isinstance(value, Mapping):
        raise RowProblem(f"{key} is {_said(value)}, not an object", f"write {key} as an object")
    return value


def list_at(row: Mapping[str, object], key: str) -> list[object]:
    """Returns the list under a key, empty when the key is missing or null.

    Raises:
        RowProblem: Something else is there.
    """
    value = row.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RowProblem(f"{key} is {_said(value)}, not a list", f"write {key} as a list")
    return value


def _said(value: object) -> str:
    names = {type(None): "missing", bool: "true or false", int: "a number", float: "a number",
             str: "text", list: "a list", dict: "an object"}  # fmt: skip
    return names.get(type(value), "of an unknown type")
