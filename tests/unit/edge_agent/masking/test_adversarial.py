"""Disguised personal data is found, or the text is held. It is never shown."""

import base64

import pytest

from edge_agent.masking.seam import Held, HeldReason, Masked

pytestmark = pytest.mark.presidio

CARD = "4111111111111111"
EMAIL = "bob.meyer@example.com"


def escaped(text):
    return "".join(f"\\u{ord(c):04x}" for c in text)


ROWS = {
    "zero-width space in an e-mail": ("mail bob.\u200bmeyer@example.com now", "meyer@"),
    "zero-width space in a card": ("card 4111\u200b1111\u200b1111\u200b1111 ok", "1111"),
    "soft hyphen in an e-mail": ("mail bob.me\u00adyer@exam\u00adple.com now", "yer@"),
    "word joiner in a card": ("card 41111111\u206011111111 ok", "1111"),
    "byte order mark in an e-mail": ("mail bob.\ufeffmeyer@example.com now", "meyer@"),
    "full-width digits": ("card ４１１１１１１１１１１１１１１１ ok", "１１１"),
    "full-width at sign": ("mail bob.meyer＠example.com now", "meyer＠"),
    "Arabic-Indic digits": ("card ٤١١١١١١١١١١١١١١١ ok", "١١١"),
    "Devanagari digits": ("phone ९८७६५४३२१० ok", "९८७"),
    "Cyrillic letters in an e-mail": ("mail bоb.mеyеr@example.com now", "yеr@"),
    "Cyrillic letters in a suffix": ("mail bob.meyer@example.соm now", "meyer@"),
    "no-break spaces in a card": ("card 4111\u00a01111\u00a01111\u00a01111 ok", "1111"),
    "en dashes in a card": ("card 4111–1111–1111–1111 ok", "1111"),
    "dots in a card": ("card 4111.1111.1111.1111 ok", "1111"),
    "card digit by digit": (f"card {' '.join(CARD)} ok", "1 1 1"),
    "new line inside a card": ("card 4111 1111\n1111 1111 ok", "1111"),
    "card glued to a letter": (f"cardX{CARD} ok", "1111"),
    "tag inside a card": ("card 4111<b>1111</b>1111<i>1111</i> ok", "1111"),
    "base64": (f"blob {base64.b64encode(f'mail {EMAIL} now'.encode()).decode()} end", "bWFpbCBib2"),
    "percent escapes": ("mail bob.meyer%40example.com now", "meyer%40"),
    "all percent escapes": ("mail %62%6f%62%40%65%78%2e%63%6f%6d now", "%6f%62"),
    "HTML entities": ("mail bob.meyer&#64;example&#46;com now", "meyer&#"),
    "hexadecimal entities": ("mail bob.meyer&#x40;example.com now", "meyer&#"),
    "backslash-u escapes": (f"mail {escaped(EMAIL)} now", "\\u0062"),
    "spelled e-mail": ("mail bob [at] example [dot] com now", "bob"),
    "spelled e-mail without brackets": ("mail bob at example dot com now", "bob"),
    "digits in words": ("call four one five five five five oh one two three now", "five five"),
    "JSON": (f'{{"contact":"{EMAIL}"}}', "meyer"),
    "CSV": (f"7;{EMAIL};open", "meyer"),
    "mailto": (f"see mailto:{EMAIL} now", "meyer"),
    "international domain": ("mail bob.meyer@müller.de now", "meyer"),
    "punycode domain": ("mail bob.meyer@xn--mller-kva.de now", "meyer"),
    "private suffix": ("mail root.smith@plant7.internal now", "smith@"),
    "staff id": ("staff id A1234567 was here", "1234567"),
    "medical record number": ("MRN 0034271 admitted", "0034271"),
    "number plate": ("the plate is B-MW 1234 there", "B-MW"),
    "American plate": ("license plate 7ABC123 left", "7ABC123"),
    "vehicle id": ("VIN 1HGCM82633A004352 sold", "82633A"),
    "password": ("the password is Tr0ub4dor&3 ok", "Tr0ub4dor"),
    "access key": ("use AKIAIOSFODNN7EXAMPLE now", "IOSFODNN"),
    "right-to-left override": ("phone \u202e7654-321-555\u202c now", "7654"),
    "name over a line break": ("signed by Katherine\nFisher today", "Fisher"),
    "American phone": ("call (202) 555-0147 now", "0147"),
    "British phone": ("call +44 20 7946 0958 now", "0958"),
    "German phone": ("call 030 901820 now", "901820"),
    "French phone": ("call 01 23 45 67 89 now", "45 67"),
    "Indian phone": ("call +91 98765 43210 now", "43210"),
}


@pytest.mark.parametrize("name", ROWS)
def test_disguised_data_is_found_or_held(masker, name):
    text, telltale = ROWS[name]
    assert telltale in text
    answer = masker.mask(text)
    assert isinstance(answer, Held) or telltale not in answer.text


def test_signs_that_reorder_text_hold_it(masker):
    answer = masker.mask("all is \u202ewell\u202c here")
    assert isinstance(answer, Held)
    assert answer.reason is HeldReason.BIDI_CONTROL


def test_a_name_found_once_is_masked_everywhere(masker):
    answer = masker.mask(
        "My name is Katherine Fisher. FISHER called, and fisher came. Katherine left."
    )
    assert isinstance(answer, Masked)
    assert "fisher" not in answer.text.lower()
    assert "katherine" not in answer.text.lower()
    assert answer.text.count("<PERSON_1>") >= 3
    assert "<PERSON_2>" not in answer.text


def test_equal_values_share_a_placeholder_and_different_ones_do_not(masker):
    answer = masker.mask("Write to a@x.org and b@x.org, then A@x.org again.")
    assert isinstance(answer, Masked)
    assert answer.text.count("<EMAIL_ADDRESS_1>") == 2
    assert answer.text.count("<EMAIL_ADDRESS_2>") == 1


def test_a_text_that_imitates_a_placeholder_does_not_share_its_number(masker):
    answer = masker.mask("We saw <EMAIL_ADDRESS_1> and then wrote to bob@example.com")
    assert isinstance(answer, Masked)
    assert answer.text.endswith("wrote to <EMAIL_ADDRESS_2>")
