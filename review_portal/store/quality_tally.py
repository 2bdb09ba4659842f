"""Running sums of everything that quality is measured from.

Annotations and labels are only ever added, so what is new since the last look names the items that
changed. For each of them what it gave before is taken out and what it gives now is put in: the
sums always equal those over all rows, whatever was withdrawn or superseded meanwhile.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from review_portal.core.calibration import BIN_COUNT, bin_of
from review_portal.core.model import Origin, Purpose
from review_portal.store.tables import quality_tally

Key = tuple[Any, ...]
"""A sort and what is counted, see `add_annotations` and `add_labels`."""

PATTERN, GOLD, REPEAT, DECIDED, ABSTAINED, SECONDS = "panel", "gold", "again", "all", "no", "took"
DAY, DAY_MILLISECONDS, SUGGESTED, CONFIDENCE = "day", "day.took", "stood", "sure"
WORK, GOLD_ITEM, AGAIN = Purpose.WORK.value, Purpose.GOLD.value, Purpose.REPEAT.value
SECOND_OPINIONS = frozenset({WORK, Purpose.LATE.value})
EXPERT = Origin.EXPERT.value
SECONDS_PER_DAY = 86400
SCALE = 2**60
"""Confidences are summed as whole numbers, so that taking one out leaves no trace."""
CHUNK = 500

# Written out: SQLite would sort all rows of a campaign instead of walking along this index.
_ALL_ANNOTATIONS = (
    "SELECT annotation_id, item_number, expert_id, purpose, class_index, answer_key, "
    "schema_version, seconds, created_at, withdraws FROM annotation INDEXED BY annotation_by_item "
    "WHERE campaign_id = ? AND annotation_id <= ? {some} ORDER BY item_number, annotation_id"
)
_ALL_LABELS = (
    "SELECT label_id, item_number, model_version, confidence, suggestion_index, class_index, "
    "origin, superseded_by FROM label INDEXED BY label_by_item "
    "WHERE campaign_id = ? AND label_id <= ? {some} ORDER BY item_number, label_id"
)
_NEW_ANNOTATIONS = (
    "SELECT DISTINCT item_number FROM annotation "
    "WHERE campaign_id = ? AND annotation_id > ? AND annotation_id <= ?"
)
_NEW_LABELS = (
    "SELECT DISTINCT item_number FROM label "
    "WHERE label_id > ? AND label_id <= ? AND campaign_id = ?"
)


@dataclass(frozen=True)
class _Log:
    """One of the two tables that only grow."""

    newest: str
    everything: str
    changed: Callable[[Connection, bytes, int, int], list[int]]
    add: Callable[[dict[Key, int], Sequence[Sequence[Any]], int, int], None]


@dataclass
class Tally:
    """Sums over a campaign's annotations and labels up to two numbers.

    Attributes:
        newest_annotation: Annotations up to this one are counted.
        newest_label: Labels up to this one are counted.
        counts: The sums.
    """

    newest_annotation: int = 0
    newest_label: int = 0
    counts: dict[Key, int] = field(default_factory=dict)

    def of(self, sort: str) -> Iterator[tuple[Key, int]]:
        """Returns what was counted of one sort, without the sort."""
        return ((key[1:], count) for key, count in self.counts.items() if key[0] == sort)


def catch_up(connection: Connection, campaign_id: bytes, tally: Tally) -> bool:
    """Counts what is new. Returns whether anything is."""
    newest = (_newest(connection, _ANNOTATIONS), _newest(connection, _LABELS))
    before = (tally.newest_annotation, tally.newest_label)
    if newest == before:
        return False
    for log, old, new in zip((_ANNOTATIONS, _LABELS), before, newest, strict=True):
        if new > old:
            _count(connection, log, tally.counts, (campaign_id, old, new))
    tally.newest_annotation, tally.newest_label = newest
    return True


def _newest(connection: Connection, log: _Log) -> int:
    return int(connection.exec_driver_sql(log.newest).scalar_one())


def _count(
    connection: Connection, log: _Log, counts: dict[Key, int], step: tuple[bytes, int, int]
) -> None:
    campaign_id, old, new = step
    if not old:
        rows = connection.exec_driver_sql(log.everything.format(some=""), (campaign_id, new))
        for _, of_item in groupby(rows, key=itemgetter(1)):
            log.add(counts, list(of_item), new, 1)
        return
    changed = log.changed(connection, campaign_id, old, new)
    for start in range(0, len(changed), CHUNK):
        some = changed[start : start + CHUNK]
        wanted = f"AND item_number IN ({', '.join('?' * len(some))})"
        rows = connection.exec_driver_sql(
            log.everything.format(some=wanted), (campaign_id, new, *some)
        )
        for _, of_item in groupby(rows, key=itemgetter(1)):
            both = list(of_item)
            log.add(counts, both, old, -1)
            log.add(counts, both, new, 1)


def _add(counts: dict[Key, int], key: Key, change: int) -> None:
    value = counts.get(key, 0) + change
    if value:
        counts[key] = value
    else:
        counts.pop(key, None)


def add_annotations(
    counts: dict[Key, int], rows: Sequence[Sequence[Any]], horizon: int, sign: int
) -> None:
    """Adds what the annotations of one item up to a number give, or takes it out again.

    The first answer of each expert counts for agreement; gold and repeats are no second opinion.

    Args:
        counts: Changed in place.
        rows: All columns of `_ALL_ANNOTATIONS`, oldest first.
        horizon: Later rows do not count.
        sign: 1 or -1.
    """
    known = [row for row in rows if row[0] <= horizon]
    gone = {row[-1] for row in known} if len(known) > 1 else ()
    first: dict[int, tuple[int, str]] = {}
    worked: dict[int, tuple[int, str]] = {}
    for number, item_number, expert, purpose, index, key, version, seconds, at, withdraws in known:
        if withdraws is not None or number in gone:
            continue
        day = int(at // SECONDS_PER_DAY)
        _add(counts, (DECIDED, expert), sign)
        _add(counts, (SECONDS, expert, round(seconds, 1)), sign)
        _add(counts, (DAY, day), sign)
        _add(counts, (DAY_MILLISECONDS, day), sign * round(1000 * seconds))
        if key is None:
            _add(counts, (ABSTAINED, expert), sign)
        if index is None:
            continue
        said = (version, key)
        if purpose in SECOND_OPINIONS:
            first.setdefault(expert, said)
        if purpose == WORK:
            worked.setdefault(expert, said)
        elif purpose == GOLD_ITEM:
            _add(counts, (GOLD, item_number, expert, *said), sign)
        elif purpose == AGAIN and expert in worked:
            _add(counts, (REPEAT, expert, *worked[expert], *said), sign)
    if first:
        pattern = tuple((expert, *first[expert]) for expert in sorted(first))
        _add(counts, (PATTERN, pattern), sign)


def add_labels(
    counts: dict[Key, int], rows: Sequence[Sequence[Any]], horizon: int, sign: int
) -> None:
    """Adds what the label of one item that stood at a number gives, or takes it out again."""
    for number, _, version, sure, suggested, index, origin, superseded_by in rows:
        is_over = superseded_by is not None and superseded_by <= horizon
        if number > horizon or is_over or origin != EXPERT or suggested is None or index is None:
            continue
        confidence = min(max(sure, 0.0), 1.0)
        place = bin_of(confidence, BIN_COUNT)
        _add(counts, (SUGGESTED, version, place, suggested == index), sign)
        _add(counts, (CONFIDENCE, version, place), sign * int(confidence * SCALE))


def _changed_annotations(connection: Connection, campaign_id: bytes, old: int, new: int) -> Any:
    found = connection.exec_driver_sql(_NEW_ANNOTATIONS, (campaign_id, old, new))
    return found.scalars().all()


def _changed_labels(connection: Connection, campaign_id: bytes, old: int, new: int) -> Any:
    return connection.exec_driver_sql(_NEW_LABELS, (old, new, campaign_id)).scalars().all()


_ANNOTATIONS = _Log(
    "SELECT coalesce(max(annotation_id), 0) FROM annotation",
    _ALL_ANNOTATIONS,
    _changed_annotations,
    add_annotations,
)
_LABELS = _Log(
    "SELECT coalesce(max(label_id), 0) FROM label", _ALL_LABELS, _changed_labels, add_labels
)


def keep(connection: Connection, campaign_id: bytes, tally: Tally) -> None:
    """Stores the sums, so that a portal that starts need not count all rows again."""
    packed = zlib.compress(json.dumps([list(entry) for entry in tally.counts.items()]).encode())
    row = {
        "campaign_id": campaign_id,
        "newest_annotation": tally.newest_annotation,
        "newest_label": tally.newest_label,
        "packed": packed,
    }
    statement = insert(quality_tally).values(row)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[quality_tally.c.campaign_id], set_=row)
    )


def kept(connection: Connection, campaign_id: bytes) -> Tally:
    """Returns the sums as they were stored last, or empty ones."""
    wanted = quality_tally.select().where(quality_tally.c.campaign_id == campaign_id)
    row = connection.execute(wanted).first()
    if row is None:
        return Tally()
    entries: Iterable[tuple[list[Any], int]] = json.loads(zlib.decompress(row.packed))
    counts = {_frozen(key): count for key, count in entries}
    return Tally(row.newest_annotation, row.newest_label, counts)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value
