"""Two hundred marker secrets: shaped like real ones, but so odd that chance cannot make them."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from enum import StrEnum

_ALPHABET = string.ascii_letters + string.digits
_NAMES = (
    ("Żyglof", "Qwirbensky"), ("Åsmorjd", "Blövqvist"), ("Œuvrinel", "Ptaszkôwny"),
    ("Джулькор", "Вязмыкин"), ("زفرالكين", "خطيلوشاب"), ("צפרדמון", "גולשטקיר"),
    ("Nguyvễqt", "Khrzạnhom"), ("玄琥珀霧", "鷲鷹獅郎"), ("Xochiwtl", "Tepzquiahu"),
    ("Mc'Vexnor", "O'Dwrilgan"),
)  # fmt: skip


class Place(StrEnum):
    """Where a marker is planted."""

    TEXT = "text"
    FILE_NAME = "file name"
    COLUMN = "column"
    NOTE = "note"
    USER_NAME = "user name"


@dataclass(frozen=True, slots=True)
class Marker:
    """A secret that must never leave the site.

    Attributes:
        name: For reports, so that a report does not spread the secret's meaning.
        value: The secret, at least 12 bytes in UTF-8.
        place: Where it is planted.
    """

    name: str
    value: str
    place: Place


def make_markers(seed: int) -> tuple[Marker, ...]:
    """Returns 60 personal ones and 60 tokens for texts, 20 each for the four other places."""
    chance = random.Random(seed)
    groups = (
        ("person", Place.TEXT, [_personal(chance, number) for number in range(60)]),
        ("token", Place.TEXT, [_token(chance, 22) for _ in range(60)]),
        ("file", Place.FILE_NAME, [f"scan-{_token(chance, 14)}-größe" for _ in range(20)]),
        ("column", Place.COLUMN, [f"key_{_token(chance, 16)}" for _ in range(20)]),
        (
            "note",
            Place.NOTE,
            [f"as {_token(chance, 9)} said {_token(chance, 8)}" for _ in range(20)],
        ),
        ("user", Place.USER_NAME, [f"user-{_token(chance, 16).lower()}" for _ in range(20)]),
    )
    markers = tuple(
        Marker(f"{group}-{number:02d}", value, place)
        for group, place, values in groups
        for number, value in enumerate(values)
    )
    assert len({marker.value for marker in markers}) == len(markers) == 200
    assert all(len(marker.value.encode()) >= 12 for marker in markers)
    return markers


def _token(chance: random.Random, length: int) -> str:
    return "".join(chance.choices(_ALPHABET, k=length))


def _digits(chance: random.Random, length: int) -> str:
    return "".join(chance.choices(string.digits, k=length))


def _personal(chance: random.Random, number: int) -> str:
    if number < 10:
        return " ".join(_NAMES[number])
    shapes = (
        lambda: f"{_token(chance, 8).title()} {_token(chance, 10).title()}",
        lambda: f"MRN-{_digits(chance, 6)}-{_digits(chance, 6)}",
        lambda: f"+49 1{_digits(chance, 2)} {_digits(chance, 4)}-{_digits(chance, 5)}",
        lambda: _iban(_digits(chance, 18)),
        lambda: _card(f"4{_digits(chance, 14)}"),
        lambda: f"{_token(chance, 9).lower()}@{_token(chance, 8).lower()}.example",
    )
    return shapes[number % len(shapes)]()


def _iban(account: str) -> str:
    """A German account number with check digits by ISO 7064 (D is 13, E is 14)."""
    check = 98 - int(account + "131400") % 97
    return f"DE{check:02d}{account}"


def _card(digits: str) -> str:
    """Sixteen digits of which the last makes Luhn's sum divisible by ten."""
    total = sum(
        sum(divmod(int(digit) * (2 if place % 2 == 0 else 1), 10))
        for place, digit in enumerate(digits)
    )
    return digits + str(-total % 10)
