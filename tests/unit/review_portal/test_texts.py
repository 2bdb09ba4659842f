"""Every language says everything that pages and scripts ask for."""

from __future__ import annotations

import re

from review_portal.portal import PACKAGE
from review_portal.texts import load_catalogues

CATALOGUES = load_catalogues(PACKAGE / "locales")
IN_TEMPLATES = re.compile(r"""\bt\("([a-z_.A-Z]+[a-zA-Z_])"[,)]""")
IN_SCRIPTS = re.compile(r"""(?:texts\[|fill\()"(label\.[a-z_.]+[a-z_])["\]]""")


def places(text: str) -> set[str]:
    return set(re.findall(r"\{([a-z_]+)\}", text))


def test_all_languages_have_the_same_texts_with_the_same_places() -> None:
    english = CATALOGUES.of("en")
    assert len(CATALOGUES.locales()) >= 2
    for locale in CATALOGUES.locales():
        own = CATALOGUES.of(locale)
        assert own.keys() == english.keys(), own.keys() ^ english.keys()
        differing = [key for key in own if places(own[key]) != places(english[key])]
        assert differing == []


def test_every_text_that_a_page_or_a_script_asks_for_is_there() -> None:
    asked = set()
    for path in (PACKAGE / "templates").glob("*.html"):
        asked |= set(IN_TEMPLATES.findall(path.read_text("utf-8")))
    for path in (PACKAGE / "static").glob("*.js"):
        asked |= set(IN_SCRIPTS.findall(path.read_text("utf-8")))
    assert len(asked) > 100
    assert asked - set(CATALOGUES.of("en")) == set()
