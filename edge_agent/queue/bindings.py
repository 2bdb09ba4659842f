"""Which sample a grant is for that names none, because its campaign sends histograms.

The device chooses its own best sample for each such grant, once; the choice is durable before
anything is delivered, so that a repeat releases the same sample.
"""

from __future__ import annotations

from edge_agent.errors import SealBroken
from edge_agent.queue.database import Database
from edge_agent.queue.samples import SampleStore


class Bindings:
    """Grants and the samples they are for.

    Args:
        database: The queue.
        samples: Scores of the samples.
    """

    def __init__(self, database: Database, samples: SampleStore) -> None:
        self._database = database
        self._samples = samples
        self._ranked: dict[bytes, list[bytes]] = {}

    def bind(self, campaign_id: bytes, grant_id: bytes) -> bytes | None:
        """Returns the candidate id that a grant is for, None when no sample is left.

        The first call takes the device's best open sample out of the pool: the one with the highest
        margin score, and before any label taught the model the one that stands for most others.
        """
        known = self.bound(grant_id)
        if known is not None:
            return known
        for _ in range(2):
            ranked = self._ranked.get(campaign_id, [])
            while ranked:
                candidate_id = ranked.pop()
                if self._take(campaign_id, grant_id, candidate_id):
                    return candidate_id
            self._ranked[campaign_id] = self._rank(campaign_id)
        return None

    def bound(self, grant_id: bytes) -> bytes | None:
        """Returns the candidate id that was chosen for a grant before, or None."""
        rows = self._database.read(
            "SELECT candidate_id FROM binding WHERE grant_id = ?", (grant_id,)
        )
        return bytes(rows[0][0]) if rows else None

    def forget_ranking(self, campaign_id: bytes) -> None:
        """Ranks anew at the next grant, since scores have changed."""
        self._ranked.pop(campaign_id, None)

    def _take(self, campaign_id: bytes, grant_id: bytes, candidate_id: bytes) -> bool:
        with self._database.transaction():
            taken = self._database.write(
                "UPDATE sample SET state = 1"
                " WHERE candidate_id = ? AND campaign_id = ? AND state = 0",
                (candidate_id, campaign_id),
            )
            if taken:
                self._database.write("INSERT INTO binding VALUES (?, ?)", (grant_id, candidate_id))
        return bool(taken)

    def _rank(self, campaign_id: bytes) -> list[bytes]:
        """Returns the open samples of a campaign that have a score, the best one last."""
        rows = self._database.read(
            "SELECT candidate_id FROM sample"
            " WHERE campaign_id = ? AND state = 0 AND score IS NOT NULL ORDER BY id DESC",
            (campaign_id,),
        )
        scored: list[tuple[tuple[int, int, int], bytes]] = []
        for (candidate_id,) in rows:
            try:
                offered = self._samples.offered_score(candidate_id)
            except SealBroken:
                continue
            if offered is not None:
                scored.append((offered.rank, bytes(candidate_id)))
        scored.sort(key=lambda entry: entry[0])
        return [candidate_id for _, candidate_id in scored]
