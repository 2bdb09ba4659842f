"""What an unmasking may become, and when. Pure.

    ASKED ──yes──> APPROVED ──open──> OPENED ──device──> ANSWERED ──shown──> SHOWN
      └─no──> DECLINED                  └──device──> REFUSED | GONE | UNKNOWN

A state whose time is up counts as EXPIRED.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from review_portal.core.model import Kind, Refusal, Role

ASK_SECONDS = 7 * 86400.0
"""How long a question waits for a second person."""
APPROVAL_SECONDS = 86400.0
"""How long a yes holds until the expert looks."""
VIEWING_SECONDS = 120.0
"""How long one viewing lasts, the device's answer included."""
NOTE_LENGTH_MIN = 10
NOTE_LENGTH_MAX = 500
WAITING_MAX = 20
"""Questions of one expert that may be open at once."""
REASON_CODES = ("decision", "safety", "masking_wrong")
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]*)_\d+>")
_PORTALS_OWN = "REPORTED"

Span = tuple[int, int, str]


class UnmaskState(StrEnum):
    """Where an unmasking stands."""

    ASKED = "ASKED"
    APPROVED = "APPROVED"
    DECLINED = "DECLINED"
    OPENED = "OPENED"
    """The expert looks now; the device may answer."""
    ANSWERED = "ANSWERED"
    """The words are in this process's memory, for one viewing."""
    SHOWN = "SHOWN"
    REFUSED = "REFUSED"
    GONE = "GONE"
    UNKNOWN = "UNKNOWN"
    EXPIRED = "EXPIRED"


PASSING = frozenset(
    {UnmaskState.ASKED, UnmaskState.APPROVED, UnmaskState.OPENED, UnmaskState.ANSWERED}
)


def state_at(state: UnmaskState, until: float, now: float) -> UnmaskState:
    """Returns where an unmasking stands at a moment.

    >>> str(state_at(UnmaskState.APPROVED, 10.0, 11.0)), str(state_at(UnmaskState.SHOWN, 10.0, 11))
    ('EXPIRED', 'SHOWN')
    """
    return UnmaskState.EXPIRED if state in PASSING and now >= until else state


def placeholders(kind: Kind, text: str, spans: Sequence[Span]) -> tuple[str, ...]:
    """Returns the placeholders of an item that a device can say more about, each once.

    Words that experts reported were replaced here, not on the device, so it cannot name them.

    >>> placeholders(Kind.TEXT, "<PERSON_1> and <REPORTED_1>", ((0, 10, "PERSON"),))
    ('<PERSON_1>',)
    """
    if kind is not Kind.TEXT:
        return ()
    found = (text[start:end] for start, end, name in spans if name != _PORTALS_OWN)
    return tuple(dict.fromkeys(word for word in found if _PLACEHOLDER.fullmatch(word)))


def entity_type(placeholder: str) -> str:
    """Returns what sort of thing a placeholder hides.

    >>> entity_type("<EMAIL_ADDRESS_12>")
    'EMAIL_ADDRESS'
    """
    found = _PLACEHOLDER.fullmatch(placeholder)
    return found[1] if found else ""


def check_reason(reason_code: str, note: str) -> Refusal | None:
    """Returns why a reason is not enough, or None.

    >>> check_reason("decision", "because").reason
    'UNMASK_NOTE'
    """
    if reason_code not in REASON_CODES:
        return Refusal("UNMASK_REASON", "choose one of the reasons")
    if not NOTE_LENGTH_MIN <= len(note.strip()) <= NOTE_LENGTH_MAX:
        return Refusal(
            "UNMASK_NOTE", f"say why in {NOTE_LENGTH_MIN} to {NOTE_LENGTH_MAX} characters"
        )
    return None


def check_decider(asked_by: int, decider: int, role: Role) -> Refusal | None:
    """Returns why somebody may not decide on a question, or None.

    >>> check_decider(4, 4, Role.SITE_LEAD).reason, check_decider(4, 5, Role.EXPERT).reason
    ('UNMASK_SECOND_PERSON', 'ROLE')
    """
    if role is not Role.SITE_LEAD:
        return Refusal("ROLE", "the site lead decides on unmasking")
    if asked_by == decider:
        return Refusal("UNMASK_SECOND_PERSON", "a second person decides on your question")
    return None
