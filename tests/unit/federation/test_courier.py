"""A layer that nobody trains travels to a site once in a run, whatever happens to the site."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from federation import central, checkpoint, frames, messages
from federation.courier import Courier, Replies
from federation.dataset import SiteData
from federation.errors import FrameInvalid, LayerUnknown
from federation.in_process import Handle, desk_for, transport_for
from federation.layer_arrays import fixed_arrays, layer_digest, trained_arrays
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, feature_names, initial_arrays
from federation.requests import TrainingRequest
from model_bundle.features import FeatureSpec

LAYER = {"unsupervised_width": 12, "filter_count": 16, "hidden_width": 16}
FEATURES = FeatureSpec("image", height=8, width=8)
SPEC = NetworkSpec("image", FEATURES, 10, **LAYER)
NAMES = feature_names(SPEC)
Sites = dict[str, SiteData]
MakeRequest = Callable[..., TrainingRequest]


def command(spec: NetworkSpec = SPEC, *, guesses: bool = False) -> messages.Command:
    arrays = initial_arrays(spec, seed=3)
    return messages.Command(
        messages.TRAIN,
        bytes(range(16)).hex(),
        "run",
        spec,
        LocalSettings(),
        7,
        arrays,
        np.zeros((0, spec.embedding_width), np.float32),
        dict(arrays) if guesses else {},
    )


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[n], other[n]) for n in one)


class Counted:
    """A site's handler that remembers how long messages are and whether they hold a layer."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.asked: list[tuple[str, bool, int]] = []
        self.returned: list[bool] = []

    def __call__(self, raw: bytes) -> bytes:
        frame = frames.decode(raw)
        layer = messages.PARAMETER + "dictionary.weight" in frame.arrays
        if frame.kind in (messages.TRAIN, messages.ASSESS):
            self.asked.append((frame.kind, layer, len(raw)))
        answer = self.handle(raw)
        self.returned.append(
            any(messages.PARAMETER + n in frames.decode(answer).arrays for n in NAMES)
        )
        return answer


def finished(request: TrainingRequest, sites: Mapping[str, Handle]) -> list[Arrays]:
    central.train_run(request, transport_for(sites), pause=lambda _: None)
    numbers = range(1, request.settings.rounds.rounds + 1)
    return [checkpoint._load(request.folder, number, "").arrays for number in numbers]


@pytest.mark.parametrize("guesses", [False, True])
def test_a_command_without_its_layer_reads_as_with_it(guesses: bool) -> None:
    sent = command(guesses=guesses)
    layers = {layer_digest(sent.arrays, SPEC): fixed_arrays(sent.arrays, SPEC)}
    frame = frames.decode(frames.encode(messages.command_frame(sent, with_layer=False)))
    assert not any(name.endswith(NAMES) for name in frame.arrays)
    read = messages.read_command(frame, layers)
    assert same(read.arrays, sent.arrays)
    assert same(read.teacher, sent.teacher)


def test_a_layer_that_is_not_held_is_asked_for() -> None:
    frame = messages.command_frame(command(), with_layer=False)
    other = {hashlib.sha256(b"other").hexdigest(): {"dictionary.weight": np.zeros(1, np.float32)}}
    with pytest.raises(LayerUnknown, match="does not hold"):
        messages.read_command(frame, other)


def test_a_digest_does_not_replace_what_is_trained() -> None:
    sent = command()
    layers = {layer_digest(sent.arrays, SPEC): fixed_arrays(sent.arrays, SPEC)}
    frame = messages.command_frame(sent, with_layer=False)
    part = {n: a for n, a in frame.arrays.items() if n != messages.PARAMETER + "head.bias"}
    with pytest.raises(FrameInvalid, match="not the network's parameters"):
        messages.read_command(replace(frame, arrays=part), layers)


def test_a_runs_layer_goes_out_once_and_never_comes_back(
    digits: Sites, make_request: MakeRequest
) -> None:
    request = make_request(network=LAYER)
    sites = {site: Counted(desk_for(data).handle) for site, data in digits.items()}
    rounds = finished(request, sites)
    layer = sum(a.nbytes for a in fixed_arrays(rounds[-1], request.network).values())
    for site in sites.values():
        trained = [(held, size) for kind, held, size in site.asked if kind == messages.TRAIN]
        assert [held for held, _ in trained] == [True] + [False] * (len(rounds) - 1)
        assert trained[0][1] - trained[1][1] > 0.95 * layer
        assert not any(site.returned)


def test_a_trainer_that_starts_again_gets_the_layer_in_the_same_round(
    digits: Sites, make_request: MakeRequest
) -> None:
    steady = {site: desk_for(data).handle for site, data in digits.items()}
    expected = finished(make_request("steady", network=LAYER), steady)

    class Restarting:
        """Loses all that it holds before its third round."""

        def __init__(self, data: SiteData) -> None:
            self.data, self.desk, self.rounds = data, desk_for(data), 0

        def __call__(self, raw: bytes) -> bytes:
            if frames.decode(raw).kind == messages.TRAIN:
                self.rounds += 1
                if self.rounds == 3:
                    self.desk = desk_for(self.data)
            return self.desk.handle(raw)

    counted = Counted(Restarting(digits["north"]))
    others = {site: Counted(handle) for site, handle in steady.items()}
    found = finished(make_request("restarting", network=LAYER), {**others, "north": counted})
    assert same(found[-1], expected[-1])
    held = [layer for kind, layer, _ in counted.asked if kind == messages.TRAIN]
    assert held[:5] == [True, False, False, True, False]
    assert [layer for kind, layer, _ in others["east"].asked if kind == messages.TRAIN][1:].count(
        True
    ) == 0


def test_a_trainer_older_than_this_gets_the_layer_in_each_round(
    digits: Sites, make_request: MakeRequest
) -> None:
    expected = finished(
        make_request("new", network=LAYER), {s: desk_for(d).handle for s, d in digits.items()}
    )
    desk = desk_for(digits["north"])

    def older(raw: bytes) -> bytes:
        frame = frames.decode(raw)
        if "layer" in frame.fields:
            return frames.encode(messages.refused_frame(FrameInvalid("with known keys")))
        reply = frames.decode(desk.handle(raw))
        if reply.kind != messages.UPDATE:
            return frames.encode(reply)
        back = {messages.PARAMETER + n: frame.arrays[messages.PARAMETER + n] for n in NAMES}
        return frames.encode(replace(reply, arrays={**reply.arrays, **back}))

    counted = Counted(older)
    sites = {s: desk_for(d).handle for s, d in digits.items()} | {"north": counted}
    found = finished(make_request("old", network=LAYER), sites)
    assert same(found[-1], expected[-1])
    held = [layer for kind, layer, _ in counted.asked if kind == messages.TRAIN]
    assert held == [True, False, *[True] * (len(found) - 1)]


def test_networks_without_a_fixed_layer_travel_whole() -> None:
    spec = NetworkSpec("image", FEATURES, 10, hidden_width=16)
    asked: list[bytes] = []

    class Silent:
        def sites(self) -> list[str]:
            return ["east"]

        def exchange(self, frame: bytes, sites: list[str], *, timeout_seconds: float) -> Replies:
            asked.append(frame)
            return Replies({}, dict.fromkeys(sites, f"no answer in {timeout_seconds:g} s"))

    courier = Courier(Silent(), timeout_seconds=5)
    for _ in range(2):
        assert courier.ask(command(spec), ["east"]).silent == {"east": "no answer in 5 s"}
    for raw in asked:
        read = messages.read_command(frames.decode(raw))
        assert same(trained_arrays(read.arrays, spec), initial_arrays(spec, seed=3))
