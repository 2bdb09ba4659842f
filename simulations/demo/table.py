"""The user's own table as a campaign: columns `text` and `label`, optional `site` and `split`."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.demo.errors import TableInvalid
from simulations.demo.partition import dirichlet_sites, stratified_test_mask
from simulations.demo.samples import TEST, TRAIN, CampaignSource, SourceSample, dealt_to_devices

SITES_MAX = 9
TEST_RATIO = 0.2
CLASS_NAME_LENGTH_MAX = 120
_READERS = (".csv", ".jsonl", ".ndjson", ".parquet")
_TEST_WORDS = {"test", "validation", "valid", "dev", "heldout", "held-out"}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads a CSV, JSONL or Parquet file.

    Raises:
        TableInvalid: The file is missing, of another kind, empty, not UTF-8, or broken.
    """
    if not path.is_file():
        raise TableInvalid(f"{path} is not a file; give the path of a CSV, JSONL or Parquet table")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise TableInvalid(f"{path.name}: tables end in {', '.join(_READERS)}, not {suffix!r}")
    try:
        rows = _rows_of(path, suffix)
    except UnicodeDecodeError:
        raise TableInvalid(f"{path.name} is not UTF-8; save it as UTF-8 and try again") from None
    except (ValueError, OSError, csv.Error) as error:
        raise TableInvalid(f"{path.name} cannot be read: {error}") from None
    if not rows:
        raise TableInvalid(f"{path.name} holds no row")
    return rows


def _rows_of(path: Path, suffix: str) -> list[dict[str, Any]]:
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    with path.open(encoding="utf-8-sig", newline="") as lines:
        if suffix == ".csv":
            return list(csv.DictReader(lines))
        return [_json_object(line, number) for number, line in enumerate(lines, 1) if line.strip()]


def _json_object(line: str, number: int) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise TypeError(f"line {number} is not a JSON object")
    return row


def check_columns(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Raises `TableInvalid` when the columns `text` and `label` are not there.

    >>> check_columns([{"text": "a", "label": "b"}], "t.csv")
    """
    columns = list(rows[0])
    for wanted in ("text", "label"):
        if wanted not in columns:
            shown = ", ".join(str(column) for column in columns[:12])
            raise TableInvalid(
                f"{name} has no column {wanted!r} (it has: {shown}); "
                f"rename the column that holds the {wanted} to {wanted!r}"
            )


def site_slug(name: object) -> str:
    """Returns a site id for a name in the table.

    >>> site_slug("St. Mary's / North")
    'st-mary-s-north'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")[:40].strip("-")
    if not slug or slug == "central":
        raise TableInvalid(f"site name {name!r} gives no site id of a-z, 0-9 and '-'; rename it")
    return slug


def table_campaign(
    path: Path, sites: Sequence[str], *, seed: int, pool_max: int | None = None
) -> CampaignSource:
    """Reads the user's table as a text campaign.

    A `site` column is kept as it is, up to nine sites (the largest; others are left out and noted).
    Without one the rows are spread over `sites` by Dirichlet 0.5. Rows with another `split` than
    train are held out; without a `split` column 20 % of each class at each site are.

    Args:
        path: CSV, JSONL or Parquet.
        sites: Site slugs used when the table names none.
        seed: Seed of every draw.
        pool_max: Keep at most this many pool rows (held-out rows: a third as many), drawn by
            chance; None keeps all. What is left out is in the campaign's notes.

    Raises:
        TableInvalid: The table cannot be read, lacks a column, or has fewer than two classes.
    """
    rng = np.random.default_rng(seed)
    rows = read_rows(path)
    check_columns(rows, path.name)
    usable = [row for row in rows if _text(row) and _label(row)]
    notes = []
    if len(usable) < len(rows):
        notes.append(f"{len(rows) - len(usable)} rows without text or label were left out")
    samples = _spread(usable, sites, rng)
    samples = _largest_sites(samples, notes)
    samples = _capped(samples, pool_max, rng, notes)
    classes = tuple(sorted({sample.label for sample in samples}))
    if len(classes) < 2:
        raise TableInvalid(f"{path.name} holds {len(classes)} class; a campaign needs two or more")
    return CampaignSource(
        name=re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "table",
        kind="text",
        classes=classes,
        samples=dealt_to_devices(samples),
        guideline=f"Which of the {len(classes)} classes fits the text best?",
        notes=tuple(notes),
    )


def _text(row: Mapping[str, Any]) -> str:
    return str(row.get("text") or "").strip()


def _label(row: Mapping[str, Any]) -> str:
    value = row.get("label")
    return "" if value is None else str(value).strip()[:CLASS_NAME_LENGTH_MAX].strip()


def _spread(
    rows: Sequence[Mapping[str, Any]], sites: Sequence[str], rng: np.random.Generator
) -> list[SourceSample]:
    labels = [_label(row) for row in rows]
    if rows and "site" in rows[0]:
        placed = [site_slug(row["site"]) for row in rows]
    else:
        names = sorted(set(labels))
        indices = np.array([names.index(label) for label in labels], dtype=np.int64)
        drawn = dirichlet_sites(indices, site_count=len(sites), alpha=0.5, rng=rng)
        placed = [sites[index] for index in drawn]
    held_out = _held_out(rows, placed, labels, rng)
    return [
        SourceSample(f"row-{i:06d}", _text(row), labels[i], placed[i], TEST if out else TRAIN)
        for i, (row, out) in enumerate(zip(rows, held_out, strict=True))
    ]


def _held_out(
    rows: Sequence[Mapping[str, Any]],
    placed: Sequence[str],
    labels: Sequence[str],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    named = np.array([str(row.get("split") or "").strip().lower() in _TEST_WORDS for row in rows])
    if named.any():
        return named
    groups = list(zip(placed, labels, strict=True))
    return stratified_test_mask(groups, ratio=TEST_RATIO, rng=rng)


def _largest_sites(samples: list[SourceSample], notes: list[str]) -> list[SourceSample]:
    sizes = Counter(sample.site for sample in samples if sample.split == TRAIN)
    kept = {site for site, _ in sizes.most_common(SITES_MAX)}
    left_out = {sample.site for sample in samples} - kept
    if left_out:
        notes.append(f"sites left out (the demo runs {SITES_MAX}): {', '.join(sorted(left_out))}")
    return [sample for sample in samples if sample.site in kept]


def _capped(
    samples: list[SourceSample], pool_max: int | None, rng: np.random.Generator, notes: list[str]
) -> list[SourceSample]:
    if pool_max is None:
        return samples
    kept: set[str] = set()
    for split, limit in ((TRAIN, pool_max), (TEST, max(1, pool_max // 3))):
        keys = [sample.key for sample in samples if sample.split == split]
        kept |= set(_drawn(keys, limit, rng))
        if len(keys) > limit:
            notes.append(f"{split}: {limit} of {len(keys)} rows, drawn by chance (--pool-max)")
    return [sample for sample in samples if sample.key in kept]


def _drawn(keys: Sequence[str], limit: int, rng: np.random.Generator) -> Iterable[str]:
    return [keys[i] for i in rng.permutation(len(keys))[:limit]]
