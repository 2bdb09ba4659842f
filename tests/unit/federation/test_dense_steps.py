"""Steps that are written out equal those of automatic differentiation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from federation import dense_steps, torch_engine
from federation.dataset import Examples, SiteData, unlabelled_examples
from federation.feature_layer import make_trainer
from federation.local_settings import LocalSettings
from federation.networks import NetworkSpec, initial_arrays
from federation.training import SiteTrainer, TrainTask
from model_bundle.features import FeatureSpec

pytestmark = pytest.mark.federation
SPEC = NetworkSpec("encoder", FeatureSpec("text"), 7, encoder_width=20)


def examples(count: int) -> Examples:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((count, 20)).astype(np.float32)
    return Examples({"encoded": rows}, rng.integers(0, 7, count), np.zeros(count, dtype=np.bool_))


@pytest.mark.parametrize(
    "local",
    [
        LocalSettings(local_epochs=3, learning_rate=0.05),
        LocalSettings(local_epochs=2, balance=0.5, weight_decay=0.01, gradient_norm=0.5),
        LocalSettings(local_epochs=2, unlabelled_weight=0.7, spread="graph", input_noise=0.4),
    ],
)
@pytest.mark.parametrize("linear_skip", [False, True])
def test_a_written_out_descent_ends_where_torch_ends(
    local: LocalSettings, monkeypatch: pytest.MonkeyPatch, *, linear_skip: bool
) -> None:
    pool, spec = (
        unlabelled_examples(examples(90).inputs, 90),
        replace(SPEC, linear_skip=linear_skip),
    )
    trainer = SiteTrainer(SiteData(examples(53), examples(0), pool), spec, device="cpu")
    start, task = initial_arrays(spec, seed=1), TrainTask(7, measure=False)
    written = trainer.train(start, local, task)
    monkeypatch.setattr(dense_steps, "are_possible", lambda *_: False)
    derived = trainer.train(start, local, task)
    assert written.loss == pytest.approx(derived.loss, rel=1e-5)
    for name, array in start.items():
        np.testing.assert_allclose(written.arrays[name], derived.arrays[name], atol=1e-5)
        assert not np.allclose(written.arrays[name], array, atol=1e-3)


def test_convolutions_committees_and_pulls_stay_with_torch() -> None:
    import torch

    cpu, local = torch.device("cpu"), LocalSettings()
    assert dense_steps.are_possible(SPEC, local, cpu)
    image = NetworkSpec("image", FeatureSpec("image", height=8, width=8), 7)
    voting = NetworkSpec("encoder", FeatureSpec("text"), 7, encoder_width=20, committee_count=3)
    for spec, settings, device in (
        (image, local, cpu),
        (voting, local, cpu),
        (SPEC, LocalSettings(proximal_mu=0.1), cpu),
        (SPEC, LocalSettings(optimizer="adam"), cpu),
        (SPEC, local, torch.device("cuda")),
    ):
        assert not dense_steps.are_possible(spec, settings, device)


@pytest.mark.parametrize("plain_head", [False, True])
def test_small_dense_networks_stay_on_the_processor_where_a_site_leaves_it_open(
    monkeypatch: pytest.MonkeyPatch, *, plain_head: bool
) -> None:
    import torch

    spec, data = replace(SPEC, plain_head=plain_head), SiteData(examples(20), examples(0))
    start, task = initial_arrays(spec, seed=1), TrainTask(7, measure=False)
    expected = make_trainer(data, spec, device="cpu").train(start, LocalSettings(), task)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = make_trainer(data, spec, device="auto").train(start, LocalSettings(), task)
    assert all((found.arrays[name] == array).all() for name, array in expected.arrays.items())
    assert torch_engine.choose_device("auto").type == "cuda"
