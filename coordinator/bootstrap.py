"""The one place where concrete things meet: the real clock, chance, database, keys and servers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from perimeter.v1 import (
    candidate_pb2_grpc,
    enrollment_pb2_grpc,
    grant_pb2_grpc,
    model_pb2_grpc,
)

from coordinator import scheduler, training_process
from coordinator.admission import Desk
from coordinator.config import CoordinatorConfig
from coordinator.core.records import TrainingRunRecord
from coordinator.core.training import TrainingState
from coordinator.enrollment import write_node_keys
from coordinator.errors import ConfigInvalid, CoordinatorError, StoreError
from coordinator.high_water import judge_restore, read_high_water
from coordinator.identity import (
    load_authority,
    load_signing_key,
    make_authority,
    make_signing_key,
)
from coordinator.maintenance import credentials, renew_servers
from coordinator.office import Clock, Entropy, Office, load_ledger
from coordinator.operator_pages import OperatorPages
from coordinator.service import (
    CandidateService,
    EnrollmentService,
    GrantService,
    IdentityService,
    ModelService,
)
from coordinator.store import Writer, open_store

ENROLL_BYTES_MAX = 16 * 1024
STOP_GRACE_SECONDS = 2.0
_LOG = logging.getLogger("coordinator")


def system_clock() -> int:
    """Returns whole seconds since 1970-01-01 UTC."""
    return int(time.time())


def initialise(config: CoordinatorConfig, now: int) -> None:
    """Makes the folder, all keys and the database where they are missing; a repeat changes nothing.

    Server certificates that end within 30 days are renewed.
    """
    folder = config.identity_folder
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    make_authority(folder, config.trust_domain, now=now)
    authority = load_authority(folder, config.trust_domain)
    renew_servers(config, authority, now)
    make_signing_key(folder, "release")
    make_signing_key(folder, "grant")
    for name in ("nodes", "bundles", "training"):
        (config.folder / name).mkdir(exist_ok=True)
    open_store(config.store_url).close()


def open_office(
    config: CoordinatorConfig, *, clock: Clock = system_clock, entropy: Entropy = os.urandom
) -> Office:
    """Opens store, ledger and keys.

    Raises:
        IdentityMissing: `init` was not run.
        LedgerCorrupt: The stored entries contradict the rules.
        StoreUnavailable: The database cannot be opened.
    """
    folder = config.identity_folder
    authority = load_authority(folder, config.trust_domain)
    store = open_store(config.store_url)
    release_key = load_signing_key(folder, "release")
    return Office(
        config=config,
        store=store,
        ledger=load_ledger(store),
        clock=clock,
        entropy=entropy,
        authority=authority,
        grant_key=load_signing_key(folder, "grant"),
        release_public_key=release_key.public_key().public_bytes_raw(),
    )


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds the folder's lock.

    Raises:
        ConfigInvalid: Another coordinator serves this folder.
    """
    with (folder / "coordinator.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigInvalid(
                f"another coordinator serves {folder}; stop it, or choose another folder"
            ) from None
        yield


class Servers:
    """Both listeners, the operator's pages and the scheduler of one coordinator.

    `port`, `enroll_port` and `metrics_port` say where they listen once started.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._config = desk.office.config
        self._main = self._server(self._config.message_bytes_max)
        self._enroll = self._server(ENROLL_BYTES_MAX)
        self._pages = OperatorPages(desk, self._config.metrics_address)
        self.port = self.enroll_port = self.metrics_port = 0

    def _server(self, message_bytes_max: int) -> grpc.aio.Server:
        options = [
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_metadata_size", 16 * 1024),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ]
        return grpc.aio.server(
            options=options, maximum_concurrent_rpcs=self._config.concurrent_calls_max
        )

    async def start(self) -> None:
        """Starts listening.

        Raises:
            ConfigInvalid: An address cannot be bound.
        """
        folder = self._config.identity_folder
        mutual, plain = credentials(folder, mutual=True), credentials(folder, mutual=False)
        for register, service, server in self._services(self._desk):
            register(service, server)
        self.port = _bind(self._main, self._config.listen_address, mutual)
        self.enroll_port = _bind(self._enroll, self._config.enroll_address, plain)
        self.metrics_port = self._pages.start()
        await self._main.start()
        await self._enroll.start()

    def _services(self, desk: Desk) -> list[tuple[Any, object, grpc.aio.Server]]:
        # The generated functions carry no annotations, hence Any.
        return [
            (
                candidate_pb2_grpc.add_CandidateServiceServicer_to_server,
                CandidateService(desk),
                self._main,
            ),
            (grant_pb2_grpc.add_GrantServiceServicer_to_server, GrantService(desk), self._main),
            (model_pb2_grpc.add_ModelServiceServicer_to_server, ModelService(desk), self._main),
            (
                enrollment_pb2_grpc.add_IdentityServiceServicer_to_server,
                IdentityService(desk),
                self._main,
            ),
            (
                enrollment_pb2_grpc.add_EnrollmentServiceServicer_to_server,
                EnrollmentService(desk),
                self._enroll,
            ),
        ]

    async def stop(self) -> None:
        """Stops listening; calls in progress get two seconds."""
        self._pages.stop()
        await asyncio.gather(
            self._main.stop(STOP_GRACE_SECONDS), self._enroll.stop(STOP_GRACE_SECONDS)
        )


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise ConfigInvalid(
            f"address {address} cannot be used; is another program listening there?"
        ) from None


async def drive(desk: Desk, stop: asyncio.Event) -> None:
    """Ticks the scheduler until `stop`; a failing tick is logged and the next one tries again."""
    while not stop.is_set():
        try:
            if await desk.ask(scheduler.tick):
                desk.announce_grants()
        except StoreError:
            _LOG.exception("the store failed; trying again")
        except CoordinatorError:
            raise
        except Exception:  # noqa: BLE001
            # One campaign's mistake must not silence the others' service for ever.
            _LOG.exception("a scheduler tick failed; trying again")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), desk.office.config.tick_seconds)


def heal_restore(office: Office) -> None:
    """Writes off what a restored database forgot; changes nothing on a whole one."""
    mark = read_high_water(office.config.high_water_path)
    now = office.clock()
    entries = judge_restore(office.ledger, mark, now)

    def note(writer: Writer) -> None:
        for entry in entries:
            subject = f"{entry.campaign_id.hex()}: {entry.lost_label_count} labels written off"
            writer.note(now, "database restored", subject)

    if entries:
        _LOG.error("the database is older than the ledger was; see `perimeter-coordinator audit`")
        office.commit(entries, note)


def _stop_training(office: Office) -> None:
    for run in office.store.find(TrainingRunRecord):
        if run.state in {TrainingState.SUBMITTED, TrainingState.TRAINING}:
            training_process.stop((office.folder / run.folder).resolve())


async def serve(config: CoordinatorConfig, announce: Callable[[Servers], None]) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        config: Settings.
        announce: Called once everything listens.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    initialise(config, system_clock())
    with only_one(config.folder):
        office = open_office(config)
        office.store.claim()
        heal_restore(office)
        write_node_keys(office.store, config.folder / "nodes")
        desk = Desk(office)
        servers = Servers(desk)
        try:
            await servers.start()
            announce(servers)
            await drive(desk, stop)
        finally:
            await servers.stop()
            await desk.ask(_stop_training)
            await desk.ask(Office.flush_counters)
            desk.close()
            office.store.close()
