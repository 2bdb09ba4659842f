"""Near-duplicates are grouped so that one look can settle them."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from review_portal.core.duplicates import (
    GroupableItem,
    jaccard,
    near_duplicate_groups,
    shingles_of,
    sketch,
)
from review_portal.core.model import Kind


def texts(*contents: str, part: str = "") -> list[GroupableItem]:
    return [GroupableItem(str(n), Kind.TEXT, t.encode(), part) for n, t in enumerate(contents)]


BODY = "Dear customer, your card ending 4411 was charged twice for the same order on Monday. "


def test_texts_that_differ_in_a_word_are_grouped_and_others_are_not():
    groups = near_duplicate_groups(
        texts(BODY + "Reply now.", "Where is my parcel?", BODY + "Reply soon.", BODY)
    )
    assert [group.item_ids for group in groups] == [("0", "2", "3")]
    assert 0.8 <= groups[0].similarity_min < 1.0


def test_case_spacing_and_numbered_placeholders_do_not_matter():
    groups = near_duplicate_groups(
        texts("Call <PERSON_1>  at <PHONE_1>", "call <PERSON_2> at\n<PHONE_7>")
    )
    assert groups[0].similarity_min == 1.0


def test_groups_are_stars_so_a_chain_of_small_changes_does_not_drift():
    words = [f"word{n:03d}" for n in range(60)]
    chain = [" ".join(f"new{n:03d}" if n < step else w for n, w in enumerate(words))
             for step in range(0, 61, 4)]  # fmt: skip
    shingles = [shingles_of(text) for text in chain]
    for group in near_duplicate_groups(texts(*chain)):
        first = shingles[int(group.item_ids[0])]
        assert all(jaccard(first, shingles[int(member)]) >= 0.8 for member in group.item_ids)


def test_parts_never_mix():
    first, second = texts(BODY, part="refund")[0], texts(BODY, BODY, part="fraud")[1]
    assert not near_duplicate_groups([first, second])


def test_a_group_never_exceeds_its_limit_and_the_rest_opens_a_new_one():
    groups = near_duplicate_groups(texts(*[BODY] * 45), group_size_max=20)
    assert [len(group.item_ids) for group in groups] == [20, 20, 5]


def test_images_and_records_group_only_when_their_bytes_are_equal():
    items = [
        GroupableItem("a", Kind.IMAGE, b"\x89PNG1"),
        GroupableItem("b", Kind.IMAGE, b"\x89PNG2"),
        GroupableItem("c", Kind.RECORD, b"\x89PNG1"),
        GroupableItem("d", Kind.IMAGE, b"\x89PNG1"),
    ]
    assert [group.item_ids for group in near_duplicate_groups(items)] == [("a", "d")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc ", max_size=40), max_size=25), st.floats(0.3, 1.0))
def test_every_member_truly_resembles_the_first_and_no_item_is_in_two_groups(contents, least):
    groups = near_duplicate_groups(texts(*contents), similarity_min=least)
    members = [member for group in groups for member in group.item_ids]
    assert len(members) == len(set(members))
    for group in groups:
        likenesses = [
            jaccard(shingles_of(contents[int(group.item_ids[0])]), shingles_of(contents[int(m)]))
            for m in group.item_ids
        ]
        assert min(likenesses) == group.similarity_min >= least


def test_sketches_estimate_the_similarity_they_stand_for():
    chance = random.Random(4)
    for share in (0.2, 0.5, 0.8):
        errors = []
        for _ in range(60):
            common = {chance.getrandbits(32) for _ in range(int(400 * share))}
            rest = int(400 * (1 - share) / 2)
            first = frozenset(common | {chance.getrandbits(32) for _ in range(rest)})
            second = frozenset(common | {chance.getrandbits(32) for _ in range(rest)})
            equal = sum(a == b for a, b in zip(sketch(first), sketch(second), strict=True)) / 64
            errors.append(equal - jaccard(first, second))
        assert abs(sum(errors) / len(errors)) < 0.03


def test_nearly_all_planted_duplicates_among_two_thousand_texts_are_found_in_seconds():
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnop", k=6)) for _ in range(3000)]
    bases = [" ".join(chance.choices(words, k=40)) for _ in range(1000)]
    copies = [base.rsplit(" ", 1)[0] + " " + chance.choice(words) for base in bases]
    started = time.process_time()
    groups = near_duplicate_groups(texts(*bases, *copies))
    assert time.process_time() - started < 5
    found = {group.item_ids for group in groups}
    assert sum((str(n), str(n + 1000)) in found for n in range(1000)) >= 995


def test_wrong_limits_and_repeated_ids_are_refused():
    with pytest.raises(ValueError, match="similarity_min"):
        near_duplicate_groups([], similarity_min=0.0)
    with pytest.raises(ValueError, match="share an id"):
        near_duplicate_groups([*texts("a"), *texts("b")])
