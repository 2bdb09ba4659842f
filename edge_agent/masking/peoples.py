"""Names of peoples, languages, faiths and parties: a closed class that needs no model."""

import re
from collections.abc import Iterator

from edge_agent.masking.findings import Finding

_PEOPLES = re.findall(
    r"\w+",
    """
Afghan Albanian Algerian American Andorran Angolan Argentinian Argentine Armenian Australian
Austrian Azerbaijani Bahamian Bahraini Bangladeshi Barbadian Belarusian Belgian Belizean
Beninese Bhutanese Bolivian Bosnian Botswanan Brazilian British Bruneian Bulgarian Burkinabe
Burmese Burundian Cambodian Cameroonian Canadian Chadian Chilean Chinese Colombian Congolese
Croatian Cuban Cypriot Czech Danish Dane Djiboutian Dominican Dutch Dutchman Ecuadorian Egyptian
Emirati English Englishman Eritrean Estonian Ethiopian Fijian Filipino Filipina Finnish Finn
French Frenchman Gabonese Gambian Georgian German Ghanaian Greek Greenlander Greenlandic
Grenadian Guatemalan Guinean Guyanese Haitian Honduran Hungarian Icelandic Icelander Indian
Indonesian Iranian Iraqi Irish Irishman Israeli Italian Ivorian Jamaican Japanese Jordanian
Kazakh Kenyan Kiribati Korean Kosovar Kuwaiti Kyrgyz Laotian Latvian Lebanese Liberian Libyan
Lithuanian Luxembourgish Macedonian Malagasy Malawian Malaysian Maldivian Malian Maltese
Mauritanian Mauritian Mexican Moldovan Mongolian Montenegrin Moroccan Mozambican Namibian Nepali
Nepalese Nicaraguan Nigerian Nigerien Norwegian Omani Pakistani Palestinian Panamanian
Paraguayan Peruvian Polish Portuguese Qatari Romanian Russian Rwandan Salvadoran Samoan Saudi
Scottish Scot Senegalese Serbian Seychellois Singaporean Slovak Slovakian Slovene Slovenian
Somali Spanish Spaniard Sudanese Surinamese Swede Swedish Swiss Syrian Taiwanese Tajik Tanzanian
Thai Togolese Tongan Trinidadian Tunisian Turkish Turk Turkmen Ugandan Ukrainian Uruguayan Uzbek
Venezuelan Vietnamese Welsh Welshman Yemeni Zambian Zimbabwean African Arab Arabic Asian Basque
Bavarian Bengali Berber Breton Californian Catalan Caucasian Cornish European Faroese Flemish
Galician Gujarati Hausa Hawaiian Hispanic Igbo Inuit Kurd Kurdish Latino Latina Maori Pashtun
Punjabi Roma Sami Scandinavian Sicilian Swahili Tamil Tatar Texan Tibetan Uyghur Yoruba Zulu
Anglican Atheist Bahai Buddhist Calvinist Catholic Christian Hindu Islamic Jain Jewish Jew
Judaism Lutheran Methodist Mormon Muslim Protestant Presbyterian Quaker Shia Sikh Sunni Taoist
Communist Democrat Liberal Republican Socialist
""",
)
_TWO_WORDS = r"(?:South|North|Central|West|East|Latin) (?:Afric|Americ|Kore|As|Europe)i?ans?"
_MORE = r"New Zealanders?|Sri Lankans?|Costa Ricans?|Puerto Ricans?|Sierra Leoneans?"
_NEVER_SMALL = frozenset({"Polish", "Jain", "Roma", "Liberal", "Swede", "Dominican", "Turkmen"})
_SMALL = [word.lower() for word in _PEOPLES if word not in _NEVER_SMALL]
_WORD = re.compile(r"[A-Za-z]{3,}")
_PAIR = re.compile(rf"\b(?:{_TWO_WORDS}|{_MORE})\b", re.IGNORECASE)
_KNOWN = frozenset(
    form
    for word in (*_PEOPLES, *_SMALL, *(word.upper() for word in _PEOPLES))
    for form in (word, word + ("S" if word.isupper() else "s"))
)


def find_peoples(text: str) -> Iterator[Finding]:
    """Findings of type NRP.

    >>> text = "A Greek met two South Koreans."
    >>> [text[f.start : f.end] for f in find_peoples(text)]
    ['South Koreans', 'Greek', 'Koreans']
    """
    for match in _PAIR.finditer(text):
        yield Finding(*match.span(), "NRP", 0.5)
    for match in _WORD.finditer(text):
        if match[0] in _KNOWN:
            yield Finding(*match.span(), "NRP", 0.4)
