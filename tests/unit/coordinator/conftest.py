"""Fixtures around `central_harness`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from central_harness import STAND_IN, Runner, TestClock, reason_of

from coordinator.config import CoordinatorConfig


@pytest.fixture
def clock():
    return TestClock()


@pytest.fixture
def config(tmp_path):
    return CoordinatorConfig(
        folder=tmp_path / "central",
        listen_address="127.0.0.1:0",
        enroll_address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        federation_command=(sys.executable, str(STAND_IN)),
        tick_seconds=0.05,
    )


@pytest.fixture
def runner(clock):
    made = Runner(clock)
    yield made
    for central, _ in list(made.running):
        made.stop(central)


@pytest.fixture
def central(runner, config):
    return runner.start(config)


@pytest.fixture
def refused():
    """Runs a call that must be refused; returns its status code name and reason."""

    def run(call: Callable[[], Any]) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        return caught.value.code().name, reason_of(caught.value)

    return run
