"""Answers that were given under an older label schema, in the classes of the present one."""

from __future__ import annotations

from collections.abc import Sequence

from review_portal.core.model import NOTHING

Mapping = Sequence[int | None] | None
"""Per class of the older schema its present index, None where it went; None: the schema is the
present one."""


def moved_class(class_index: int | None, mapping: Mapping) -> int | None:
    """Returns a class in the present schema; None when there was none or it went.

    >>> moved_class(1, (2, 0)), moved_class(0, (None, 0)), moved_class(1, None)
    (0, None, 1)
    """
    if class_index is None or mapping is None:
        return class_index
    return mapping[class_index] if class_index < len(mapping) else None


def moved_key(answer_key: str | None, mapping: Mapping) -> str | None:
    """Returns the key of an answer in the present schema; None when nothing of it is left.

    Classes of a choice of several that went are left out, and so are spans that named them.

    >>> moved_key("1", (2, 0)), moved_key("0,1", (2, 0)), moved_key("0-4:0;6-9:1", (None, 3))
    ('0', '0,2', '6-9:3')
    >>> moved_key("0", (None, 0)) is None, moved_key("none", (1, 0))
    (True, 'none')
    """
    if answer_key is None or mapping is None or answer_key == NOTHING:
        return answer_key
    if ":" in answer_key:
        parts = (part.rpartition(":") for part in answer_key.split(";"))
        spans = [(place, moved_class(int(index), mapping)) for place, _, index in parts]
        return ";".join(f"{place}:{index}" for place, index in spans if index is not None) or None
    moved = {moved_class(int(index), mapping) for index in answer_key.split(",")} - {None}
    return ",".join(str(index) for index in sorted(i for i in moved if i is not None)) or None


def moved_probabilities(
    probabilities: Sequence[float], mapping: Mapping, class_count: int
) -> tuple[float, ...]:
    """Returns class probabilities in the present schema; those of merged classes add up.

    >>> moved_probabilities((0.5, 0.3, 0.2), (1, 1, None), 3)
    (0.0, 0.8, 0.0)
    """
    if mapping is None or not probabilities:
        return tuple(probabilities)
    moved = [0.0] * class_count
    for old, value in enumerate(probabilities):
        new = moved_class(old, mapping)
        if new is not None:
            moved[new] += value
    return tuple(moved)
