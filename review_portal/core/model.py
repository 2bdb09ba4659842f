"""The portal's nouns as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Kind(StrEnum):
    """What an item shows."""

    TEXT = "text"
    IMAGE = "image"
    SERIES = "series"
    RECORD = "record"


class AnswerMode(StrEnum):
    """What an expert answers with."""

    SINGLE = "single"
    MULTI = "multi"
    SPANS = "spans"


class Role(StrEnum):
    """What a person of the site is trusted with."""

    EXPERT = "expert"
    ADJUDICATOR = "adjudicator"
    SITE_LEAD = "site_lead"
    AUDITOR = "auditor"


class ItemState(StrEnum):
    """Life of an item. All but the first three are final for its grant."""

    HELD = "HELD"
    OPEN = "OPEN"
    DISPUTED = "DISPUTED"
    LABELED = "LABELED"
    ABSTAINED = "ABSTAINED"
    EXPIRED = "EXPIRED"
    DECLINED = "DECLINED"


class SlotState(IntEnum):
    """Life of one wanted answer."""

    OPEN = 0
    LEASED = 1
    DONE = 2
    VOID = 3


class Purpose(StrEnum):
    """Why an answer is wanted. Experts never see it."""

    WORK = "work"
    GOLD = "gold"
    REPEAT = "repeat"
    ADJUDICATION = "adjudication"
    AUDIT = "audit"
    LATE = "late"


class Origin(StrEnum):
    """Who made a label."""

    EXPERT = "expert"
    IMPORT = "import"
    AUTO = "auto"


class Settlement(StrEnum):
    """How a label came to be."""

    SINGLE = "single"
    AGREEMENT = "agreement"
    MAJORITY = "majority"
    ADJUDICATION = "adjudication"
    IMPORT = "import"
    AUTO = "auto"
    WITHDRAWN = "withdrawn"


class GrantReason(StrEnum):
    """Why the federation asked for an item."""

    USEFUL = "useful"
    EXPLORE = "explore"
    OVERLAP = "overlap"
    CLASS_FLOOR = "class_floor"


@dataclass(frozen=True)
class Campaign:
    """A campaign as the site knows it.

    Attributes:
        campaign_id: 16 bytes.
        name: Short name, unique at the site.
        kind: What its items show.
        state: ACTIVE, PAUSED or COMPLETED.
        overlap_count: Experts asked per item, 1 to 5.
        guideline: Markdown for experts.
        schema_version: Version of the label schema in force.
        classes: Class names in order.
    """

    campaign_id: bytes
    name: str
    kind: Kind
    state: str
    overlap_count: int
    guideline: str
    schema_version: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class GrantView:
    """The permission under which an item came here.

    Attributes:
        grant_id: 16 bytes.
        candidate_id: 16 bytes.
        reason: Why the coordinator asked.
        expire_at: Seconds since the epoch after which the grant is void.
        ledger_sequence: Its place in the coordinator's ledger; experts see items in this order.
        model_version: Version whose scores led to the grant.
    """

    grant_id: bytes
    candidate_id: bytes
    reason: GrantReason
    expire_at: float
    ledger_sequence: int
    model_version: int


@dataclass(frozen=True)
class MaskView:
    """What was masked before the item came here.

    Attributes:
        policy_version: Version of the masking policy.
        level: strict, balanced, light or none.
        verified: Whether a second pass found nothing.
        spans: (start, end, entity type) in Unicode code points of the masked text.
    """

    policy_version: str
    level: str
    verified: bool
    spans: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class NewItem:
    """An item on its way into the label store.

    Attributes:
        item_id: 16 bytes.
        campaign_id: 16 bytes.
        kind: What it shows.
        content: Masked content, encoded as the kind says.
        split: train or test.
        mask: What was masked.
        grant: None for imported items.
        probabilities: Class probabilities of the device's model; empty when unknown.
        model_version: Version behind the probabilities.
        prototype_class: Class of the nearest prototype.
        margin: Acquisition score in 1/63.
        language: BCP 47, empty when unknown.
    """

    item_id: bytes
    campaign_id: bytes
    kind: Kind
    content: bytes
    mask: MaskView
    split: str = "train"
    grant: GrantView | None = None
    probabilities: tuple[float, ...] = ()
    model_version: int = 0
    prototype_class: int | None = None
    margin: int = 0
    language: str = ""


NOTHING = "none"
"""Key of a span answer without any span."""


@dataclass(frozen=True)
class Answer:
    """What an expert says about one item.

    Attributes:
        class_index: The class, or None for an abstention ("can't tell").
        class_indices: All classes of a multiple choice, ascending.
        spans: (start, end, class index) of a span answer, ascending.
        is_nothing: True for a span answer that found nothing to mark.

    >>> Answer(class_index=3).key
    '3'
    >>> Answer(class_index=None).key is None
    True
    >>> Answer(class_index=1, class_indices=(1, 4)).key, Answer(None, is_nothing=True).key
    ('1,4', 'none')
    """

    class_index: int | None
    class_indices: tuple[int, ...] = ()
    spans: tuple[tuple[int, int, int], ...] = ()
    is_nothing: bool = False

    @property
    def key(self) -> str | None:
        """One text per distinct answer, so that answers can be compared; None for an abstention."""
        if self.spans:
            return ";".join(f"{start}-{end}:{index}" for start, end, index in self.spans)
        if self.class_indices:
            return ",".join(str(index) for index in self.class_indices)
        if self.is_nothing:
            return NOTHING
        return None if self.class_index is None else str(self.class_index)


@dataclass(frozen=True)
class Decision:
    """An answer as it arrives from a browser or a script.

    Attributes:
        item_id: 16 bytes.
        answer: What the expert says.
        seconds: Active seconds that the decision took, 0 to 3600.
        client_token: Made by the client, 8 to 64 characters; a repeat gets the first receipt.
        lease_id: Lease under which the item was shown; None lets the store find it.
        note: Reasoning, up to 4,000 characters; becomes part of the site's case law.
        suggestion_shown: Whether the suggestion was visible.
        reason_code: For an abstention, one of `store.annotations.REASON_CODES`.
        schema_version: Label schema whose classes were shown; 0 for the present one.
        content_sha256: Of the text that was shown; empty when the client does not say.
    """

    item_id: bytes
    answer: Answer
    seconds: float
    client_token: str
    lease_id: str | None = None
    note: str = ""
    suggestion_shown: bool = True
    reason_code: str = ""
    schema_version: int = 0
    content_sha256: bytes = b""


@dataclass(frozen=True)
class Receipt:
    """What became of a decision.

    Attributes:
        stored: stored, duplicate or late. Late answers are kept but settle nothing.
        item_state: State of the item after it.
        annotation_id: Number of the annotation, for undo.
    """

    stored: str
    item_state: str
    annotation_id: int


@dataclass(frozen=True)
class Refusal:
    """A no with its reason.

    Attributes:
        reason: Stable upper-snake word for programs.
        message: Sentence for people, with the remedy.
    """

    reason: str
    message: str
