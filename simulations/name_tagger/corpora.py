"""Real labelled sentences for the mixed pack, read from a file that stays outside the project."""

import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

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
_TEXT_SETS = ("banking77.parquet", "medquad_qtype.parquet", "sms_spam.parquet")
_SMALL_WORD = re.compile(r"(?<![\w@#/.])[a-z]{2,}(?![\w@/])")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")


def data_folder() -> Path | None:
    """Folder of the development data sets: PERIMETER_DATA, or `shared/data` beside the checkout."""
    stated = os.environ.get("PERIMETER_DATA")
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(stated) if stated else beside
    return folder if folder.is_dir() else None


def read_real(path: Path, *, split: str, held_out: str = "") -> list[Sentence]:
    """Read `pii_real.parquet`: persons, places and organisations in public short messages.

    The corpora label nothing else, so numbers, weekdays, months, peoples and titles are marked
    IGNORE: training must not learn that a date is harmless.

    Args:
        path: The Parquet file.
        split: `train`, `held_out` or `test`.
        held_out: Source of the train part that training leaves out, to choose thresholds on.
    """
    wanted = "test" if split == "test" else "train"
    sentences: list[Sentence] = []
    for row in _rows(path, wanted):
        if wanted == "train" and (row["source"] == held_out) != (split == "held_out"):
            continue
        spans = [(s["start"], s["end"], s["type"]) for s in row["spans"]]
        if split == "train":
            spans += [
                (m.start(), m.end(), "IGNORE")
                for m in _UNLABELLED.finditer(row["text"])
                if not any(a < m.end() and m.start() < b for a, b, _ in spans)
            ]
        sentences += pieces(Sentence(row["text"], tuple(spans), is_real=split == "train"))
    return sentences


def pieces(sentence: Sentence, longest: int = 280) -> list[Sentence]:
    """Cut a long text at spaces outside its spans; a few source rows hold many messages.

    >>> [p.text for p in pieces(Sentence("Ann Lee met Bo", ((0, 7, "PERSON"),)), longest=5)]
    ['Ann Lee', ' met', ' Bo']
    """
    if len(sentence.text) <= longest:
        return [sentence]
    inside = bytearray(len(sentence.text))
    for start, end, _ in sentence.spans:
        inside[start:end] = b"\x01" * (end - start)
    cuts = [0]
    for position, sign in enumerate(sentence.text):
        # The cut waits for the last space before the limit only roughly: near it is near enough.
        if sign == " " and not inside[position] and position - cuts[-1] >= longest * 0.6:
            cuts.append(position)
    cuts.append(len(sentence.text))
    return [
        Sentence(
            sentence.text[low:high],
            tuple((a - low, b - low, kind) for a, b, kind in sentence.spans if low <= a < high),
            sentence.is_real,
        )
        for low, high in pairwise(cuts)
    ]


def ordinary_words(folder: Path, names: frozenset[str]) -> frozenset[str]:
    """Words that people write in lower case, counted in the train parts of the open text sets.

    Args:
        folder: Holds banking77, medquad_qtype, sms_spam and pii_real as Parquet.
        names: Known first names, lower case; they need many more occurrences to count.
    """
    counts: Counter[str] = Counter()
    for file in _TEXT_SETS:
        for row in _rows(folder / file, "train"):
            counts.update(_SMALL_WORD.findall(row["text"]))
    for row in _rows(folder / "pii_real.parquet", "train"):
        text = list(row["text"])
        for span in row["spans"]:
            text[span["start"] : span["end"]] = " " * (span["end"] - span["start"])
        counts.update(_SMALL_WORD.findall("".join(text)))
    return frozenset(w for w, n in counts.items() if n >= (25 if w in names else 3))


def harmless_sentences(folder: Path, names: frozenset[str], count: int) -> list[Sentence]:
    """Real sentences whose small words are harmless; all other words are marked IGNORE.

    Nobody labelled these sets, but a word in lower case that is no known first name is nearly
    never a name, so it can teach what ordinary language looks like.

    Args:
        folder: Holds banking77, medquad_qtype and sms_spam as Parquet.
        names: Known first names, lower case.
        count: Texts from each set.
    """
    sentences: list[Sentence] = []
    for file in _TEXT_SETS:
        rows = _rows(folder / file, "train")
        for row in rows[:: max(1, len(rows) // count)]:
            for piece in pieces(Sentence(row["text"][:600], ()), longest=200):
                doubtful = [
                    (m.start(), m.end(), "IGNORE")
                    for m in _TOKEN.finditer(piece.text)
                    if not m[0].islower() or m[0] in names
                ]
                sentences.append(Sentence(piece.text, tuple(doubtful)))
    return sentences


def _rows(path: Path, split: str) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return [row for row in parquet.read_table(path).to_pylist() if row["split"] == split]
