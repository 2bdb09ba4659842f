"""Cards, e-mails, IBANs, IPs and social security numbers: every one, always."""

import random

import pytest

from edge_agent.masking.patterns import luhn_valid
from edge_agent.masking.seam import Masked

pytestmark = pytest.mark.presidio

SENTENCES = (
    "{}",
    "please charge {} today",
    "My number is {}.",
    "{}, that is it",
    "Old: {} - new one follows",
    '{{"value": "{}"}}',
    "id;{};closed",
    "<td>{}</td>",
    "line one\n{}\nline three",
    "({})",
)
SUFFIXES = (
    "com", "de", "museum", "corp", "internal", "local", "lan", "plant7", "intranet", "co.uk",
    "xn--p1ai", "localdomain", "technology", "x",
)  # fmt: skip


def hidden(masker, values, chance):
    sentences = [chance.choice(SENTENCES) for _ in values]
    texts = [s.format(v) for s, v in zip(sentences, values, strict=True)]
    shown = []
    for text, value, answer in zip(texts, values, masker.mask_many(texts), strict=True):
        assert isinstance(answer, Masked), (text, answer)
        start = text.index(value)
        covered = set()
        for span in answer.spans:
            covered.update(range(span.raw_start, span.raw_end))
        missed = [i for i in range(start, start + len(value)) if text[i].isalnum()]
        if not covered.issuperset(missed):
            shown.append(text)
    return shown


def digits(chance, count):
    return "".join(str(chance.randint(0, 9)) for _ in range(count))


def card(chance, length):
    body = digits(chance, length - 1)
    return next(body + str(check) for check in range(10) if luhn_valid(body + str(check)))


def grouped(chance, value):
    separator = chance.choice(("", "", " ", "-", "."))
    size = chance.choice((3, 4, 4, 5))
    return separator.join(value[i : i + size] for i in range(0, len(value), size))


@pytest.mark.parametrize("length", range(12, 20))
def test_every_card_that_passes_the_luhn_check_is_masked(masker, length):
    chance = random.Random(length)
    values = [grouped(chance, card(chance, length)) for _ in range(150)]
    assert hidden(masker, values, chance) == []


def test_every_email_is_masked_whatever_its_suffix(masker):
    chance = random.Random(1)
    names = ("root", "ann.lee", "a+b", "x_1", "O'Neil".lower().replace("'", ""), "1234", "info-9")
    hosts = ("mail", "plant7", "10-4", "a.b", "srv01")
    values = [
        f"{chance.choice(names)}@{chance.choice(hosts)}.{chance.choice(SUFFIXES)}"
        for _ in range(400)
    ]
    values += ["root@localhost", "a@b", "ann@192.168.0.1"]
    assert hidden(masker, values, chance) == []


def test_every_iban_is_masked(masker):
    chance = random.Random(2)
    values = []
    for country, length in (("DE", 18), ("GB", 18), ("FR", 23), ("NL", 14), ("ES", 20), ("NO", 11)):
        for _ in range(40):
            body = digits(chance, length)
            if country in {"GB", "NL"}:
                body = "".join(chance.choice("ABCDEFGHKLMN") for _ in range(4)) + body[4:]
            number = "".join(str(int(c, 36)) for c in body + country + "00")
            iban = f"{country}{98 - int(number) % 97:02d}{body}"
            spaced = " ".join(iban[i : i + 4] for i in range(0, len(iban), 4))
            values.append(chance.choice((iban, spaced)))
    assert hidden(masker, values, chance) == []


def test_every_ip_address_is_masked(masker):
    chance = random.Random(3)
    values = [".".join(str(chance.randint(0, 255)) for _ in range(4)) for _ in range(250)]
    values += [":".join(f"{chance.randint(1, 65535):x}" for _ in range(8)) for _ in range(100)]
    values += ["fe80::1", "2001:db8::8a2e:370:7334", "::ffff:10.1.2.3"]
    assert hidden(masker, values, chance) == []


def test_every_social_security_number_is_masked(masker):
    chance = random.Random(4)
    values = [
        chance.choice(("{}-{}-{}", "{} {} {}", "{}{}{}")).format(
            f"{chance.randint(1, 665):03d}", f"{chance.randint(1, 99):02d}", digits(chance, 4)
        )
        for _ in range(300)
    ]
    assert hidden(masker, values, chance) == []
