"""Texts of the pages, one catalogue per language."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FALLBACK = "en"


@dataclass(frozen=True)
class Catalogues:
    """All catalogues by language.

    Attributes:
        by_locale: Language to key to text.
    """

    by_locale: Mapping[str, Mapping[str, str]]

    def locales(self) -> tuple[str, ...]:
        """Returns the languages that there are."""
        return tuple(sorted(self.by_locale))

    def of(self, locale: str) -> Mapping[str, str]:
        """Returns the catalogue of a language; English for an unknown one."""
        return self.by_locale.get(locale) or self.by_locale[FALLBACK]

    def text(self, locale: str, key: str, values: Mapping[str, object] | None = None) -> str:
        """Returns a text with its places filled; the key itself when it is missing."""
        found = self.of(locale).get(key) or self.by_locale[FALLBACK].get(key) or key
        return found.format(**values) if values else found


def load_catalogues(folder: Path) -> Catalogues:
    """Reads `<language>.json` files."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    return Catalogues(found)


def choose_locale(known: tuple[str, ...], own: str, accepted: str, fallback: str) -> str:
    """Chooses the language of a page.

    Args:
        known: Languages that there are.
        own: The person's own choice; may be empty.
        accepted: The browser's Accept-Language.
        fallback: The site's.

    >>> choose_locale(("de", "en"), "", "fr;q=0.9, de-AT;q=0.8", "en")
    'de'
    """
    if own in known:
        return own
    for part in accepted.split(","):
        language = part.partition(";")[0].strip().partition("-")[0].lower()
        if language in known:
            return language
    return fallback if fallback in known else FALLBACK
