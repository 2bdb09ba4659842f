"""The Flower app bundle that is handed to the SuperLink: the modules of this package, nothing else.

It is built from the installed package, so it needs no checkout, and the same installation always
gives the same bytes.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

PROJECT = "perimeter"
_PYPROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{project}"
version = "{version}"
description = "Perimeter's federated training"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "{project}"
fab-include = ["federation/**/*.py"]

[tool.flwr.app.components]
serverapp = "federation.server_app:app"
clientapp = "federation.client_app:app"

[tool.flwr.app.config]
run-directory = ""
run-key = ""
task = "train"
attempt = 0
"""


def app_files(package: Path | None = None) -> dict[str, bytes]:
    """Returns the files of the app by their path in the bundle."""
    folder = package or Path(__file__).parent
    files = {
        f"federation/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*.py"))
    }
    pyproject = _PYPROJECT.format(project=PROJECT, version=metadata.version(PROJECT))
    return {"pyproject.toml": pyproject.encode(), **files}


def build_app_bundle(package: Path | None = None) -> tuple[bytes, str]:
    """Returns the bundle and its SHA-256 in hex."""
    from flwr.cli.build import build_fab_from_files

    content, _ = build_fab_from_files(app_files(package))
    return content, hashlib.sha256(content).hexdigest()
