"""Crypto-shredding of one campaign on the device: its key goes first, then its rows.

What is meant stands in the queue before the key goes, so that a crash in between is finished at the
next start. Copies of the queue's file keep rows that nobody can open any more.
"""

from __future__ import annotations

from edge_agent.queue.database import Database
from edge_agent.queue.outbox import Outbox
from edge_agent.queue.seals import Seals


def shred(database: Database, seals: Seals, outbox: Outbox, campaign_id: bytes) -> int:
    """Destroys a campaign's key and removes its samples and waiting batches.

    Returns:
        Samples that were removed.
    """
    database.write("INSERT OR IGNORE INTO shredding VALUES (?)", (campaign_id,))
    return finish(database, seals, outbox)


def finish(database: Database, seals: Seals, outbox: Outbox) -> int:
    """Finishes every shredding that was begun. Returns how many samples were removed."""
    removed = 0
    for (campaign_id,) in database.read("SELECT campaign_id FROM shredding"):
        seals.forget(campaign_id)
        with database.transaction():
            removed += database.write("DELETE FROM sample WHERE campaign_id = ?", (campaign_id,))
            outbox.forget_pool(campaign_id)
            database.write("DELETE FROM campaign_key WHERE campaign_id = ?", (campaign_id,))
            database.write("DELETE FROM shredding WHERE campaign_id = ?", (campaign_id,))
        database.truncate_log()
    return removed
