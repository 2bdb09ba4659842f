"""Shared rules of the tests: where real data lies, what continuous integration may skip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def real_data_folder() -> Path:
    """The folder of the real data sets: PERIMETER_DATA, or `shared/data` beside the checkout."""
    return Path(os.environ.get("PERIMETER_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets; says clearly when it is absent."""
    folder = real_data_folder()
    if not folder.is_dir():
        pytest.skip(f"real data sets are absent: {folder} does not exist (set PERIMETER_DATA)")
    return folder


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In continuous integration a skipped test is a failure, except those that need a GPU."""
    outcome = yield
    report = outcome.get_result()
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and "gpu" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} was skipped where nothing may be skipped: {report.longrepr}"
        )
