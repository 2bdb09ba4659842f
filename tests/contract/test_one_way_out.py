"""A site's code has one way out for its device and one for its portal; no other opens one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPENERS = {
    "secure_channel", "insecure_channel", "urlopen", "urlretrieve", "create_connection",
    "open_connection", "getaddrinfo", "gethostbyname", "sendto",
}  # fmt: skip
CLIENTS = {
    "httpx", "requests", "aiohttp", "urllib3", "urllib.request", "http.client", "smtplib", "ftplib",
    "telnetlib", "websockets", "xmlrpc.client", "imaplib", "poplib",
}  # fmt: skip
WAYS_OUT = {
    "edge_agent/egress.py": "to the coordinator, every message past the guard",
    "edge_agent/portal_client.py": "to the portal of the same site",
    "review_portal/coordinator_link.py": "to the coordinator, every message past the guard",
    "review_portal/enrollment.py": "to the coordinator once, with the join token, past the guard",
}


def openings(source: str) -> Iterator[str]:
    """Names of what opens a connection in a module, or could."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in OPENERS:
            yield node.attr
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in CLIENTS)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (
                name
                for alias in node.names
                for name in (module, f"{module}.{alias.name}")
                if name in CLIENTS or alias.name in OPENERS
            )


def modules_with_a_way_out() -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for package in ("edge_agent", "review_portal")
        for path in sorted((ROOT / package).rglob("*.py"))
        if any(openings(path.read_text("utf-8")))
    }


def test_no_module_beside_the_known_ones_opens_a_connection():
    assert modules_with_a_way_out() == set(WAYS_OUT)


@pytest.mark.parametrize(
    "source",
    [
        "import grpc\ngrpc.insecure_channel('x')",
        "from grpc import secure_channel",
        "import httpx",
        "from urllib import request",
        "import urllib.request as web",
        "from http.client import HTTPSConnection",
        "import socket\nsocket.create_connection(('x', 1))",
        "import asyncio\nasyncio.open_connection('x', 1)",
        "import socket as s\ns.getaddrinfo('secret.example', 1)",
    ],
)
def test_each_way_to_open_one_is_seen(source):
    assert list(openings(source))


def test_a_module_without_one_is_not_blamed():
    assert not list(openings("import socket\nsocket.socket(socket.AF_UNIX)\nimport urllib.parse"))


@pytest.mark.parametrize(
    "module", ["review_portal/coordinator_link.py", "review_portal/enrollment.py"]
)
def test_the_portal_hands_its_channel_to_the_guard_alone(module):
    """A channel that makes a call of its own would pass by the guard."""
    calls = {
        node.attr
        for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8")))
        if isinstance(node, ast.Attribute)
    }
    assert not calls & {"unary_unary", "unary_stream", "stream_unary", "stream_stream"}
    assert not any(name.endswith("Stub") for name in calls)
