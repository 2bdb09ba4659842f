"""One reader per file format. Each gives a `Table`; rows without a split are split 4 to 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.errors import DataInvalid
from simulations.tables import Table

TEST_SHARE = 0.2


def read_npz(path: Path, kind: str) -> Table:
    """Arrays X_train, y_train, X_test, y_test and, where given, group_train and classes."""
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"X_train", "y_train", "X_test", "y_test"} - set(arrays)
        if missing:
            raise DataInvalid(f"{path} lacks the array {sorted(missing)[0]}")
        if kind == "text":
            raise DataInvalid(f"{path}: texts come as a table or a folder, not as npz")
        names = arrays["classes"].tolist() if "classes" in arrays else None
        for part in ("train", "test"):
            rows, known = len(arrays[f"X_{part}"]), len(arrays[f"y_{part}"])
            if rows != known:
                raise DataInvalid(f"{path}: X_{part} has {rows} rows, y_{part} has {known}")
            if arrays[f"y_{part}"].dtype.kind not in "iu":
                raise DataInvalid(f"{path}: y_{part} must hold whole numbers; put names in classes")
        samples = np.concatenate([arrays["X_train"], arrays["X_test"]])
        labels = np.concatenate([arrays["y_train"], arrays["y_test"]]).astype(np.int64)
        train = len(arrays["X_train"])
        groups = np.full(len(samples), -1, dtype=np.int64)
        if "group_train" in arrays:
            groups[:train] = np.unique(arrays["group_train"], return_inverse=True)[1]
    is_test = np.arange(len(samples)) >= train
    class_names = tuple(names or [str(c) for c in range(int(labels.max()) + 1)])
    if kind == "record":
        samples_list = [{f"c{i}": float(v) for i, v in enumerate(row)} for row in samples]
        return Table(samples_list, labels, is_test, groups, class_names)
    return Table(samples, labels, is_test, groups, class_names)


def read_parquet(path: Path, kind: str) -> Table:
    """Columns label, split (train or test) and site where given; text, or any for records."""
    import pyarrow.parquet as pq

    columns = pq.read_table(path).to_pydict()
    return _from_columns(columns, path, kind)


def read_csv(path: Path, kind: str) -> Table:
    """The same columns as a parquet file, with a header line."""
    import pandas as pd

    table = pd.read_csv(path)
    columns = {
        str(name): values.astype(object).where(values.notna(), None).tolist()
        for name, values in table.items()
    }
    return _from_columns(columns, path, kind)


def read_folder(path: Path, kind: str) -> Table:
    """One folder per class, of .png images, .txt texts or .npy windows."""
    pattern = {"image": "*.png", "text": "*.txt", "series": "*.npy"}.get(kind)
    if pattern is None:
        raise DataInvalid("a folder holds images, texts or series; records come as a table")
    folders = sorted(item for item in path.iterdir() if item.is_dir())
    files = [(label, f) for label, place in enumerate(folders) for f in sorted(place.glob(pattern))]
    if not files:
        raise DataInvalid(f"{path} has no class folders with {pattern} files")
    samples = [_sample(file, kind) for _, file in files]
    labels = np.array([label for label, _ in files], dtype=np.int64)
    if kind != "text" and len({sample.shape for sample in samples}) > 1:
        raise DataInvalid(f"{path}: all {kind} files must have the same shape")
    stacked: list[Any] | NDArray[Any] = samples if kind == "text" else np.stack(samples)
    return Table(
        stacked,
        labels,
        _split(len(labels)),
        np.full(len(labels), -1, dtype=np.int64),
        tuple(folder.name for folder in folders),
    )


def read_builtin(name: str) -> Table:
    """Data that needs no file: `digits` (1797 images of 8 x 8) or `synthetic` (records)."""
    if name == "digits":
        from sklearn.datasets import load_digits

        found = load_digits()
        samples: Any = (found.images * 15.9375).astype(np.uint8)
        labels = found.target.astype(np.int64)
    elif name == "synthetic":
        samples, labels = _synthetic()
    else:
        raise DataInvalid(f"builtin:{name} is not known; there are digits and synthetic")
    groups = np.full(len(labels), -1, dtype=np.int64)
    names = tuple(str(c) for c in range(int(labels.max()) + 1))
    return Table(samples, labels, _split(len(labels)), groups, names)


def _synthetic() -> tuple[list[dict[str, float]], NDArray[np.int64]]:
    """Eight classes of two clusters each in twenty columns, some close to each other."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1.3, (16, 20))
    labels = rng.integers(0, 8, 6000)
    cluster = labels * 2 + (rng.random(6000) < 0.3)
    rows = centres[cluster] + rng.normal(0, 1.0, (6000, 20))
    return [{f"c{i}": float(v) for i, v in enumerate(row)} for row in rows], labels.astype(np.int64)


def _from_columns(columns: dict[str, list[Any]], path: Path, kind: str) -> Table:
    if "label" not in columns:
        raise DataInvalid(f"{path} lacks the column label; it has {', '.join(columns) or 'none'}")
    for name in ("label", "text") if kind == "text" else ("label",):
        if None in columns.get(name, ()):
            row = columns[name].index(None) + 1
            raise DataInvalid(f"{path}: row {row} has no {name}; fill it or leave the row out")
    strange = sorted({str(v) for v in columns.get("split", ())} - {"train", "test"})
    if strange:
        raise DataInvalid(f"{path}: split must be train or test, not {strange[0]!r}")
    names = sorted({str(v) for v in columns["label"]})
    index = {name: i for i, name in enumerate(names)}
    labels = np.array([index[str(v)] for v in columns["label"]], dtype=np.int64)
    if "split" in columns:
        is_test = np.array([v == "test" for v in columns["split"]], dtype=np.bool_)
    else:
        is_test = _split(len(labels))
    groups = np.full(len(labels), -1, dtype=np.int64)
    if "site" in columns:
        groups = np.unique(np.array(columns["site"], dtype=str), return_inverse=True)[1]
    if kind == "text":
        if "text" not in columns:
            raise DataInvalid(f"{path} lacks the column text")
        return Table([str(v) for v in columns["text"]], labels, is_test, groups, tuple(names))
    if kind != "record":
        raise DataInvalid(f"a table holds text or records, not {kind}")
    fields = [name for name in columns if name not in ("label", "split", "site", "id")]
    rows = [
        dict(zip(fields, row, strict=True))
        for row in zip(*(columns[f] for f in fields), strict=True)
    ]
    return Table(rows, labels, is_test, groups.astype(np.int64), tuple(names))


def _split(rows: int) -> NDArray[np.bool_]:
    return np.random.default_rng(0).random(rows) < TEST_SHARE


def _sample(file: Path, kind: str) -> Any:
    if kind == "text":
        return file.read_text("utf-8")
    if kind == "series":
        return np.load(file, allow_pickle=False)
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("L"))
