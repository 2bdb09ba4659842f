"""Bodies of the JSON API, as OpenAPI shows them. Ids are hex, times are seconds since 1970."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from review_portal.core.model import Role

HexId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Token = Annotated[str, Field(min_length=8, max_length=64)]


class Body(BaseModel):
    """A request body; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class SpanBody(Body):
    """One span of text: code points from start to before end."""

    start: int = Field(ge=0)
    end: int = Field(ge=1)
    class_index: int = Field(ge=0)


class AnnotationBody(Body):
    """A decision about one item. `class_index` null, with nothing else, is an abstention.

    An empty list of `spans` says that there is nothing to mark. Who sends the `schema_version` and
    the `content_sha256` that were shown gets answers right that come after either has changed.
    """

    item_id: HexId
    class_index: int | None = Field(None, ge=0)
    class_indices: list[int] = Field(default_factory=list, max_length=200)
    spans: list[SpanBody] | None = Field(None, max_length=2000)
    seconds: float = Field(0.0, ge=0)
    client_token: Token
    lease_id: str | None = Field(None, max_length=80)
    note: str = Field("", max_length=4000)
    suggestion_shown: bool = True
    reason_code: Literal[
        "", "unclear", "out_of_scope", "needs_specialist", "personal_information"
    ] = ""
    schema_version: int = Field(0, ge=0)
    content_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")


class AnnotationsBody(Body):
    """Up to 50 decisions, answered one by one."""

    annotations: list[AnnotationBody] = Field(min_length=1, max_length=50)


class ReceiptBody(BaseModel):
    """What became of a decision: stored, duplicate, late or refused."""

    stored: str
    item_state: str
    annotation_id: int
    client_token: str = ""
    reason: str = ""
    message: str = ""


class UndoBody(Body):
    """Takes the last decision back, or a named one among the last 20."""

    client_token: Token
    of_token: Token | None = None


class SkipBody(Body):
    """Puts an item off: somebody else gets it, or the caller tomorrow."""

    item_id: HexId


class LeasesBody(Body):
    """Leases to give back."""

    lease_ids: list[Annotated[str, Field(max_length=80)]] = Field(max_length=50)


class FlagBody(Body):
    """Something is wrong with an item; for personal data, the words that got through masking.

    Several names or numbers stand on a line each. A repeat of `client_token` adds nothing.
    """

    item_id: HexId
    reason_code: Literal["personal_information", "wrong_content", "guideline_unclear", "other"]
    note: str = Field("", max_length=4000)
    words: str = Field("", max_length=2000)
    client_token: str = Field("", max_length=64)

    @model_validator(mode="after")
    def _words_are_a_leak(self) -> FlagBody:
        if self.words.strip() and self.reason_code != "personal_information":
            raise ValueError("words go with the reason personal_information only")
        return self


CampaignName = Annotated[str, Field(max_length=80)]
BatchToken = Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")]


class AdjudicationForm(BaseModel):
    """The form of one dispute: a class, -1 for "nobody can tell", or the letter of an answer."""

    item_id: HexId
    choice: str = Field(pattern=r"^(-1|[0-9]{1,4}|[A-Z])$")
    note: str = Field(max_length=4000)
    campaign: CampaignName = ""


class BulkForm(BaseModel):
    """One answer for a group of items; their ids, and the proof of each lease, split by commas."""

    item_ids: str = Field(pattern=r"^[0-9a-f]{32}(,[0-9a-f]{32}){0,49}$")
    lease_ids: str = Field(
        pattern=r"^[0-9a-f]{32}\.[0-9a-f]{32}(,[0-9a-f]{32}\.[0-9a-f]{32}){0,49}$"
    )
    class_index: int = Field(ge=0)
    token: BatchToken
    campaign: CampaignName


class BulkQuery(BaseModel):
    """Which campaign's look-alikes, and what the last approval did."""

    campaign: str = Field("", max_length=80)
    done: str = Field("", pattern=r"^[0-9a-zA-Z]{0,64}$")
    missed: int = Field(0, ge=0)


class BulkUndoForm(BaseModel):
    """Which approval to take back."""

    token: BatchToken
    campaign: CampaignName


class NewPersonForm(BaseModel):
    """Somebody who gets a login."""

    username: str = Field(max_length=40)
    password: str = Field(max_length=256)
    role: Role
    display_name: str = Field("", max_length=80)


class PersonForm(BaseModel):
    """What somebody may do, and when."""

    role: Role
    hours_per_day: float = Field(1.0, ge=0, le=24)
    daily_quota: int = Field(0, ge=0)
    languages: str = Field("", max_length=200)
    skills: str = Field("", max_length=400)
    is_disabled: Literal["", "on"] = ""


class PreferencesBody(Body):
    """Choices of one's own; absent ones stay as they are."""

    theme: Literal["auto", "light", "dark"] | None = None
    single_keys: bool | None = None
    suggestions: bool | None = None
    evidence: bool | None = None
    keys: dict[str, list[Annotated[str, Field(max_length=20)]]] | None = None


class SuggestionBody(BaseModel):
    """What the model says. `confidence` is corrected by how often it was right at this site."""

    class_index: int
    confidence: float
    raw_confidence: float


class ItemBody(BaseModel):
    """An item on an expert's desk. One of text, image_png, series and record is there."""

    item_id: str
    lease_id: str
    lease_until: float
    kind: str
    text: str | None = None
    image_png: str | None = Field(None, description="base64; left out above 256 KiB")
    content_url: str | None = None
    series: list[list[float]] | None = Field(None, description="steps, each a value per channel")
    record: dict[str, Any] | None = None
    suggestion: SuggestionBody | None
    probabilities: list[float]
    prototype_class: int | None
    reason: str
    margin: int
    model_version: int
    language: str
    mask_level: str
    mask_spans: list[tuple[int, int, str]]
    evidence: list[tuple[int, int]] = Field(
        default_factory=list, description="words typical of the suggestion at this site"
    )
    candidate_id: str
    content_sha256: str


class CampaignBody(BaseModel):
    """A campaign and how far it is."""

    campaign_id: str
    name: str
    kind: str
    state: str
    answer_mode: str
    classes: list[str]
    schema_version: int
    guideline: str
    open_count: int
    labeled_count: int
    disputed_count: int
    held_count: int


class ExampleBody(BaseModel):
    """An item that shows what a class means."""

    class_index: int
    kind: str
    text: str | None = None
    image_png: str | None = None
    content_url: str | None = None
    series: list[list[float]] | None = None
    record: dict[str, Any] | None = None
    mask_spans: list[tuple[int, int, str]]
    language: str = ""


class QueueBody(BaseModel):
    """Items on the expert's desk and how many wait behind them."""

    campaign_id: str
    lease_seconds: float
    waiting_count: int
    items: list[ItemBody]


class UnmaskForm(BaseModel):
    """What an expert asks about a placeholder; the store checks reason and note."""

    item_id: HexId
    placeholder: Annotated[str, Field(max_length=80)]
    reason_code: Annotated[str, Field(max_length=40)]
    note: Annotated[str, Field(max_length=2000)]


class UnmaskedBody(BaseModel):
    """How far a viewing is. The words come once, and only with the state SHOWN."""

    state: str
    words: list[str] = []


class SessionBody(BaseModel):
    """Who is logged in. Without a login, `csrf_token` is the one for the login form."""

    authenticated: bool
    csrf_token: str
    username: str = ""
    display_name: str = ""
    role: str = ""
