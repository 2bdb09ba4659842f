"""What each sub-command does. Imports of heavy parts stay inside the functions that need them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator.config import CoordinatorConfig, load_config
from coordinator.errors import CampaignInvalid, ConfigInvalid, LedgerCorrupt

if TYPE_CHECKING:
    from coordinator.store import Store

CONFIG_VARIABLE = "PERIMETER_COORDINATOR_CONFIG"


def _config(arguments: argparse.Namespace) -> CoordinatorConfig:
    path: Path | None = arguments.config
    if path is None and os.environ.get(CONFIG_VARIABLE):
        path = Path(os.environ[CONFIG_VARIABLE])
    return load_config(path, folder=arguments.folder)


def _opened(config: CoordinatorConfig) -> Store:
    """Opens the store of a folder that `init` made; never makes one somewhere else."""
    from coordinator.store import open_store

    if not config.identity_folder.is_dir():
        raise ConfigInvalid(
            f"{config.folder} is no central folder; run `perimeter-coordinator init` first"
        )
    return open_store(config.store_url)


def _answer(arguments: argparse.Namespace, values: Mapping[str, Any], text: str) -> int:
    sys.stdout.write((json.dumps(values) if arguments.json else text) + "\n")
    return 0


def init(arguments: argparse.Namespace) -> int:
    """Makes the central folder."""
    from coordinator.bootstrap import initialise, system_clock

    config = _config(arguments)
    initialise(config, system_clock())
    folder = str(config.folder.resolve())
    return _answer(arguments, {"folder": folder}, f"ready: {folder}")


def serve(arguments: argparse.Namespace) -> int:
    """Serves until stopped."""
    import asyncio
    import logging

    from coordinator import bootstrap

    config = _config(arguments)
    logging.basicConfig(
        level=config.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )

    def announce(servers: bootstrap.Servers) -> None:
        ports = {
            "port": servers.port,
            "enroll_port": servers.enroll_port,
            "metrics_port": servers.metrics_port,
        }
        text = (
            f"serving sites on port {servers.port}, enrolment on {servers.enroll_port}, "
            f"/metrics and /status on {servers.metrics_port}"
        )
        _answer(arguments, ports, text)
        sys.stdout.flush()

    asyncio.run(bootstrap.serve(config, announce))
    return 0


def join_token(arguments: argparse.Namespace) -> int:
    """Makes a join token and prints it, the only time that it is shown."""
    from coordinator.bootstrap import system_clock
    from coordinator.enrollment import TokenTerms, make_join_token
    from coordinator.identity import Subject, load_authority
    from coordinator.store import open_store

    config = _config(arguments)
    hosts = arguments.host or (list(config.hosts) if arguments.role == "portal" else [])
    terms = TokenTerms(
        subject=Subject(arguments.site, arguments.role, arguments.name, tuple(hosts)),
        enroll_address=config.public_enroll_address or config.enroll_address,
        coordinator_address=config.public_address or config.listen_address,
        lifetime_seconds=arguments.lifetime or config.join_token_lifetime_seconds,
    )
    authority = load_authority(config.identity_folder, config.trust_domain)
    store = open_store(config.store_url)
    token = make_join_token(store, authority, terms, now=system_clock(), entropy=os.urandom)
    store.close()
    return _answer(arguments, {"token": token, "expires_in": terms.lifetime_seconds}, token)


def revoke(arguments: argparse.Namespace) -> int:
    """Revokes a machine."""
    from coordinator.bootstrap import system_clock
    from coordinator.enrollment import revoke as revoke_machine
    from coordinator.enrollment import write_node_keys

    config = _config(arguments)
    store = _opened(config)
    key = (arguments.site, arguments.role, arguments.name)
    found = revoke_machine(store, key, system_clock())
    write_node_keys(store, config.folder / "nodes")
    store.close()
    if not found:
        raise ConfigInvalid("no such machine; `perimeter-coordinator status` lists them")
    machine = f"{arguments.site}/{arguments.role}/{arguments.name}"
    return _answer(arguments, {"revoked": machine}, f"revoked {machine}")


def status(arguments: argparse.Namespace) -> int:
    """Shows what `/status` shows, from the database."""
    from coordinator.bootstrap import open_office
    from coordinator.observation import status_of

    office = open_office(_config(arguments))
    values = status_of(office)
    office.store.close()
    return _answer(arguments, values, _status_text(values))


def _status_text(values: Mapping[str, Any]) -> str:
    lines = [_campaign_line(campaign) for campaign in values["campaigns"]]
    agents = sum(machine["role"] == "agent" for machine in values["machines"])
    received = values["received"]
    lines.append(
        f"{len(values['sites'])} sites, {agents} agents; received {received['messages']} messages, "
        f"{received['bytes']} bytes"
    )
    return "\n".join(lines)


def _campaign_line(campaign: Mapping[str, Any]) -> str:
    account = campaign["ledger"]
    cycle = min(campaign["cycle"], campaign["cycles"])
    failed = (campaign["training"] or {}).get("error", "")
    return (
        f"{campaign['name']}: {campaign['state']}, cycle {cycle} of "
        f"{campaign['cycles']} ({campaign['phase']}), {account['spent']} of {account['budget']} "
        f"labels spent, {account['reserved']} reserved, model version {campaign['model_version']}"
        + (f"\n  the last training run failed: {failed}" if failed else "")
    )


def campaign(arguments: argparse.Namespace) -> int:
    """Runs `campaign create|list|show|pause|resume`."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "create": _create,
        "list": _list,
        "show": _show,
        "pause": _pause,
        "resume": _resume,
    }
    return actions[arguments.action](arguments)


def _create(arguments: argparse.Namespace) -> int:
    from coordinator.bootstrap import system_clock
    from coordinator.campaign_file import create_campaign, read_campaign_file

    settings = read_campaign_file(arguments.file)
    store = _opened(_config(arguments))
    try:
        record = create_campaign(store, settings, now=system_clock(), entropy=os.urandom)
    finally:
        store.close()
    tables = settings.passed_on
    values = {"campaign_id": record.campaign_id.hex(), "name": record.name, "settings": tables}
    text = f"created {record.name} ({record.campaign_id.hex()})"
    return _answer(arguments, values, "\n".join([text, *_setting_lines(tables)]))


def _setting_lines(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a campaign passes through to the federation, with what was filled in."""
    return [
        f"  [{table}] " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in named.items())
        for table, named in tables.items()
        if named
    ]


def _campaigns(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from coordinator.bootstrap import open_office
    from coordinator.observation import status_of

    office = open_office(_config(arguments))
    found: list[dict[str, Any]] = status_of(office)["campaigns"]
    office.store.close()
    return found


def _list(arguments: argparse.Namespace) -> int:
    found = _campaigns(arguments)
    text = "\n".join(_campaign_line(row) for row in found) or "no campaigns"
    return _answer(arguments, {"campaigns": found}, text)


def _show(arguments: argparse.Namespace) -> int:
    from coordinator.advice import stop_advice

    for row in _campaigns(arguments):
        if row["name"] == arguments.name:
            history = [
                f"  cycle {r['cycle']}: {r['labels']} labels, accuracy {r['accuracy']}, "
                f"macro F1 {r['macro_f1']}, version {r['model_version']}, {r['seconds']} s"
                for r in row["history"]
            ]
            advice = stop_advice(
                row["history"],
                floors_met=row["floors_met"],
                least_gain_per_cost=row["price"] if arguments.price is None else arguments.price,
            )
            row["stop_advice"] = list(advice.reasons)
            stop = [f"  consider stopping: {reason}" for reason in advice.reasons]
            lines = [_campaign_line(row), *_setting_lines(row["settings"]), *history, *stop]
            return _answer(arguments, row, "\n".join(lines))
    raise CampaignInvalid(f"there is no campaign named {arguments.name!r}")


def _pause(arguments: argparse.Namespace) -> int:
    from coordinator.core.campaign import CampaignState

    return _set_state(arguments, CampaignState.PAUSED)


def _resume(arguments: argparse.Namespace) -> int:
    from coordinator.core.campaign import CampaignState

    return _set_state(arguments, CampaignState.ACTIVE)


def _set_state(arguments: argparse.Namespace, state: Any) -> int:
    from coordinator.bootstrap import system_clock
    from coordinator.core.campaign import CampaignState
    from coordinator.core.records import CampaignRecord, CycleRecord

    store = _opened(_config(arguments))
    try:
        found = store.find(CampaignRecord, name=arguments.name)
        if not found or found[0].state is CampaignState.COMPLETED:
            raise CampaignInvalid(f"there is no campaign {arguments.name!r} that is not complete")
        cycle = store.get(CycleRecord, found[0].campaign_id)
        with store.transaction() as writer:
            writer.put(replace(found[0], state=state))
            if cycle is not None and state is CampaignState.ACTIVE:
                writer.put(replace(cycle, failed_runs=0))
            writer.note(system_clock(), f"campaign {state.value}", found[0].name)
    finally:
        store.close()
    values = {"name": arguments.name, "state": state.value}
    return _answer(arguments, values, f"{arguments.name} is {state.value}")


def audit(arguments: argparse.Namespace) -> int:
    """Lists the audit log: enrolments, revocations, campaigns, model versions."""
    import datetime

    from coordinator.core.records import AuditRecord

    store = _opened(_config(arguments))
    lines = store.find(AuditRecord)
    store.close()
    rows = [
        {"sequence": x.sequence, "at": x.at, "action": x.action, "subject": x.subject}
        for x in lines
    ]
    text = "\n".join(
        f"{datetime.datetime.fromtimestamp(x.at, tz=datetime.UTC):%Y-%m-%d %H:%M:%S} "
        f"{x.action}: {x.subject}"
        for x in lines
    )
    return _answer(arguments, {"lines": rows}, text or "the audit log is empty")


def verify_ledger(arguments: argparse.Namespace) -> int:
    """Replays entries, digests and allocations; exit status 1 when something does not fit."""
    from coordinator.bootstrap import open_office
    from coordinator.verification import verify

    try:
        office = open_office(_config(arguments))
    except LedgerCorrupt as error:
        _answer(arguments, {"ok": False, "problems": [str(error)]}, f"broken: {error}")
        return 1
    problems, counts = verify(office)
    office.store.close()
    older = counts["older_allocations"]
    text = "\n".join(problems) or (
        f"sound: {counts['entries']} entries, {counts['grants']} grants, "
        f"{counts['allocations']} allocations made again byte for byte"
        + (f", {older} of another version of the allocator not made again" if older else "")
    )
    _answer(arguments, {"ok": not problems, "problems": problems, **counts}, text)
    return 1 if problems else 0
