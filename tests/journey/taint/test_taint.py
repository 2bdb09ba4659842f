"""Two hundred secrets go through a whole federation, and none of them leaves a site.

The first run is the real system, with retries, crashes, failing code, a stranger's certificate and
debug logging. The second run is the same system with fifteen planted leaks, each of which the same
search must find: without that, the silence of the first run would say nothing.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet
from perimeter.v1 import candidate_pb2, enrollment_pb2, grant_pb2, model_pb2

from edge_agent.egress_ledger import records as egress_records
from edge_agent.egress_ledger import verify
from tests.journey.taint.driver import Run, running, stranger_is_refused
from tests.journey.taint.markers import Marker, Place, make_markers
from tests.journey.taint.search import Search
from tests.journey.taint.system import SITES, FederationUnderTest
from tests.journey.taint.unpacking import grpc_calls

pytestmark = [pytest.mark.journey, pytest.mark.federation, pytest.mark.timeout(4200)]
MARKERS = make_markers(7)
BY_NAME = {marker.name: marker for marker in MARKERS}

FAULTS = {
    "fault: scoring fails": "token-40",
    "fault: training fails": "token-41",
    "fault: client app fails": "token-42",
    "fault: labeling fails": "token-43",
}
LEAKS = {
    "leak: call metadata": ("token-00", "agent"),
    "leak: unknown field": ("token-01", "agent"),
    "leak: digest as candidate id": ("token-02", "agent"),
    "leak: text as candidate id": ("token-03", "agent"),
    "leak: file name as request id": ("file-00", "agent"),
    "leak: name lookup": ("column-00", ".calls"),
    "leak: user name as request id": ("user-00", "portal"),
    "leak: packed note in metadata": ("note-00", "portal"),
    "leak: config record": ("token-04", "fleet"),
    "leak: array record": ("person-00", "fleet"),
    "leak: log line": ("token-05", "logs"),
    "leak: crash dump": ("token-06", "core.4711"),
    "leak: deleted row": ("token-07", "debug.db"),
    "leak: metric label": ("file-01", "metrics"),
    "leak: model remark": ("token-08", "bundle"),
}


@dataclass
class Finished:
    """What a run left behind."""

    federation: FederationUnderTest
    outside: Search
    labeled_count: int
    events: list[str] = field(default_factory=list)
    status: bytes = b""
    unmasked: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.federation.folder


def told(search: Search, allowed: Callable[[Marker], bool] = lambda _: False) -> list[str]:
    """Hits in short lines, without those that are allowed."""
    return [
        f"{hit.marker} as {hit.encoding} in {hit.place} at {hit.offset}"
        for hit in search.report.hits
        if not (hit.marker in BY_NAME and allowed(BY_NAME[hit.marker]))
    ]


def new_search(contents: tuple[str, ...] = ()) -> Search:
    return Search(MARKERS, [(f"sample-{n}", text.encode()) for n, text in enumerate(contents)])


def page(federation: FederationUnderTest, name: str) -> bytes:
    address = f"http://127.0.0.1:{federation.metrics}/{name}"
    with urllib.request.urlopen(address, timeout=120) as answer:
        return answer.read()


def search_outside(federation: FederationUnderTest, pages: Mapping[str, bytes]) -> Search:
    """Everything that left: all wires, all of the centre, its pages and its processes."""
    contents = [text for site in federation.sites.values() for text in site.planted.contents]
    search = new_search(tuple(contents))
    federation.halt()
    for name, content in pages.items():
        search.bytes_of(name, content)
    for record in sorted(federation.records.iterdir()):
        search.stream(record.name, record.read_bytes())
    search.folder(federation.central)
    for calls in sorted((federation.folder / "calls").glob("*.calls")):
        search.file(calls)
    return search


def process_pages(federation: FederationUnderTest) -> dict[str, bytes]:
    """Command lines and environments of the centre's processes, without the test's own setting."""
    found = {}
    for pid in federation.central_processes():
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                found[f"process {pid} {name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    return found


@pytest.fixture(scope="module")
def real_run() -> Iterator[Finished]:
    """The real system, disturbed in every way that this test knows."""
    faults = {name: BY_NAME[marker].value for name, marker in FAULTS.items()}
    with running(MARKERS, faults) as federation:
        run = Run(federation)
        assert stranger_is_refused(federation, BY_NAME["token-44"].value)
        run.until(lambda: run.labeled_count >= 6, "labeling")
        unmasked = run.unmask(f"it is about {BY_NAME['note-02'].value}")
        run.misbehave()
        agent = federation.sites["clinic-a"].relays["agent"]
        agent.cut()
        run.kill_and_restart("clinic-b-agent")
        time.sleep(2)
        agent.mend()
        run.kill_and_restart("coordinator")
        run.until(lambda: federation.versions() >= 2, "the first training")
        run.kill_and_restart("clinic-a-portal")
        federation.sites["clinic-b"].relays["fleet"].cut()
        time.sleep(2)
        federation.sites["clinic-b"].relays["fleet"].mend()
        run.until(lambda: federation.versions() >= 3, "the second training")
        pages = {name: page(federation, name) for name in ("metrics", "status")}
        outside = search_outside(federation, pages | process_pages(federation))
        yield Finished(
            federation, outside, run.labeled_count, run.events, pages["status"], unmasked
        )


def test_the_federation_worked_and_every_wire_was_heard(real_run: Finished) -> None:
    assert real_run.labeled_count >= 24, real_run.events
    recorded = {path.name.split("-0")[0] for path in real_run.federation.records.iterdir()}
    assert recorded >= {f"{s}-{w}" for s in SITES for w in ("agent", "portal", "fleet", "enroll")}
    report = real_run.outside.report
    assert report.byte_count > 10_000_000
    done = {path.stem for path in (real_run.folder / "calls").glob("*.done")}
    assert done >= {"fault-scoring", "fault-training", "fault-client-app", "fault-labeling"}
    print(
        f"\n{len(MARKERS)} secrets, {len(real_run.outside.matcher)} patterns, "
        f"{report.byte_count / 1e6:.0f} MB in {report.place_count} places, "
        f"{len(report.hits)} hits; {real_run.labeled_count} labels; {real_run.events}"
    )


def test_the_words_that_an_expert_was_shown_are_those_of_a_sample(real_run: Finished) -> None:
    """Otherwise the silence of disks and wires would say nothing of unmasking."""
    contents = [text for s in real_run.federation.sites.values() for text in s.planted.contents]
    assert real_run.unmasked
    for words in real_run.unmasked:
        assert any(words in text for text in contents)


def test_the_secrets_are_where_they_were_planted(real_run: Finished) -> None:
    search = new_search()
    search.folder(real_run.folder / "sites" / "clinic-a" / "samples")
    search.folder(real_run.folder / "sites" / "clinic-b" / "samples")
    places = (Place.TEXT, Place.FILE_NAME, Place.COLUMN)
    assert search.report.markers() >= {m.name for m in MARKERS if m.place in places}


def test_no_secret_left_a_site_in_any_encoding(real_run: Finished) -> None:
    assert told(real_run.outside) == []


def test_no_log_of_a_site_holds_a_secret_that_no_failing_code_shouted(real_run: Finished) -> None:
    search = new_search()
    for pattern in ("logs/*", "node/**/*"):
        for path in (real_run.folder / "sites").glob(f"*/{pattern}"):
            if path.is_file():
                search.file(path)
    assert search.report.byte_count > 10_000
    assert told(search, lambda marker: marker.name in FAULTS.values()) == []


def test_a_stolen_disk_of_agent_or_portal_shows_no_sample_and_no_note(real_run: Finished) -> None:
    search = new_search()
    for site in SITES:
        search.folder(real_run.folder / "sites" / site / "agent")
        search.folder(real_run.folder / "sites" / site / "portal")
    assert search.report.byte_count > 1_000_000

    def is_known(marker: Marker) -> bool:
        return marker.place is Place.USER_NAME or marker.name in FAULTS.values()

    assert told(search, is_known) == []


def test_python_code_of_every_process_called_loopback_only(real_run: Finished) -> None:
    calls = [
        line
        for path in (real_run.folder / "calls").glob("*.calls")
        for line in path.read_text().splitlines()
    ]
    assert len(calls) > 100
    near = ("'127.0.0.1'", "'localhost'", "'::1'", ".sock", "'/")
    assert [line for line in calls if not any(name in line for name in near)] == []


def test_the_devices_own_ledger_holds_every_byte_that_the_wire_carried(real_run: Finished) -> None:
    for site in SITES:
        state = real_run.folder / "sites" / site / "agent"
        assert verify(state / "egress").fault == ""
        written = [record.raw_payload() for record in egress_records(state / "egress")]
        carried = [
            message
            for path in real_run.federation.records.glob(f"{site}-agent-*-out.bin")
            for _, message in grpc_calls(path.read_bytes())
        ]
        assert len(carried) > 20
        assert Counter(carried) <= Counter(written), "something left that the ledger does not know"
        # What is written and was not carried was on its way when a wire or a process was cut.
        assert len(written) - len(carried) <= 20


def test_every_message_on_the_wires_is_of_the_contract_and_says_nothing_more(
    real_run: Finished,
) -> None:
    kinds = {
        f"{service.full_name}/{method.name}": GetMessageClass(method.input_type)
        for module in (candidate_pb2, grant_pb2, model_pb2, enrollment_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    seen: Counter[str] = Counter()
    for path in real_run.federation.records.glob("*-out.bin"):
        if "-fleet-" in path.name:
            continue
        for method, raw in grpc_calls(path.read_bytes()):
            message = kinds[method].FromString(raw)
            assert not len(UnknownFieldSet(message)), (path.name, method)
            assert len(message.SerializeToString()) == len(raw), (path.name, method)
            seen[method.rpartition("/")[2]] += 1
    assert set(seen) >= {
        "Enroll", "ListCampaigns", "GetModelVersion", "DownloadBundle", "StreamCandidateBatches",
        "ReportPool", "ReportInstall", "ListGrants", "RecordOutcomes", "ReportSite",
    }  # fmt: skip


def test_ledger_and_audit_logs_are_whole_after_every_kill(real_run: Finished) -> None:
    root = real_run.folder
    commands = [("coordinator", "ledger", "verify", "--config", str(root / "coordinator.toml"))]
    for site in SITES:
        config = str(root / "sites" / site / "portal.toml")
        commands.append(("review_portal", "audit", "verify", "--config", config))
        config = str(root / "sites" / site / "agent.toml")
        commands.append(("edge_agent", "audit", "verify", "--config", config))
    for package, *arguments in commands:
        command = [sys.executable, "-m", package, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_no_label_is_counted_that_no_site_holds_and_the_budget_stands(real_run: Finished) -> None:
    books = json.loads(real_run.status)["ledger"]
    assert books["spent"] + books["reserved"] <= books["budget"]
    held = 0
    for site in SITES:
        path = real_run.folder / "sites" / site / "portal" / "labels.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            query = "SELECT count(*) FROM item WHERE state = 'LABELED' AND grant_id IS NOT NULL"
            held += database.execute(query).fetchone()[0]
    assert 0 < books["spent"] <= held


@pytest.fixture(scope="module")
def leaking_run() -> Iterator[Finished]:
    """The same system with fifteen mistakes in it."""
    leaks = {name: BY_NAME[marker].value for name, (marker, _) in LEAKS.items()}
    with running(MARKERS, leaks) as federation:
        run = Run(federation)
        run.until(lambda: federation.versions() >= 2, "a training with leaks")
        time.sleep(3)
        pages = {name: page(federation, name) for name in ("metrics", "status")}
        yield Finished(federation, search_outside(federation, pages), run.labeled_count, run.events)


@pytest.mark.parametrize("leak", sorted(LEAKS))
def test_a_planted_leak_is_found(leaking_run: Finished, leak: str) -> None:
    marker, place = LEAKS[leak]
    hits = [hit for hit in leaking_run.outside.report.hits if hit.marker == marker]
    assert any(place in hit.place for hit in hits), (leak, hits)


def test_a_planted_leak_names_only_what_it_leaked(leaking_run: Finished) -> None:
    assert leaking_run.outside.report.markers() == {marker for marker, _ in LEAKS.values()}


def test_markers_of_faults_and_leaks_exist() -> None:
    named: list[Marker] = [BY_NAME[name] for name in FAULTS.values()]
    named += [BY_NAME[name] for name, _ in LEAKS.values()]
    assert len(set(named)) == len(FAULTS) + len(LEAKS)
    assert len(LEAKS) == 15
