"""What a password must be."""

from __future__ import annotations

from collections.abc import Collection

from review_portal.core.model import Refusal

LENGTH_MIN = 12
LENGTH_MAX = 256
DISTINCT_MIN = 5


def check_password(password: str, username: str, common: Collection[str]) -> Refusal | None:
    """Returns why a password is refused, or None.

    Length counts, not special characters (NIST SP 800-63B).

    >>> check_password("correct horse battery", "ada", ()) is None
    True
    >>> check_password("password1234", "ada", {"password"}).reason
    'PASSWORD_COMMON'
    """
    folded = password.casefold()
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        return Refusal("PASSWORD_LENGTH", f"a password has {LENGTH_MIN} to {LENGTH_MAX} characters")
    if len(set(folded)) < DISTINCT_MIN:
        return Refusal("PASSWORD_REPETITIVE", "the password repeats few characters; choose another")
    if username.casefold() in folded:
        return Refusal("PASSWORD_NAMED", "the password holds the user name; choose another")
    if folded in common or folded.strip("0123456789!?.-_ ") in common:
        return Refusal("PASSWORD_COMMON", "the password is among the most common ones")
    return None


_STEMS = """
password passwort qwertyuiop qwertzuiop administrator letmein iloveyou welcome willkommen monkey
dragon football baseball sunshine princess superman batman trustno master hallo schatz sommer
winter hospital krankenhaus klinik perimeter labeling annotation changeme qwerty qwertz asdfgh
abcdef abcdefgh abcdefghijkl login secret geheim default passw0rd p@ssw0rd p@ssword starwars
whatever computer internet summer spring autumn january february september october november
december
"""

COMMON_PASSWORDS = frozenset(_STEMS.split())
"""Stems of the most common passwords; digits and signs around a stem do not help it."""
