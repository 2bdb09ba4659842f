"""Which model version runs, which one ran before, and what the coordinator must still be told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from perimeter.v1 import model_pb2

from edge_agent.queue.database import Database


@dataclass(frozen=True)
class Installed:
    """The versions of one campaign.

    Attributes:
        current: Version that runs; 0 for none.
        previous: Last good version before it; 0 for none.
        refused: Latest version that was refused here; 0 for none.
        attempts: Loads of the current version since the last good one.
    """

    current: int = 0
    previous: int = 0
    refused: int = 0
    attempts: int = 0


class InstallBook:
    """Pointers to installed versions; each change is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, campaign_id: bytes) -> Installed:
        """Returns the versions of a campaign."""
        rows = self._database.read(
            "SELECT current, previous, refused, attempts FROM installed WHERE campaign_id = ?",
            (campaign_id,),
        )
        return Installed(*rows[0]) if rows else Installed()

    def switch(self, campaign_id: bytes, version: int) -> None:
        """Makes a version current; the one that was stays as previous."""
        state = model_pb2.INSTALL_STATE_INSTALLED
        with self._database.transaction():
            known = self.get(campaign_id)
            previous = known.current if known.current != version else known.previous
            self._put(campaign_id, Installed(version, previous, 0, 0))
            self._explain(campaign_id, "")
            self._note(campaign_id, version, state, 0)

    def refuse(self, campaign_id: bytes, version: int, reason: int, text: str) -> None:
        """Notes that a version was refused; the current one stays."""
        with self._database.transaction():
            known = self.get(campaign_id)
            # Broken bytes are worth another download; everything else stays as it is.
            refused = 0 if reason == model_pb2.INSTALL_REASON_DIGEST else version
            self._put(
                campaign_id, Installed(known.current, known.previous, refused, known.attempts)
            )
            self._note(campaign_id, version, model_pb2.INSTALL_STATE_REFUSED, reason)
            self._explain(campaign_id, text)

    def begin_load(self, campaign_id: bytes) -> None:
        """Counts an attempt to load the current version."""
        self._database.write(
            "UPDATE installed SET attempts = attempts + 1 WHERE campaign_id = ?", (campaign_id,)
        )

    def loaded(self, campaign_id: bytes) -> None:
        """Forgets the attempts after a good load."""
        self._database.write(
            "UPDATE installed SET attempts = 0 WHERE campaign_id = ?", (campaign_id,)
        )

    def roll_back(self, campaign_id: bytes) -> None:
        """Makes the previous version current again and refuses the one that failed."""
        with self._database.transaction():
            known = self.get(campaign_id)
            self._put(campaign_id, Installed(known.previous, 0, known.current, 0))
            self._note(
                campaign_id,
                known.current,
                model_pb2.INSTALL_STATE_ROLLED_BACK,
                model_pb2.INSTALL_REASON_WARM_UP,
            )
            self._explain(campaign_id, f"model version {known.current} failed to load twice")

    def unreported(self) -> list[model_pb2.ReportInstallRequest]:
        """Returns what the coordinator must still be told."""
        rows = self._database.read("SELECT unreported FROM installed WHERE unreported IS NOT NULL")
        return [model_pb2.ReportInstallRequest.FromString(body) for (body,) in rows]

    def reported(self, report: model_pb2.ReportInstallRequest) -> None:
        """Notes that the coordinator knows; a newer note stays."""
        self._database.write(
            "UPDATE installed SET unreported = NULL WHERE campaign_id = ? AND unreported = ?",
            (report.campaign_id, report.SerializeToString(deterministic=True)),
        )

    def refused_text(self, campaign_id: bytes) -> str:
        """Returns why the refused version was refused; empty when none was."""
        rows = self._database.read(
            "SELECT refused_text FROM installed WHERE campaign_id = ?",
            (campaign_id,),
        )
        return str(rows[0][0]) if rows else ""

    def _explain(self, campaign_id: bytes, text: str) -> None:
        self._database.write(
            "UPDATE installed SET refused_text = ? WHERE campaign_id = ?", (text, campaign_id)
        )

    def _put(self, campaign_id: bytes, known: Installed) -> None:
        self._database.write(
            "INSERT INTO installed (campaign_id, current, previous, refused, attempts)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (campaign_id) DO UPDATE SET"
            " current = excluded.current, previous = excluded.previous,"
            " refused = excluded.refused, attempts = excluded.attempts",
            (campaign_id, known.current, known.previous, known.refused, known.attempts),
        )

    def _note(self, campaign_id: bytes, version: int, state: int, reason: int) -> None:
        ((number,),) = self._database.read(
            "SELECT report_number FROM installed WHERE campaign_id = ?", (campaign_id,)
        )
        report = model_pb2.ReportInstallRequest(
            # The device's own counter makes every report a request of its own, also when the same
            # version is installed twice.
            request_id=_request_id(campaign_id, version, number + 1),
            campaign_id=campaign_id,
            version=version,
            state=model_pb2.InstallState.Name(state),
            reason=model_pb2.InstallReason.Name(reason),
        )
        self._database.write(
            "UPDATE installed SET unreported = ?, report_number = ? WHERE campaign_id = ?",
            (report.SerializeToString(deterministic=True), number + 1, campaign_id),
        )


def _request_id(campaign_id: bytes, version: int, number: int) -> bytes:
    material = campaign_id + version.to_bytes(8, "little") + number.to_bytes(8, "little")
    return hashlib.sha256(b"perimeter-install\0" + material).digest()[:16]
