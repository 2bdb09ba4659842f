"""Carries a training run from proposed to released: the shell around `core.training`.

Each call of `advance` moves a run by at most one state and stores the new one, so that after a
crash the next call goes on from what was stored. The bundle's signature is checked before any site
is offered it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from coordinator import training_process
from coordinator.core.campaign import Campaign
from coordinator.core.entries import GrantState
from coordinator.core.records import ModelVersionRecord, SiteReportRecord, TrainingRunRecord
from coordinator.core.rollout import CanaryVerdict, VersionState, judge_canary
from coordinator.core.training import Evaluation, TrainingState, may_follow, passes_gate
from coordinator.durable_files import write_durably
from coordinator.office import Office
from coordinator.registry import (
    BundleRefused,
    canary_reports,
    evaluation_of,
    read_bundle,
    released_record,
    with_state,
)

REQUEST_FILE = "request.json"
ERROR_LENGTH_MAX = 500
_LOG = logging.getLogger("coordinator.training")


def propose(
    office: Office, campaign: Campaign, campaign_id: bytes, *, run: int, next_version: int
) -> TrainingRunRecord:
    """Returns the record of a new run; nothing is stored or started."""
    released = released_record(office, campaign, campaign_id)
    now = office.clock()
    return TrainingRunRecord(
        campaign_id=campaign_id,
        run=run,
        state=TrainingState.PROPOSED,
        first=released is None,
        parent_version=released.version if released else 0,
        next_version=next_version,
        folder=f"training/{campaign_id.hex()}/run-{run}",
        started_at=now,
        state_at=now,
        spent_labels=office.ledger.books(campaign_id).total.spent,
    )


def advance(office: Office, campaign: Campaign, run: TrainingRunRecord) -> TrainingRunRecord:
    """Looks at a run and stores its next state when it has one."""
    steps: dict[TrainingState, Callable[..., TrainingRunRecord]] = {
        TrainingState.PROPOSED: _submit,
        TrainingState.SUBMITTED: _watch,
        TrainingState.TRAINING: _watch,
        TrainingState.CANDIDATE: _gate,
        TrainingState.GATED: _release,
        TrainingState.CANARY: _judge_canary,
    }
    step = steps.get(run.state)
    return step(office, campaign, run) if step else run


def _move(
    office: Office,
    run: TrainingRunRecord,
    state: TrainingState,
    *versions: ModelVersionRecord,
    error: str = "",
) -> TrainingRunRecord:
    if not may_follow(run.state, state):
        raise ValueError(f"a run cannot go {run.state} → {state}")
    moved = replace(
        run, state=state, state_at=office.clock(), error=(error or run.error)[:ERROR_LENGTH_MAX]
    )
    with office.store.transaction() as writer:
        writer.put(moved)
        for version in versions:
            writer.put(version)
            subject = f"{run.campaign_id.hex()} version {version.version} {version.sha256.hex()}"
            writer.note(office.clock(), f"version {version.state.value}", subject)
    _LOG.info("run %d of campaign %s: %s %s", run.run, run.campaign_id.hex(), state, error)
    return moved


def request_of(office: Office, campaign: Campaign, run: TrainingRunRecord) -> dict[str, object]:
    """Returns the content of `request.json`; all paths in it are absolute."""
    parent = office.store.get(ModelVersionRecord, run.campaign_id, run.parent_version)
    folder = office.folder.resolve()
    return {
        "campaign_id": run.campaign_id.hex(),
        "run": run.run,
        "version": run.next_version,
        "parent_version": run.parent_version,
        "parent_bundle": str(folder / parent.path) if parent else None,
        "family": campaign.family or campaign.kind,
        "features": {**campaign.features, "kind": campaign.kind},
        "network": dict(campaign.network),
        "settings": dict(campaign.training),
        "label_schema": json.loads(campaign.label_schema.canonical_json()),
        "label_counts": label_counts(office, campaign, run.campaign_id),
        "first_label_count": _first_label_count(campaign),
        "seed": campaign.seed,
        "created_at": run.started_at,
        "expires_at": run.started_at + campaign.bundle_lifetime_days * 86_400,
        "release_key": str(folder / "identity" / "release.key"),
        "superlink": office.config.superlink_address,
        "superlink_authority": str(folder / "identity" / "ca.pem"),
        "nodes": str(folder / "nodes"),
    }


def _first_label_count(campaign: Campaign) -> int:
    """Labels of the first cycle; 0, so that cells stay as many as ever, where counts get noise."""
    return campaign.cycle_budget_labels if campaign.egress == "rows" else 0


def label_counts(office: Office, campaign: Campaign, campaign_id: bytes) -> dict[str, int]:
    """Returns the labels of each site: as its portal reported, at least what the ledger knows."""
    counts = dict.fromkeys(campaign.sites, 0)
    for grant in office.ledger.grants(campaign_id):
        if grant.state is GrantState.LABELED:
            counts[grant.terms.site_id] = counts.get(grant.terms.site_id, 0) + 1
    for report in office.store.find(SiteReportRecord, campaign_id=campaign_id):
        counts[report.site_id] = max(counts.get(report.site_id, 0), report.label_count)
    return counts


def _submit(office: Office, campaign: Campaign, run: TrainingRunRecord) -> TrainingRunRecord:
    request = json.dumps(request_of(office, campaign, run), indent=1, sort_keys=True)
    write_durably(office.folder / run.folder / REQUEST_FILE, request.encode(), mode=0o600)
    return _start(office, _move(office, run, TrainingState.SUBMITTED))


def _start(office: Office, run: TrainingRunRecord) -> TrainingRunRecord:
    folder = (office.folder / run.folder).resolve()
    action = "init-model" if run.first else "train"
    program, *options = office.config.federation_command
    command = [_found(program), *options, action, str(folder / REQUEST_FILE)]
    attempted = replace(run, attempts=run.attempts + 1)
    with office.store.transaction() as writer:
        writer.put(attempted)
    try:
        training_process.start(folder, command)
    except OSError as error:
        sentence = f"{command[0]} cannot be started: {error.strerror}"
        return _move(office, attempted, TrainingState.ABORTED, error=sentence)
    return attempted


def _found(program: str) -> str:
    # Beside our own interpreter too: a service manager's PATH rarely holds a virtual environment.
    folders = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    return shutil.which(program, path=folders) or program


def _watch(office: Office, campaign: Campaign, run: TrainingRunRecord) -> TrainingRunRecord:
    del campaign
    folder = (office.folder / run.folder).resolve()
    # The lock is looked at first: what a child wrote before its end is then surely seen.
    running = training_process.is_running(folder)
    progress = training_process.read_progress(folder)
    if progress.state == "candidate" and not running:
        return _move(office, run, TrainingState.CANDIDATE)
    if not running and progress.state == "failed":
        return _move(office, run, TrainingState.ABORTED, error=progress.error or "training failed")
    if not running:
        if run.attempts >= office.config.training_attempts_max:
            sentence = f"training ended {run.attempts} times without a result; see child.log"
            return _move(office, run, TrainingState.ABORTED, error=sentence)
        return _start(office, run)
    if progress.state == "training" and run.state is TrainingState.SUBMITTED:
        return _move(office, run, TrainingState.TRAINING)
    if (progress.round, progress.rounds) != (run.round, run.rounds):
        run = replace(run, round=progress.round, rounds=progress.rounds)
        with office.store.transaction() as writer:
            writer.put(run)
    return run


def _gate(office: Office, campaign: Campaign, run: TrainingRunRecord) -> TrainingRunRecord:
    try:
        version = read_bundle(office, run)
    except BundleRefused as error:
        return _move(office, run, TrainingState.ROLLED_BACK, error=str(error))
    released = evaluation_of(released_record(office, campaign, run.campaign_id))
    because = passes_gate(
        evaluation_of(version) or Evaluation(),
        released,
        accuracy_drop_max=campaign.accuracy_drop_max,
    )
    if because is not None:
        refused = with_state(version, VersionState.ROLLED_BACK)
        return _move(office, run, TrainingState.ROLLED_BACK, refused, error=because)
    return _move(office, run, TrainingState.GATED, version)


def _version(office: Office, run: TrainingRunRecord) -> ModelVersionRecord:
    version = office.store.get(ModelVersionRecord, run.campaign_id, run.next_version)
    if version is None:
        raise LookupError(f"version {run.next_version} of {run.campaign_id.hex()}")
    return version


def _release(office: Office, campaign: Campaign, run: TrainingRunRecord) -> TrainingRunRecord:
    version = _version(office, run)
    # There is nothing to compare the first model with, and no agent to lose anything by it.
    if campaign.canary_ratio > 0 and not run.first:
        canary = with_state(version, VersionState.CANARY)
        return _move(office, run, TrainingState.CANARY, canary)
    released = with_state(version, VersionState.RELEASED)
    return _move(office, run, TrainingState.RELEASED, released)


def _judge_canary(office: Office, campaign: Campaign, run: TrainingRunRecord) -> TrainingRunRecord:
    version = _version(office, run)
    group, reports = canary_reports(office, campaign, version)
    timed_out = office.clock() - run.state_at >= campaign.canary_timeout_seconds
    verdict = judge_canary(group, reports, timed_out=timed_out)
    if verdict is CanaryVerdict.PROMOTE:
        released = with_state(version, VersionState.RELEASED)
        return _move(office, run, TrainingState.RELEASED, released)
    if verdict is CanaryVerdict.ROLL_BACK:
        refused = with_state(version, VersionState.ROLLED_BACK)
        sentence = "agents of the canary refused it or stayed silent"
        return _move(office, run, TrainingState.ROLLED_BACK, refused, error=sentence)
    return run
