"""The intake's part of unmasking: what a device is asked, and what becomes of its answer."""

from __future__ import annotations

from dataclasses import dataclass

from perimeter.v1 import item_pb2

from review_portal.core.model import Refusal
from review_portal.core.unmasking import VIEWING_SECONDS, UnmaskState
from review_portal.label_store import LabelStore
from review_portal.store import unmaskings
from review_portal.unmask_words import HeldWords

WORDS_MAX = 20
WORD_LENGTH_MAX = 1000
STATES = {
    item_pb2.UNMASKING_ANSWER_SHOWN: UnmaskState.ANSWERED,
    item_pb2.UNMASKING_ANSWER_REFUSED: UnmaskState.REFUSED,
    item_pb2.UNMASKING_ANSWER_GONE: UnmaskState.GONE,
    item_pb2.UNMASKING_ANSWER_UNKNOWN: UnmaskState.UNKNOWN,
}


@dataclass(frozen=True)
class AnswerDesk:
    """Where a device's answer goes.

    Attributes:
        store: Everything but the words.
        words: The words, in memory.
        agent_name: The device, by its certificate.
        now: Seconds since the epoch.
    """

    store: LabelStore
    words: HeldWords
    agent_name: str
    now: float


def waiting(store: LabelStore, agent_name: str, now: float) -> list[item_pb2.Unmasking]:
    """Returns the viewings that wait for this device."""
    found = store.database.read(lambda c: unmaskings.due(c, agent_name, now))
    return [
        item_pb2.Unmasking(unmasking_id=unmasking_id, grant_id=grant_id, placeholder=placeholder)
        for unmasking_id, grant_id, placeholder in found
    ]


def take(desk: AnswerDesk, request: item_pb2.AnswerUnmaskingRequest) -> bool | Refusal:
    """Takes an answer. The words stay in memory; nothing is kept when nobody waits for them.

    Returns:
        Whether somebody waits, or a refusal.
    """
    refused = check_answer(request)
    if refused is not None:
        return refused
    state = STATES[request.answer]
    answer = unmaskings.DeviceAnswer(
        request.unmasking_id, desk.agent_name, state, request.device_record.hex()
    )
    if state is UnmaskState.ANSWERED:
        # Before the store says so: a page that asks in between must find them.
        until = desk.now + VIEWING_SECONDS
        desk.words.put(request.unmasking_id, tuple(request.words), until=until, now=desk.now)
    taken = desk.store.database.write(lambda c: unmaskings.answered(c, answer, desk.now))
    if taken is None:
        desk.words.take(request.unmasking_id, desk.now)
    return taken is not None


def check_answer(request: item_pb2.AnswerUnmaskingRequest) -> Refusal | None:
    """Returns why an answer cannot be taken, or None. The text never repeats the words."""
    if len(request.unmasking_id) != 16 or len(request.device_record) != 32:
        return Refusal("UNMASK_MALFORMED", "the id has 16 bytes and the device's record 32")
    if request.answer not in STATES:
        return Refusal("UNMASK_MALFORMED", "the answer is none of those that there are")
    has_words = request.answer == item_pb2.UNMASKING_ANSWER_SHOWN
    if has_words != bool(request.words) or len(request.words) > WORDS_MAX:
        return Refusal("UNMASK_MALFORMED", f"1 to {WORDS_MAX} stretches come with SHOWN alone")
    if any(not 0 < len(word) <= WORD_LENGTH_MAX for word in request.words):
        return Refusal("UNMASK_MALFORMED", f"a stretch has 1 to {WORD_LENGTH_MAX} characters")
    return None
