"""Builds the daemon out of its parts. The only place that knows all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

from edge_agent.audit import AuditLog
from edge_agent.config import AgentConfig
from edge_agent.coordinator_client import CoordinatorClient
from edge_agent.daemon import Daemon, Parts, Source
from edge_agent.egress import EgressGuard
from edge_agent.egress_copy import EgressCopy
from edge_agent.egress_ledger import EgressLedger
from edge_agent.errors import ConfigError
from edge_agent.identity import Identity, IdentityFolder
from edge_agent.installer import Installer
from edge_agent.masking.child import ChildMasker
from edge_agent.masking.errors import MaskingConfigError
from edge_agent.masking.policy import MaskingPolicy, policy_from_json
from edge_agent.portal_client import PortalClient
from edge_agent.queue.stores import Stores, open_stores
from edge_agent.release import Releaser
from edge_agent.retention import Retention
from edge_agent.sources.folder import FolderSource
from edge_agent.sources.growing import GrowingFile
from edge_agent.sources.intake import Intake
from edge_agent.sources.push import PushListener
from edge_agent.unmasking import Unmasker
from edge_agent.uplink import Uplink
from edge_agent.views import DetectingMasker, ViewMaker

IDENTITY_FOLDER = "identity"
EGRESS_FOLDER = "egress"
MODELS_FOLDER = "models"


def build_daemon(
    config: AgentConfig,
    clock: Callable[[], float],
    rng: Random,
    *,
    masker: DetectingMasker | None = None,
) -> Daemon:
    """Opens the state folder and builds the daemon.

    Args:
        config: Settings.
        clock: Seconds since 1970.
        rng: Chance for pauses.
        masker: Masks texts; None for a child process that runs the configured policy.

    Raises:
        AgentError: The device is not enrolled, or the state or configuration cannot be used.
    """
    identity_folder = IdentityFolder(config.state_folder / IDENTITY_FOLDER)
    identity = identity_folder.load()
    policy = masking_policy(config)
    stores = open_stores(config)
    wake = threading.Event()
    views = ViewMaker(masker or ChildMasker(policy), policy)
    installer = Installer(
        config.state_folder / MODELS_FOLDER,
        stores.database,
        config.limits,
        identity.release_key,
        site_id=identity.site_id,
    )
    intake = Intake(
        stores.database,
        stores.samples,
        stores.journal,
        queue_bytes_max=config.limits.queue_bytes_max,
        drop_oldest=config.limits.when_full == "drop-oldest",
    )
    log = AuditLog(config.state_folder)
    portal = PortalClient(identity, config.portal, call_seconds=config.timing.call_seconds)
    parts = Parts(
        config=config,
        stores=stores,
        identity_folder=identity_folder,
        intake=intake,
        sources=polled_sources(config, stores),
        listeners=[
            PushListener(source, config.limits, intake, clock, wake.set)
            for source in config.sources
            if source.type == "push"
        ],
        views=views,
        installer=installer,
        uplink=Uplink(config, stores, _client(config, identity, clock), installer, wake.set),
        portal=portal,
        releaser=Releaser(stores, portal, views, config, identity.grant_key),
        egress_copy=EgressCopy(config.state_folder / EGRESS_FOLDER, portal),
        unmasker=Unmasker(stores, portal, log, config),
        retention=Retention(stores, log, config.retention_days),
    )
    return Daemon(parts, identity, clock, rng, wake)


def _client(
    config: AgentConfig, identity: Identity, clock: Callable[[], float]
) -> CoordinatorClient:
    ledger = EgressLedger(
        config.state_folder / EGRESS_FOLDER, file_bytes_max=config.limits.egress_file_bytes
    )
    return CoordinatorClient(
        identity,
        EgressGuard(ledger, clock),
        target=config.coordinator,
        call_seconds=config.timing.call_seconds,
    )


def masking_policy(config: AgentConfig) -> MaskingPolicy:
    """Returns the site's masking policy from the `[masking]` table.

    Raises:
        ConfigError: A key is unknown or a value is wrong.
    """
    try:
        return policy_from_json(dict(config.masking))
    except MaskingConfigError as error:
        raise ConfigError(f"[masking]: {error}") from None


def polled_sources(config: AgentConfig, stores: Stores) -> list[Source]:
    """Returns the folders and growing files of the configuration."""
    sources: list[Source] = []
    for source in config.sources:
        if source.type == "folder":
            settle = config.timing.settle_seconds
            sources.append(
                FolderSource(source, config.limits, stores.journal, settle_seconds=settle)
            )
        elif source.type == "file":
            sources.append(GrowingFile(source, config.limits, stores.journal))
    return sources
