"""The order for one training run: the file `request.json` that the coordinator writes.

All paths are absolute, or relative to the request's own folder (the run's folder). Example:

    {"campaign_id": "00112233445566778899aabbccddeeff", "run": 2, "version": 3,
     "parent_version": 2, "parent_bundle": "../run-1/bundle", "family": "image",
     "label_schema": {"classes": ["0", "1"], "version": 1},
     "features": {"kind": "image", "height": 8, "width": 8}, "seed": 7,
     "label_counts": {"north": 120, "south": 80}, "created_at": 1700000000,
     "expires_at": 1707776000, "release_key": "/srv/central/identity/release_key.pem",
     "superlink": "127.0.0.1:8000", "superlink_authority": "/srv/central/identity/ca.pem",
     "nodes": "/srv/central/nodes", "settings": {"rounds": 8}, "network": {"embedding_width": 64}}

`settings` and `network` may be left out; they hold only what differs from the defaults.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from federation.aggregation import AggregationSettings
from federation.class_texts import check_label_names, class_texts
from federation.errors import RequestInvalid
from federation.fixed_columns import fixed_width
from federation.local_settings import LocalSettings, check_spread, check_views
from federation.networks import NetworkSpec
from federation.survey_stages import CELLS_MAX
from model_bundle.errors import BundleError
from model_bundle.features import FeatureSpec
from model_bundle.label_schema import LabelSchema

REQUEST_NAME = "request.json"
SITE_COUNT_MAX = 10_000


@dataclass(frozen=True)
class RoundSettings:
    """The round loop.

    Attributes:
        rounds: Rounds of the run, 1 to 10000.
        quorum_ratio: Share of the sites online at the round's start that must answer usably, above
            0 to 1.
        quorum_count: And at least this many sites, from 1.
        round_timeout_seconds: A round closes then with what has come.
        round_attempts: Times that a round without a quorum is tried, from 1.
        node_wait_seconds: How long to wait for a quorum of nodes at the start.
        norm_ratio_max: Updates longer than this many times the median are refused, from 1.
        cell_count: Rows of the code book, 0 to 65536.
        final_rate_ratio: Sites' step size in the last round as a share of the first; in between
            it falls along a half cosine (Loshchilov and Hutter, 2017). Above 0 to 1.
        update_clip_norm: Updates are scaled down to this L2 norm; 0 for none.
        noise_multiplier: Gaussian noise on the mean, as a share of clip norm over sites; needs a
            clip norm; 0 for none (McMahan et al., "Learning differentially private recurrent
            language models", 2018).
        weight_power: A site counts by its labels to this power, 0 to 1: 1 for every label alike, 0
            for every site alike.
        compare_plain: Where a run learns from unlabelled samples, it trains without them, too, and
            keeps the model that the sites measure better; it then takes twice the rounds.
        teacher_momentum: Unlabelled samples are guessed by a running mean of the rounds' models, of
            which each round keeps this share, 0 to below 1; 0 for the round's own model. The mean
            travels with the model, so that a round brings twice the bytes to a site.
        pretrain_rounds: The first rounds learn from unlabelled samples alone; 0 to rounds - 1.
        label_names: Texts on a layer that learns without labels: what the campaign calls each class
            teaches at every site as one labelled example of it.
        first_cells: Sites find cells of alike samples for a first version also where columns are
            given (record, encoder); networks with `unsupervised_width` always do.
    """

    rounds: int = 8
    quorum_ratio: float = 0.6
    quorum_count: int = 1
    round_timeout_seconds: float = 600.0
    round_attempts: int = 3
    node_wait_seconds: float = 120.0
    norm_ratio_max: float = 10.0
    cell_count: int = 64
    final_rate_ratio: float = 0.1
    update_clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    weight_power: float = 1.0
    compare_plain: bool = True
    teacher_momentum: float = 0.8
    pretrain_rounds: int = 0
    first_cells: bool = False
    label_names: bool = False

    def __post_init__(self) -> None:
        rules = {
            "rounds": 1 <= self.rounds <= 10_000,
            "quorum_ratio": 0 < self.quorum_ratio <= 1,
            "quorum_count": self.quorum_count >= 1,
            "round_timeout_seconds": 0 < self.round_timeout_seconds <= 86_400,
            "round_attempts": 1 <= self.round_attempts <= 100,
            "node_wait_seconds": 0 <= self.node_wait_seconds <= 86_400,
            "norm_ratio_max": self.norm_ratio_max >= 1,
            "cell_count": 0 <= self.cell_count <= 65_536,
            "final_rate_ratio": 0 < self.final_rate_ratio <= 1,
            "update_clip_norm": self.update_clip_norm >= 0,
            "noise_multiplier": 0 <= self.noise_multiplier <= 100,
            "compare_plain": isinstance(self.compare_plain, bool),
            "first_cells": isinstance(self.first_cells, bool),
            "label_names": isinstance(self.label_names, bool),
            "weight_power": 0 <= self.weight_power <= 1,
            "teacher_momentum": 0 <= self.teacher_momentum < 1,
            "pretrain_rounds": 0 <= self.pretrain_rounds < self.rounds,
        }
        for name, holds in rules.items():
            if not holds:
                raise RequestInvalid(f"setting {name} is out of range: {getattr(self, name)!r}")
        if self.noise_multiplier and not self.update_clip_norm:
            raise RequestInvalid(
                "noise_multiplier needs update_clip_norm: noise hides clipped sums"
            )


_FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "text": {"optimizer": "adam", "learning_rate": 0.01},
}
"""The n-gram table sees few rows per step, which plain gradient descent learns too slowly."""


@dataclass(frozen=True)
class TrainingSettings:
    """All settings of a run; in `request.json` they stand side by side under `settings`."""

    rounds: RoundSettings = field(default_factory=RoundSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    aggregation: AggregationSettings = field(default_factory=AggregationSettings)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], family: str = "") -> TrainingSettings:
        """Sorts flat settings into the three groups; the family gives what is missing.

        Raises:
            RequestInvalid: A key is unknown or a value is out of range.

        >>> TrainingSettings.from_mapping({"rounds": 3, "batch_size": 8}).rounds.rounds
        3
        """
        groups = (RoundSettings, LocalSettings, AggregationSettings)
        known = {f.name for group in groups for f in dataclasses.fields(group)} - {"class_texts"}
        unknown = sorted(set(values) - known)
        if unknown:
            raise RequestInvalid(f"unknown setting {unknown[0]!r} in the training request")
        return cls(
            _group(RoundSettings, values),
            _group(LocalSettings, {**_FAMILY_DEFAULTS.get(family, {}), **values}),
            _group(AggregationSettings, values),
        )


G = TypeVar("G", RoundSettings, LocalSettings, AggregationSettings)


def _group(group: type[G], values: Mapping[str, Any]) -> G:
    names = {f.name for f in dataclasses.fields(group)}
    try:
        return group(**{name: values[name] for name in names & set(values)})
    except TypeError as error:
        raise RequestInvalid(f"training settings are wrong: {error}") from None


@dataclass(frozen=True)
class TrainingRequest:
    """One training run.

    Attributes:
        campaign_id: 32 hex digits.
        run: Number of the run inside its campaign, from 0 (0 makes version 1, untrained).
        version: Model version that the run makes, from 1.
        parent_version: Version to start from, 0 for a seeded start.
        parent_bundle: Its bundle file, None for a seeded start.
        network: Family and sizes, with features and class count.
        label_schema: Ordered classes.
        seed: Fixes initial parameters, order of examples and code book.
        label_counts: Training labels per site as far as the coordinator knows; caps what a site
            may claim. A site that is missing here is not capped.
        created_at: Seconds since 1970, goes into the manifest.
        expires_at: Seconds since 1970, goes into the manifest.
        release_key: PEM file (PKCS#8) of the Ed25519 key that signs bundles.
        superlink: host:port of the SuperLink.
        superlink_authority: PEM file of the authority that signed its certificate.
        nodes: Folder that maps nodes to sites (`registered.json`).
        first_label_count: Labels of the campaign's first cycle, 0 where nobody says; a first
            version looks for as many cells of alike samples.
        settings: Settings of the run.
        folder: Where the run's files lie: the folder of `request.json`.
    """

    campaign_id: str
    run: int
    version: int
    parent_version: int
    parent_bundle: Path | None
    network: NetworkSpec
    label_schema: LabelSchema
    seed: int
    label_counts: Mapping[str, int]
    created_at: int
    expires_at: int
    release_key: Path
    superlink: str
    superlink_authority: Path
    nodes: Path
    settings: TrainingSettings
    folder: Path
    first_label_count: int = 0

    @property
    def local(self) -> LocalSettings:
        """Local training, with what the classes are called where that teaches."""
        if not self.settings.rounds.label_names:
            return self.settings.local
        texts = tuple(class_texts(self.label_schema.classes))
        return dataclasses.replace(self.settings.local, class_texts=texts)

    @property
    def first_cell_count(self) -> int:
        """Cells of alike samples that the survey for a first version looks for; 0 for none."""
        rounds, asked = self.settings.rounds, bool(self.network.unsupervised_width)
        if not rounds.cell_count or not (asked or rounds.first_cells):
            return 0
        return min(self.first_label_count or rounds.cell_count, CELLS_MAX)

    @property
    def surveys_first(self) -> bool:
        """Whether sites are asked for sums before the campaign's first version is made."""
        return bool(self.superlink and (self.network.unsupervised_width or self.first_cell_count))

    @property
    def run_key(self) -> str:
        """Names this run at sites and in the SuperLink's run configuration."""
        return f"{self.campaign_id}/{self.run}/{self.version}"

    def digest(self) -> str:
        """SHA-256 in hex of what decides the result; a checkpoint of another digest is refused."""
        decisive = {
            "run_key": self.run_key,
            "network": self.network.to_mapping(),
            "schema": self.label_schema.digest().hex(),
            "seed": self.seed,
            "parent": self.parent_version,
            "settings": dataclasses.asdict(self.settings),
            "class_texts": self.local.class_texts,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


_REQUIRED = {"campaign_id", "run", "version", "family", "label_schema", "features", "seed"}
_REQUIRED |= {"created_at", "expires_at", "release_key"}
_OPTIONAL = {"parent_version", "parent_bundle", "label_counts", "superlink", "nodes"}
_OPTIONAL |= {"superlink_authority", "settings", "network", "first_label_count"}


def read_request(path: Path) -> TrainingRequest:
    """Reads `request.json`.

    Raises:
        RequestInvalid: The file is missing, is not JSON, or a key is unknown, missing or wrong.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise RequestInvalid(f"request {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise RequestInvalid(f"request {path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise RequestInvalid(f"request {path} must be a JSON object")
    return request_of(values, path.resolve().parent)


def request_of(values: Mapping[str, Any], folder: Path) -> TrainingRequest:
    """Builds a request from the values of `request.json`; relative paths start at `folder`.

    Raises:
        RequestInvalid: A key is unknown, missing or wrong; the message names it.
    """
    missing, unknown = _REQUIRED - set(values), set(values) - _REQUIRED - _OPTIONAL
    if missing or unknown:
        odd = sorted(missing or unknown)[0]
        raise RequestInvalid(f"request: key {odd!r} is {'missing' if missing else 'unknown'}")
    try:
        schema = LabelSchema.from_mapping(values["label_schema"])
        network = _network(values, len(schema))
        return TrainingRequest(
            campaign_id=_campaign(values["campaign_id"]),
            run=_whole(values, "run", least=0),
            version=_whole(values, "version", least=1),
            parent_version=_whole(values, "parent_version", least=0),
            parent_bundle=_path(values, "parent_bundle", folder),
            network=network,
            label_schema=schema,
            seed=_whole(values, "seed", least=0),
            label_counts=_counts(values.get("label_counts", {})),
            created_at=_whole(values, "created_at", least=0),
            expires_at=_whole(values, "expires_at", least=1),
            release_key=_place(folder, values["release_key"]),
            superlink=str(values.get("superlink", "")),
            superlink_authority=_place(folder, values.get("superlink_authority", "")),
            nodes=_place(folder, values.get("nodes", "")),
            settings=_settings(values, network),
            folder=folder,
            first_label_count=_whole(values, "first_label_count", least=0),
        )
    except BundleError as error:
        raise RequestInvalid(f"request: {error}") from None


def _network(values: Mapping[str, Any], class_count: int) -> NetworkSpec:
    features = FeatureSpec.from_mapping(values["features"])
    own = {"family", "features", "class_count"}
    sizes = {name: size for name, size in values.get("network", {}).items() if name not in own}
    named = {"family": values["family"], "class_count": class_count}
    return NetworkSpec.from_mapping({**sizes, **named, "features": features.to_mapping()})


def _settings(values: Mapping[str, Any], network: NetworkSpec) -> TrainingSettings:
    found = TrainingSettings.from_mapping(values.get("settings", {}), values["family"])
    if network.unsupervised_width and found.rounds.pretrain_rounds:
        raise RequestInvalid(
            "pretrain_rounds would change the layer that unsupervised_width keeps as it is; "
            "set one of the two to 0"
        )
    if network.ensemble_size > 1 and found.rounds.pretrain_rounds:
        raise RequestInvalid(
            "pretrain_rounds would teach the first member of an ensemble alone; set it to 0, or "
            "ensemble_size to 1"
        )
    if found.rounds.first_cells and not fixed_width(network):
        raise RequestInvalid(
            f"first_cells needs columns that no label changes; a {network.family} network has them "
            "with unsupervised_width"
        )
    if network.plain_head:
        check_spread(found.local)
    check_views(found.local.input_views, network.family, network.unsupervised_width)
    check_label_names(found.rounds.label_names, network.family, network.unsupervised_width)
    return found


def _campaign(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 32 or not set(value) <= set("0123456789abcdef"):
        raise RequestInvalid("request: campaign_id must have 32 hex digits")
    return value


def _whole(values: Mapping[str, Any], name: str, *, least: int) -> int:
    value = values.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RequestInvalid(f"request: {name} must be a whole number from {least}, not {value!r}")
    return value


def _path(values: Mapping[str, Any], name: str, folder: Path) -> Path | None:
    return _place(folder, values[name]) if values.get(name) else None


def _place(folder: Path, value: Any) -> Path:
    """Joins without links or a folder that must exist: the run's folder may still be to come."""
    return Path(os.path.normpath(folder / str(value)))


def _counts(values: Any) -> dict[str, int]:
    if not isinstance(values, dict) or len(values) > SITE_COUNT_MAX:
        raise RequestInvalid("request: label_counts must map sites to counts")
    for site, count in values.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise RequestInvalid(f"request: label_counts of {site!r} must be a count from 0")
    return dict(values)
