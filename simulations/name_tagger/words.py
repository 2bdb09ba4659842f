"""Short word lists of our own: everyday words, signs of organisations, peoples, jobs, streets."""

import tomllib
from pathlib import Path


def _lists() -> dict[str, tuple[str, ...]]:
    table = tomllib.loads((Path(__file__).parent / "words.toml").read_text("utf-8"))
    return {
        name: tuple(word.strip() for word in phrases.replace("\n", " ").split(","))
        for name, phrases in table.items()
    }


_LISTS = _lists()

EVERYDAY_WORDS = _LISTS["everyday_words"]
ORGANIZATION_WORDS = _LISTS["organization_words"]
PEOPLES = _LISTS["peoples"]
JOB_HEADS = _LISTS["job_heads"]
JOB_FIELDS = _LISTS["job_fields"]
TITLES = _LISTS["titles"]
STREET_TYPES = _LISTS["street_types"]
STREET_PREFIXES = _LISTS["street_prefixes"]
STREET_ENDINGS = _LISTS["street_endings"]
COMPANY_NAMES = _LISTS["company_names"]
COMPANY_PARTS = _LISTS["company_parts"]
SYLLABLES = _LISTS["syllables"]
NAME_ENDINGS = _LISTS["name_endings"]
MONTHS = _LISTS["months"]
MONTHS_DE = _LISTS["months_de"]
MONTHS_ES = _LISTS["months_es"]
PEOPLES_DE = _LISTS["peoples_de"]
