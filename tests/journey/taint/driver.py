"""Drives a federation under test: experts that label, and everything that can go wrong."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import httpx

from tests.journey.taint.capture import issue_server_pair, make_authority
from tests.journey.taint.expert import Expert
from tests.journey.taint.markers import Marker
from tests.journey.taint.planting import plant
from tests.journey.taint.system import CAMPAIGN, PASSWORD, SITES, FederationUnderTest

RUN_SECONDS = 1200


class Run:
    """Drives experts and disturbances until enough models were made."""

    def __init__(self, federation: FederationUnderTest) -> None:
        self.federation = federation
        self.labeled_count = 0
        self.events: list[str] = []
        self._experts = [
            Expert(site.web, name, PASSWORD, site.planted.notes)
            for site in federation.sites.values()
            for name in site.planted.user_names[:2]
        ]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + RUN_SECONDS
        while not holds():
            revived = self.federation.revive()
            self.events += [f"revived {name}" for name in revived]
            for expert in self._experts:
                with contextlib.suppress(httpx.HTTPError):
                    self.labeled_count += expert.label(CAMPAIGN)
            assert time.monotonic() < end, f"{what} took too long\n{self.federation.log_ends()}"
            time.sleep(0.5)

    def unmask(self, why: str) -> list[str]:
        """An expert asks what a placeholder hides, the site lead allows it; returns the words."""
        self.until(lambda: any(expert.masked for expert in self._experts), "a masked item")
        site_of = dict(zip(self._experts, (s for s in SITES for _ in range(2)), strict=True))
        expert = next(expert for expert in self._experts if expert.masked)
        site = self.federation.sites[site_of[expert]]
        lead = Expert(site.web, site.planted.user_names[4], PASSWORD)
        lead.allow(CAMPAIGN)
        number = expert.ask(*expert.masked[0], why)
        lead.allow(CAMPAIGN)
        words = expert.look(number)
        lead.close()
        self.events.append("unmasked a placeholder")
        return words

    def misbehave(self) -> None:
        for expert in self._experts:
            codes = expert.misbehave()
            assert all(400 <= code < 500 for code in codes), codes

    def kill_and_restart(self, name: str) -> None:
        """Kills a process without warning and starts it again after a second."""
        self.federation.supervisor.kill(name)
        time.sleep(1)
        self.federation.supervisor.restart(name)
        self.events.append(f"killed {name}")


@contextlib.contextmanager
def running(
    markers: tuple[Marker, ...], patches: Mapping[str, str]
) -> Iterator[FederationUnderTest]:
    """Starts a federation with planted markers in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp") as name:
        folder = Path(name)
        planted = {
            site: plant(number, markers, folder / "sites" / site / "samples")
            for number, site in enumerate(SITES)
        }
        federation = FederationUnderTest(folder, planted, patches)
        try:
            federation.start()
            yield federation
        finally:
            federation.stop()


def stranger_is_refused(federation: FederationUnderTest, secret: str) -> bool:
    """A certificate of another authority, with a secret in the call."""
    other = federation.folder / "other"
    pair = issue_server_pair(make_authority(other), other)
    identity = federation.central / "state" / "identity"
    credentials = grpc.ssl_channel_credentials(
        (identity / "ca.pem").read_bytes(), pair.key.read_bytes(), pair.certificate.read_bytes()
    )
    with grpc.secure_channel(f"127.0.0.1:{federation.main}", credentials) as channel:
        try:
            channel.unary_unary("/perimeter.v1.GrantService/ListGrants")(secret.encode(), timeout=5)
        except grpc.RpcError:
            return True
    return False
