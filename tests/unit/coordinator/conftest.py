"""Fixtures around `central_harness`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from central_harness import STAND_IN, Runner, TestClock, in_phase, reason_of
from postgres_server import fresh_postgres_url, postgres_server

from coordinator.config import CoordinatorConfig


@pytest.fixture
def clock():
    return TestClock()


__all__ = ["fresh_postgres_url", "postgres_server"]


def config_for(folder):
    return CoordinatorConfig(
        folder=folder,
        listen_address="127.0.0.1:0",
        enroll_address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        federation_command=(sys.executable, str(STAND_IN)),
        tick_seconds=0.05,
    )


@pytest.fixture
def config(tmp_path):
    return config_for(tmp_path / "central")


@pytest.fixture
def runner(clock):
    made = Runner(clock)
    yield made
    for central, _ in list(made.running):
        made.stop(central)


@pytest.fixture
def central(runner, config):
    return runner.start(config)


@pytest.fixture(scope="session")
def folder_with_model(tmp_path_factory):
    """A central folder whose campaign has its first model and waits for pools; copied by tests."""
    folder = tmp_path_factory.mktemp("template") / "central"
    made = Runner(TestClock())
    started = made.start(config_for(folder))
    campaign_id, campaign = started.create()
    started.tick_until(in_phase("waiting", 1))
    made.stop(started)
    return folder, campaign_id, campaign


@pytest.fixture
def waiting(runner, config, folder_with_model):
    """A running coordinator with a campaign that waits for pools, its id and its settings."""
    folder, campaign_id, campaign = folder_with_model
    shutil.copytree(folder, config.folder)
    return runner.start(config), campaign_id, campaign


@pytest.fixture
def refused():
    """Runs a call that must be refused; returns its status code name and reason."""

    def run(call: Callable[[], Any]) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        return caught.value.code().name, reason_of(caught.value)

    return run
