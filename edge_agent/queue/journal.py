"""Small durable facts: source positions, refusals, known campaigns, installs, conditions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from perimeter.v1 import model_pb2

from edge_agent.queue.database import Database
from edge_agent.queue.sealing import Sealer


@dataclass(frozen=True)
class Refusal:
    """A sample that was not taken.

    Attributes:
        source: Name of the source.
        reason: Stable word such as `not-utf8`.
        detail: A sentence with the remedy; never content.
        location: File name or line, for people at the device; sealed at rest.
        at: Seconds since 1970.
    """

    source: str
    reason: str
    detail: str
    location: str
    at: float = 0.0


class Journal:
    """Positions of sources and the log of refusals."""

    def __init__(self, database: Database, sealer: Sealer, *, refusal_rows_max: int) -> None:
        self._database = database
        self._sealer = sealer
        self._refusal_rows_max = refusal_rows_max

    def position(self, source: str) -> bytes | None:
        """Returns where a source goes on, or None at its start."""
        rows = self._database.read("SELECT position FROM cursor WHERE source = ?", (source,))
        return self._sealer.open(rows[0][0], b"cursor|" + source.encode()) if rows else None

    def record_position(self, source: str, position: bytes) -> None:
        """Stores where a source goes on; part of the caller's transaction."""
        sealed = self._sealer.seal(position, b"cursor|" + source.encode())
        self._database.write(
            "INSERT INTO cursor VALUES (?, ?)"
            " ON CONFLICT (source) DO UPDATE SET position = excluded.position",
            (source, sealed),
        )

    def file_id(self, source: str, name: str) -> bytes:
        """Returns a keyed id of a file name; names may hold personal data."""
        return self._sealer.keyed_id(
            b"file", source.encode(), name.encode(errors="surrogateescape")
        )

    def seen_files(self, source: str) -> dict[bytes, bytes]:
        """Returns the stamp of each file that was read, by its keyed id."""
        return dict(
            self._database.read("SELECT file_id, stamp FROM seen_file WHERE source = ?", (source,))
        )

    def record_files(self, source: str, stamps: Iterable[tuple[bytes, bytes]]) -> None:
        """Notes files as read; part of the caller's transaction."""
        self._database.write_many(
            "INSERT INTO seen_file VALUES (?, ?, ?)"
            " ON CONFLICT (file_id) DO UPDATE SET stamp = excluded.stamp",
            [(file_id, source, stamp) for file_id, stamp in stamps],
        )

    def record_refusals(self, refusals: Iterable[Refusal], now: float) -> None:
        """Adds refusals and forgets the oldest beyond the limit."""
        with self._database.transaction():
            for refusal in refusals:
                place = b"refusal|" + refusal.source.encode()
                location = refusal.location.encode(errors="backslashreplace")
                self._database.write(
                    "INSERT INTO refusal (at, source, reason, detail, location)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (
                        now,
                        refusal.source,
                        refusal.reason,
                        refusal.detail,
                        self._sealer.seal(location, place),
                    ),
                )
            self._database.write(
                "DELETE FROM refusal WHERE id <= (SELECT max(id) FROM refusal) - ?",
                (self._refusal_rows_max,),
            )

    def refusals(self, *, count_max: int = 20) -> list[Refusal]:
        """Returns the latest refusals, newest first."""
        rows = self._database.read(
            "SELECT source, reason, detail, location, at FROM refusal ORDER BY id DESC LIMIT ?",
            (count_max,),
        )
        return [
            Refusal(
                source,
                reason,
                detail,
                self._sealer.open(location, b"refusal|" + source.encode()).decode(),
                at,
            )
            for source, reason, detail, location, at in rows
        ]

    def refusal_counts(self) -> dict[str, int]:
        """Returns the number of logged refusals by reason."""
        return dict(self._database.read("SELECT reason, count(*) FROM refusal GROUP BY reason"))


class CampaignBook:
    """Campaigns as the coordinator last described them, so that work goes on while offline."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, campaigns: Iterable[model_pb2.Campaign]) -> None:
        """Stores or replaces descriptions."""
        with self._database.transaction():
            for campaign in campaigns:
                self._database.write("DELETE FROM campaign WHERE name = ?", (campaign.name,))
                self._database.write(
                    "INSERT OR REPLACE INTO campaign VALUES (?, ?, ?)",
                    (campaign.campaign_id, campaign.name, campaign.SerializeToString()),
                )

    def all(self) -> dict[str, model_pb2.Campaign]:
        """Returns the known campaigns by name."""
        return {
            name: model_pb2.Campaign.FromString(body)
            for name, body in self._database.read("SELECT name, body FROM campaign ORDER BY name")
        }


class Conditions:
    """What is wrong right now, one sentence for each part of the daemon; for `status`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, name: str, text: str, now: float) -> None:
        """Notes a condition; an empty text ends it."""
        if text:
            self._database.write(
                "INSERT INTO condition VALUES (?, ?, ?) ON CONFLICT (name)"
                " DO UPDATE SET at = excluded.at, text = excluded.text",
                (name, now, text),
            )
        else:
            self._database.write("DELETE FROM condition WHERE name = ?", (name,))

    def all(self) -> dict[str, tuple[float, str]]:
        """Returns time and text by name."""
        rows = self._database.read("SELECT name, at, text FROM condition ORDER BY name")
        return {name: (at, text) for name, at, text in rows}
