"""Names in company: addresses and firms of two names, texts in haste; names of months."""

import pytest

from edge_agent.masking.gazetteer import RuleDetector
from edge_agent.masking.pack import Threshold, load_pack
from edge_agent.masking.policy import MaskingPolicy
from edge_agent.masking.seam import Masked
from edge_agent.masking.tagger import NameTagger
from edge_agent.masking.tokens import Featurizer, tokenize

pytestmark = pytest.mark.presidio


def test_the_corner_of_two_streets_is_one_address(masker):
    answer = masker.mask("Meet me at the corner of 12 Hill Street and 9 Bay Road.")
    assert isinstance(answer, Masked)
    assert answer.text.rstrip(".") == "Meet me at <LOCATION_1>"


def test_two_people_stay_two_people(masker):
    answer = masker.mask("Katherine Fisher and Robert Miller called.")
    assert isinstance(answer, Masked)
    assert answer.text == "<PERSON_1> and <PERSON_2> called."


def test_a_person_beside_a_place_is_still_hidden_where_the_name_stands_alone(masker):
    answer = masker.mask("Katherine Fisher and Chicago agreed. Then Fisher left, said Katherine.")
    assert isinstance(answer, Masked)
    assert "Fisher" not in answer.text
    assert "Katherine" not in answer.text


@pytest.mark.parametrize(
    ("text", "is_searched"),
    [
        ("Katherine Fisher called.", False),
        ("katherine fisher called", True),
        ("Katherine Fisher called!!", True),
        ("LOL Katherine Fisher called.", True),
        ("Katherine Fisher called 😂", True),
    ],
)
def test_a_text_with_signs_of_haste_has_its_own_thresholds(text, is_searched):
    pack = load_pack(MaskingPolicy().pack_folder)
    assert pack.tagger is not None
    tagger = NameTagger(pack.tagger, pack.labels, Featurizer(pack.flags))
    only_haste = Threshold(ordinary=1.1, other=1.1, hasty_ordinary=0.3, hasty_other=0.3)
    (found,) = tagger.find([text], [tokenize(text)], only_haste)
    assert [f.entity_type for f in found] == ["PERSON"] * is_searched


def test_no_shipped_threshold_is_higher_in_haste_or_for_unusual_words():
    for name in ("mixed", "synthetic"):
        for threshold in load_pack(MaskingPolicy(pack=name).pack_folder).thresholds.values():
            assert threshold.other <= threshold.ordinary
            assert threshold.hasty_other <= threshold.hasty_ordinary
            assert threshold.hasty_ordinary <= threshold.ordinary
            assert threshold.hasty_other <= threshold.other


MONTHS = [
    "january",
    "jan",
    "february",
    "feb",
    "march",
    "mar",
    "april",
    "apr",
    "may",
    "june",
    "july",
    "august",
    "aug",
    "september",
    "sept",
    "sep",
    "october",
    "oct",
    "november",
    "nov",
    "december",
    "dec",
    "januar",
    "februar",
    "märz",
    "mai",
    "juni",
    "juli",
    "oktober",
    "dezember",
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
]


@pytest.mark.parametrize("month", MONTHS)
def test_a_day_of_any_month_is_a_date_by_rule(month):
    """The tagger finds most of them as well, and would hide it if the rule lost one."""
    rules = RuleDetector(Featurizer(load_pack(MaskingPolicy().pack_folder).flags))
    for date in (f"12 {month}", f"{month.title()} 3", f"{month.upper()} 2024"):
        text = f"we came on {date}"
        found = rules.find(text, tokenize(text))
        spans = [text[f.start : f.end] for f in found if f.entity_type == "DATE_TIME"]
        assert date in spans
