"""The configuration files of all roles, as a person would write them from `docs/examples/`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulations.demo.materialise import SOURCE_FILE
from simulations.demo.plan import CampaignPlan, DemoPlan

LOOPBACK = "127.0.0.1"


def toml_text(values: Mapping[str, Any]) -> str:
    """Returns TOML of plain values; a list of mappings becomes an array of tables.

    >>> print(toml_text({"a": "x", "t": {"n": 1}}))
    a = "x"
    [t]
    n = 1
    <BLANKLINE>
    """
    plain, tables = [], []
    for key, value in values.items():
        if isinstance(value, Mapping):
            tables.append(f"[{key}]\n{toml_text(value)}")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            tables += [f"[[{key}]]\n{toml_text(entry)}" for entry in value]
        else:
            # JSON's numbers, texts, booleans and lists are TOML's too; keys are quoted if odd.
            plain.append(f"{_key(key)} = {json.dumps(_plain(value), ensure_ascii=False)}")
    return "".join(line + "\n" for line in plain) + "".join(tables)


def _key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    return key if bare else json.dumps(key, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def write_toml(path: Path, values: Mapping[str, Any]) -> Path:
    """Writes a configuration file and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(toml_text(values), encoding="utf-8")
    return path


def coordinator_file(plan: DemoPlan) -> Path:
    """Writes the coordinator's settings."""
    ports = plan.ports
    return write_toml(
        plan.layout.central / "coordinator.toml",
        {
            "folder": plan.layout.coordinator,
            "listen_address": f"{LOOPBACK}:{ports.main}",
            "enroll_address": f"{LOOPBACK}:{ports.enroll}",
            "metrics_address": f"{LOOPBACK}:{ports.metrics}",
            "superlink_address": f"{LOOPBACK}:{ports.superlink}",
            "federation_command": (sys.executable, "-m", "federation"),
            "tick_seconds": 0.25,
            # On a busy machine a device takes a while to read its first samples.
            "join_grace_seconds": 60,
        },
    )


def campaign_file(plan: DemoPlan, campaign: CampaignPlan) -> Path:
    """Writes a campaign as the operator creates it."""
    source = campaign.source
    features: dict[str, Any] = {"buckets": campaign.buckets, "tokens_max": 256}
    if source.kind == "image":
        features = {"height": 8, "width": 8, "channels": 1}
    return write_toml(
        plan.layout.central / f"campaign-{source.name}.toml",
        {
            "name": source.name,
            "kind": source.kind,
            "classes": source.classes,
            "sites": source.sites,
            "budget_labels": campaign.budget_labels,
            "cycle_budget_labels": campaign.cycle_budget_labels,
            "cycles": campaign.cycles,
            "min_new_labels": 1,
            "grant_lifetime": "7d" if plan.human else "30m",
            "pool_timeout": "10m",
            "label_timeout": "7d" if plan.human else "10m",
            "guideline": source.guideline or "Choose the class that fits best.",
            "seed": plan.seed,
            "features": features,
            "training": {
                "rounds": 6,
                "local_epochs": 8,
                "round_timeout_seconds": 120.0,
                "node_wait_seconds": 120.0,
            },
        },
    )


def federation_files(plan: DemoPlan) -> dict[str, Path]:
    """Writes the settings of SuperLink and fleet proxy."""
    identity = plan.layout.coordinator / "identity"
    superlink = f"{LOOPBACK}:{plan.ports.superlink}"
    return {
        "superlink": write_toml(
            plan.layout.central / "superlink.toml",
            {
                "work": plan.layout.federation,
                "address": superlink,
                "certificate": identity / "superlink.pem",
                "private_key": identity / "superlink.key",
                "authority": identity / "ca.pem",
                "nodes": plan.layout.coordinator / "nodes",
            },
        ),
        "proxy": write_toml(
            plan.layout.central / "proxy.toml",
            {
                "address": f"{LOOPBACK}:{plan.ports.proxy}",
                "superlink": superlink,
                "certificate": identity / "fleet.pem",
                "private_key": identity / "fleet.key",
                "authority": identity / "ca.pem",
            },
        ),
    }


def portal_file(plan: DemoPlan, site: str) -> Path:
    """Writes a portal's settings."""
    ports = plan.ports.sites[site]
    return write_toml(
        plan.layout.site(site).root / "portal.toml",
        {
            "folder": "portal",
            "site_name": site.capitalize(),
            "web_port": ports.web,
            "intake_host": LOOPBACK,
            "intake_port": ports.intake,
            "coordinator_poll_seconds": 1.0,
            "outcome_delay_seconds": 10.0 if plan.human else 0.5,
            "report_seconds": 5.0,
        },
    )


def agent_file(plan: DemoPlan, site: str, device: str) -> Path:
    """Writes a device's settings: one source for each campaign that has samples there."""
    folder = plan.layout.site(site)
    sources = [
        _source(plan, site, device, campaign)
        for campaign in plan.campaigns
        if site in campaign.source.sites
    ]
    return write_toml(
        folder.root / device / "agent.toml",
        {
            "state": folder.agent(device),
            "portal": f"{LOOPBACK}:{plan.ports.sites[site].intake}",
            "sources": sources,
            "timing": {
                "tick_seconds": 0.3,
                "settle_seconds": 0.2,
                "model_poll_seconds": 1.5,
                "grant_wait_seconds": 5,
                "retry_first_seconds": 0.3,
                "retry_longest_seconds": 3.0,
            },
            "limits": {"nice": 0, "poll_samples_max": 1024},
        },
    )


def _source(plan: DemoPlan, site: str, device: str, campaign: CampaignPlan) -> dict[str, Any]:
    name, kind = campaign.source.name, campaign.source.kind
    folder = plan.layout.site(site).source(device, name)
    common = {"name": name, "campaign": name, "kind": kind}
    if kind == "image":
        return common | {"type": "folder", "path": folder, "pattern": "*.png"}
    return common | {"type": "file", "path": folder / SOURCE_FILE, "text_column": "text"}


def node_files(plan: DemoPlan, site: str) -> dict[str, Path]:
    """Writes the settings of a site's trainer and Flower node."""
    folder = plan.layout.site(site)
    socket = folder.root / "trainer.sock"
    return {
        "trainer": write_toml(
            folder.root / "trainer.toml", {"label_store": folder.portal, "socket": socket}
        ),
        "node": write_toml(
            folder.root / "node.toml",
            {
                "work": folder.node / "flower",
                "identity": folder.node / "identity",
                "proxy": f"{LOOPBACK}:{plan.ports.proxy}",
                "trainer_socket": socket,
            },
        ),
    }
