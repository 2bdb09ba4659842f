"""How well a masker does on labelled texts: recall, leaks and over-masking, with intervals.

A labelled span counts as masked when every letter and digit of it is hidden, whatever the type.
A text leaks when any of its spans is not masked. Over-masking is the share of letters and digits
outside labelled spans that were hidden. Held texts are never shown: they hide all their spans and
stay out of over-masking.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

from edge_agent.masking.seam import Held, Masked, Masker


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and where its personal data stands: start, end (exclusive), type."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a count, with its 95 % Wilson interval."""

    part: int
    whole: int

    @property
    def ratio(self) -> float:
        """The share in [0, 1]; 0 of nothing is 0."""
        return self.part / self.whole if self.whole else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson score interval (Wilson 1927) at 95 %."""
        return wilson_interval(self.part, self.whole)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.ratio:.3f} [{low:.3f}, {high:.3f}]"


@dataclass(slots=True)
class Measurement:
    """Counts over a set of labelled texts."""

    spans_masked: int = 0
    span_count: int = 0
    texts_leaking: int = 0
    texts_with_spans: int = 0
    harmless_masked: int = 0
    harmless_count: int = 0
    held_count: int = 0
    text_count: int = 0
    by_type: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    @property
    def recall(self) -> Share:
        """Labelled spans that are fully masked."""
        return Share(self.spans_masked, self.span_count)

    @property
    def leaks(self) -> Share:
        """Texts with spans that show at least a part of one."""
        return Share(self.texts_leaking, self.texts_with_spans)

    @property
    def over_masking(self) -> Share:
        """Letters and digits outside spans that are masked."""
        return Share(self.harmless_masked, self.harmless_count)

    def of_type(self, *names: str) -> Share:
        """Recall over some entity types."""
        pairs = [self.by_type[name] for name in names if name in self.by_type]
        return Share(sum(p[0] for p in pairs), sum(p[1] for p in pairs))


def wilson_interval(part: int, whole: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share.

    >>> [round(x, 3) for x in wilson_interval(96, 100)]
    [0.902, 0.984]
    """
    if not whole:
        return 0.0, 1.0
    ratio = part / whole
    scale = 1 + z * z / whole
    middle = (ratio + z * z / (2 * whole)) / scale
    half = z * sqrt(ratio * (1 - ratio) / whole + z * z / (4 * whole * whole)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def measure(
    masker: Masker, examples: Sequence[LabelledText], *, language: str = "en"
) -> Measurement:
    """Mask every text and count."""
    result = Measurement()
    for first in range(0, len(examples), 256):
        batch = examples[first : first + 256]
        answers = masker.mask_many([example.text for example in batch], language=language)
        for example, answer in zip(batch, answers, strict=True):
            count_one(result, example, answer)
    return result


def count_one(result: Measurement, example: LabelledText, answer: Masked | Held) -> None:
    """Add one answer to the counts."""
    result.text_count += 1
    hidden = bytearray(len(example.text))
    if isinstance(answer, Held):
        result.held_count += 1
        hidden = bytearray(b"\x01" * len(example.text))
    else:
        for span in answer.spans:
            hidden[span.raw_start : span.raw_end] = b"\x01" * (span.raw_end - span.raw_start)
    labelled = bytearray(len(example.text))
    leaking = False
    for start, end, kind in example.spans:
        labelled[start:end] = b"\x01" * (end - start)
        masked = all(hidden[i] or not example.text[i].isalnum() for i in range(start, end))
        leaking = leaking or not masked
        result.spans_masked += masked
        result.span_count += 1
        result.by_type[kind][0] += masked
        result.by_type[kind][1] += 1
    result.texts_leaking += leaking
    result.texts_with_spans += bool(example.spans)
    if isinstance(answer, Masked):
        harmless = [i for i, sign in enumerate(example.text) if sign.isalnum() and not labelled[i]]
        result.harmless_count += len(harmless)
        result.harmless_masked += sum(hidden[i] for i in harmless)


def lower_cased(examples: Iterable[LabelledText]) -> list[LabelledText]:
    """Copies in lower case; texts whose length changes by that are left out."""
    examples = list(examples)
    copies = (LabelledText(example.text.lower(), example.spans) for example in examples)
    pairs = zip(copies, examples, strict=True)
    return [copy for copy, example in pairs if len(copy.text) == len(example.text)]


def read_labelled(path: Path, *, split: str = "") -> list[LabelledText]:
    """Read labelled texts from Parquet.

    Args:
        path: Columns `text` and `spans` (list of `start`, `end`, `type`), optionally `split`.
        split: Keep only rows of this split; empty keeps all.

    Raises:
        ValueError: A column is missing, or a span lies outside its text.
    """
    from pyarrow import parquet

    table = parquet.read_table(path)
    if missing := {"text", "spans"} - set(table.column_names):
        raise ValueError(f"{path.name} has no column {', '.join(sorted(missing))}")
    examples = []
    for number, row in enumerate(table.to_pylist()):
        if split and row.get("split") != split:
            continue
        spans = tuple((s["start"], s["end"], s["type"]) for s in row["spans"])
        if any(not 0 <= start < end <= len(row["text"]) for start, end, _ in spans):
            raise ValueError(f"{path.name}: row {number} has a span outside its text")
        examples.append(LabelledText(row["text"], spans))
    return examples


def table_of(measurement: Measurement) -> str:
    """A Markdown table of a measurement, with 95 % intervals."""
    m = measurement
    lines = [
        "| what | share | 95 % interval | of |",
        "| --- | ---: | :---: | ---: |",
        _line("spans fully masked", m.recall),
        _line("texts with any leak", m.leaks),
        _line("over-masking (letters and digits)", m.over_masking),
        _line("texts held", Share(m.held_count, m.text_count)),
    ]
    lines += [_line(f"masked: {kind}", m.of_type(kind)) for kind in sorted(m.by_type)]
    return "\n".join(lines)


def _line(name: str, share: Share) -> str:
    low, high = share.interval
    return f"| {name} | {share.ratio:.3f} | {low:.3f} to {high:.3f} | {share.whole} |"
