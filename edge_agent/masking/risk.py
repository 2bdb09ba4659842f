"""How much personal data a text may hold, in two bits: cheap enough to ask while scoring."""

import re

_SIGNS = (
    re.compile(r"\S@\S|@\w\w"),
    re.compile(r"\d(?:[ .\-/()]{0,2}\d){6,}"),
    re.compile(r"(?:https?://|www\.)\S"),
    re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9]{8,}\b|\b\d{1,3}(?:\.\d{1,3}){3}\b"),
    re.compile(
        r"\b(?:my name is|i am|name:|dear|mr|mrs|ms|dr|born|address|passport|password|patient|ssn|"
        r"phone|herr|frau|señora?|geboren|nacid[oa])\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?<=[a-z,;] )[A-ZÀ-Þ][a-zà-ÿ]+ [A-ZÀ-Þ][a-zà-ÿ'-]+"
        r"|\b\d+ [A-ZÀ-Þ][a-z]+ (?:St|Rd|Ave)"
    ),
)


def risk_band(text: str) -> int:
    """Band of signs of personal data: 0 none, 1 one kind, 2 two kinds, 3 more.

    It looks for kinds of signs, not for places to mask, and must not be used to decide whether a
    text may be shown.

    Args:
        text: Raw text; only its first 4,000 characters count.

    Returns:
        0 to 3.

    >>> [risk_band(t) for t in ("the pump is loud", "mail bob@x.org", "Dear Ann, mail bob@x.org")]
    [0, 1, 2]
    """
    head = text[:4000]
    return min(3, sum(sign.search(head) is not None for sign in _SIGNS))
