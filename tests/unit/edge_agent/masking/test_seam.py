"""The seam: what every masker keeps, in this process and in a child process."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.masking.placeholders import raw_span
from edge_agent.masking.seam import POLICY_VERSION, Held, Level, Masked

pytestmark = pytest.mark.presidio

TEXTS = (
    "",
    "nothing to hide here",
    "My name is Katherine Fisher, call 202-555-0147 or write to kate@plant7.internal.",
    "Zürich: Herr Müller zahlt mit 4111 1111 1111 1111.",
    "tabs\tand\nlines\r\nand 😀 emoji by ann@x.org",
)


@pytest.fixture(params=["masker", "child"])
def any_masker(request):
    return request.getfixturevalue(request.param)


def check(raw, answer):
    assert isinstance(answer, Masked | Held)
    if isinstance(answer, Held):
        assert answer.detail
        return
    assert answer.report.policy_version == POLICY_VERSION
    assert answer.report.level is Level.BALANCED
    assert len(answer.report.detector_digest) == 32
    assert answer.report.verified
    done = raw_done = 0
    for span in answer.spans:
        assert answer.text[done : span.start] == raw[raw_done : span.raw_start]
        assert re.fullmatch(r"<[A-Z_]+_\d+>", answer.text[span.start : span.end])
        assert span.raw_start < span.raw_end
        assert 0 <= span.score <= 1
        done, raw_done = span.end, span.raw_end
    assert answer.text[done:] == raw[raw_done:]
    types = {span.entity_type for span in answer.spans}
    assert [name for name, _ in answer.report.counts] == sorted(types)


@pytest.mark.parametrize("text", TEXTS)
def test_offsets_lead_from_masked_text_to_raw_text_and_back(any_masker, text):
    check(text, any_masker.mask(text))


def test_a_batch_answers_each_text_in_order(any_masker):
    texts = [*TEXTS, "x" * 200_000, *TEXTS]
    answers = any_masker.mask_many(texts)
    assert len(answers) == len(texts)
    assert isinstance(answers[len(TEXTS)], Held)
    for text, answer in zip(texts, answers, strict=True):
        check(text, answer)


def test_child_and_parent_give_the_same_answers(masker, child):
    assert child.mask_many(TEXTS) == masker.mask_many(TEXTS)


def test_masking_a_text_alone_or_in_a_batch_hides_the_same(masker):
    filler = ["padding " * 40, *TEXTS, "Ann " * 30]
    together = masker.mask_many(filler)
    alone = [masker.mask(text) for text in filler]
    assert [a.text for a in together] == [a.text for a in alone]


def test_a_long_text_is_masked_to_its_end(masker):
    text = "The pump is loud and runs hot today. " * 1500 + "Write to kate@plant7.internal now."
    answer = masker.mask(text)
    assert isinstance(answer, Masked)
    assert "kate@" not in answer.text


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=120))
def test_no_text_makes_it_raise(masker, text):
    check(text, masker.mask(text))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(start=st.integers(0, 60), length=st.integers(1, 30))
def test_a_mark_on_masked_text_covers_whole_hidden_stretches(masker, start, length):
    raw = "Ann wrote to kate@plant7.internal and 202-555-0147 on time."
    answer = masker.mask(raw)
    assert isinstance(answer, Masked)
    end = min(start + length, len(answer.text))
    low, high = raw_span(answer.spans, start, end)
    for span in answer.spans:
        if span.start < end and start < span.end:
            assert low <= span.raw_start
            assert span.raw_end <= high
