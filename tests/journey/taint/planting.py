"""Puts markers into the samples, file names, columns, notes and user names of two sites."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from tests.journey.taint.markers import Marker, Place

CLASSES = ("account", "delivery", "refund")
_PHRASES = {
    "account": ("cannot log in to my account", "the password of my account was reset",
                "please close the account", "my account shows a wrong address"),
    "delivery": ("the parcel has not arrived", "delivery was left at the wrong door",
                 "when will the delivery come", "the parcel is damaged"),
    "refund": ("I want my money back", "the refund has not been paid",
               "you charged me twice", "please refund the order"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planted:
    """What one site holds.

    Attributes:
        contents: Every sample, raw.
        notes: What experts write, one marker each.
        user_names: Whom to add as experts.
    """

    contents: tuple[str, ...]
    notes: tuple[str, ...]
    user_names: tuple[str, ...]


def plant(site: int, markers: tuple[Marker, ...], folder: Path) -> Planted:
    """Writes the samples of a site: a growing file with odd columns, and a folder of files.

    Args:
        site: 0 or 1; each takes every second marker.
        markers: All markers.
        folder: Gets `rows.jsonl`, `texts/` and `test.jsonl`.
    """
    chance = random.Random(site)
    mine = [marker.value for marker in markers[site::2] if marker.place is Place.TEXT]
    names = _of(markers, Place.FILE_NAME)[site::2]
    columns = _of(markers, Place.COLUMN)[site::2]
    (folder / "texts").mkdir(parents=True)
    rows, contents = [], []
    for number, value in enumerate(mine[: len(mine) - len(names)] + [""] * 30):
        text = _sentence(chance, value)
        contents.append(text)
        rows.append({"text": text, columns[number % len(columns)]: columns[-number % len(columns)]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, value in zip(names, mine[-len(names) :], strict=True):
        text = _sentence(chance, value)
        contents.append(text)
        (folder / "texts" / f"{name}.txt").write_text(text)
    _write_test_rows(chance, mine, folder / "test.jsonl")
    return Planted(
        tuple(contents),
        tuple(_of(markers, Place.NOTE)[site::2]),
        tuple(_of(markers, Place.USER_NAME)[site::2]),
    )


def _write_test_rows(chance: random.Random, mine: list[str], path: Path) -> None:
    rows = []
    for number in range(15):
        label = CLASSES[number % 3]
        rows.append(
            {"text": f"{chance.choice(_PHRASES[label])}, says {mine[number]}", "label": label}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _of(markers: tuple[Marker, ...], place: Place) -> list[str]:
    return [marker.value for marker in markers if marker.place is place]


def _sentence(chance: random.Random, value: str) -> str:
    label = chance.choice(CLASSES)
    phrases = chance.sample(_PHRASES[label], 2)
    named = f" My name or number is {value}." if value else ""
    return f"Hello, {phrases[0]}.{named} Also, {phrases[1]}. Case {chance.randrange(10**6)}."


def class_of(text: str) -> int:
    """Returns the class that an attentive expert would choose.

    >>> class_of("please refund the order")
    2
    """
    counts = [sum(phrase in text for phrase in _PHRASES[name]) for name in CLASSES]
    return counts.index(max(counts))
