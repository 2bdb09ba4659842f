"""Brings model versions onto the device: download, verify, try, swap, keep the last good one.

A version is trusted only when all of this holds: its size and SHA-256 are those that were
announced, its parts match its manifest, a trusted key signed the manifest, it is for this campaign,
not expired, newer than what runs here, of the campaign's label schema, and it survived a trial run.
The pointer to the current version moves in one transaction, after everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perimeter.v1 import model_pb2

from edge_agent.config import Limits
from edge_agent.coordinator_client import CoordinatorClient
from edge_agent.errors import InstallRefused, StorageFull
from edge_agent.inference import Predictor
from edge_agent.onnx_scan import ModelUnsafe
from edge_agent.queue.database import Database
from edge_agent.queue.installs import InstallBook, Installed
from edge_agent.warm_up import trial
from model_bundle.errors import BundleError, BundleExpired, SignatureInvalid
from model_bundle.manifest import Bundle, unpack
from model_bundle.signing import verify

ATTEMPTS_MAX = 2
"""Loads of the current version that may fail before the previous one comes back."""


@dataclass(frozen=True)
class Announcement:
    """A version that the coordinator wants to run here.

    Attributes:
        campaign_id: 16 bytes.
        version: From 1.
        size_bytes: Size of the bundle file.
        sha256: Digest of the bundle file.
    """

    campaign_id: bytes
    version: int
    size_bytes: int
    sha256: bytes


class Installer:
    """The models of a device.

    Args:
        folder: Where bundles are kept.
        database: Holds the pointers to them.
        limits: Sizes and the trial's limits.
        release_key: Ed25519 public key that must have signed.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        limits: Limits,
        release_key: bytes,
        *,
        site_id: str = "",
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._release_key = release_key
        self._site_id = site_id
        self.book = InstallBook(database)

    def path(self, campaign_id: bytes, version: int) -> Path:
        """Returns the file of an installed version."""
        return self._folder / campaign_id.hex() / f"{version:09d}.bundle"

    def wants(self, announced: Announcement) -> bool:
        """True when the version is another one than the current and was not refused before."""
        known = self.book.get(announced.campaign_id)
        return announced.version not in (0, known.current, known.refused)

    def install(
        self,
        announced: Announcement,
        campaign: model_pb2.Campaign,
        client: CoordinatorClient,
        clock: Callable[[], float],
    ) -> bool:
        """Downloads, judges and swaps in a version; True when it is current now.

        What became of it is noted for the coordinator either way.

        Raises:
            PeerError: The download broke; the next try goes on where it ended.
            StorageFull: There is no space for it.
        """
        try:
            path = self._downloaded(announced, client)
            self._judge(announced, campaign, path, clock())
        except InstallRefused as error:
            self.book.refuse(announced.campaign_id, announced.version, error.reason, str(error))
            return False
        self.book.switch(announced.campaign_id, announced.version)
        self._remove_others(announced.campaign_id)
        return True

    def load(self, campaign_id: bytes) -> Predictor | None:
        """Loads the current version; after two failed loads the previous one comes back.

        Returns:
            The model, or None when nothing is installed or nothing can be loaded.
        """
        known = self.book.get(campaign_id)
        while known.current:
            if known.attempts >= ATTEMPTS_MAX:
                self.book.roll_back(campaign_id)
                known = self.book.get(campaign_id)
                continue
            # Counted before the load, so that a load that kills the process counts too.
            self.book.begin_load(campaign_id)
            try:
                bundle = self._verified(self.path(campaign_id, known.current).read_bytes())
                predictor = Predictor(
                    bundle, minibatch_rows=self._limits.minibatch_rows, site_id=self._site_id
                )
            except (OSError, BundleError, ModelUnsafe):
                known = self.book.get(campaign_id)
                continue
            self.book.loaded(campaign_id)
            return predictor
        return None

    def _downloaded(self, announced: Announcement, client: CoordinatorClient) -> Path:
        """The whole file with the announced digest; a broken download goes on at its end."""
        if not 0 < announced.size_bytes <= self._limits.bundle_bytes_max:
            raise InstallRefused(
                f"model version {announced.version} has {announced.size_bytes} bytes, more than "
                "limits.bundle_bytes_max",
                reason=model_pb2.INSTALL_REASON_TOO_LARGE,
            )
        path = self.path(announced.campaign_id, announced.version)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_suffix(f".{announced.sha256.hex()[:16]}.partial")
        self._fetch(announced, client, partial)
        if hashlib.sha256(partial.read_bytes()).digest() != announced.sha256:
            partial.unlink()
            raise InstallRefused(
                f"model version {announced.version} is not what the coordinator announced",
                reason=model_pb2.INSTALL_REASON_DIGEST,
            )
        return partial.replace(path)

    def _fetch(self, announced: Announcement, client: CoordinatorClient, partial: Path) -> None:
        size = partial.stat().st_size if partial.exists() else 0
        if size >= announced.size_bytes:
            return
        try:
            with partial.open("ab") as file:
                for chunk in client.download(announced.campaign_id, announced.version, size):
                    size += len(chunk)
                    if size > announced.size_bytes:
                        break
                    file.write(chunk)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageFull(
                f"no space for model version {announced.version}: {error.strerror}; "
                "the installed version goes on"
            ) from None

    def _verified(self, raw: bytes) -> Bundle:
        bundle = unpack(raw)
        verify(bundle, [self._release_key])
        return bundle

    def _judge(
        self, announced: Announcement, campaign: model_pb2.Campaign, path: Path, now: float
    ) -> None:
        """Raises `InstallRefused` unless the file may run here."""
        try:
            manifest = self._verified(path.read_bytes()).manifest
            manifest.check_time(now)
        except BundleExpired as error:
            raise InstallRefused(str(error), reason=model_pb2.INSTALL_REASON_EXPIRED) from None
        except SignatureInvalid as error:
            raise InstallRefused(str(error), reason=model_pb2.INSTALL_REASON_SIGNATURE) from None
        except BundleError as error:
            raise InstallRefused(str(error), reason=model_pb2.INSTALL_REASON_MALFORMED) from None
        named = (manifest.campaign_id, manifest.version)
        if named != (announced.campaign_id.hex(), announced.version):
            raise InstallRefused(
                "the bundle is for another campaign or version",
                reason=model_pb2.INSTALL_REASON_MALFORMED,
            )
        if manifest.label_schema.canonical_json() != campaign.label_schema_json:
            raise InstallRefused(
                "the bundle's label schema is not the campaign's",
                reason=model_pb2.INSTALL_REASON_MALFORMED,
            )
        self._check_order(announced)
        fault = trial(
            path,
            seconds=self._limits.warm_up_seconds,
            memory_bytes=self._limits.warm_up_memory_bytes,
        )
        if fault:
            raise InstallRefused(fault, reason=model_pb2.INSTALL_REASON_WARM_UP)

    def _check_order(self, announced: Announcement) -> None:
        """An older version runs only when it is the previous one, verified and used here before."""
        known = self.book.get(announced.campaign_id)
        if announced.version < known.current and announced.version != known.previous:
            raise InstallRefused(
                f"model version {announced.version} is older than {known.current}",
                reason=model_pb2.INSTALL_REASON_OLDER_VERSION,
            )

    def _remove_others(self, campaign_id: bytes) -> None:
        known = self.book.get(campaign_id)
        kept = {self.path(campaign_id, version) for version in (known.current, known.previous)}
        for path in (self._folder / campaign_id.hex()).iterdir():
            if path not in kept:
                path.unlink(missing_ok=True)


__all__ = ["Announcement", "Installed", "Installer"]
