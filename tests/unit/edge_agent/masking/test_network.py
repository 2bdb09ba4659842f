"""Masking asks nobody: no look-up, no connection, not even the first time."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.presidio

SCRIPT = """
import json, sys
seen = []
def listen(event, arguments):
    # An import asks the kernel for IPv6 by binding a loopback socket; nothing leaves by that.
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.bind"):
        seen.append(event)
sys.addaudithook(listen)
sys.modules["torch"] = None
from edge_agent.masking.canaries import failed_canaries
from edge_agent.masking.pipeline import BuiltinMasker
from edge_agent.masking.policy import MaskingPolicy
masker = BuiltinMasker(MaskingPolicy())
failed = failed_canaries(masker)
masker.mask("mail ann@unknown-suffix.zz and https://example.org/x or call 202-555-0147")
print(json.dumps({"seen": seen, "failed": failed}))
"""


def test_masking_opens_no_socket_and_looks_nothing_up():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, check=True, timeout=6000
    )
    told = json.loads(done.stdout)
    assert told == {"seen": [], "failed": []}


def test_the_masking_process_has_no_route_out():
    script = (
        "from edge_agent.masking.worker import shut_network\n"
        "import socket\n"
        "shut_network()\n"
        "for ask in (lambda: socket.getaddrinfo('localhost', 80),\n"
        "            lambda: socket.create_connection(('127.0.0.1', 9))):\n"
        "    try:\n"
        "        ask()\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=600
    )
    assert done.stdout.split() == [b"refused", b"refused"]


def test_the_masking_process_gets_no_secrets_from_the_environment(monkeypatch):
    from edge_agent.masking.child import _child_environment

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("PERIMETER_AGENT_KEY", "secret")
    environment = _child_environment()
    assert "HTTPS_PROXY" not in environment
    assert "PERIMETER_AGENT_KEY" not in environment
