"""A campaign: one labeling goal with its schema, sites, budget and cycle rules. Pure values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any

from coordinator.errors import CampaignInvalid
from model_bundle.errors import SchemaInvalid
from model_bundle.label_schema import LabelSchema

SLUG = re.compile(r"[a-z0-9-]{1,40}")
KINDS = ("text", "image", "series", "record")
VIEWS = ("masked", "raw")
EGRESS_MODES = ("rows", "histogram")
STOP_MODES = ("advise", "hold")
BUDGET_LABELS_MAX = 10_000_000
GUIDELINE_LENGTH_MAX = 100_000


class CampaignState(StrEnum):
    """Whether a campaign grants and trains."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"


PASSED_ON = ("features", "network", "training")
"""Tables of a campaign that go to the federation as they are."""


@dataclass(frozen=True)
class Campaign:
    """Settings of a campaign; they never change after it was created.

    Attributes:
        name: Short name, [a-z0-9-], 1 to 40 characters.
        kind: text, image, series or record.
        classes: Class names in order; the position is the class index.
        sites: Ids of the sites that take part.
        budget_labels: Labels that may be spent in all.
        cycle_budget_labels: Labels granted in one cycle at most.
        cycles: Training cycles after which the campaign is complete.
        min_new_labels: Fewer new labels than this start no training.
        explore_ratio: Share of a cycle's budget drawn by chance, 0 to 1.
        site_share_cap: Share of the budget, and of each cycle's, that one site may take, above 0
            to 1; at 1 a site may take twice an equal share of a cycle.
        class_floor_labels: Labels that every class should have in all, 0 for no floor.
        overlap_count: Experts who may be asked about one item, 1 to 5.
        overlap_ratio: Share of a cycle's budget for second questions when overlap_count > 1.
        grant_lifetime_seconds: Time after which an unanswered grant is void.
        pool_timeout_seconds: How long a cycle waits for sites that have not scored their pool.
        label_timeout_seconds: How long labeling may last before training starts without the rest.
        view: masked or raw: what scoring and training look at.
        guideline: For experts, Markdown.
        class_guidelines: Class name to a sentence for experts.
        family: Model family; empty for the one named like the kind.
        features: Feature extraction settings, passed through to the federation.
        network: Sizes of the network, passed through to the federation.
        training: Training settings, passed through to the federation.
        seed: Fixes initial parameters and the order of examples.
        bundle_lifetime_days: After so many days a version is not installed any more.
        canary_ratio: Share of agents that get a new version first, 0 for all at once.
        canary_timeout_seconds: How long a canary waits for its agents' reports.
        egress: rows, or histogram: no candidate rows leave a site, only noised counts by cell and
            score; each device fills the grants it gets with its own best samples.
        merge_equal_rows: Devices send rows that are equal in every column only as often as the site
            may be asked for in a cycle, and count the rest; off when False.
        epsilon_release: Privacy loss of one histogram, 0.001 to 100.
        epsilon_total: Privacy loss of all histograms of a device; then no more are sent.
        stop: advise, or hold: where the data say that more labels are not worth it, the campaign
            pauses before the next cycle's grants until the operator resumes it.
        price: Accuracy that one label must bring to be worth it, as a ratio; 0 for no price.
        accuracy_drop_max: A candidate this much less accurate than the released one is rolled back.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    sites: tuple[str, ...]
    budget_labels: int
    cycle_budget_labels: int
    cycles: int
    min_new_labels: int = 1
    explore_ratio: float = 0.1
    site_share_cap: float = 1.0
    class_floor_labels: int = 0
    overlap_count: int = 1
    overlap_ratio: float = 0.1
    grant_lifetime_seconds: int = 7 * 86_400
    pool_timeout_seconds: int = 86_400
    label_timeout_seconds: int = 14 * 86_400
    view: str = "masked"
    guideline: str = ""
    class_guidelines: Mapping[str, str] = field(default_factory=dict)
    family: str = ""
    features: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    bundle_lifetime_days: int = 90
    canary_ratio: float = 0.0
    canary_timeout_seconds: int = 86_400
    accuracy_drop_max: float = 0.1
    egress: str = "rows"
    epsilon_release: float = 0.5
    epsilon_total: float = 3.0
    stop: str = "advise"
    price: float = 0.0
    merge_equal_rows: bool = False

    def __post_init__(self) -> None:
        _check_names(self)
        _check_ranges(self)

    @property
    def label_schema(self) -> LabelSchema:
        """The ordered classes as the bundle knows them."""
        return LabelSchema(tuple(self.classes))

    @property
    def passed_on(self) -> dict[str, dict[str, Any]]:
        """The tables that the federation reads, by name."""
        return {name: dict(getattr(self, name)) for name in PASSED_ON}

    @property
    def site_cap_labels(self) -> int:
        """Labels that one site may take of the whole budget; at least 1."""
        return max(1, math.floor(self.site_share_cap * self.budget_labels))

    @property
    def equal_rows_max(self) -> int:
        """Rows of a kind that a device sends with their id, 0 for all.

        >>> campaign = Campaign("c", "text", ("a", "b"), ("s", "t"), 500, 50, 2)
        >>> from dataclasses import replace
        >>> replace(campaign, merge_equal_rows=True, site_share_cap=0.2).equal_rows_max
        10
        """
        if not self.merge_equal_rows:
            return 0
        return max(1, math.ceil(self.site_share_cap * self.cycle_budget_labels))

    def to_mapping(self) -> dict[str, Any]:
        """Returns the settings as JSON-ready values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Campaign:
        """Reads what `to_mapping` wrote.

        Raises:
            CampaignInvalid: A key is unknown or missing, or a value breaks a rule.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise CampaignInvalid(f"unknown key {unknown[0]!r}")
        lists = {
            k: tuple(v) for k, v in values.items() if k in {"classes", "sites"} and v is not None
        }
        required = {
            f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING
        }
        missing = sorted(required - set(values))
        if missing:
            raise CampaignInvalid(f"key {missing[0]!r} is missing")
        return cls(**{**values, **lists})


def _check_names(campaign: Campaign) -> None:
    if not SLUG.fullmatch(campaign.name):
        raise CampaignInvalid(f"name {campaign.name!r} must be 1 to 40 of a-z, 0-9 and '-'")
    if campaign.kind not in KINDS:
        raise CampaignInvalid(f"kind {campaign.kind!r} is not one of {', '.join(KINDS)}")
    _check_modes(campaign)
    if not campaign.sites or len(set(campaign.sites)) != len(campaign.sites):
        raise CampaignInvalid("sites must name at least one site, each once")
    for site_id in campaign.sites:
        if not SLUG.fullmatch(site_id) or site_id == "central":
            raise CampaignInvalid(f"site {site_id!r} must be 1 to 40 of a-z, 0-9 and '-'")
    try:
        known = campaign.label_schema.classes
    except SchemaInvalid as error:
        raise CampaignInvalid(f"classes: {error}") from None
    strange = sorted(set(campaign.class_guidelines) - set(known))
    if strange:
        raise CampaignInvalid(f"a guideline names {strange[0]!r}, which is no class")
    if len(campaign.guideline) > GUIDELINE_LENGTH_MAX:
        raise CampaignInvalid(f"guideline is longer than {GUIDELINE_LENGTH_MAX} characters")


def _check_modes(campaign: Campaign) -> None:
    for key, known in (("view", VIEWS), ("stop", STOP_MODES), ("egress", EGRESS_MODES)):
        value = getattr(campaign, key)
        if value not in known:
            raise CampaignInvalid(f"{key} {value!r} is not one of {', '.join(known)}")
    if campaign.egress == "histogram" and (
        campaign.overlap_count > 1 or campaign.class_floor_labels
    ):
        raise CampaignInvalid(
            "egress histogram names no samples and no classes: "
            "set overlap_count = 1 and class_floor_labels = 0"
        )


_RANGES: dict[str, tuple[float, float]] = {
    "budget_labels": (1, BUDGET_LABELS_MAX),
    "cycle_budget_labels": (1, BUDGET_LABELS_MAX),
    "cycles": (1, 100_000),
    "min_new_labels": (1, BUDGET_LABELS_MAX),
    "explore_ratio": (0, 1),
    "site_share_cap": (1e-9, 1),
    "class_floor_labels": (0, BUDGET_LABELS_MAX),
    "overlap_count": (1, 5),
    "overlap_ratio": (0, 1),
    "grant_lifetime_seconds": (1, 366 * 86_400),
    "pool_timeout_seconds": (1, 366 * 86_400),
    "label_timeout_seconds": (1, 366 * 86_400),
    "seed": (0, 2**32 - 1),
    "bundle_lifetime_days": (1, 3_650),
    "canary_ratio": (0, 1),
    "canary_timeout_seconds": (1, 366 * 86_400),
    "accuracy_drop_max": (0, 1),
    "price": (0, 1),
    "epsilon_release": (0.001, 100),
    "epsilon_total": (0.001, 1000),
}


def _check_ranges(campaign: Campaign) -> None:
    for name, (low, high) in _RANGES.items():
        value = getattr(campaign, name)
        if not isinstance(value, int | float) or not low <= value <= high:
            raise CampaignInvalid(f"{name} must be a number from {low:g} to {high:g}")
    if campaign.cycle_budget_labels > campaign.budget_labels:
        raise CampaignInvalid("cycle_budget_labels must not be above budget_labels")
