"""Word lists: names, places, ordinary words. From Faker, phonenumbers and the standard library.

Faker (MIT) brings first and last names and places of its locales, `phonenumbers` (Apache-2.0) the
place names of its area-code tables. The standard library's own documentation (PSF) and the word
list of symspellpy (MIT; from Google Books Ngrams, CC BY 3.0, and SCOWL) tell ordinary words.
"""

import importlib
import pkgutil
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from edge_agent.masking.gazetteer import Flag
from edge_agent.masking.tokens import word_hash
from simulations.name_tagger.words import EVERYDAY_WORDS, ORGANIZATION_WORDS

_WORD = re.compile(r"[^\W\d_]{2,}")
_FREQUENT = 30_000
_COMMON_LOCALES = ("en_US", "en_GB", "en_IE", "en_IN", "de_DE", "es_ES", "fr_FR", "it_IT")


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Word lists for the generator; every tuple is sorted, so that a seed means the same texts."""

    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    common_first_names: tuple[str, ...]
    common_last_names: tuple[str, ...]
    places: tuple[str, ...]
    countries: tuple[str, ...]
    jobs: tuple[str, ...]
    ordinary: frozenset[str]


@cache
def load_lexicon() -> Lexicon:
    """Collect all word lists. Takes a few seconds; the result is kept."""
    first, last = _person_names()
    return Lexicon(
        first_names=_tidy(first),
        last_names=_tidy(last),
        common_first_names=_tidy(_person_names(_COMMON_LOCALES)[0]),
        common_last_names=_tidy(_person_names(_COMMON_LOCALES)[1]),
        places=_tidy([*_faker_places(), *_area_code_places()]),
        countries=_countries(),
        jobs=_jobs(),
        ordinary=ordinary_words(),
    )


def gazetteer_flags(lexicon: Lexicon, extra_ordinary: Iterable[str] = ()) -> dict[int, int]:
    """Flags by word hash: what a word may be, see `Flag`."""
    flags: Counter[int] = Counter()

    def mark(phrases: Iterable[str], flag: Flag) -> None:
        for phrase in phrases:
            for word in _WORD.findall(phrase):
                flags[word_hash(word)] |= flag

    mark(lexicon.first_names, Flag.FIRST_NAME)
    mark(lexicon.last_names, Flag.LAST_NAME)
    mark(lexicon.places, Flag.PLACE)
    mark(lexicon.countries, Flag.PLACE)
    mark(ORGANIZATION_WORDS, Flag.ORGANIZATION)
    mark(lexicon.ordinary, Flag.ORDINARY)
    mark(extra_ordinary, Flag.ORDINARY)
    return {code: int(flag) for code, flag in flags.items()}


@cache
def ordinary_words() -> frozenset[str]:
    """Words that the standard library's documentation, lorem lists and our list write small."""
    counts: Counter[str] = Counter()
    from pydoc_data.topics import topics

    for page in topics.values():
        counts.update(re.findall(r"\b[a-z]{2,}\b", page))
    for source in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = source.read_text(errors="replace")
        for comment in re.findall(r'#([^\n]*)|"""(.+?)"""', text, re.DOTALL):
            counts.update(re.findall(r"\b[a-z]{3,}\b", "".join(comment)))
    words = {word for word, count in counts.items() if count >= 3}
    lorem = importlib.import_module("faker.providers.lorem.en_US")
    words.update(word.lower() for word in lorem.Provider.word_list)
    words.update(EVERYDAY_WORDS)
    names = {w.lower() for part in _person_names() for n in part for w in _WORD.findall(n)}
    names.update(name.lower() for name in (*_faker_places(), *_area_code_places(), *_countries()))
    return frozenset(words | (_frequent_words() - names))


def _frequent_words() -> set[str]:
    """The most frequent English words of symspellpy's list; it holds names, all in lower case."""
    lines = files("symspellpy").joinpath("frequency_dictionary_en_82_765.txt")
    return {line.split(" ")[0] for line in lines.read_text("utf-8-sig").splitlines()[:_FREQUENT]}


def _person_names(locales: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    first: list[str] = []
    last: list[str] = []
    for provider in _providers("faker.providers.person", locales):
        for attribute in dir(provider):
            values = getattr(provider, attribute)
            if isinstance(values, str) or not isinstance(values, Iterable):
                continue
            if attribute.startswith("first_name"):
                first += [v for v in values if isinstance(v, str)]
            elif attribute.startswith("last_name"):
                last += [v for v in values if isinstance(v, str)]
    return first, last


def _faker_places() -> Iterator[str]:
    for provider in _providers("faker.providers.address"):
        for attribute in ("cities", "city_names", "states", "towns", "municipalities"):
            values = getattr(provider, attribute, ())
            yield from (v for v in values if isinstance(v, str))


def _countries() -> tuple[str, ...]:
    provider = importlib.import_module("faker.providers.address.en").Provider
    short = (c for c in provider.countries if "(" not in c and len(c) < 26)
    return tuple(sorted({*short, "USA", "U.S.", "UK", "England", "Scotland", "Wales"}))


def _jobs() -> tuple[str, ...]:
    """Job titles; Faker writes some of them back to front ("Engineer, civil")."""
    provider = importlib.import_module("faker.providers.job").Provider
    turned = (" ".join(reversed(job.split(", "))) for job in provider.jobs)
    return tuple(sorted({*provider.jobs, *turned}))


def _area_code_places() -> Iterator[str]:
    """Place names in the area-code tables of `phonenumbers`, all languages in Latin letters."""
    from phonenumbers import geodata

    for module in pkgutil.iter_modules(geodata.__path__):
        if not module.name.startswith("data"):
            continue
        table = importlib.import_module(f"phonenumbers.geodata.{module.name}").data
        for names in table.values():
            for name in names.values():
                yield from re.split(r"[/,(]| - ", name)


def _providers(package: str, locales: Sequence[str] = ()) -> Iterator[type]:
    root = importlib.import_module(package)
    for module in locales or sorted(m.name for m in pkgutil.iter_modules(root.__path__)):
        yield importlib.import_module(f"{package}.{module}").Provider


def _tidy(names: Iterable[str]) -> tuple[str, ...]:
    """Latin-letter names of sensible length, sorted, once each."""
    kept = {name.strip(" .-") for name in names}
    return tuple(sorted(n for n in kept if 2 <= len(n) <= 32 and _is_latin(n) and n[0].isupper()))


def _is_latin(name: str) -> bool:
    return all(c < "\u0250" or "\u1e00" <= c <= "\u1eff" for c in name) and not any(
        c.isdigit() for c in name
    )
