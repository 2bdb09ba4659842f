"""What goes out and what comes in, as frozen values that know no file format.

Offsets of spans count Unicode code points, start inclusive, end exclusive.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from review_portal.core.model import Answer, Kind


@dataclass(frozen=True, slots=True)
class ExportedSuggestion:
    """What the model suggested.

    Attributes:
        class_index: Suggested class.
        confidence: Its probability, in [0, 1].
        model_version: Version of the model that suggested it.
    """

    class_index: int
    confidence: float
    model_version: int


@dataclass(frozen=True, slots=True)
class ExportedAnnotation:
    """What one expert said.

    Attributes:
        annotator: Pseudonym, never a user name.
        answer: The decision; an answer without any class or span is an abstention.
        active_seconds: Time spent on the item.
        decided_at: ISO 8601 with zone, or empty.
        purpose: work, gold, repeat, adjudication, audit or late.
        note: Reasoning.
        suggestion_shown: Whether the suggestion was visible.
    """

    annotator: str
    answer: Answer
    active_seconds: float = 0.0
    decided_at: str = ""
    purpose: str = "work"
    note: str = ""
    suggestion_shown: bool = True


@dataclass(frozen=True, slots=True)
class ExportedLabel:
    """What the site settled on.

    Attributes:
        answer: The settled answer.
        settlement: single, agreement, majority, adjudication, import or auto.
        schema_version: Label schema under which it was settled.
        settled_at: ISO 8601 with zone, or empty.
    """

    answer: Answer
    settlement: str = "single"
    schema_version: int = 1
    settled_at: str = ""


@dataclass(frozen=True, slots=True)
class ExportedItem:
    """A masked item with all that the site knows about it.

    Attributes:
        item_id: Hexadecimal id.
        kind: What it shows.
        content: Masked content, encoded as its kind says.
        label: The settled label, None while there is none.
        annotations: What the experts said, oldest first.
        suggestion: What the model suggested, if anything.
        split: train or test.
        provenance: (name, value) pairs such as campaign, policy version, round; names unique.
    """

    item_id: str
    kind: Kind
    content: bytes
    label: ExportedLabel | None = None
    annotations: tuple[ExportedAnnotation, ...] = ()
    suggestion: ExportedSuggestion | None = None
    split: str = "train"
    provenance: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote and what its format could not hold.

    Attributes:
        lossy_steps: One sentence for each kind of loss, with the number of items it concerns.
        count: Items written.
    """

    lossy_steps: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """A row that can become an item.

    Attributes:
        row_number: Position in its file, from 1.
        source_id: Id that the other tool gave it; empty when it has none.
        kind: What it shows.
        content: Content, encoded as its kind says; not masked by this package.
        answer: The label, or None for a row without one.
        split: train or test; empty when the file does not say.
    """

    row_number: int
    source_id: str
    kind: Kind
    content: bytes
    answer: Answer | None
    split: str = ""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that cannot become an item.

    Attributes:
        row_number: Position in its file, from 1.
        source_id: Id that the other tool gave it; empty when it has none.
        reason: What is wrong.
        remedy: What to do about it.
    """

    row_number: int
    source_id: str
    reason: str
    remedy: str


ReadRow = ImportedRow | RefusedRow


def classes_of(answer: Answer | None) -> tuple[int, ...]:
    """Returns the chosen classes of an answer, ascending; none for an abstention.

    >>> classes_of(Answer(class_index=2))
    (2,)
    """
    if answer is None:
        return ()
    if answer.class_indices:
        return answer.class_indices
    return () if answer.class_index is None else (answer.class_index,)


def is_abstention(answer: Answer) -> bool:
    """True when an answer names neither a class nor a span.

    >>> is_abstention(Answer(class_index=None))
    True
    """
    return not classes_of(answer) and not answer.spans


class LossLedger:
    """Counts, for each kind of loss, the items that it concerns."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def note(self, sentence: str) -> None:
        """Adds one item to a loss."""
        self._counts[sentence] += 1

    def lossy_steps(self) -> tuple[str, ...]:
        """Returns the sentences in the order of their first item.

        >>> losses = LossLedger()
        >>> losses.note("notes are left out")
        >>> losses.lossy_steps()
        ('notes are left out (1 item)',)
        """
        return tuple(
            f"{sentence} ({count} item{'s' if count > 1 else ''})"
            for sentence, count in self._counts.items()
        )


def describe_annotation(
    annotation: ExportedAnnotation, classes: tuple[str, ...]
) -> dict[str, object]:
    """Returns an annotation as JSON-ready values with class names; nothing is left out.

    >>> describe_annotation(ExportedAnnotation("expert-1", Answer(0)), ("cat", "dog"))["classes"]
    ['cat']
    """
    return {
        "annotator": annotation.annotator,
        "classes": [classes[index] for index in classes_of(annotation.answer)],
        "spans": [[start, end, classes[index]] for start, end, index in annotation.answer.spans],
        "active_seconds": annotation.active_seconds,
        "decided_at": annotation.decided_at,
        "purpose": annotation.purpose,
        "note": annotation.note,
        "suggestion_shown": annotation.suggestion_shown,
    }


def describe_item(record: ExportedItem, classes: tuple[str, ...]) -> dict[str, object]:
    """Returns all but the content and the label's answer as JSON-ready values.

    >>> describe_item(ExportedItem("0a", Kind.TEXT, b"x"), ("cat", "dog"))["item_id"]
    '0a'
    """
    described: dict[str, object] = {"item_id": record.item_id, "split": record.split}
    if record.label is not None:
        described["settlement"] = record.label.settlement
        described["schema_version"] = record.label.schema_version
        described["settled_at"] = record.label.settled_at
    if record.suggestion is not None:
        described["suggestion"] = {
            "class": classes[record.suggestion.class_index],
            "confidence": record.suggestion.confidence,
            "model_version": record.suggestion.model_version,
        }
    described["annotations"] = [
        describe_annotation(annotation, classes) for annotation in record.annotations
    ]
    described["provenance"] = dict(record.provenance)
    return described
