"""A campaign in histogram mode with a real coordinator and a real agent: no row ever leaves."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from agent_models import CLASSES
from agent_peers import Portal
from central_harness import (
    Runner,
    TestClock,
    campaign_status,
    key_pem,
    make_batch,
    reason_of,
    report,
)
from perimeter.v1 import candidate_pb2

from coordinator.allocations import replay_allocation
from coordinator.config import CoordinatorConfig
from coordinator.core.ledger import violations
from coordinator.core.records import AllocationRecord
from coordinator.identity import pem_of
from edge_agent.egress_ledger import records

TRAINER = """
import json, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from agent_models import bundle
from cryptography.hazmat.primitives import serialization
from model_bundle.manifest import pack
from model_bundle.signing import signed

path = Path(sys.argv[2])
request = json.loads(path.read_text())
key = serialization.load_pem_private_key(Path(request["release_key"]).read_bytes(), password=None)
made = bundle(bytes.fromhex(request["campaign_id"]), request["version"])
(path.parent / "bundle").write_bytes(pack(signed(made, key)))
evaluation = {{"accuracy": 0.5, "macro_f1": 0.5, "example_count": 10}}
(path.parent / "evaluation.json").write_text(json.dumps(evaluation))
state = {{"state": "candidate", "round": 1, "rounds": 1, "error": ""}}
(path.parent / "state.json").write_text(json.dumps(state))
"""
TEXTS = [f"my invoice number {n} is {'wrong' if n % 3 else 'late'}, please {n}" for n in range(80)]


class RealCoordinator:
    """What the device fixture asks of a coordinator, in front of a real one."""

    def __init__(self, central) -> None:
        self.central = central

    def token(self) -> str:
        made = self.central.token("north", "agent", "a1").removeprefix("pmt1.")
        fields = json.loads(base64.urlsafe_b64decode(made + "=" * (-len(made) % 4)))
        fields["enroll"] = f"127.0.0.1:{self.central.servers.enroll_port}"
        fields["coordinator"] = f"127.0.0.1:{self.central.servers.port}"
        packed = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
        return "pmt1." + packed.rstrip("=")


@pytest.fixture
def coordinator(tmp_path):
    trainer = tmp_path / "trainer.py"
    trainer.write_text(TRAINER.format(here=str(Path(__file__).parent)))
    config = CoordinatorConfig(
        folder=tmp_path / "central",
        listen_address="127.0.0.1:0",
        enroll_address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        federation_command=(sys.executable, str(trainer)),
        tick_seconds=0.05,
    )
    runner = Runner(TestClock())
    central = runner.start(config)
    yield RealCoordinator(central)
    runner.stop(central)


class PortalCertificate:
    """Credentials for the portal that the real coordinator's authority issued."""

    def __init__(self, central) -> None:
        self.machine = central.enroll("north", "portal", "main")
        self._authority = central.authority

    def server_credentials(self, *_: object, **__: object) -> grpc.ServerCredentials:
        pair = (key_pem(self.machine.key), pem_of(self.machine.certificate_der))
        return grpc.ssl_server_credentials([pair], self._authority, True)


@pytest.fixture
def portal(coordinator):
    made = Portal(PortalCertificate(coordinator.central), site="north")
    yield made
    made.stop()


def sent(device) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for record in records(device.folder / "state" / "egress"):
        found.setdefault(record.method.rpartition("/")[2], []).append(record.raw_payload())
    return found


def test_a_campaign_runs_on_noised_counts_and_each_device_chooses_its_own_best(
    device, coordinator, portal
):
    central = coordinator.central
    campaign_id, campaign = central.create(
        name="tickets", kind="text", classes=CLASSES, sites=("north",), view="raw",
        egress="histogram", epsilon_release=2.0, epsilon_total=3.0,
        budget_labels=12, cycle_budget_labels=6, cycles=2,
    )  # fmt: skip
    device.enroll().put(*TEXTS)
    daemon = device.daemon()
    stores = daemon._parts.stores

    def reached(count: int) -> bool:
        central.tick()
        return len(portal.items) >= count

    device.until(daemon, lambda: reached(6), ticks=3000)
    first = [item.grant for item in portal.items.values()]
    assert len(first) == 6
    chosen = {item.content.decode() for item in portal.items.values()}
    assert len(chosen) == 6, "every grant is for another sample"
    rows = stores.database.read("SELECT candidate_id, state FROM sample")
    margins = {state: [] for _, state in rows}
    for candidate_id, state in rows:
        margins[state].append(stores.samples.offered_score(candidate_id).margin)
    assert min(margins[1]) >= max(margins[0]), "the best of this device"

    device.until(daemon, lambda: not stores.grants.unreported())
    report(portal.authority.machine, first)
    device.until(daemon, lambda: reached(12), ticks=3000)
    assert len({item.content for item in portal.items.values()}) == 12

    messages = sent(device)
    assert "StreamCandidateBatches" not in messages
    assert len(set(messages["ReportHistogram"])) == 1, "the limit lets one release through"
    histogram = candidate_pb2.ReportHistogramRequest.FromString(messages["ReportHistogram"][0])
    assert histogram.epsilon_milli == 2000
    assert np.frombuffer(histogram.noised_counts, "<i4").sum() > 0
    for raw in messages["ReportPool"]:
        totals = candidate_pb2.ReportPoolRequest.FromString(raw)
        assert not any(totals.class_counts)
        assert totals.top_probability_sum == totals.top_probability_square_sum == 0
    versions = [candidate_pb2.ReportPoolRequest.FromString(r).model_version
                for r in messages["ReportPool"]]  # fmt: skip
    assert versions == [1, 2], "the second version is scored, and nothing of it leaves"
    assert stores.privacy.account(campaign_id).spent_milli == 2000

    assert central.ask(lambda office: violations(office.ledger, campaign_id)) == []
    made = central.ask(lambda office: office.store.find(AllocationRecord, campaign_id=campaign_id))
    assert [central.ask(lambda o, r=r: replay_allocation(o, campaign, r)) for r in made] == [
        None, None,
    ]  # fmt: skip
    report(portal.authority.machine, [item.grant for item in portal.items.values()])
    central.tick_until(lambda s: campaign_status(s)["state"] == "completed")


def test_a_restart_before_the_release_counts_anew_and_after_it_sends_the_same_bytes(
    device, coordinator, portal
):
    central = coordinator.central
    campaign_id, _ = central.create(
        name="tickets", kind="text", classes=CLASSES, sites=("north",), view="raw",
        egress="histogram", cycle_budget_labels=1, budget_labels=1, cycles=1,
        epsilon_release=100.0, epsilon_total=100.0,
    )  # fmt: skip
    device.enroll().put(*TEXTS)
    first = device.daemon()
    scored = "SELECT count(*) FROM sample WHERE score IS NOT NULL"

    def ticking(done) -> bool:
        central.tick()
        return bool(done())

    device.values["limits"]["score_rows_max"] = 16
    first._parts.uplink._release = lambda *_: (_ for _ in ()).throw(OSError("stopped"))
    stores = first._parts.stores
    device.until(
        first, lambda: ticking(lambda: stores.database.read(scored)[0][0] == 80), ticks=3000
    )
    assert stores.privacy.release(campaign_id, 1) is None
    first.close()
    device.daemons.clear()
    second = device.daemon()
    device.until(second, lambda: ticking(lambda: portal.items), ticks=3000)
    message = candidate_pb2.ReportHistogramRequest.FromString(
        second._parts.stores.privacy.release(campaign_id, 1)
    )
    counts = np.frombuffer(message.noised_counts, "<i4")
    assert counts.sum() == 80, "at this epsilon the noise is zero but for one time in 10^43"
    second.close()
    device.daemons.clear()
    device.values["timing"]["grant_wait_seconds"] = 0
    third = device.daemon()
    third._parts.stores.offer_all_again()
    third._load_models()
    device.until(
        third, lambda: ticking(lambda: len(sent(device)["ReportHistogram"]) == 2), ticks=3000
    )
    assert len(set(sent(device)["ReportHistogram"])) == 1


def test_rows_are_refused_in_histogram_mode_and_histograms_elsewhere(coordinator):
    central = coordinator.central
    noised, of = central.create(name="noised", sites=("north",), egress="histogram")
    plain, _ = central.create(name="plain", sites=("north",))
    agent = central.enroll("north", "agent", "two")
    with pytest.raises(grpc.RpcError) as refusal:
        agent.send(make_batch(noised, of, sequence=1))
    assert reason_of(refusal.value) == "EGRESS_MODE"
    histogram = candidate_pb2.ReportHistogramRequest(
        request_id=bytes(16), campaign_id=plain, model_version=1,
        label_schema_digest=of.label_schema.digest(), day=20_000, cell_count=1,
        epsilon_milli=500, noised_counts=bytes(64),
    )  # fmt: skip
    with pytest.raises(grpc.RpcError) as refusal:
        agent.candidates.ReportHistogram(histogram)
    assert reason_of(refusal.value) == "EGRESS_MODE"
    histogram.noised_counts = bytes(60)
    with pytest.raises(grpc.RpcError) as refusal:
        agent.candidates.ReportHistogram(histogram)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
