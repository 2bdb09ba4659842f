"""A real device and a real portal, over real gRPC with mutual TLS: raw words for one viewing."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from cryptography import x509
from perimeter.v1 import grant_pb2, model_pb2

UNIT = Path(__file__).parents[1] / "unit"
sys.path[:0] = [str(UNIT / "review_portal"), str(UNIT / "edge_agent")]

from agent_masker import AddressMasker  # noqa: E402
from portal_bench import CAMPAIGN_ID, Authority, Bench, Clock, Server, serve  # noqa: E402

from edge_agent import audit as device_audit  # noqa: E402
from edge_agent.config import parse_config  # noqa: E402
from edge_agent.identity import Identity  # noqa: E402
from edge_agent.masking.policy import MaskingPolicy  # noqa: E402
from edge_agent.portal_client import PortalClient  # noqa: E402
from edge_agent.queue.grant_book import HeldGrant  # noqa: E402
from edge_agent.queue.stores import open_stores  # noqa: E402
from edge_agent.release import RELEASED, Releaser  # noqa: E402
from edge_agent.unmasking import Unmasker  # noqa: E402
from edge_agent.views import ViewMaker  # noqa: E402
from review_portal.access import Access  # noqa: E402
from review_portal.config import PortalConfig  # noqa: E402
from review_portal.core.model import Role  # noqa: E402
from review_portal.egress.archive import EgressArchive  # noqa: E402
from review_portal.intake import IntakeDesk, start_intake  # noqa: E402
from review_portal.label_store import LabelStore  # noqa: E402
from review_portal.portal import open_portal  # noqa: E402
from review_portal.store import audit as portal_audit  # noqa: E402

SECRET = "zora.quill@example.org"
LETTER = f"my card is lost, write to {SECRET} or to the branch, says {SECRET}"
WHY = {"reason_code": "safety", "note": "the address may be that of somebody in danger"}


class Site:
    """One portal and one device that released one letter to it."""

    def __init__(self, folder: Path, store: LabelStore, device_settings: dict) -> None:
        self.folder, self.clock = folder, Clock()
        self.clock.now = time.time()
        self.authority = Authority()
        self.bench = Bench(store, self.clock)
        self.bench.set(gold_ratio=0.0, gold_first_count=0, repeat_ratio=0.0, unmasking=True)
        self.server = self._web(store)
        config = PortalConfig(folder=folder / "portal", intake_host="127.0.0.1", intake_port=0)
        identity = self.authority.identity(folder / "portal-identity")
        archive, words = EgressArchive(config.folder), self.server.portal.words
        self.intake, port = start_intake(
            IntakeDesk(store, config, identity, self.clock, archive, words)
        )
        self._device({"portal": f"127.0.0.1:{port}", **device_settings})

    def _web(self, store: LabelStore) -> Server:
        config = PortalConfig(folder=self.folder / "portal", login_per_minute=1000)
        portal = open_portal(config, clock=self.clock, store=store)
        cheap = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)
        access = Access(
            store.database, config, clock=self.clock, secret=portal.secret, hasher=cheap
        )
        return serve(replace(portal, access=access))

    def _device(self, settings: dict) -> None:
        values = {"state": "device", "timing": {"unmask_poll_seconds": 0.0}, **settings}
        self.config = parse_config(values, {}, base=self.folder)
        self.stores = open_stores(self.config)
        public = self.authority.grant_key.public_key().public_bytes_raw()
        self.client = PortalClient(self._identity(public), self.config.portal)
        views = ViewMaker(AddressMasker(), MaskingPolicy())
        releaser = Releaser(self.stores, self.client, views, self.config, public)
        log = device_audit.AuditLog(self.config.state_folder)
        self.unmasker = Unmasker(self.stores, self.client, log, self.config)
        campaign = model_pb2.Campaign(campaign_id=CAMPAIGN_ID, name="tickets", kind="text")
        self.stores.campaigns.record([campaign])
        self.stores.samples.add(CAMPAIGN_ID, "inbox", [LETTER.encode()])
        candidate = self.stores.samples.candidate_id(CAMPAIGN_ID, LETTER.encode())
        grant = self.authority.grant(1, candidate_id=candidate)
        self.stores.grants.add([grant])
        assert releaser.release(HeldGrant(grant), {}, self.clock()) == RELEASED
        self.stores.grants.settle(grant.grant_id, grant_pb2.OUTCOME_STATE_RELEASED)

    def _identity(self, grant_key: bytes) -> Identity:
        key, certificate = self.authority.leaf("perimeter://test/site/alder/agent/cam-1")
        leaf = x509.load_pem_x509_certificate(certificate)
        return Identity(
            "alder", "cam-1", "test", "", key, certificate, self.authority.pem, bytes(32),
            grant_key, leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp(),
        )  # fmt: skip

    def approved(self):
        """The expert's client, and the number of a question that the site lead allowed."""
        self.server.add("ada")
        self.server.add("lea", Role.SITE_LEAD)
        ada, lea = self.server.login("ada"), self.server.login("lea")
        (item,) = ada.get("/api/queue", params={"campaign": "tickets"}).json()["items"]
        assert SECRET not in item["text"]
        form = {"item_id": item["item_id"], "placeholder": "<EMAIL_ADDRESS_1>", **WHY}
        assert ada.post("/unmask/ask", data=form).status_code == 303
        number = ada.get("/unmask").text.split('data-unmasking="')[1][:32]
        verdict = {"unmasking_id": number, "decision": "approve"}
        assert lea.post("/unmask/decide", data=verdict).status_code == 303
        return ada, number

    def stop(self) -> None:
        self.intake.stop(None).wait()
        self.server.stop()
        self.client.close()
        self.stores.database.close()


@pytest.fixture
def site(request, tmp_path):
    with LabelStore.open(tmp_path / "portal") as store:
        built = Site(tmp_path, store, getattr(request, "param", {"unmask": "approved"}))
        yield built
        built.stop()


def files_with(folder: Path, secret: str) -> list[str]:
    found = [p for p in folder.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
    return [str(path.relative_to(folder)) for path in found]


def test_the_words_go_from_the_device_to_one_browser_and_rest_nowhere(site):
    ada, number = site.approved()
    site.unmasker.turn(site.clock())
    assert list(device_audit.records(site.config.state_folder)) == []
    assert ada.post(f"/api/unmaskings/{number}/open").json()["state"] == "OPENED"
    assert ada.post(f"/api/unmaskings/{number}/view").json()["state"] == "OPENED"
    site.unmasker.turn(site.clock())
    seen = ada.post(f"/api/unmaskings/{number}/view").json()
    assert seen == {"state": "SHOWN", "words": [SECRET]}
    assert ada.post(f"/api/unmaskings/{number}/view").json()["words"] == []
    assert files_with(site.folder, SECRET) == []
    (record,) = device_audit.records(site.config.state_folder)
    assert device_audit.verify(site.config.state_folder) == (1, "")
    details = site.bench.store.database.read(
        lambda c: c.exec_driver_sql(
            "SELECT detail FROM audit WHERE action = 'unmask.answered'"
        ).scalar_one()
    )
    assert record.digest in details
    assert site.bench.store.database.read(portal_audit.verify).first_broken is None


@pytest.mark.parametrize("site", [{}], indirect=True)
def test_a_device_says_no_unless_it_was_switched_on_there_too(site):
    ada, number = site.approved()
    ada.post(f"/api/unmaskings/{number}/open")
    site.unmasker.turn(site.clock())
    assert ada.post(f"/api/unmaskings/{number}/view").json() == {"state": "REFUSED", "words": []}


def test_the_expert_learns_that_the_raw_text_is_no_longer_on_the_device(site):
    ada, number = site.approved()
    site.stores.database.write("DELETE FROM sample")
    ada.post(f"/api/unmaskings/{number}/open")
    site.unmasker.turn(site.clock())
    assert ada.post(f"/api/unmaskings/{number}/view").json() == {"state": "GONE", "words": []}
