"""The commands of `perimeter-agent` that need a configuration."""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from edge_agent.config import AgentConfig, load_config
from edge_agent.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from edge_agent.egress_ledger import EgressRecord


def enroll(parsed: argparse.Namespace) -> int:
    """Exchanges a join token for an identity; a known queue is offered again as a whole."""
    from edge_agent.enrollment import enroll as exchange
    from edge_agent.queue.stores import FILE_NAME, open_stores

    config = _config(parsed)
    text = sys.stdin.read() if parsed.token == "-" else parsed.token  # noqa: S105 - a marker
    identity = exchange(config, text, time.time)
    if (config.state_folder / FILE_NAME).exists():
        stores = open_stores(config)
        stores.offer_all_again()
        stores.database.close()
    sys.stdout.write(
        f"enrolled as {identity.site_id}/{identity.name}; start with `perimeter-agent run`\n"
    )
    return 0


def run(parsed: argparse.Namespace) -> int:
    """Runs the daemon until SIGTERM or SIGINT."""
    config = _config(parsed)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    with _only_one(config.state_folder):
        from edge_agent.memory import keep_memory_small

        keep_memory_small()
        from edge_agent.assembly import build_daemon

        # The device has other work to do.
        os.nice(config.limits.nice)
        daemon = build_daemon(config, time.time, SystemRandom())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.stop())
        logging.getLogger("edge_agent").info("running; state in %s", config.state_folder)
        daemon.run()
    return 0


@contextmanager
def _only_one(state_folder: Path) -> Iterator[None]:
    """Holds the state folder, so that two daemons never share a queue."""
    from edge_agent.status import LOCK_FILE

    state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_folder / LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another agent is running on {state_folder}; stop it or use another state folder"
            ) from None
        yield


def status(parsed: argparse.Namespace) -> int:
    """Prints how far the device is; exit status 1 when something is wrong."""
    from edge_agent.status import collect_status, render

    found = collect_status(_config(parsed), time.time())
    sys.stdout.write((json.dumps(found, indent=1) if parsed.json else render(found)) + "\n")
    wrong = found.get("conditions") or not found["identity"]["enrolled"]
    return 1 if wrong and not parsed.json else 0


def egress(parsed: argparse.Namespace) -> int:
    """Shows or checks what left the device."""
    from edge_agent.egress_ledger import verify

    folder = _config(parsed).state_folder / "egress"
    if parsed.action == "verify":
        found = verify(folder)
        if parsed.json:
            sys.stdout.write(json.dumps(asdict(found)) + "\n")
        elif found.fault:
            sys.stdout.write(f"BROKEN: {found.fault}\n")
        else:
            sys.stdout.write(
                f"whole: {found.message_count} messages, {found.byte_count} bytes left\n"
            )
        return 1 if found.fault else 0
    return _show(folder, parsed)


def audit(parsed: argparse.Namespace) -> int:
    """Shows or checks who was shown raw words here, and what was deleted."""
    from edge_agent.audit import records, verify

    folder = _config(parsed).state_folder
    if parsed.action == "verify":
        count, fault = verify(folder)
        sys.stdout.write(f"BROKEN: {fault}\n" if fault else f"whole: {count} records\n")
        return 1 if fault else 0
    for record in records(folder):
        if parsed.json:
            sys.stdout.write(json.dumps(asdict(record)) + "\n")
            continue
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.at))
        facts = ", ".join(f"{name} {value}" for name, value in record.detail.items())
        line = f"{record.sequence:>6}  {at}  {record.action}  {record.subject}  {facts}"
        sys.stdout.write(line.rstrip() + "\n")
    return 0


def shred(parsed: argparse.Namespace) -> int:
    """Destroys a campaign's key and removes its samples; there is no way back."""
    from edge_agent.audit import AuditLog
    from edge_agent.queue.shredding import shred as destroy
    from edge_agent.queue.stores import open_stores

    config = _config(parsed)
    with _only_one(config.state_folder):
        stores = open_stores(config)
        try:
            campaign = stores.campaigns.all().get(parsed.campaign)
            if campaign is None:
                sys.stderr.write(
                    f"perimeter-agent: no campaign {parsed.campaign!r} is known here\n"
                )
                return 2
            campaign_id = campaign.campaign_id
            count = sum(stores.samples.counts().get(campaign_id, {}).values())
            if not parsed.yes:
                sys.stderr.write(f"this destroys {count} samples for good; add --yes\n")
                return 1
            log = AuditLog(config.state_folder)
            log.append("campaign.shredded", campaign_id.hex(), {"samples": count}, at=time.time())
            destroy(stores.database, stores.seals, stores.outbox, campaign_id)
        finally:
            stores.database.close()
    sys.stdout.write(
        f"key of {parsed.campaign} destroyed, {count} samples removed; take its sources out of "
        "the configuration, or new samples come in under a new key\n"
    )
    return 0


def retention(parsed: argparse.Namespace) -> int:
    """Removes samples that are older than the age limit, now."""
    from edge_agent.audit import AuditLog
    from edge_agent.queue.stores import open_stores
    from edge_agent.retention import Retention

    config = _config(parsed)
    days = config.retention_days if parsed.days is None else parsed.days
    if days < 1:
        raise ConfigError("no age limit: set retention_days or give --days, at least 1")
    removed = 0
    with _only_one(config.state_folder):
        stores = open_stores(config)
        try:
            keeper = Retention(stores, AuditLog(config.state_folder), days)
            while batch := keeper.remove(time.time()):
                removed += batch
        finally:
            stores.database.close()
    sys.stdout.write(f"{removed} samples removed\n")
    return 0


def _show(folder: Path, parsed: argparse.Namespace) -> int:
    from collections import deque

    from edge_agent.egress_ledger import records

    shown = deque(records(folder), maxlen=max(1, parsed.last))
    for record in shown:
        if parsed.json:
            sys.stdout.write(json.dumps(asdict(record)) + "\n")
            continue
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.at))
        method = record.method.removeprefix("perimeter.v1.")
        sys.stdout.write(f"{record.sequence:>8}  {at}  {record.size_bytes:>8} B  {method}\n")
        if parsed.full:
            for line in _rendered(record):
                sys.stdout.write(f"          {line}\n")
    return 0


def _rendered(record: EgressRecord) -> list[str]:
    """Every field of a message, bytes in hex and cut at 32."""
    from edge_agent.egress_view import fields_of

    return [f"{name} = {value}" for name, value in fields_of(record)]


def _config(parsed: argparse.Namespace) -> AgentConfig:
    return load_config(parsed.config, os.environ)


COMMANDS: Mapping[str, Callable[[Any], int]] = {
    "enroll": enroll,
    "run": run,
    "status": status,
    "egress": egress,
    "audit": audit,
    "shred": shred,
    "retention": retention,
}
