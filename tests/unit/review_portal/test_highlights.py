"""Highlights show what the site's own labels say about a text."""

import random
import time

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from review_portal.core.highlights import certainty, count_words, highlights, terms_of

SEEN = count_words(
    [(f"please send the refund number {n}", 0) for n in range(30)]
    + [(f"please send the parcel number {n}", 1) for n in range(30)],
    3,
)


def test_the_words_of_a_class_are_marked_and_common_words_are_not():
    text = "Hello, where is my REFUND? please"
    shown = highlights(text, 0, SEEN)
    assert [text[h.start : h.end] for h in shown] == ["REFUND"]
    assert shown[0].strength == 1.0
    assert highlights(text, 1, SEEN) == ()


def test_a_class_without_labels_marks_nothing():
    assert highlights("please send the refund", 2, SEEN) == ()
    assert highlights("refund", 0, count_words([], 3)) == ()


def test_one_or_two_labels_are_no_evidence():
    few = count_words([("refund", 0), ("parcel", 1)], 2)
    assert highlights("refund", 0, few) == ()


def test_placeholders_are_never_marked():
    named = count_words([("<PERSON_1> refund", 0)] * 30 + [("parcel", 1)] * 30, 2)
    shown = highlights("<PERSON_1> refund <PERSON_2>", 0, named)
    assert [(h.start, h.end) for h in shown] == [(11, 17)]


@settings(deadline=None)
@given(st.text("refund parcel please <>PERSON_1ß😀", max_size=80), st.integers(0, 2))
def test_marks_lie_in_the_text_in_order_and_never_overlap(text, index):
    shown = highlights(text, index, SEEN)
    edges = [edge for mark in shown for edge in (mark.start, mark.end)]
    assert edges == sorted(edges)
    assert all(0 <= mark.start < mark.end <= len(text) for mark in shown)
    assert all(0 < mark.strength <= 1 for mark in shown)


def test_evidence_for_one_class_is_evidence_against_the_rest():
    assert certainty("refund", 0, SEEN) > 1.96
    assert certainty("refund", 1, SEEN) < -1.96
    assert certainty("never seen", 0, SEEN) == 0.0


def test_pairs_carry_their_offsets():
    assert list(terms_of("Größe  passt")) == [
        ("grösse", 0, 5), ("grösse passt", 0, 12), ("passt", 7, 12),
    ]  # fmt: skip


@pytest.mark.data
def test_marks_of_real_requests_name_what_they_are_about(real_data):
    rows = pd.read_parquet(real_data / "banking77.parquet")
    names = sorted(rows["label"].astype(str).unique())
    pairs = [
        (text, names.index(str(label)))
        for text, label in zip(rows["text"], rows["label"], strict=True)
    ]
    random.Random(1).shuffle(pairs)
    seen = count_words(pairs[:5000], len(names))
    began = time.process_time()
    marked = [highlights(text, index, seen) for text, index in pairs[5000:5500]]
    assert (time.process_time() - began) / 500 < 0.005
    assert sum(bool(marks) for marks in marked) > 400
    wrong = [highlights(text, (index + 1) % len(names), seen) for text, index in pairs[5000:5500]]
    assert sum(map(len, wrong)) < sum(map(len, marked)) / 2
