"""Real digits at three sites that hold different classes, and a request that trains on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.dataset import SiteData, from_samples
from federation.requests import TrainingRequest, request_of
from model_bundle.features import FeatureSpec

DIGITS = FeatureSpec("image", height=8, width=8)
SMALL = {"channels": 4, "hidden_width": 16, "embedding_width": 16}
QUICK = {"node_wait_seconds": 0, "local_epochs": 1, "batch_size": 32, "cell_count": 8}
SITES = ("east", "north", "south")


def digit_sites(
    label_count: int = 270, *, seed: int = 0, alpha: float = 0.3
) -> dict[str, SiteData]:
    """Splits labelled digits over three sites by a Dirichlet draw per class."""
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(seed)
    order = rng.permutation(len(digits.target))
    test, train = order[:450], order[450 : 450 + label_count]
    owner = np.empty(label_count, dtype=int)
    for digit in range(10):
        rows = np.flatnonzero(digits.target[train] == digit)
        owner[rows] = rng.choice(len(SITES), len(rows), p=rng.dirichlet([alpha] * len(SITES)))
    found = {}
    for number, site in enumerate(SITES):
        parts = []
        for rows in (train[owner == number], test[number :: len(SITES)]):
            images = [(digits.images[i] * 15.9).astype(np.uint8) for i in rows]
            parts.append(from_samples(images, digits.target[rows].tolist(), DIGITS))
        found[site] = SiteData(*parts)
    return found


@pytest.fixture(scope="session")
def digits() -> dict[str, SiteData]:
    return digit_sites()


@pytest.fixture
def release_key(tmp_path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "release.key").write_bytes(pem)
    return key


MakeRequest = Callable[..., TrainingRequest]


@pytest.fixture
def make_request(tmp_path: Path, release_key: Ed25519PrivateKey) -> MakeRequest:
    """Builds a request; keyword arguments replace keys of its JSON."""

    def make(folder: str = "run-1", **changes: Any) -> TrainingRequest:
        values = {
            "campaign_id": "ab" * 16,
            "run": 1,
            "version": 2,
            "parent_version": 1,
            "family": "image",
            "label_schema": {"classes": [str(digit) for digit in range(10)], "version": 1},
            "features": DIGITS.to_mapping(),
            "seed": 3,
            "created_at": 1_700_000_000,
            "expires_at": 1_800_000_000,
            "release_key": str(tmp_path / "release.key"),
            "network": SMALL,
            "settings": {**QUICK, "rounds": 4},
        }
        return request_of(values | changes, tmp_path / folder)

    return make
