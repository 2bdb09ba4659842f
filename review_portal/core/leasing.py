"""Who may answer what, until when. The store's SQL follows these rules; tests compare the two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from review_portal.core.model import SlotState


@dataclass(frozen=True)
class Slot:
    """One wanted answer.

    Attributes:
        slot_id: Ascending number.
        subject_id: The sample behind it; nobody answers two slots of one subject, repeats apart.
        state: Life of the slot.
        priority: Lower comes first.
        reserved_for: The only expert who may take it, or None.
        expert_id: Holder of the lease, or who answered.
        lease_until: End of the lease, seconds since the epoch.
    """

    slot_id: int
    subject_id: bytes
    state: SlotState = SlotState.OPEN
    priority: int = 0
    reserved_for: int | None = None
    expert_id: int | None = None
    lease_until: float = 0.0


def is_free(slot: Slot, *, now: float) -> bool:
    """Returns whether nobody holds the slot: it is open, or its lease ran out.

    >>> is_free(Slot(1, b"a", SlotState.LEASED, lease_until=5.0), now=5.0)
    True
    """
    if slot.state is SlotState.LEASED:
        return slot.lease_until <= now
    return slot.state is SlotState.OPEN


def is_taken(slot: Slot, *, now: float) -> bool:
    """Returns whether somebody holds the slot or has answered it.

    >>> is_taken(Slot(1, b"a", SlotState.VOID), now=0.0)
    False
    """
    return slot.state is SlotState.DONE or (
        slot.state is SlotState.LEASED and not is_free(slot, now=now)
    )


def choose_slots(
    slots: Iterable[Slot], *, expert_id: int, count: int, now: float
) -> tuple[int, ...]:
    """Chooses the slots that an expert leases next.

    An expert never gets two slots of one subject, and none of a subject that was theirs before,
    unless the slot is reserved for them (hidden gold and repeats are).

    Returns:
        Slot ids, reserved ones first, then by priority and age; at most `count`.

    >>> pool = [Slot(1, b"a", expert_id=7, state=SlotState.DONE), Slot(2, b"a"), Slot(3, b"b")]
    >>> choose_slots(pool, expert_id=7, count=5, now=0.0)
    (3,)
    >>> choose_slots(pool, expert_id=8, count=5, now=0.0)
    (2, 3)
    """
    known = tuple(slots)
    touched = {
        slot.subject_id for slot in known if slot.expert_id == expert_id and is_taken(slot, now=now)
    }
    chosen: list[int] = []
    for slot in sorted(known, key=lambda s: (s.reserved_for is None, s.priority, s.slot_id)):
        if len(chosen) == count:
            break
        if not is_free(slot, now=now) or slot.reserved_for not in {None, expert_id}:
            continue
        if slot.reserved_for is None:
            if slot.subject_id in touched:
                continue
            touched.add(slot.subject_id)
        chosen.append(slot.slot_id)
    return tuple(chosen)
