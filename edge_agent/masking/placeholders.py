"""Numbered placeholders: `<PERSON_1>` says who is who without saying who it is."""

import re
from collections.abc import Sequence

from edge_agent.masking.findings import Finding
from edge_agent.masking.seam import MaskedSpan

_PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]*)_(\d+)>")


def replace(raw: str, findings: Sequence[Finding]) -> tuple[str, tuple[MaskedSpan, ...]]:
    """Put a placeholder in the place of each finding; equal values get equal numbers.

    Args:
        raw: Raw text.
        findings: Ascending, without overlap, offsets in the raw text.

    Returns:
        Masked text, and the spans with offsets in both texts. A part of a person's name gets the
        number of the whole name.

    >>> found = [Finding(low, low + 3, "PERSON", 1.0) for low in (0, 8, 13)]
    >>> replace("Ann met Bob. ANN left.", found)[0]
    '<PERSON_1> met <PERSON_2>. <PERSON_1> left.'
    """
    numbers: dict[tuple[str, str], int] = {}
    highest = _taken(raw)
    pieces: list[str] = []
    spans: list[MaskedSpan] = []
    done = length = 0
    for found in findings:
        value = raw[found.start : found.end]
        key = (found.entity_type, _folded(value))
        if key not in numbers:
            highest[found.entity_type] = highest.get(found.entity_type, 0) + 1
            numbers[key] = highest[found.entity_type]
            if found.entity_type == "PERSON":
                # "Fisher" after "Katherine Fisher" is the same person to a reader.
                for part in value.split():
                    numbers.setdefault(("PERSON", _folded(part)), numbers[key])
        placeholder = f"<{found.entity_type}_{numbers[key]}>"
        length += found.start - done
        pieces += [raw[done : found.start], placeholder]
        end = length + len(placeholder)
        spans.append(
            MaskedSpan(
                length, end, found.start, found.end, found.entity_type, round(found.score, 4)
            )
        )
        length, done = end, found.end
    pieces.append(raw[done:])
    return "".join(pieces), tuple(spans)


def without_placeholders(masked: str, spans: Sequence[MaskedSpan]) -> list[str]:
    """The stretches of a masked text between its placeholders."""
    kept = []
    done = 0
    for span in spans:
        kept.append(masked[done : span.start])
        done = span.end
    kept.append(masked[done:])
    return kept


def raw_span(spans: Sequence[MaskedSpan], start: int, end: int) -> tuple[int, int]:
    """Raw offsets of a stretch that someone marked in the masked text.

    Touching a placeholder widens the stretch to all that the placeholder hides.

    >>> raw_span([MaskedSpan(0, 10, 0, 3, "PERSON", 1.0)], 5, 14)
    (0, 7)
    """
    shift = 0
    raw_start, raw_end = start, end
    for span in spans:
        if span.end <= start:
            raw_start = start + (span.raw_end - span.end)
        elif span.start <= start:
            raw_start = span.raw_start
        if span.end <= end:
            shift = span.raw_end - span.end
            raw_end = end + shift
        elif span.start < end:
            raw_end = span.raw_end
    return raw_start, raw_end


def _folded(value: str) -> str:
    return "".join(value.casefold().split())


def _taken(raw: str) -> dict[str, int]:
    """Highest number of each placeholder that the raw text itself holds."""
    highest: dict[str, int] = {}
    if "<" in raw:
        for entity_type, number in _PLACEHOLDER.findall(raw):
            highest[entity_type] = max(highest.get(entity_type, 0), int(number[:6]))
    return highest
