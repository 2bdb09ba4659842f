"""What `perimeter-agent status` says: how far the device is, and what is wrong. Never content."""

from __future__ import annotations

import datetime
import fcntl
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from edge_agent.egress_ledger import last_record
from edge_agent.errors import AgentError
from edge_agent.identity import IdentityFolder
from edge_agent.queue.installs import InstallBook
from edge_agent.queue.stores import FILE_NAME, Stores, open_stores

LOCK_FILE = "lock"
_REFUSALS_SHOWN = 20


def collect_status(config: AgentConfig, now: float) -> dict[str, Any]:
    """Reads the state of a device, also beside a running daemon.

    Returns:
        JSON-ready values; times in seconds since 1970.

    Raises:
        StorageError: The state cannot be read.
    """
    status: dict[str, Any] = {
        "running": is_running(config.state_folder),
        "identity": _identity(config, now),
        "egress": _egress(config.state_folder),
        "disk_free_bytes": _free_bytes(config.state_folder),
    }
    if (config.state_folder / FILE_NAME).exists():
        stores = open_stores(config, read_only=True)
        try:
            status |= _queue(stores)
        finally:
            stores.database.close()
    return status


def is_running(state_folder: Path) -> bool:
    """True while a daemon holds the state folder."""
    try:
        with (state_folder / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _identity(config: AgentConfig, now: float) -> dict[str, Any]:
    try:
        identity = IdentityFolder(config.state_folder / "identity").load()
    except AgentError as error:
        return {"enrolled": False, "problem": str(error)}
    return {
        "enrolled": True,
        "site": identity.site_id,
        "name": identity.name,
        "coordinator": config.coordinator or identity.coordinator,
        "portal": config.portal,
        "certificate_expires_at": int(identity.expires_at),
        "certificate_expired": now >= identity.expires_at,
    }


def _egress(state_folder: Path) -> dict[str, int]:
    last = last_record(state_folder / "egress")
    return {
        "messages": last.sequence if last else 0,
        "bytes": last.total_bytes if last else 0,
    }


def _free_bytes(state_folder: Path) -> int:
    return shutil.disk_usage(state_folder).free if state_folder.exists() else 0


def _queue(stores: Stores) -> dict[str, Any]:
    counts = stores.samples.counts()
    unsent = stores.outbox.row_counts()
    installs = InstallBook(stores.database)
    campaigns = {}
    for name, campaign in stores.campaigns.all().items():
        installed = installs.get(campaign.campaign_id)
        totals = stores.outbox.totals(campaign.campaign_id)
        campaigns[name] = {
            "kind": campaign.kind,
            "view": campaign.view,
            "samples": counts.get(campaign.campaign_id, {}),
            "model_version": installed.current,
            "previous_version": installed.previous,
            "refused_version": installed.refused,
            "scored": int(totals.class_counts.sum()) if totals else 0,
            "scored_version": totals.model_version if totals else 0,
            "unsent_rows": unsent.get(campaign.campaign_id, 0),
        }
    return {
        "campaigns": campaigns,
        "grants": stores.grants.counts(),
        "grant_reasons": stores.grants.reasons(),
        "held": stores.samples.held_reasons(),
        "refusals": stores.journal.refusal_counts(),
        "latest_refusals": [vars(r) for r in stores.journal.refusals(count_max=_REFUSALS_SHOWN)],
        "conditions": {n: {"at": at, "text": t} for n, (at, t) in stores.conditions.all().items()},
        "queue_bytes": stores.database.size_bytes(),
    }


def render(status: Mapping[str, Any]) -> str:
    """Returns the state as lines for people.

    >>> render({"running": False, "identity": {"enrolled": False, "problem": "not enrolled"},
    ...     "egress": {"messages": 0, "bytes": 0}, "disk_free_bytes": 0}).splitlines()[0]
    'agent is stopped'
    """
    lines = [f"agent is {'running' if status['running'] else 'stopped'}"]
    lines += _identity_lines(status["identity"])
    for name, campaign in status.get("campaigns", {}).items():
        lines += _campaign_lines(name, campaign)
    if status.get("grants"):
        lines.append("grants     " + _listed(status["grants"]))
    if status.get("held"):
        lines.append("held       " + _listed(status["held"]))
    egress = status["egress"]
    lines.append(f"egress     {egress['messages']} messages, {egress['bytes']} bytes left")
    lines.append(f"disk       {status['disk_free_bytes'] / 1e9:.1f} GB free")
    for name, condition in status.get("conditions", {}).items():
        lines.append(f"PROBLEM    {name}: {condition['text']} (since {_time(condition['at'])})")
    lines += _refusal_lines(status)
    return "\n".join(lines)


def _identity_lines(identity: Mapping[str, Any]) -> list[str]:
    if not identity["enrolled"]:
        return [f"PROBLEM    identity: {identity['problem']}"]
    end = _time(identity["certificate_expires_at"])
    word = "EXPIRED" if identity["certificate_expired"] else "until"
    return [
        f"identity   {identity['site']}/{identity['name']}, certificate {word} {end}",
        f"peers      coordinator {identity['coordinator']}, portal {identity['portal'] or 'none'}",
    ]


def _campaign_lines(name: str, campaign: Mapping[str, Any]) -> list[str]:
    samples = _listed(campaign["samples"]) or "no samples"
    return [
        f"campaign   {name}: {campaign['kind']}, {campaign['view']} view, "
        f"model version {campaign['model_version'] or 'none'}",
        f"           {samples}; {campaign['scored']} scored by version "
        f"{campaign['scored_version']}, {campaign['unsent_rows']} rows to send",
    ]


def _refusal_lines(status: Mapping[str, Any]) -> list[str]:
    counts = status.get("refusals", {})
    if not counts:
        return []
    lines = ["refused    " + _listed(counts)]
    return lines + [
        f"           {refusal['source']}, {refusal['location']}: {refusal['detail']}"
        for refusal in status["latest_refusals"][:5]
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
