"""Real labelled sentences for the mixed pack, read from a file that stays outside the project."""

import os
import re
from pathlib import Path

from simulations.name_tagger import words
from simulations.name_tagger.generator import Sentence

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UNLABELLED = re.compile(
    r"\d+|\b(?:"
    + "|".join(
        map(
            re.escape,
            (*words.MONTHS, *words.PEOPLES, *_WEEKDAYS, "Mr", "Mrs", "Ms", "Dr", "Miss"),
        )
    )
    + r")\b\.?",
    re.IGNORECASE,
)
VALIDATION_EVERY = 10


def data_folder() -> Path | None:
    """Folder of the development data sets: PERIMETER_DATA, or `shared/data` beside the checkout."""
    stated = os.environ.get("PERIMETER_DATA")
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(stated) if stated else beside
    return folder if folder.is_dir() else None


def read_real(path: Path, *, split: str) -> list[Sentence]:
    """Read `pii_real.parquet`: persons, places and organisations in public short messages.

    The corpora label nothing else, so numbers, weekdays, months, peoples and titles are marked
    IGNORE: training must not learn that a date is harmless.

    Args:
        path: The Parquet file.
        split: `train`, `validation` (every tenth text of the train part) or `test`.
    """
    from pyarrow import parquet

    wanted = "test" if split == "test" else "train"
    sentences = []
    for row in parquet.read_table(path).to_pylist():
        is_validation = wanted == "train" and row["id"] % VALIDATION_EVERY == 0
        if row["split"] != wanted or is_validation != (split == "validation"):
            continue
        spans = [(s["start"], s["end"], s["type"]) for s in row["spans"]]
        if split == "train":
            spans += [
                (m.start(), m.end(), "IGNORE")
                for m in _UNLABELLED.finditer(row["text"])
                if not any(a < m.end() and m.start() < b for a, b, _ in spans)
            ]
        sentences.append(Sentence(row["text"], tuple(spans)))
    return sentences
