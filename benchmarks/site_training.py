"""A site's training on its processor and on an NVIDIA card, with the production trainer.

    python -m benchmarks.site_training [--data DIR] [--rows 6000] [--threads N]

Each case trains the same rounds from the same parameters on the CPU and, where there is one, on
CUDA; the table has the seconds, their ratio, what both models get right on the same test samples,
whether the same rounds on the same device give the same bytes again, and the card's peak memory.
The data sets lie in the folder that --data or PERIMETER_DATA names, or in `shared/data` beside the
checkout.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.masking.folder import data_folder
from federation import torch_engine
from federation.dataset import Examples, SiteData, from_samples
from federation.feature_fit import fit_features
from federation.feature_layer import encoded, make_trainer
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, initial_arrays
from federation.survey import ask_of
from federation.training import TrainTask
from model_bundle.features import FeatureSpec
from simulations.config import DataConfig
from simulations.datasets import Dataset, load_dataset

ROUNDS = 4
LARGER = 4
"""Small images are also drawn so many times as large, in three channels."""


@dataclass(frozen=True, eq=False)
class Case:
    """One line of the table.

    Attributes:
        name: in the table.
        spec: the network.
        data: training and test examples.
        local: settings of a round.
        start: parameters of the first round.
    """

    name: str
    spec: NetworkSpec
    data: SiteData
    local: LocalSettings
    start: Arrays


@dataclass(frozen=True, eq=False)
class Found:
    """What a device did with a case.

    Attributes:
        seconds: of all rounds, the fastest of two.
        accuracy: on the test examples.
        again: whether a second course gave the same bytes.
        peak_bytes: of the card's memory, 0 on a CPU.
    """

    seconds: float
    accuracy: float
    again: bool
    peak_bytes: int


def cases(data: Path, rows: int) -> Iterator[Case]:
    """Yields all cases, the smallest first."""
    images = load_dataset(DataConfig(str(data / "fashion_mnist.npz"), "image", "native", rows=rows))
    texts = load_dataset(DataConfig(str(data / "banking77.parquet"), "text", "native", rows=rows))
    motion = load_dataset(
        DataConfig(str(data / "phone_watch_har.npz"), "series", "native", rows=rows)
    )
    plain = LocalSettings(local_epochs=2, batch_size=32)
    table = replace(plain, optimizer="adam", learning_rate=0.01)
    yield _case("series, convolutions", motion, plain)
    yield _case("texts, table of n-grams", texts, table)
    yield _case("images 28 x 28, convolutions", images, plain)
    yield _case("images 28 x 28, batches of 256", images, replace(plain, batch_size=256))
    large = _larger(images, rows // 8)
    yield _case("images 112 x 112 x 3, convolutions", large, plain)
    noisy = replace(plain, input_noise=0.6, input_views=8)
    yield _case("images on a fitted layer", images, noisy, unsupervised_width=256)
    wide = {"unsupervised_width": 400, "hidden_width": 512, "embedding_width": 256}
    yield _case("texts on a fitted layer", texts, replace(plain, input_noise=1.0), **wide)


def _case(name: str, dataset: Dataset, local: LocalSettings, **sizes: int) -> Case:
    spec = NetworkSpec(dataset.family, dataset.features, len(dataset.class_names), **sizes)  # type: ignore[arg-type]
    train, test = (
        Examples({dataset.input_name: x}, y, np.zeros(len(y), np.bool_))
        for x, y in ((dataset.train, dataset.train_classes), (dataset.test, dataset.test_classes))
    )
    start = initial_arrays(spec, seed=1)
    if spec.unsupervised_width:
        start = fit_features(spec, start, ask_of(spec, [dataset.train], seed=1, count_min=3), 1)
    return Case(name, spec, SiteData(train, test), local, start)


def _larger(images: Dataset, rows: int) -> Dataset:
    side = images.train.shape[2] * LARGER
    features = FeatureSpec("image", height=side, width=side, channels=3)

    def drawn(x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        pixels = np.round(x[:, 0] * 255).astype(np.uint8).repeat(LARGER, 1).repeat(LARGER, 2)
        samples = [np.repeat(one[:, :, None], 3, axis=2) for one in pixels]
        return np.asarray(from_samples(samples, [0] * len(x), features).inputs["pixels"])

    return replace(
        images,
        features=features,
        train=drawn(images.train[:rows]),
        train_classes=images.train_classes[:rows],
        test=drawn(images.test[:1000]),
        test_classes=images.test_classes[:1000],
    )


def measure(case: Case, device: str, threads: int) -> Found:
    """Trains a case's rounds twice on one device."""
    courses = [_course(case, device, threads) for _ in range(2)]
    names = list(courses[0][1])
    same = all(np.array_equal(courses[0][1][n], courses[1][1][n]) for n in names)
    trainer = make_trainer(case.data, case.spec, device=device, thread_count=threads)
    logits, _ = trainer.predict(courses[0][1], case.data.test)
    right = float((logits.argmax(axis=1) == case.data.test.classes).mean())
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return Found(min(seconds for seconds, _ in courses), right, same, peak)


def _course(case: Case, device: str, threads: int) -> tuple[float, Arrays]:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = make_trainer(case.data, case.spec, device=device, thread_count=threads)
    trainer.train(case.start, case.local, TrainTask(99, measure=False))  # warms up
    arrays, began = case.start, time.perf_counter()
    for number in range(ROUNDS):
        arrays = trainer.train(arrays, case.local, TrainTask(number, measure=False)).arrays
    return time.perf_counter() - began, arrays


def fitting(case: Case, device: str) -> float:
    """Seconds that a site's samples take through its fitted layer."""
    place, spent = torch_engine.choose_device(device), []
    for _ in range(2):
        began = time.perf_counter()
        encoded(case.spec, case.start, case.data.train, place)
        spent.append(time.perf_counter() - began)
    return min(spent)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.site_training", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--rows", type=int, default=6000, help="most training samples")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args(arguments)
    data = options.data or data_folder()
    has_card = torch.cuda.is_available()
    print(f"torch {torch.__version__}, {options.threads} threads, ", end="")
    print(torch.cuda.get_device_name() if has_card else "no CUDA device: its columns stay empty")
    print("| case | examples | CPU s | CUDA s | ratio | right CPU, CUDA | again | peak MiB |")
    print("| --- | --: | --: | --: | --: | --: | --- | --: |")
    for case in cases(data, options.rows):
        slow = measure(case, "cpu", options.threads)
        line = f"| {case.name} | {len(case.data.train)} | {slow.seconds:.2f} | "
        if has_card:
            fast = measure(case, "cuda", options.threads)
            line += f"{fast.seconds:.2f} | {slow.seconds / fast.seconds:.1f} | "
            line += f"{slow.accuracy:.3f}, {fast.accuracy:.3f} | "
            line += f"{_yes(slow.again)}, {_yes(fast.again)} | {fast.peak_bytes / 2**20:.0f} |"
        else:
            line += f"| | {slow.accuracy:.3f} | {_yes(slow.again)} | |"
        print(line, flush=True)
        if case.spec.unsupervised_width:
            times = [fitting(case, device) for device in ("cpu", "cuda")[: 1 + has_card]]
            print(f"  through its layer: {', '.join(f'{t:.2f} s' for t in times)}", flush=True)
    return 0


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    raise SystemExit(main())
