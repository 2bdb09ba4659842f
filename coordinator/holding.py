"""Campaigns with ``stop = "hold"``: no grants once the data say that labels are not worth it.

A held campaign is paused, and the audit log says at which cycle and why. When the operator resumes
it, that cycle goes on, and the next one is judged anew.
"""

from __future__ import annotations

from dataclasses import replace

from coordinator.advice import stop_advice
from coordinator.agreement import change_waiting
from coordinator.core.campaign import Campaign, CampaignState
from coordinator.core.records import AuditRecord, CampaignRecord
from coordinator.observation import floors_are_met, history_of, unlabelled_row
from coordinator.office import Office
from coordinator.store import Writer

HELD = "campaign held"


def reasons_to_hold(
    office: Office, campaign: Campaign, campaign_id: bytes, cycle: int
) -> tuple[str, ...]:
    """Returns why a cycle should grant nothing; empty where it may.

    The version that scored the waiting pool counts too, by what it changed; no label of this cycle
    is needed for that. Nothing is held where the campaign takes advice only, and where the operator
    has resumed it at this very cycle.
    """
    if campaign.stop != "hold":
        return ()
    subject = _subject(campaign_id, cycle)
    if office.store.find(AuditRecord, action=HELD, subject=subject):
        return ()
    history = history_of(office, campaign, campaign_id)
    waiting = change_waiting(office, campaign, campaign_id, cycle)
    if waiting is not None:
        history.append(unlabelled_row(cycle, waiting))
    advice = stop_advice(
        history,
        floors_met=floors_are_met(office, campaign, campaign_id),
        least_gain_per_cost=campaign.price,
    )
    return advice.reasons


def hold(office: Office, record: CampaignRecord, cycle: int, reasons: tuple[str, ...]) -> None:
    """Pauses a campaign before a cycle's grants and writes down that it was held."""

    def write(writer: Writer) -> None:
        writer.put(replace(record, state=CampaignState.PAUSED))
        writer.note(office.clock(), HELD, _subject(record.campaign_id, cycle))

    office.commit((), write)
    office.reasons[record.campaign_id] = (
        f"held before cycle {cycle}: {' '.join(reasons)} Resume the campaign to go on."
    )


def _subject(campaign_id: bytes, cycle: int) -> str:
    return f"{campaign_id.hex()} cycle {cycle}"
