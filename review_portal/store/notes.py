"""Notes with reasoning, the site's case law, and flags. Their text is sealed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from review_portal.store.database import insert_row
from review_portal.store.sealing import KeyRing
from review_portal.store.tables import item, note, note_withdrawn, person

NOTE_LENGTH_MAX = 4000


@dataclass(frozen=True)
class NotePlace:
    """What a note is about, and whose it is.

    Attributes:
        campaign_id: 16 bytes.
        item_number: Row of the item.
        expert_id: Author.
        now: Seconds since the epoch.
    """

    campaign_id: bytes
    item_number: int
    expert_id: int
    now: float


@dataclass(frozen=True)
class NoteText:
    """What a note says.

    Attributes:
        text: Up to 4,000 characters.
        class_index: Class that it argues for, or None.
        sort: note or flag.
        reason_code: What is wrong, for a flag.
    """

    text: str
    class_index: int | None = None
    sort: str = "note"
    reason_code: str = ""


@dataclass(frozen=True)
class ReadNote:
    """A note as it is listed.

    Attributes:
        note_id: Its number.
        item_id: 16 bytes.
        author: Display name of its author.
        text: What it says.
        class_index: Class that it argues for, or None.
        sort: note or flag.
        reason_code: What is wrong, for a flag.
        created_at: Seconds since the epoch.
    """

    note_id: int
    item_id: bytes
    author: str
    text: str
    class_index: int | None
    sort: str
    reason_code: str
    created_at: float


def _row_name(place: NotePlace) -> bytes:
    return f"note\0{place.item_number}\0{place.expert_id}\0{place.now}".encode()


def put(connection: Connection, keys: KeyRing, place: NotePlace, text: NoteText) -> int:
    """Adds a note. Returns its number."""
    sealed = keys.seal(place.campaign_id, _row_name(place), text.text[:NOTE_LENGTH_MAX].encode())
    note_id = insert_row(
        connection,
        note.insert().values(
            campaign_id=place.campaign_id,
            item_number=place.item_number,
            expert_id=place.expert_id,
            class_index=text.class_index,
            sort=text.sort,
            reason_code=text.reason_code,
            sealed=sealed,
            created_at=place.now,
        ),
    )
    # Where the age limit took the newest notes away, their numbers are given again.
    connection.execute(note_withdrawn.delete().where(note_withdrawn.c.note_id == note_id))
    return note_id


def take_back(connection: Connection, annotation: Any) -> None:
    """Takes the note of a withdrawn answer out of the case notes; it stays in the store, sealed."""
    written = connection.execute(
        select(note.c.note_id).where(
            note.c.item_number == annotation.item_number,
            note.c.expert_id == annotation.expert_id,
            note.c.created_at == annotation.created_at,
            note.c.sort == "note",
        )
    ).scalars()
    for note_id in written.all():
        connection.execute(note_withdrawn.insert().values(note_id=note_id))


def search(
    connection: Connection, keys: KeyRing, campaign_id: bytes, *, words: str = "", limit: int = 100
) -> tuple[ReadNote, ...]:
    """Returns the newest notes that hold all words, whatever their case."""
    wanted = words.casefold().split()
    found: list[ReadNote] = []
    for entry in _newest_first(connection, keys, campaign_id):
        if all(word in entry.text.casefold() for word in wanted):
            found.append(entry)
        if len(found) == limit:
            break
    return tuple(found)


def _newest_first(connection: Connection, keys: KeyRing, campaign_id: bytes) -> Iterator[ReadNote]:
    rows = connection.execute(
        select(note, item.c.item_id, person.c.display_name)
        .join(item, item.c.item_number == note.c.item_number)
        .join(person, person.c.person_id == note.c.expert_id)
        .where(
            note.c.campaign_id == campaign_id,
            note.c.note_id.not_in(select(note_withdrawn.c.note_id)),
        )
        .order_by(note.c.note_id.desc())
    )
    for row in rows:
        place = NotePlace(campaign_id, row.item_number, row.expert_id, row.created_at)
        yield ReadNote(
            note_id=row.note_id,
            item_id=row.item_id,
            author=row.display_name,
            text=keys.unseal(campaign_id, _row_name(place), row.sealed).decode(),
            class_index=row.class_index,
            sort=row.sort,
            reason_code=row.reason_code,
            created_at=row.created_at,
        )
