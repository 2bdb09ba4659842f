"""Reading data sets into arrays that the federation's networks take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from federation.networks import INPUT_NAMES
from model_bundle.features import ColumnSpec, FeatureSpec, extract
from simulations import readers
from simulations.config import DataConfig
from simulations.errors import DataInvalid
from simulations.tables import Table

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples as model input, training rows and test rows apart.

    Attributes:
        family: network family that reads the inputs.
        features: how the inputs were made.
        input_width: columns of frozen features, 0 for native ones.
        train: input rows to choose from.
        views: float32[n, copies, columns] of moved copies of these rows, None without.
        named: what classes are called as input rows, None without.
        named_classes: int64[len(named)].
        train_classes: int64[n], known to experts only.
        train_groups: int64[n], the data's own sites, or -1.
        test: input rows of the held-out part.
        test_classes: int64[m].
        class_names: names in label order.
    """

    family: str
    features: FeatureSpec
    input_width: int
    train: NDArray[Any]
    train_classes: NDArray[np.int64]
    train_groups: NDArray[np.int64]
    test: NDArray[Any]
    test_classes: NDArray[np.int64]
    class_names: tuple[str, ...]
    views: Floats | None = None
    named: Floats | None = None
    named_classes: NDArray[np.int64] | None = None

    @property
    def input_name(self) -> str:
        """Name of the network's input."""
        return INPUT_NAMES[self.family]


def load_dataset(config: DataConfig) -> Dataset:
    """Reads a data set and makes model inputs.

    Raises:
        DataInvalid: the file is missing or does not fit its kind.
    """
    table = _read(config)
    _check_table(table, config)
    if config.rows and (~table.is_test).sum() > config.rows:
        table = _thinned(table, config.rows)
    features = _feature_spec(config, table)
    if config.features in ("native", "learned"):
        rows = extract(list(table.samples), features)[INPUT_NAMES[config.kind]]
        return _dataset(table, rows, family=config.kind, features=features, width=0)
    rows = frozen_features(config, table, features)
    return _dataset(table, rows, family="encoder", features=features, width=rows.shape[1])


def _dataset(
    table: Table, rows: NDArray[Any], *, family: str, features: FeatureSpec, width: int
) -> Dataset:
    train, test = ~table.is_test, table.is_test
    return Dataset(
        family=family,
        features=features,
        input_width=width,
        train=rows[train],
        train_classes=table.classes[train],
        train_groups=table.groups[train],
        test=rows[test],
        test_classes=table.classes[test],
        class_names=table.class_names,
    )


def frozen_features(config: DataConfig, table: Table, features: FeatureSpec) -> Floats:
    """float32[n, width]: features that no label shaped, standing in for a frozen encoder.

    Text: TF-IDF and truncated SVD; images: principal components; series: window statistics and
    spectrum, then principal components; records: their own columns. All are fitted on the
    unlabelled pool and scaled to unit variance.
    """
    from sklearn.decomposition import PCA, TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    pool = np.flatnonzero(~table.is_test)
    if config.kind == "text":
        texts = list(table.samples)
        vectors = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2))
        vectors.fit([texts[i] for i in pool.tolist()])
        raw = vectors.transform(texts)
        width = min(config.width, raw.shape[1] - 1)
        rows = TruncatedSVD(width, random_state=0).fit(raw[pool]).transform(raw)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return np.asarray(rows * np.sqrt(width), dtype=np.float32)
    if config.kind == "record":
        return np.asarray(extract(list(table.samples), features)["values"], dtype=np.float32)
    flat = _flat(config.kind, np.asarray(table.samples))
    width = min(config.width, flat.shape[1], len(pool))
    rows = PCA(width, random_state=0).fit(flat[pool]).transform(flat)
    return np.asarray(rows / (rows[pool].std() + 1e-9), dtype=np.float32)


def _flat(kind: str, samples: NDArray[Any]) -> Floats:
    if kind == "image":
        return samples.reshape(len(samples), -1).astype(np.float32) / 255.0
    windows = samples.astype(np.float32)
    spectrum = np.abs(np.fft.rfft(windows - windows.mean(axis=1, keepdims=True), axis=1))
    parts = [windows.mean(axis=1), windows.std(axis=1), windows.min(axis=1), windows.max(axis=1)]
    parts.append(np.log1p(spectrum[:, 1:20]).reshape(len(windows), -1))
    flat = np.concatenate(parts, axis=1)
    return np.asarray((flat - flat.mean(axis=0)) / (flat.std(axis=0) + 1e-6), dtype=np.float32)


def _feature_spec(config: DataConfig, table: Table) -> FeatureSpec:
    if config.kind == "image":
        shape = np.asarray(table.samples[0]).shape
        channels = shape[2] if len(shape) == 3 else 1
        return FeatureSpec("image", height=shape[0], width=shape[1], channels=channels)
    if config.kind == "series":
        windows = np.asarray(table.samples)
        mean = windows.mean(axis=(0, 1))
        scale = windows.std(axis=(0, 1)) + 1e-6
        return FeatureSpec(
            "series",
            steps=windows.shape[1],
            channels=windows.shape[2],
            mean=tuple(float(v) for v in mean),
            scale=tuple(float(v) for v in scale),
        )
    if config.kind == "record":
        return FeatureSpec("record", columns=_columns(table))
    # Words say more than the many character n-grams that each of them has.
    return FeatureSpec("text", word_weight=2)


def _columns(table: Table) -> tuple[ColumnSpec, ...]:
    names = list(table.samples[0])
    columns = []
    for name in names:
        values = [sample[name] for sample in table.samples if sample[name] is not None]
        if values and all(isinstance(v, (int, float)) for v in values):
            numbers = np.asarray(values, dtype=np.float64)
            scale = float(numbers.std()) or 1.0
            columns.append(ColumnSpec(name, mean=float(numbers.mean()), scale=scale))
        else:
            columns.append(ColumnSpec(name, role="category"))
    return tuple(columns)


def _thinned(table: Table, rows: int) -> Table:
    train = np.flatnonzero(~table.is_test)
    kept = np.random.default_rng(0).choice(train, rows, replace=False)
    keep = np.sort(np.concatenate([kept, np.flatnonzero(table.is_test)]))
    samples = table.samples
    chosen = samples[keep] if isinstance(samples, np.ndarray) else [samples[i] for i in keep]
    return Table(
        chosen, table.classes[keep], table.is_test[keep], table.groups[keep], table.class_names
    )


def _read(config: DataConfig) -> Table:
    if config.path.startswith("builtin:"):
        return readers.read_builtin(config.path.removeprefix("builtin:"))
    path = Path(config.path)
    if not path.exists():
        raise DataInvalid(f"data {path} does not exist")
    if path.is_dir():
        return readers.read_folder(path, config.kind)
    reader = {".npz": readers.read_npz, ".parquet": readers.read_parquet, ".csv": readers.read_csv}
    if path.suffix not in reader:
        raise DataInvalid(f"data {path} must be .npz, .parquet, .csv or a folder")
    try:
        return reader[path.suffix](path, config.kind)
    except (ValueError, OSError, BadZipFile) as error:
        raise DataInvalid(f"{path} cannot be read as {path.suffix}: {error}") from None


def _check_table(table: Table, config: DataConfig) -> None:
    """Refuses data from which nothing can be learned, or of another kind than was said."""
    train, test = int((~table.is_test).sum()), int(table.is_test.sum())
    if not train or not test:
        raise DataInvalid(
            f"data {config.path} has {train} training and {test} test samples; both are needed"
        )
    if len(table.class_names) < 2:
        raise DataInvalid(f"data {config.path} has one class only; there is nothing to learn")
    first, axes = table.samples[0], {"image": (2, 3), "series": (2,)}.get(config.kind, ())
    kind = {"text": str, "record": dict}.get(config.kind, np.ndarray)
    if not isinstance(first, kind) or (axes and first.ndim not in axes):
        raise DataInvalid(f"the samples of {config.path} are not of kind {config.kind}")
