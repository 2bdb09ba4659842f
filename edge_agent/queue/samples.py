"""Samples at rest: sealed content, sealed masked view, sealed score.

Content stays after scoring because a grant for it may come weeks later.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from edge_agent.errors import SealBroken
from edge_agent.queue.database import Database
from edge_agent.queue.seals import Seals

_VIEW_HEAD = struct.Struct("<BI")
_PLACE = struct.Struct("<II")
_HAS_PLACES = 0x80
_SCORE = struct.Struct("<IBHHB")
_SCORE_BEFORE = struct.Struct("<IBHH")


class SampleState(IntEnum):
    """Where a sample stands."""

    OPEN = 0
    GRANTED = 1
    """A grant named it; it is not offered again."""
    HELD = 2
    """Masking held it back, so that it can neither be scored nor shown."""
    UNFIT = 3
    """It does not fit the model's input."""
    BROKEN = 4
    """Its seal does not open: the row was changed on the disk."""


@dataclass(frozen=True)
class View:
    """A sample as people and models of a masked campaign see it.

    Attributes:
        content: Encoded as the kind says.
        report: Serialised wire `MaskReport`.
        risk_band: Personal-data risk, 0 to 3.
        places: Start and end, in code points of the raw text, of what each span of the report
            hides; empty for kinds without text. Never leaves the device.
    """

    content: bytes
    report: bytes
    risk_band: int
    places: tuple[tuple[int, int], ...] = ()

    def pack(self) -> bytes:
        """Returns the bytes that are sealed."""
        band = self.risk_band | (_HAS_PLACES if self.places else 0)
        head = _VIEW_HEAD.pack(band, len(self.report)) + self.report
        if self.places:
            head += len(self.places).to_bytes(4, "little")
            head += b"".join(_PLACE.pack(*place) for place in self.places)
        return head + self.content

    @classmethod
    def unpack(cls, raw: bytes) -> View:
        """Reads what `pack` wrote, also before there were places.

        >>> View.unpack(View(b"text", b"report", 2, ((3, 9),)).pack())
        View(content=b'text', report=b'report', risk_band=2, places=((3, 9),))
        """
        band, length = _VIEW_HEAD.unpack_from(raw)
        start = _VIEW_HEAD.size + length
        report = raw[_VIEW_HEAD.size : start]
        places: list[tuple[int, int]] = []
        if band & _HAS_PLACES:
            end = start + 4 + _PLACE.size * int.from_bytes(raw[start : start + 4], "little")
            places = list(_PLACE.iter_unpack(raw[start + 4 : end]))
            start = end
        return cls(raw[start:], report, band & ~_HAS_PLACES, tuple(places))


@dataclass(frozen=True)
class OfferedScore:
    """What was offered to the coordinator about one sample.

    Attributes:
        model_version: Version that scored it.
        margin: 0 to 63.
        predicted_class: Class of the largest probability.
        prototype_class: Class of the nearest prototype.
        coverage_band: How many more samples of the pool it stands for, or how near it lies to a
            centre of cells that the sites found, 0 to 15; 0 once a label taught the model.
    """

    model_version: int
    margin: int
    predicted_class: int
    prototype_class: int
    coverage_band: int = 0

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts what a device would rather have labeled behind what it would rather not.

        >>> OfferedScore(1, 9, 0, 0, coverage_band=2).rank > OfferedScore(1, 63, 0, 0).rank
        True
        """
        return self.model_version, self.coverage_band, self.margin

    def pack(self) -> bytes:
        """Returns the bytes that are sealed."""
        return _SCORE.pack(
            self.model_version,
            self.margin,
            self.predicted_class,
            self.prototype_class,
            self.coverage_band,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> OfferedScore:
        """Reads what `pack` wrote, also before there was a coverage band.

        >>> OfferedScore.unpack(OfferedScore(3, 40, 1, 2, 7).pack()[:-1]).rank
        (3, 0, 40)
        """
        layout = _SCORE if len(raw) == _SCORE.size else _SCORE_BEFORE
        return cls(*layout.unpack(raw))


@dataclass(frozen=True)
class StoredSample:
    """A row of the store, opened.

    Attributes:
        row_id: Ascending number of arrival.
        campaign_id: 16 bytes.
        candidate_id: 16 bytes, keyed.
        source: Name of the source it came from.
        state: Where it stands.
        content: Canonical bytes of its kind.
        view_policy: Policy under which `view` was made; empty for none.
        view: Masked view, or None.
    """

    row_id: int
    campaign_id: bytes
    candidate_id: bytes
    source: str
    state: SampleState
    content: bytes
    view_policy: str
    view: View | None


class SampleStore:
    """The samples of all campaigns of a device, each sealed with its campaign's key."""

    def __init__(self, database: Database, seals: Seals) -> None:
        self._database = database
        self._seals = seals

    def candidate_id(self, campaign_id: bytes, content: bytes) -> bytes:
        """Returns the 16 bytes that name a sample on the wire.

        Keyed with a secret of the device, so that nobody can test a guess of the content.
        """
        return self._seals.device.keyed_id(b"candidate", campaign_id, content)

    def add(
        self, campaign_id: bytes, source: str, contents: Iterable[bytes], *, now: float = 0.0
    ) -> int:
        """Seals and stores samples; equal content of a campaign is stored once.

        Args:
            campaign_id: 16 bytes; chooses the key.
            source: Name of the source.
            contents: Canonical bytes.
            now: Seconds since 1970; from then on their age counts.

        Returns:
            How many were new.
        """
        added = 0
        with self._database.transaction():
            sealer = self._seals.of(campaign_id)
            for content in contents:
                candidate_id = self.candidate_id(campaign_id, content)
                sealed = sealer.seal(content, b"sample|" + candidate_id)
                added += self._database.write(
                    "INSERT OR IGNORE INTO sample"
                    " (campaign_id, candidate_id, source, content, arrived_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (campaign_id, candidate_id, source, sealed, now),
                )
        return added

    def waiting(
        self, campaign_id: bytes, version: int, *, after: int, count_max: int
    ) -> list[StoredSample]:
        """Returns open samples that `version` has not scored, in order of arrival."""
        rows = self._database.read(
            "SELECT id, campaign_id, candidate_id, source, state, content, view_policy, view"
            " FROM sample"
            " WHERE campaign_id = ? AND state = 0 AND id > ? AND scored_version != ?"
            " ORDER BY id LIMIT ?",
            (campaign_id, after, version, count_max),
        )
        opened: list[StoredSample] = []
        for row in rows:
            try:
                opened.append(self._opened(row))
            except SealBroken:
                # One damaged row must not stop the pool; it stays for an inspection of the disk.
                self.set_state(row[0], SampleState.BROKEN)
        return opened

    def find(self, campaign_id: bytes, candidate_id: bytes) -> StoredSample | None:
        """Returns the sample behind a candidate of a campaign, or None when it is not here."""
        rows = self._database.read(
            "SELECT id, campaign_id, candidate_id, source, state, content, view_policy, view"
            " FROM sample"
            " WHERE candidate_id = ? AND campaign_id = ?",
            (candidate_id, campaign_id),
        )
        return self._opened(rows[0]) if rows else None

    def offered_score(self, candidate_id: bytes) -> OfferedScore | None:
        """Returns what was last offered about a candidate, or None."""
        rows = self._database.read(
            "SELECT campaign_id, score FROM sample WHERE candidate_id = ?", (candidate_id,)
        )
        if not rows or rows[0][1] is None:
            return None
        campaign_id, sealed = rows[0]
        sealer = self._seals.of(campaign_id)
        return OfferedScore.unpack(sealer.open(sealed, b"score|" + candidate_id))

    def record_scores(self, campaign_id: bytes, rows: Sequence[tuple[bytes, OfferedScore]]) -> None:
        """Stores what is offered of a campaign; part of the caller's transaction."""
        sealer = self._seals.of(campaign_id)
        self._database.write_many(
            "UPDATE sample SET scored_version = ?, score = ? WHERE candidate_id = ?",
            [
                (
                    score.model_version,
                    sealer.seal(score.pack(), b"score|" + candidate_id),
                    candidate_id,
                )
                for candidate_id, score in rows
            ],
        )

    def record_view(self, sample: StoredSample, policy: str, view: View) -> None:
        """Keeps the masked view, so that a sample is masked once for each policy."""
        sealer = self._seals.of(sample.campaign_id)
        self._database.write(
            "UPDATE sample SET view_policy = ?, view = ? WHERE id = ?",
            (policy, sealer.seal(view.pack(), b"view|" + sample.candidate_id), sample.row_id),
        )

    def set_state(self, row_id: int, state: SampleState) -> None:
        """Moves one sample that no grant names."""
        self._database.write(
            "UPDATE sample SET state = ? WHERE id = ? AND state != 1", (int(state), row_id)
        )

    def hold(self, row_id: int, policy: str, reason: str) -> None:
        """Puts a sample aside that masking held; `policy` names the one that did."""
        self._database.write(
            "UPDATE sample SET state = 2, view = NULL, view_policy = ?, held_reason = ?"
            " WHERE id = ? AND state = 0",
            (policy, reason, row_id),
        )

    def held_reasons(self) -> dict[str, int]:
        """Returns the number of held samples by reason."""
        return dict(
            self._database.read(
                "SELECT held_reason, count(*) FROM sample WHERE state = 2 GROUP BY held_reason"
            )
        )

    def has_held(self, campaign_id: bytes) -> bool:
        """True when masking holds a sample of the campaign."""
        return bool(
            self._database.read(
                "SELECT 1 FROM sample WHERE campaign_id = ? AND state = 2 LIMIT 1", (campaign_id,)
            )
        )

    def score_again(self, campaign_id: bytes) -> None:
        """Lets every open sample be scored once more, since what was counted is forgotten."""
        self._database.write(
            "UPDATE sample SET scored_version = 0 WHERE campaign_id = ? AND state = 0",
            (campaign_id,),
        )

    def reopen_unfit(self, campaign_id: bytes) -> int:
        """Gives samples that did not fit an older model a new chance; returns how many."""
        return self._database.write(
            "UPDATE sample SET state = 0 WHERE campaign_id = ? AND state = 3", (campaign_id,)
        )

    def reopen_held(self, campaign_id: bytes, source: str, policy: str) -> int:
        """Gives samples of a source that another policy held a new chance; returns how many."""
        return self._database.write(
            "UPDATE sample SET state = 0, view = NULL, view_policy = ''"
            " WHERE campaign_id = ? AND state = 2 AND source = ? AND view_policy != ?",
            (campaign_id, source, policy),
        )

    def older_than(
        self, before: float, *, kept: Container[bytes], count_max: int
    ) -> list[tuple[int, bytes]]:
        """Returns row and campaign of samples that arrived before a moment, oldest first.

        Args:
            before: Seconds since 1970.
            kept: Candidate ids that are left out.
            count_max: Most that are returned.
        """
        old: list[tuple[int, bytes]] = []
        last = 0
        while len(old) < count_max:
            rows = self._database.read(
                "SELECT id, campaign_id, candidate_id FROM sample"
                " WHERE id > ? AND arrived_at < ? ORDER BY id LIMIT ?",
                (last, before, count_max),
            )
            if not rows:
                break
            old += [(row_id, campaign) for row_id, campaign, name in rows if name not in kept]
            last = rows[-1][0]
        return old[:count_max]

    def remove(self, row_ids: Sequence[int]) -> None:
        """Removes samples for good."""
        self._database.write_many(
            "DELETE FROM sample WHERE id = ?", [(row_id,) for row_id in row_ids]
        )

    def drop_oldest(self, count: int) -> int:
        """Removes up to `count` of the oldest samples that no grant names; returns how many."""
        return self._database.write(
            "DELETE FROM sample WHERE id IN"
            " (SELECT id FROM sample WHERE state != 1 ORDER BY id LIMIT ?)",
            (count,),
        )

    def counts(self) -> dict[bytes, dict[str, int]]:
        """Returns, by campaign, the number of samples in each state."""
        rows = self._database.read(
            "SELECT campaign_id, state, count(*) FROM sample GROUP BY campaign_id, state"
        )
        counted: dict[bytes, dict[str, int]] = {}
        for campaign_id, state, count in rows:
            counted.setdefault(campaign_id, {})[SampleState(state).name.lower()] = count
        return counted

    def _opened(
        self, row: tuple[int, bytes, bytes, str, int, bytes, str, bytes | None]
    ) -> StoredSample:
        row_id, campaign_id, candidate_id, source, state, content, view_policy, view = row
        sealer = self._seals.of(campaign_id)
        opened = view and sealer.open(view, b"view|" + candidate_id)
        return StoredSample(
            row_id=row_id,
            campaign_id=campaign_id,
            candidate_id=candidate_id,
            source=source,
            state=SampleState(state),
            content=sealer.open(content, b"sample|" + candidate_id),
            view_policy=view_policy,
            view=View.unpack(opened) if opened else None,
        )
