"""From layout 1 of the queue, with one key for everything, to layout 2, with a key per campaign.

Goes in small transactions, each of which also says how far it came: a kill anywhere repeats nothing
and loses nothing, and the next start goes on. Nothing else uses the queue meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.errors import SealBroken
from edge_agent.queue.database import SCHEMA_VERSION, Database
from edge_agent.queue.seals import Seals

BATCH_ROWS = 256
_ADDED = """
CREATE TABLE campaign_key (campaign_id BLOB PRIMARY KEY, sealed BLOB NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE shredding (campaign_id BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE migration (done_to INTEGER NOT NULL) STRICT;
ALTER TABLE sample ADD COLUMN arrived_at REAL NOT NULL DEFAULT 0;
ALTER TABLE grant_book ADD COLUMN settled_at REAL NOT NULL DEFAULT 0;
INSERT INTO migration VALUES (0);
"""


def migrate(database: Database, seals: Seals, now: float) -> int:
    """Brings a queue of layout 1 to the present one; does nothing to any other.

    Args:
        database: Open for writing.
        seals: Open for the device's key.
        now: Seconds since 1970: how old samples count whose arrival nobody noted.

    Returns:
        Samples that were sealed anew.

    Raises:
        StorageFull: No space; nothing is lost, and the next start goes on.
    """
    if database.layout() != 1:
        return 0
    if not database.has_table("migration"):
        _begin(database, now)
    moved = 0
    while count := _move_samples(database, seals):
        moved += count
    with database.transaction():
        _move_batches(database, seals)
        database.write("DROP TABLE migration")
        database.write(f"PRAGMA user_version={SCHEMA_VERSION}")
    database.truncate_log()
    return moved


def _begin(database: Database, now: float) -> None:
    with database.transaction():
        for statement in filter(str.strip, _ADDED.split(";")):
            database.write(statement)
        database.write("UPDATE sample SET arrived_at = ?", (now,))
        database.write("UPDATE grant_book SET settled_at = ? WHERE stage > 0", (now,))


def _move_samples(database: Database, seals: Seals) -> int:
    with database.transaction():
        ((done_to,),) = database.read("SELECT done_to FROM migration")
        rows = database.read(
            "SELECT id, campaign_id, candidate_id, content, view, score FROM sample"
            " WHERE id > ? ORDER BY id LIMIT ?",
            (done_to, BATCH_ROWS),
        )
        changed = []
        for row_id, campaign_id, candidate_id, content, view, score in rows:
            again = _resealer(seals, campaign_id)
            changed.append(
                (
                    again(content, b"sample|" + candidate_id),
                    again(view, b"view|" + candidate_id),
                    again(score, b"score|" + candidate_id),
                    row_id,
                )
            )
        database.write_many(
            "UPDATE sample SET content = ?, view = ?, score = ? WHERE id = ?", changed
        )
        if rows:
            database.write("UPDATE migration SET done_to = ?", (rows[-1][0],))
    return len(rows)


def _move_batches(database: Database, seals: Seals) -> None:
    for campaign_id, sequence, body in database.read(
        "SELECT campaign_id, sequence, body FROM outbox"
    ):
        place = b"outbox|" + campaign_id + sequence.to_bytes(8, "little")
        database.write(
            "UPDATE outbox SET body = ? WHERE campaign_id = ? AND sequence = ?",
            (_resealer(seals, campaign_id)(body, place), campaign_id, sequence),
        )


def _resealer(seals: Seals, campaign_id: bytes) -> Callable[[bytes | None, bytes], bytes | None]:
    sealer = seals.of(campaign_id)

    def again(sealed: bytes | None, place: bytes) -> bytes | None:
        if sealed is None:
            return None
        try:
            return sealer.seal(seals.device.open(sealed, place), place)
        except SealBroken:
            # A row that was damaged before stays as it is, for an inspection of the disk.
            return sealed

    return again
