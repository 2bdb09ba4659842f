"""The relay hears what passes between two ends that check each other's certificates."""

import concurrent.futures
import socket
import ssl
import time

import grpc
import pytest

from tests.journey.taint.capture import CaptureRelay, Wire, issue_server_pair, make_authority
from tests.journey.taint.markers import make_markers
from tests.journey.taint.search import Search

MARKERS = make_markers(3)


@pytest.fixture
def authority(tmp_path):
    return make_authority(tmp_path / "authority")


@pytest.fixture
def echo(authority, tmp_path):
    """A gRPC server that demands client certificates and says who called."""
    pair = issue_server_pair(authority, tmp_path / "server")

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        caller = context.auth_context().get("x509_subject_alternative_name", [b""])
        return b"|".join(caller) + b"|" + request

    handler = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("T", {"Echo": handler}),))
    credentials = grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.certificate.read_bytes())],
        authority.certificate.read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield port
    server.stop(None)


@pytest.fixture
def relay(authority, echo, tmp_path):
    machine = issue_server_pair(
        authority, tmp_path / "machine", uris=("perimeter://t/site/a/agent/b",)
    )
    wire = Wire(
        "agent",
        ("127.0.0.1", echo),
        shown=issue_server_pair(authority, tmp_path / "relay"),
        trusted=authority.certificate,
        identity=lambda: machine,
    )
    with CaptureRelay(wire, tmp_path / "records") as relay:
        yield relay, machine


def call(relay, machine, authority, payload, **more):
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        machine.key.read_bytes(),
        machine.certificate.read_bytes(),
    )
    with grpc.secure_channel(relay.address, credentials) as channel:
        return channel.unary_unary("/T/Echo")(payload, timeout=120, **more)


def searched(tmp_path, relay) -> Search:
    search = Search(MARKERS)
    for _ in range(100):
        records = sorted((tmp_path / "records").iterdir())
        if len(records) >= 2 and all(record.stat().st_size for record in records):
            break
        time.sleep(0.05)
    for record in records:
        search.stream(record.name, record.read_bytes())
    return search


def test_identities_pass_and_the_payload_is_on_record(relay, authority, tmp_path):
    relay, machine = relay
    secret = MARKERS[70].value.encode()
    answer = call(relay, machine, authority, b"x" * 40_000 + secret)
    assert b"|perimeter://t/site/a/agent/b|" in answer[:100]
    assert answer.endswith(secret)
    assert relay.failures == []
    search = searched(tmp_path, relay)
    assert search.report.markers() == {MARKERS[70].name}
    assert {hit.place.split("-")[2].split(".")[0] for hit in search.report.hits} == {"out", "in"}


def test_a_secret_in_call_metadata_is_found_though_grpc_codes_it(relay, authority, tmp_path):
    relay, machine = relay
    values = MARKERS[61].value, MARKERS[62].value.encode()
    call(
        relay, machine, authority, b"plain", metadata=[("note", values[0]), ("raw-bin", values[1])]
    )
    search = searched(tmp_path, relay)
    assert search.report.markers() == {MARKERS[61].name, MARKERS[62].name}


def test_a_clean_call_yields_no_hit(relay, authority, tmp_path):
    relay, machine = relay
    call(relay, machine, authority, b"only numbers 1 2 3")
    assert searched(tmp_path, relay).report.hits == []


def test_a_cut_wire_fails_calls_and_a_mended_one_carries_them(relay, authority):
    relay, machine = relay
    relay.cut()
    with pytest.raises(grpc.RpcError):
        call(relay, machine, authority, b"x")
    relay.mend()
    assert call(relay, machine, authority, b"x").endswith(b"x")


def test_a_stranger_is_still_refused_by_the_centre(authority, echo, tmp_path):
    wire = Wire(
        "agent", ("127.0.0.1", echo), shown=issue_server_pair(authority, tmp_path / "relay"),
        trusted=authority.certificate,
    )  # fmt: skip
    machine = issue_server_pair(authority, tmp_path / "machine")
    with CaptureRelay(wire, tmp_path / "records") as relay, pytest.raises(grpc.RpcError):
        call(relay, machine, authority, b"x")


def test_the_site_refuses_a_relay_that_another_authority_signed(authority, echo, tmp_path, relay):
    relay, _ = relay
    context = ssl.create_default_context()
    raw = socket.create_connection(("127.0.0.1", relay.port))
    with raw, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(raw, server_hostname="localhost")
