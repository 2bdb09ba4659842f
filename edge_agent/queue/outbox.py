"""Candidate batches on their way out, and the totals of each campaign's pool.

A batch is sealed before its first sending and sent again, byte for byte, until the coordinator says
that it is durable. Batches of an older model version that were not yet taken are of no use to
anyone once a new version begins, and are dropped then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.queue.database import Database
from edge_agent.queue.seals import Seals


@dataclass(frozen=True)
class SealedBatch:
    """A batch that waits for its acknowledgement.

    Attributes:
        campaign_id: 16 bytes.
        sequence: Number of the batch in its campaign, from 1.
        body: Serialised `CandidateBatch`.
    """

    campaign_id: bytes
    sequence: int
    body: bytes


@dataclass(frozen=True)
class PoolTotals:
    """What is known of the pool of one campaign under one model version.

    Attributes:
        model_version: Version that scored it.
        class_counts: uint32[classes], samples by predicted class.
        top_probability_sum: Sum of the largest probability, in 1/65536.
        top_probability_square_sum: Sum of its square, in 1/65536.
    """

    model_version: int
    class_counts: NDArray[np.uint32]
    top_probability_sum: int
    top_probability_square_sum: int

    def plus(
        self, predicted: NDArray[np.uint16], top_probabilities: NDArray[np.float32]
    ) -> PoolTotals:
        """Returns the totals with more samples.

        >>> none = PoolTotals(1, np.zeros(2, np.uint32), 0, 0)
        >>> none.plus(np.uint16([1, 1]), np.float32([0.5, 1.0])).top_probability_sum
        98304
        """
        classes = len(self.class_counts)
        counts = np.bincount(predicted, minlength=classes)[:classes].astype(np.uint32)
        top = top_probabilities.astype(np.float64)
        return PoolTotals(
            self.model_version,
            np.asarray(self.class_counts + counts, dtype=np.uint32),
            self.top_probability_sum + int(np.rint(top * 65536).sum()),
            self.top_probability_square_sum + int(np.rint(top * top * 65536).sum()),
        )

    def key(self) -> str:
        """Returns a text that differs whenever the totals differ."""
        return (
            f"{self.model_version}:{self.class_counts.sum()}:{self.top_probability_sum}"
            f":{self.top_probability_square_sum}"
        )


class Outbox:
    """Batches and totals of all campaigns."""

    def __init__(self, database: Database, seals: Seals) -> None:
        self._database = database
        self._seals = seals

    def begin_version(self, campaign_id: bytes, version: int, *, class_count: int) -> bool:
        """Starts an empty pool for a model version; True when it was not begun before."""
        totals = self.totals(campaign_id)
        if totals is not None and totals.model_version == version:
            return False
        with self._database.transaction():
            self._database.write("DELETE FROM outbox WHERE campaign_id = ?", (campaign_id,))
            self._database.write(
                "INSERT INTO pool VALUES (?, ?, 1, ?, 0, 0, 1, 0, '')"
                " ON CONFLICT (campaign_id) DO UPDATE SET model_version = excluded.model_version,"
                " replaces = 1, class_counts = excluded.class_counts, top_probability_sum = 0,"
                " top_probability_square_sum = 0, reported = ''",
                (campaign_id, version, bytes(4 * class_count)),
            )
        return True

    def forget_pool(self, campaign_id: bytes) -> None:
        """Forgets under which version the pool was scored, and batches that wait."""
        with self._database.transaction():
            self._database.write("DELETE FROM outbox WHERE campaign_id = ?", (campaign_id,))
            self._database.write(
                "UPDATE pool SET model_version = 0 WHERE campaign_id = ?", (campaign_id,)
            )

    def next_sequence(self, campaign_id: bytes) -> tuple[int, bool]:
        """Returns the sequence of the next batch and whether it begins a new scoring."""
        ((sequence, replaces),) = self._database.read(
            "SELECT next_sequence, replaces FROM pool WHERE campaign_id = ?", (campaign_id,)
        )
        return sequence, bool(replaces)

    def append(self, batch: SealedBatch, *, row_count: int, totals: PoolTotals) -> None:
        """Stores a batch and the totals that include it; part of the caller's transaction."""
        with self._database.transaction():
            sealer = self._seals.of(batch.campaign_id)
            self._database.write(
                "INSERT INTO outbox (campaign_id, sequence, model_version, row_count, body)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    batch.campaign_id,
                    batch.sequence,
                    totals.model_version,
                    row_count,
                    sealer.seal(batch.body, _place(batch.campaign_id, batch.sequence)),
                ),
            )
            self._database.write(
                "UPDATE pool SET next_sequence = ?, replaces = 0, class_counts = ?,"
                " top_probability_sum = ?, top_probability_square_sum = ? WHERE campaign_id = ?",
                (
                    batch.sequence + 1,
                    totals.class_counts.astype("<u4").tobytes(),
                    totals.top_probability_sum,
                    totals.top_probability_square_sum,
                    batch.campaign_id,
                ),
            )

    def waiting(self, *, count_max: int = 8) -> list[SealedBatch]:
        """Returns the next batches to send, in order; refused campaigns are left out."""
        rows = self._database.read(
            "SELECT campaign_id, sequence, body FROM outbox WHERE campaign_id NOT IN"
            " (SELECT campaign_id FROM outbox WHERE refused != '')"
            " ORDER BY campaign_id, sequence LIMIT ?",
            (count_max,),
        )
        return [
            SealedBatch(
                campaign_id,
                sequence,
                self._seals.of(campaign_id).open(body, _place(campaign_id, sequence)),
            )
            for campaign_id, sequence, body in rows
        ]

    def acknowledge(self, batch: SealedBatch) -> None:
        """Forgets a batch that is durable at the coordinator."""
        self._database.write(
            "DELETE FROM outbox WHERE campaign_id = ? AND sequence = ?",
            (batch.campaign_id, batch.sequence),
        )

    def mark_refused(self, batch: SealedBatch, reason: str) -> None:
        """Notes why the coordinator refused a batch; its campaign's batches wait then."""
        self._database.write(
            "UPDATE outbox SET refused = ? WHERE campaign_id = ? AND sequence = ?",
            (reason, batch.campaign_id, batch.sequence),
        )

    def retry_refused(self) -> int:
        """Lets refused batches be sent again; returns how many."""
        return self._database.write("UPDATE outbox SET refused = '' WHERE refused != ''")

    def refused(self) -> list[tuple[bytes, str]]:
        """Returns campaign and reason of each refused batch."""
        return [
            (campaign_id, reason)
            for campaign_id, reason in self._database.read(
                "SELECT campaign_id, refused FROM outbox WHERE refused != ''"
            )
        ]

    def row_counts(self) -> dict[bytes, int]:
        """Returns, by campaign, how many rows wait to be sent."""
        return dict(
            self._database.read("SELECT campaign_id, sum(row_count) FROM outbox GROUP BY 1")
        )

    def totals(self, campaign_id: bytes) -> PoolTotals | None:
        """Returns the totals of a campaign's pool, or None before its first version."""
        rows = self._database.read(
            "SELECT model_version, class_counts, top_probability_sum,"
            " top_probability_square_sum FROM pool WHERE campaign_id = ?",
            (campaign_id,),
        )
        if not rows:
            return None
        version, counts, total, squares = rows[0]
        return PoolTotals(version, np.frombuffer(counts, dtype="<u4"), total, squares)

    def next_report(self, campaign_id: bytes) -> int | None:
        """Returns the number of the report that is due, or None when all was reported."""
        totals = self.totals(campaign_id)
        if totals is None:
            return None
        ((number, reported),) = self._database.read(
            "SELECT report_number, reported FROM pool WHERE campaign_id = ?", (campaign_id,)
        )
        return None if reported == totals.key() else int(number) + 1

    def record_report(self, campaign_id: bytes, number: int, totals: PoolTotals) -> None:
        """Notes that the coordinator has the report."""
        self._database.write(
            "UPDATE pool SET report_number = ?, reported = ? WHERE campaign_id = ?",
            (number, totals.key(), campaign_id),
        )


def batch_columns(parts: Sequence[NDArray[np.generic]]) -> bytes:
    """Joins arrays of one column into little-endian bytes.

    >>> batch_columns([np.uint16([1]), np.uint16([2])]).hex()
    '01000200'
    """
    return b"".join(part.astype(part.dtype.newbyteorder("<")).tobytes() for part in parts)


def _place(campaign_id: bytes, sequence: int) -> bytes:
    return b"outbox|" + campaign_id + sequence.to_bytes(8, "little")
