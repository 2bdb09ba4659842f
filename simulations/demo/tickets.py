"""The tickets campaign: support messages that hold personal data, made here with Faker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simulations.demo.partition import dirichlet_sites, stratified_test_mask
from simulations.demo.samples import TEST, TRAIN, CampaignSource, SourceSample, dealt_to_devices
from simulations.demo.ticket_phrases import ASIDES, CLOSINGS, CORES, ITEMS, OPENINGS

NAME = "tickets"
CLASSES = tuple(CORES)
LOCALES = ("en_US", "en_GB", "en_IN", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL")
TEST_RATIO = 0.25
GUIDELINE = (
    "What does the customer want done? Judge the request, not the asides: a message may praise the "
    "delivery and still be about the bill. Personal details were masked on the device."
)
MARKER_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"


def marker_strings(count: int, *, rng: np.random.Generator) -> tuple[str, ...]:
    """Returns unlikely strings that are planted in texts to prove that no text travels.

    >>> marker_strings(1, rng=np.random.default_rng(0))[0].startswith("Mk")
    True
    """
    letters = rng.integers(0, len(MARKER_ALPHABET), size=(count, 10))
    return tuple("Mk" + "".join(MARKER_ALPHABET[i] for i in row) for row in letters)


class TicketWriter:
    """Writes support messages of a given class, each with personal data of one made-up customer."""

    def __init__(self, rng: np.random.Generator) -> None:
        from faker import Faker

        self._rng = rng
        self._fakers = [Faker(locale) for locale in LOCALES]
        for faker in self._fakers:
            faker.seed_instance(int(rng.integers(2**31)))

    def write(self, label: str) -> str:
        """Returns one message of the class `label`."""
        parts = [self._one(OPENINGS), self._one(CORES[label])]
        if self._rng.random() < 0.7:
            parts.insert(int(self._rng.integers(1, 3)), self._one(ASIDES))
        parts.append(self._one(CLOSINGS))
        faker = self._fakers[int(self._rng.integers(len(self._fakers)))]
        text = " ".join(part for part in parts if part)
        return text.format_map(_Slots(faker, self._rng))

    def _one(self, phrases: Sequence[str]) -> str:
        return phrases[int(self._rng.integers(len(phrases)))]


class _Slots(dict[str, str]):
    """Fills the slots of one message; a slot that occurs twice has one value, like one customer."""

    def __init__(self, faker: Any, rng: np.random.Generator) -> None:
        super().__init__()
        self._faker = faker
        self._rng = rng

    def __missing__(self, slot: str) -> str:
        faker = self._faker
        makers = {
            "person": faker.name,
            "email": faker.email,
            "phone": faker.phone_number,
            "address": lambda: faker.address().replace("\n", ", "),
            "city": faker.city,
            "iban": faker.iban,
            "card": faker.credit_card_number,
            "username": faker.user_name,
            "date": lambda: faker.date(pattern="%d %B %Y"),
            "amount": lambda: (
                f"{int(self._rng.integers(5, 400))}.{int(self._rng.integers(100)):02d}"
            ),
            "item": lambda: ITEMS[int(self._rng.integers(len(ITEMS)))],
            "reference": lambda: f"R-{int(self._rng.integers(10**5, 10**6))}",
        }
        value = str(makers[slot]())
        self[slot] = value
        return value


def tickets_campaign(
    sites: Sequence[str],
    *,
    seed: int,
    count: int = 1200,
    alpha: float = 1.0,
    markers: Sequence[str] = (),
) -> CampaignSource:
    """Writes the messages and spreads them over the sites.

    Args:
        sites: Site slugs.
        seed: Seed of texts and partition.
        count: Messages in all; a quarter is held out.
        alpha: Dirichlet concentration; smaller means more uneven.
        markers: Strings to plant, one each in as many messages of the pool.

    Returns:
        The campaign; equal arguments give equal texts.
    """
    rng = np.random.default_rng(seed)
    writer = TicketWriter(rng)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    texts = [writer.write(CLASSES[index]) for index in labels]
    site_of = dirichlet_sites(labels, site_count=len(sites), alpha=alpha, rng=rng)
    groups = list(zip(site_of.tolist(), labels.tolist(), strict=True))
    held_out = stratified_test_mask(groups, ratio=TEST_RATIO, rng=rng)
    for marker, row in zip(markers, np.flatnonzero(~held_out), strict=False):
        texts[row] = f"{texts[row]} Case {marker}."
    samples = [
        SourceSample(
            key=f"ticket-{row:05d}",
            content=text,
            label=CLASSES[labels[row]],
            site=sites[site_of[row]],
            split=TEST if held_out[row] else TRAIN,
        )
        for row, text in enumerate(texts)
    ]
    return CampaignSource(NAME, "text", CLASSES, dealt_to_devices(samples), guideline=GUIDELINE)
