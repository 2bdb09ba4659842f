"""Values for the slots of sentence templates: names, places, addresses, organisations, dates."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from simulations.name_tagger import words
from simulations.name_tagger.lexicon import Lexicon

T = TypeVar("T")

LABEL_OF_SLOT = {
    **dict.fromkeys(("person", "first", "last", "lastfirst"), "PERSON"),
    **dict.fromkeys(("title", "job"), "TITLE"),
    **dict.fromkeys(
        ("city", "country", "address", "street", "zip", "addrquoted", "addrquery", "corner"),
        "LOCATION",
    ),
    "org": "ORGANIZATION",
    **dict.fromkeys(("nrp", "nrpde"), "NRP"),
    **dict.fromkeys(("date", "datetime", "year", "weekday", "weekdayes", "month"), "DATE_TIME"),
    "age": "AGE",
    **dict.fromkeys(("phone", "email", "card", "iban", "ip", "id", "work", "tag"), "IGNORE"),
}
"""Label of each slot; slots without one are ordinary text. IGNORE does not count in training."""

_WEEKDAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    "es": ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
}
_MONTHS = {"en": words.MONTHS, "de": words.MONTHS_DE, "es": words.MONTHS_ES}
_TITLES = {"en": words.TITLES, "de": ("Herr", "Frau", "Dr.", "Prof."), "es": ("Sr.", "Sra.", "Dr.")}
_PARTICLES = ("van", "van der", "von", "de", "de la", "del", "di", "da", "bin", "al", "el", "ter")
_STATES = "AL AK AZ CA CO CT FL GA IL IN KS LA MA MD MI MN MO NC NJ NY OH OR PA TX UT VA WA WI"


class Slots:
    """Draws slot values.

    Args:
        lexicon: Word lists.
        chance: Seeded source of chance.
        language: en, de or es.
    """

    def __init__(self, lexicon: Lexicon, chance: random.Random, language: str = "en") -> None:
        self._lexicon = lexicon
        self._chance = chance
        self._language = language
        self._ordinary = sorted(lexicon.ordinary)
        self._makers: dict[str, Callable[[], str]] = {
            "person": self.person,
            "lastfirst": lambda: f"{self.last()}, {self.first()}",
            "first": self.first,
            "last": self.last,
            "title": lambda: self._pick(_TITLES[language]),
            "job": self.job,
            "city": self.city,
            "country": lambda: self._pick(self._lexicon.countries),
            "street": self.street,
            "address": self.address,
            "corner": self.corner,
            "addrquoted": lambda: self.lines_of_address("\n>"),
            "addrquery": lambda: self.lines_of_address("\n?? "),
            "zip": self.postcode,
            "org": self.organization,
            "nrp": lambda: self._pick(words.PEOPLES),
            "nrpde": lambda: self._pick(words.PEOPLES_DE),
            "date": self.date,
            "datetime": lambda: f"{self._iso_date()} {self._digits('##:##:##')}",
            "year": lambda: str(self._chance.randint(1930, 2029)),
            "month": lambda: self._pick(_MONTHS[language]),
            "weekday": lambda: self._pick(_WEEKDAYS[language]),
            "weekdayes": lambda: self._pick(_WEEKDAYS["es"]),
            "age": lambda: str(self._chance.randint(1, 99)),
            "num": lambda: str(self._chance.choice((1, 2, 3, 4, 5, 7, 8, 10, 12, 20, 25, 50, 100))),
            "time": lambda: self._digits("1#:#0"),
            "amount": lambda: self._pick(("$", "€", "£", "")) + self._digits("##.#0"),
            "phone": self.phone,
            "email": self.email,
            "card": lambda: self._digits("4###############"),
            "iban": lambda: self._digits("DE####################"),
            "ip": lambda: self._digits("10.##.1#.2#"),
            "id": lambda: self._pick(("", "A", "MRN", "T-")) + self._digits("######"),
            "work": lambda: f"{self._pick(self._ordinary).title()} {self.last()}",
            "tag": lambda: "".join(self._pick(words.COMPANY_PARTS) for _ in range(2)),
            "word": lambda: self._pick(self._ordinary),
            "Word": lambda: self._pick(self._ordinary).capitalize(),
        }

    def fill(self, slot: str) -> str:
        """A value for a slot.

        Raises:
            KeyError: No such slot.
        """
        return self._makers[slot]()

    def first(self) -> str:
        """A first name, sometimes doubled or made up."""
        roll = self._chance.random()
        if roll < 0.04:
            return f"{self._any_first()}-{self._any_first()}"
        if roll < 0.08:
            return self.made_up()
        return self._any_first()

    def last(self) -> str:
        """A last name, sometimes made up, hyphenated or with a particle."""
        roll = self._chance.random()
        if roll < 0.12:
            return self.made_up()
        if roll < 0.17:
            return f"{self._any_last()}-{self._any_last()}"
        if roll < 0.21:
            return f"{self._pick(_PARTICLES)} {self._any_last()}"
        if roll < 0.23:
            return f"{self._pick(('O', 'D'))}'{self._any_last()}"
        return self._any_last()

    def person(self) -> str:
        """A full name in one of the ways people write it."""
        first, last = self.first(), self.last()
        initial = self._pick("ABCDEFGHJKLMNPRSTVW")
        styles = (
            (0.60, f"{first} {last}"),
            (0.08, first),
            (0.06, f"{first} {initial}. {last}"),
            (0.05, f"{first} {initial} {last}"),
            (0.05, f"{first} {self.first()} {last}"),
            (0.05, f"{first} {last} {self._any_last()}"),
            (0.04, f"{first[0]}. {last}"),
            (0.03, f"{self._pick(_TITLES[self._language])} {last}"),
            (0.02, f"{self._pick(_TITLES[self._language])} {first} {last}"),
            (0.02, f"{first} {last} {self._pick(('Jr.', 'Sr.', 'II', 'III', 'MD', 'PhD'))}"),
        )
        return self._weighted(styles)

    def city(self) -> str:
        """A place name; sometimes in capitals, sometimes made up."""
        roll = self._chance.random()
        if roll < 0.06:
            return self.made_up() + self._pick(("ton", "ville", "burg", "stad", "furt", " Town"))
        name = self._pick(self._lexicon.places)
        return name.upper() if roll < 0.12 else name

    def street(self) -> str:
        """A street with a number, in the style of several countries."""
        number = str(self._chance.randint(1, 999))
        if self._chance.random() < 0.15:
            number = self._digits("#####")
        name, ending = self._street_name(), self._pick(words.STREET_ENDINGS)
        european = (
            (0.18, f"{self._pick(words.STREET_PREFIXES)} {name} {number}"),
            (0.08, f"{number} {self._pick(words.STREET_PREFIXES)} {name}"),
            (0.18, f"{name}{ending} {number}"),
            (0.06, f"{name} {number}"),
            (0.05, f"{self._digits('#####')} {name}{ending} {number}"),
        )
        english = (
            (0.40, f"{number} {name} {self._pick(words.STREET_TYPES)}"),
            (0.05, f"P.O. Box {number}"),
        )
        return self._weighted(english + european if self._language == "en" else european)

    def address(self) -> str:
        """A whole address, on one line or several."""
        roll = self._chance.random()
        if roll < 0.05 and self._language == "en":
            unit = self._pick(("PSC ####, Box ####", "Unit #### Box ####"))
            return self._digits(f"{unit}\n{self._pick(('APO', 'DPO', 'FPO'))} AE #####")
        comma = self._pick((", ", "\n", "\n ", ",\n"))
        parts = [self.street()]
        if roll < 0.45:
            unit = self._pick(("Apt.", "Suite", "Flat", "Apartment", "Unit"))
            parts[0] += self._pick((" ", "\n ", ", ")) + f"{unit} {self._chance.randint(1, 999)}"
        tail = self._chance.random()
        if tail < 0.30:
            state = self._pick(_STATES.split())
            parts.append(f"{self.city()}{self._pick((', ', chr(10) + ', ', ' '))}{state}")
            parts[-1] += self._pick((" ", "\n ")) + self._digits("#####")
        elif tail < 0.60:
            parts += [self.city(), f"{self.fill('country')} {self._digits('#####')}"]
        elif tail < 0.75:
            parts.append(f"{self.postcode()} {self.city()}")
        elif tail < 0.9:
            parts += [self.city(), self.fill("country")]
        return comma.join(parts)

    def corner(self) -> str:
        """A crossing of two streets."""
        first = self._pick((self.street(), self._any_first(), self._street_name()))
        second = f"{self._street_name()} {self._pick(words.STREET_TYPES)}"
        second = self._pick((self.street(), second))
        return self._pick(("the corner of ", "the corner of ", "")) + f"{first} and {second}"

    def lines_of_address(self, between: str) -> str:
        """An address whose lines are quoted."""
        parts = [self.street(), f"Apt. {self._chance.randint(1, 999)}", self.city()]
        return between.join([*parts, f"{self.fill('country')} {self._digits('#####')}"])

    def postcode(self) -> str:
        """A postcode of one of several countries."""
        return self._digits(
            self._pick(("#####", "#####", "####", "####", "### ##", "####-###", "#### XB", "###"))
        )

    def organization(self) -> str:
        """A company, an office, a club."""
        parts, ends = words.COMPANY_PARTS, words.ORGANIZATION_WORDS
        makers: tuple[Callable[[], str], ...] = (
            lambda: (
                f"{self._any_last()} {self._pick(('Inc', 'Ltd', 'LLC', 'PLC', 'Inc.', 'GmbH'))}"
            ),
            lambda: f"{self._any_last()}-{self._any_last()}",
            lambda: f"{self._any_last()}, {self._any_last()} and {self._any_last()}",
            lambda: f"{self._any_last()} {self._pick(ends)}",
            lambda: f"{self._any_last()} & {self._pick(('Sons', 'Co.', self._any_last()))}",
            lambda: f"{self._pick(parts)} {self._pick(ends)}",
            lambda: f"{self._pick(parts)} {self._pick(parts)} {self._pick(ends)}",
            lambda: f"{self._pick(parts)}{self._pick(parts).lower()}",
            lambda: f"{self._pick(parts)}{self._pick(parts).lower()} {self._pick(ends)}",
            lambda: (
                f"{self._pick(parts)}{self._pick(('ly', 'io', 'ify', 'era', 'ant', 'us', 'ix'))}"
            ),
            self.made_up,
            lambda: f"{self.made_up()} {self._pick(ends)}",
            lambda: "".join(self._pick("ABCDEFGHIKLMNOPRSTUVW") for _ in range(3)),
            lambda: f"University of {self._pick(self._lexicon.places)}",
            lambda: f"{self._pick(self._lexicon.places)} {self._pick(ends)}",
            lambda: f"{self._pick(words.PEOPLES)} {self._pick(parts)} {self._pick(ends)}",
            lambda: f"{self._ordinary_word()} {self._ordinary_word()}",
            lambda: (
                f"{self._ordinary_word()} {self._pick(('And', 'and', '&'))} {self._ordinary_word()}"
            ),
            lambda: f"{self._ordinary_word()} {self._ordinary_word()} {self._pick(ends)}",
            lambda: f"The {self._ordinary_word()} {self._pick(ends)}",
            lambda: f"{self._ordinary_word()}{self._pick(('ly', 'io', 'db', 'hub', 'lab', 'bot'))}",
            lambda: self._pick(words.COMPANY_NAMES),
            lambda: self._pick(words.COMPANY_NAMES),
        )
        return self._pick(makers)()

    def job(self) -> str:
        """A job title."""
        field, head = self._pick(words.JOB_FIELDS), self._pick(words.JOB_HEADS)
        jobs = (
            f"{field} {head}",
            f"{field} and {self._pick(words.JOB_FIELDS)} {head}",
            f"{field}, {self._pick(words.JOB_FIELDS)}, and {self._pick(self._ordinary)} {head}",
            f"{self._pick(self._ordinary)} {head}",
            f"{self._pick(self._ordinary)} {field} {head}",
            self._pick(self._lexicon.jobs),
            head,
        )
        job = self._pick(jobs)
        return self._pick((job, job.capitalize(), job.capitalize(), job.title()))

    def date(self) -> str:
        """A date, written out or in numbers."""
        month, day = self._pick(_MONTHS[self._language]), self._chance.randint(1, 28)
        year = self._chance.randint(1930, 2029)
        if self._language == "es":
            return self._pick((f"{day} de {month} de {year}", f"{day} de {month}"))
        if self._language == "de":
            return self._pick((f"{day}. {month} {year}", f"{day}. {month}", self._dotted_date()))
        return self._pick(
            (
                f"{month} {day}, {year}",
                f"{day} {month} {year}",
                f"{month} {day}",
                f"{day}th of {month}",
                f"{month} {year}",
                f"{month[:3]} {day}",
                self._iso_date(),
                f"{self._chance.randint(1, 12)}/{day}/{year}",
                self._dotted_date(),
                str(year),
            )
        )

    def phone(self) -> str:
        """A telephone number."""
        styles = (
            "###-###-####",
            "(###) ###-####",
            "+49 ### #######",
            "0### ## ## ##",
            "##-##-##-##",
        )
        return self._digits(self._pick(styles))

    def email(self) -> str:
        """An e-mail address."""
        return f"{self._any_first().lower()}{self._digits('##')}@{self.made_up().lower()}.com"

    def _street_name(self) -> str:
        roll = self._chance.random()
        if roll < 0.4:
            return self._any_last()
        if roll < 0.6:
            return self._pick(self._lexicon.places)
        if roll < 0.7:
            return f"{self._any_first()} {self._any_last()}"
        if roll < 0.85:
            return self._pick(self._ordinary).capitalize()
        return self.made_up()

    def _any_first(self) -> str:
        names = self._lexicon
        usual = self._chance.random() < 0.5
        return self._pick(names.common_first_names if usual else names.first_names)

    def _any_last(self) -> str:
        names = self._lexicon
        usual = self._chance.random() < 0.5
        return self._pick(names.common_last_names if usual else names.last_names)

    def made_up(self) -> str:
        """A name that is in no list, put together from syllables."""
        stem = "".join(self._pick(words.SYLLABLES) for _ in range(self._chance.randint(1, 3)))
        return (stem + self._pick(words.NAME_ENDINGS)).capitalize()

    def _ordinary_word(self) -> str:
        return self._pick(self._ordinary).capitalize()

    def _iso_date(self) -> str:
        return self._digits(f"{self._chance.randint(1930, 2029)}-0%-1#").replace("%", "4")

    def _dotted_date(self) -> str:
        return self._digits("1#.0%.").replace("%", "5") + str(self._chance.randint(1930, 2029))

    def _digits(self, pattern: str) -> str:
        return "".join(str(self._chance.randint(0, 9)) if c == "#" else c for c in pattern)

    def _weighted(self, styles: Sequence[tuple[float, str]]) -> str:
        return self._chance.choices([s for _, s in styles], [weight for weight, _ in styles])[0]

    def _pick(self, values: Sequence[T]) -> T:
        return values[int(self._chance.random() * len(values))]
