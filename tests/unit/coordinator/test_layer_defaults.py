"""A campaign that asks for a layer learned without labels gets what goes with it."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.campaign_file import campaign_of
from coordinator.core.layer_defaults import LAYER_WIDTH, TRAINING, completed

LEAST = {
    "name": "letters",
    "sites": ["north"],
    "classes": ["a", "b"],
    "budget_labels": 10,
    "cycle_budget_labels": 5,
    "cycles": 2,
}


def campaign(kind: str, **tables: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    made = campaign_of({**LEAST, "kind": kind, **tables})
    return dict(made.features), dict(made.network), dict(made.training)


def test_texts_get_words_a_wide_head_and_steps_that_do_not_diverge() -> None:
    features, network, training = campaign("text", network={"unsupervised_width": 400})
    assert features == {"word_weight": 2}
    sizes = {"hidden_width": 512, "embedding_width": 256, "linear_skip": True}
    assert network == {"unsupervised_width": 400, **sizes}
    assert (training["optimizer"], training["learning_rate"]) == ("sgd", 0.05)
    assert (training["rounds"], training["input_noise"], training["server_momentum"]) == (
        80,
        1,
        0.8,
    )
    assert training["label_names"] is True
    assert "input_views" not in training


def test_images_are_also_moved_and_series_are_not() -> None:
    shape = {"features": {"height": 8, "width": 8}}
    features, network, training = campaign("image", network={"unsupervised_width": 256}, **shape)
    assert features == shape["features"]
    assert network == {"unsupervised_width": 256, "ensemble_size": 8}
    assert training["input_views"] == 8
    assert "input_views" not in TRAINING["series"]


def test_several_heads_of_images_and_series_answer_together() -> None:
    network = completed("series", {}, {"unsupervised_width": 64}, {})[1]
    assert network == {"unsupervised_width": 64, "ensemble_size": 8}
    assert "ensemble_size" not in completed("text", {}, {"unsupervised_width": 400}, {})[1]


@pytest.mark.parametrize("kind", sorted(TRAINING))
def test_what_a_campaign_names_stays(kind: str) -> None:
    named = {"rounds": 7, "input_noise": 0.0, "server_momentum": 0.1, "batch_size": 5}
    network = {
        "unsupervised_width": 32,
        "hidden_width": 9,
        "embedding_width": 4,
        "linear_skip": False,
        "ensemble_size": 2,
    }
    features, sizes, training = completed(kind, {"word_weight": 1}, network, named)
    assert features == {"word_weight": 1}
    assert sizes == network
    assert named.items() <= training.items()
    assert training["local_epochs"] == 2


@pytest.mark.parametrize("own", [{"optimizer": "adam"}, {"learning_rate": 0.3}])
def test_an_optimiser_of_ones_own_gets_no_step_of_another(own: dict[str, Any]) -> None:
    training = completed("text", {}, {"unsupervised_width": 400}, own)[2]
    assert {key: training[key] for key in ("optimizer", "learning_rate") if key in training} == own


@pytest.mark.parametrize(
    ("kind", "network"),
    [("text", {}), ("image", {"unsupervised_width": 0}), ("record", {"hidden_width": 8})],
)
def test_a_campaign_without_the_layer_stays_as_it_is(kind: str, network: dict[str, Any]) -> None:
    assert campaign(kind, network=network, training={"rounds": 3}) == ({}, network, {"rounds": 3})


def test_a_family_of_ones_own_stays_as_it_is() -> None:
    made = campaign_of(
        {**LEAST, "kind": "text", "family": "encoder", "network": {"unsupervised_width": 12}}
    )
    assert (dict(made.features), dict(made.training)) == ({}, {})


def test_every_kind_with_a_layer_has_a_width() -> None:
    assert set(LAYER_WIDTH) == set(TRAINING)
