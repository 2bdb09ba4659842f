"""The model registry: signed bundles that were trained, and which of them is on offer to whom."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from coordinator.core.campaign import Campaign
from coordinator.core.records import (
    InstallRecord,
    MachineRecord,
    ModelVersionRecord,
    TrainingRunRecord,
)
from coordinator.core.rollout import Rollout, VersionState, canary_group, version_for
from coordinator.core.training import Evaluation
from coordinator.durable_files import write_durably
from coordinator.office import Office
from model_bundle.errors import BundleError
from model_bundle.manifest import unpack
from model_bundle.signing import verify

BUNDLE_FILE = "bundle"
EVALUATION_FILE = "evaluation.json"


class BundleRefused(Exception):
    """What training left behind is no bundle that may be registered; the message says why."""


def rollout_of(office: Office, campaign: Campaign, campaign_id: bytes) -> Rollout:
    """Returns the versions on offer: the newest released one, and the one in canary."""
    records = office.store.find(ModelVersionRecord, campaign_id=campaign_id)
    newest = dict.fromkeys(VersionState, 0)
    for record in records:
        newest[record.state] = max(newest[record.state], record.version)
    return Rollout(
        newest[VersionState.RELEASED], newest[VersionState.CANARY], campaign.canary_ratio
    )


def agents_of(office: Office, campaign: Campaign) -> list[MachineRecord]:
    """Returns the agents of the campaign's sites that are not revoked."""
    agents = office.store.find(MachineRecord, role="agent", revoked=False)
    return [agent for agent in agents if agent.site_id in campaign.sites]


def offered_version(
    office: Office, campaign: Campaign, campaign_id: bytes, machine: tuple[str, str]
) -> int:
    """Returns the version that a machine (site, name) should run, 0 for none."""
    agents = [(agent.site_id, agent.name) for agent in agents_of(office, campaign)]
    return version_for(machine, rollout_of(office, campaign, campaign_id), agents)


def untrained_versions(office: Office, campaign_id: bytes) -> frozenset[int]:
    """Returns the versions that no label taught: those that init-model made."""
    runs = office.store.find(TrainingRunRecord, campaign_id=campaign_id, first=True)
    return frozenset(run.next_version for run in runs)


def next_version(office: Office, campaign_id: bytes) -> int:
    """Returns a version above every registered one; versions of aborted runs reached nobody."""
    records = office.store.find(ModelVersionRecord, campaign_id=campaign_id)
    return max((record.version for record in records), default=0) + 1


def canary_reports(
    office: Office, campaign: Campaign, record: ModelVersionRecord
) -> tuple[frozenset[tuple[str, str]], dict[tuple[str, str], bool]]:
    """Returns the canary group of a version and what its agents reported."""
    agents = [(agent.site_id, agent.name) for agent in agents_of(office, campaign)]
    group = canary_group(agents, record.version, campaign.canary_ratio)
    reports = office.store.find(
        InstallRecord, campaign_id=record.campaign_id, role="agent", version=record.version
    )
    return group, {(r.site_id, r.name): r.installed for r in reports}


def read_bundle(office: Office, run: TrainingRunRecord) -> ModelVersionRecord:
    """Checks the bundle of a finished run and copies it into the registry's folder.

    Returns:
        Its record as a candidate version; nothing is stored yet.

    Raises:
        BundleRefused: It is missing, broken, unsigned, or not the version that was asked for.
    """
    source = office.folder / run.folder / BUNDLE_FILE
    try:
        content = source.read_bytes()
        bundle = unpack(content)
        verify(bundle, [office.release_public_key])
        bundle.manifest.check_time(office.clock())
    except OSError as error:
        raise BundleRefused(f"the bundle cannot be read: {error.strerror}") from error
    except BundleError as error:
        raise BundleRefused(str(error)) from error
    manifest = bundle.manifest
    if manifest.campaign_id != run.campaign_id.hex() or manifest.version != run.next_version:
        raise BundleRefused("the bundle is of another campaign or version than was asked for")
    path = Path("bundles") / run.campaign_id.hex() / f"{run.next_version}.bundle"
    write_durably(office.folder / path, content)
    return ModelVersionRecord(
        campaign_id=run.campaign_id,
        version=run.next_version,
        state=VersionState.CANDIDATE,
        run=run.run,
        path=str(path),
        size_bytes=len(content),
        sha256=hashlib.sha256(content).digest(),
        evaluation_json=_evaluation_text(office.folder / run.folder / EVALUATION_FILE),
        created_at=office.clock(),
    )


def _evaluation_text(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "{}"
    except (OSError, ValueError) as error:
        raise BundleRefused(f"{path.name} cannot be read: {error}") from error
    return json.dumps(content)


def evaluation_of(record: ModelVersionRecord | None) -> Evaluation | None:
    """Returns the federated evaluation of a version; None when the version is unknown."""
    if record is None:
        return None
    content = json.loads(record.evaluation_json)
    return Evaluation(
        accuracy=content.get("accuracy"),
        macro_f1=content.get("macro_f1"),
        example_count=int(content.get("example_count") or 0),
        detail=content,
    )


def released_record(
    office: Office, campaign: Campaign, campaign_id: bytes
) -> ModelVersionRecord | None:
    """Returns the newest released version."""
    version = rollout_of(office, campaign, campaign_id).released_version
    return office.store.get(ModelVersionRecord, campaign_id, version) if version else None


def with_state(record: ModelVersionRecord, state: VersionState) -> ModelVersionRecord:
    """Returns the version in another state."""
    return replace(record, state=state)
