"""Settings and store for a command."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from review_portal.config import PortalConfig, load_config
from review_portal.coordinator_link import CoordinatorLink
from review_portal.egress.archive import EgressArchive
from review_portal.egress.guard import EgressGuard
from review_portal.identity import load_identity
from review_portal.label_store import LabelStore
from review_portal.retention import Keeper


def config_of(arguments: argparse.Namespace) -> PortalConfig:
    """Returns the settings that a command runs under."""
    config = load_config(arguments.config, os.environ)
    folder: Path | None = arguments.folder
    return config if folder is None else config.model_copy(update={"folder": folder})


def link_of(config: PortalConfig, store: LabelStore) -> CoordinatorLink | None:
    """Returns the link to the coordinator, or None while the portal is not enrolled."""
    if not (config.folder_of("identity") / "identity.json").exists():
        return None
    import random

    identity = load_identity(config.folder_of("identity"))
    archive = EgressArchive(config.folder)
    return CoordinatorLink(
        store=store,
        identity=identity,
        clock=time.time,
        poll_seconds=config.coordinator_poll_seconds,
        report_seconds=config.report_seconds,
        chance=random.SystemRandom().random,
        guard=EgressGuard(archive, f"portal/{identity.name}", time.time),
        chore=Keeper(store, config.retention_days).turn,
    )
