"""An expert reports a leak: the words go everywhere at once, look-alikes wait for the site lead."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, select, update

from review_portal.core import leaks
from review_portal.core.duplicates import (
    SIMILARITY_MIN,
    Shingles,
    jaccard,
    may_resemble,
    pieces_of,
    shingles_of,
)
from review_portal.core.model import ItemState, Kind, Refusal
from review_portal.errors import KeyMissing
from review_portal.store import audit, flags, items, leak_terms, texts_seen
from review_portal.store.database import Database, insert_row
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import item, item_content, leak_report, person

PAGE_ROWS = 500
SEARCHED = (Kind.TEXT.value, Kind.RECORD.value)


@dataclass(frozen=True)
class OpenReport:
    """A report that the site lead has not seen.

    Attributes:
        report_id: Its number.
        author: Display name of who reported.
        reported_at: Seconds since the epoch.
        touched_count: Items in which the words were replaced.
        held_count: Items that wait for the site lead because of it.
    """

    report_id: int
    author: str
    reported_at: float
    touched_count: int
    held_count: int


@dataclass(frozen=True)
class _Reported:
    """The item that was reported, as it was before."""

    row: Any
    kind: Kind
    content: bytes
    shingles: Shingles
    pieces: tuple[str, ...]

    def resembles(self, kind: Kind, content: bytes) -> bool:
        """Texts resemble as near-duplicates do; records when their bytes are equal."""
        if kind is not self.kind:
            return False
        if kind is not Kind.TEXT:
            return content == self.content
        # A text of n characters has less than n shingles, so a short one needs no look.
        if len(content) < SIMILARITY_MIN * len(self.shingles):
            return False
        text = content.decode("utf-8", "replace")
        if not may_resemble(self.pieces, text, SIMILARITY_MIN):
            return False
        likeness = jaccard(self.shingles, shingles_of(text))
        return likeness >= SIMILARITY_MIN


@dataclass(frozen=True)
class Survey:
    """Which items a report concerns, found without holding up anybody's answers.

    Attributes:
        last: Items up to this number were looked at.
        numbers: Those with the words in them, and those that look like the reported one.
    """

    last: int = 0
    numbers: tuple[int, ...] = ()


NOTHING_SEEN = Survey()


@dataclass(frozen=True)
class Moment:
    """When a report is stored, and what was seen before.

    Attributes:
        now: Seconds since the epoch.
        seen: From `survey`; nothing means that all items are opened in the transaction.
    """

    now: float
    seen: Survey = NOTHING_SEEN


def survey(database: Database, keys: KeyRing, flag: flags.NewFlag, words: str) -> Survey | Refusal:
    """Looks through the store for what a report will change; changes nothing.

    Each page is a read of its own, so that the write-ahead log does not grow meanwhile.
    """
    terms = leaks.terms_of(words)
    found = database.read(lambda c: _checked(c, keys, flag, terms))
    if isinstance(found, Refusal):
        return found
    last, numbers = 0, []
    while page := database.read(partial(_page, last=last)):
        for row in page:
            plain = _opened(keys, row)
            if plain is None:
                continue
            kind = Kind(row.kind)
            has_words = leaks.clean(kind, plain, _spans(row), terms) is not None
            if has_words or (row.state == ItemState.OPEN.value and found.resembles(kind, plain)):
                numbers.append(row.item_number)
        last = page[-1].item_number
    return Survey(last, tuple(numbers))


def report(
    connection: Connection, keys: KeyRing, flag: flags.NewFlag, words: str, when: Moment
) -> int | Refusal:
    """Flags an item and takes the words that leaked out of the whole store, in one transaction.

    Args:
        connection: Inside the transaction.
        keys: Opens and seals content.
        flag: Who reports which item; its note loses the words, too.
        words: What leaked, as it stands in the item; one name or number on each line.
        when: Now, and what was seen of the store before: only that and newer items are opened.

    Returns:
        The report's number, or a refusal that changed nothing.
    """
    terms, now = leaks.terms_of(words), when.now
    found = _checked(connection, keys, flag, terms)
    if isinstance(found, Refusal):
        return found
    note = leaks.clean(Kind.TEXT, flag.note.encode(), (), terms)
    if note is not None:
        text = note.content.decode()
        flag = flags.NewFlag(flag.item_id, flag.expert_id, flag.reason_code, text)
    flagged = flags.raise_flag(connection, keys, flag, now)
    if isinstance(flagged, Refusal):
        return flagged
    touched, alike = _replace_everywhere(connection, keys, found, (terms, when.seen))
    for number in alike:
        _hold(connection, number)
    about = ([leak_terms.put(connection, keys, term, now) for term in terms], found.row)
    return _write(connection, flag, about, (touched, len(alike)), now)


def _write(
    connection: Connection,
    flag: flags.NewFlag,
    about: tuple[list[bytes], Any],
    counts: tuple[int, int],
    now: float,
) -> int:
    (term_ids, row), (touched, held) = about, counts
    number = insert_row(
        connection,
        leak_report.insert().values(
            term_id=term_ids[0],
            item_number=row.item_number,
            expert_id=flag.expert_id,
            touched_count=touched,
            held_count=held,
            reported_at=now,
        ),
    )
    named = " ".join(term_id.hex() for term_id in term_ids)
    detail = {"report": number, "term": named, "items": touched, "held": held}
    event = audit.Event(f"person:{flag.expert_id}", "leak.reported", flag.item_id.hex(), detail)
    audit.append(connection, now, event)
    return number


def _checked(
    connection: Connection, keys: KeyRing, flag: flags.NewFlag, terms: Sequence[str]
) -> _Reported | Refusal:
    """Finds the reported item; each term must be one that can go, and occur in it."""
    refused = next((no for term in terms if (no := leaks.check_term(term))), None)
    if refused is not None:
        return refused
    found = _find(connection, keys, flag)
    if isinstance(found, Refusal):
        return found
    spans = _spans(found.row)
    refusals = (leaks.check_occurs(found.kind, found.content, spans, term) for term in terms)
    return next((refused for refused in refusals if refused), None) or found


def _find(connection: Connection, keys: KeyRing, flag: flags.NewFlag) -> _Reported | Refusal:
    if not flags.was_given(connection, flag.item_id, flag.expert_id):
        return Refusal("ITEM_UNKNOWN", "you do not hold this item")
    row = connection.execute(_ROWS.where(item.c.item_id == flag.item_id)).one()
    content = keys.unseal(row.campaign_id, items.content_row(row.item_id), row.sealed)
    kind = Kind(row.kind)
    text = content.decode("utf-8", "replace") if kind is Kind.TEXT else ""
    return _Reported(row, kind, content, shingles_of(text), pieces_of(text))


_ROWS = select(
    item.c.item_number,
    item.c.item_id,
    item.c.campaign_id,
    item.c.kind,
    item.c.state,
    item.c.mask_spans,
    item.c.content_sha256,
    item_content.c.sealed,
).join(item_content, item_content.c.item_number == item.c.item_number)


def _page(connection: Connection, last: int) -> list[Any]:
    query = _ROWS.where(item.c.item_number > last, item.c.kind.in_(SEARCHED))
    return list(connection.execute(query.order_by(item.c.item_number).limit(PAGE_ROWS)))


def _pages(connection: Connection, seen: Survey) -> Iterator[list[Any]]:
    """The rows that a survey named, and all that came after it."""
    for start in range(0, len(seen.numbers), PAGE_ROWS):
        some = seen.numbers[start : start + PAGE_ROWS]
        yield list(connection.execute(_ROWS.where(item.c.item_number.in_(some))))
    last = seen.last
    while page := _page(connection, last):
        yield page
        last = page[-1].item_number


def _opened(keys: KeyRing, row: Any) -> bytes | None:
    """Returns the content of a row; None when its campaign was shredded."""
    try:
        return keys.unseal(row.campaign_id, items.content_row(row.item_id), row.sealed)
    except KeyMissing:
        return None


def _spans(row: Any) -> tuple[leaks.Span, ...]:
    return tuple((start, end, name) for start, end, name in json.loads(row.mask_spans))


def _replace_everywhere(
    connection: Connection,
    keys: KeyRing,
    reported: _Reported,
    sought: tuple[Sequence[str], Survey],
) -> tuple[int, list[int]]:
    """Returns how many items lost the words, and the numbers of open look-alikes."""
    touched, alike, (terms, seen) = 0, [], sought
    for page in _pages(connection, seen):
        changes = []
        for row in page:
            plain = _opened(keys, row)
            if plain is None:
                continue
            kind = Kind(row.kind)
            done = leaks.clean(kind, plain, _spans(row), terms)
            if done is not None:
                changes.append((row, done))
            if row.state == ItemState.OPEN.value and reported.resembles(kind, plain):
                alike.append(row.item_number)
        _put(connection, keys, changes)
        touched += len(changes)
    return touched, alike


def _put(connection: Connection, keys: KeyRing, changes: list[tuple[Any, leaks.Cleaned]]) -> None:
    if not changes:
        return
    contents, facts = [], []
    for row, done in changes:
        sealed = keys.seal(row.campaign_id, items.content_row(row.item_id), done.content)
        contents.append((sealed, row.item_number))
        digest = hashlib.sha256(done.content).digest()
        facts.append((json.dumps(done.spans), digest, row.item_number))
        if done.shifts:
            _move_answers(connection, row.item_number, done.shifts)
            texts_seen.note_moved(connection, row, digest, done.shifts)
    connection.exec_driver_sql("UPDATE item_content SET sealed = ? WHERE item_number = ?", contents)
    connection.exec_driver_sql(
        "UPDATE item SET mask_spans = ?, content_sha256 = ? WHERE item_number = ?", facts
    )


def _move_answers(
    connection: Connection, item_number: int, shifts: tuple[leaks.Shift, ...]
) -> None:
    """Marked spans go on marking the same words: only their places change."""
    for table, number in (("label", "label_id"), ("annotation", "annotation_id")):
        rows = connection.exec_driver_sql(
            f"SELECT {number}, answer_key FROM {table} "  # noqa: S608  names of this loop
            "WHERE item_number = ? AND answer_key LIKE '%:%'",
            (item_number,),
        ).all()
        for row_number, key in rows:
            connection.exec_driver_sql(
                f"UPDATE {table} SET answer_key = ? WHERE {number} = ?",  # noqa: S608
                (leaks.moved_answer(key, shifts), row_number),
            )


def _hold(connection: Connection, item_number: int) -> None:
    items.change_state(connection, item_number, ItemState.HELD)
    items.void_slots(connection, item_number)


def open_reports(connection: Connection) -> tuple[OpenReport, ...]:
    """Returns the reports that the site lead has not seen, newest first."""
    rows = connection.execute(
        select(leak_report, person.c.display_name, person.c.username)
        .join(person, person.c.person_id == leak_report.c.expert_id)
        .where(leak_report.c.seen_at.is_(None))
        .order_by(leak_report.c.report_id.desc())
    )
    return tuple(
        OpenReport(
            row.report_id,
            row.display_name or row.username,
            row.reported_at,
            row.touched_count,
            row.held_count,
        )
        for row in rows
    )


def mark_seen(connection: Connection, report_id: int, person_id: int, now: float) -> bool:
    """Ends the alarm of one report. Returns whether it was open."""
    changed = connection.execute(
        update(leak_report)
        .where(leak_report.c.report_id == report_id, leak_report.c.seen_at.is_(None))
        .values(seen_at=now, seen_by=person_id)
    ).rowcount
    if changed:
        event = audit.Event(f"person:{person_id}", "leak.seen", str(report_id))
        audit.append(connection, now, event)
    return bool(changed)
