"""Noise has the distribution that the proof is about, and what it cost is never refunded."""

from __future__ import annotations

import doctest
import math
import shutil
from random import Random

import numpy as np
import pytest
from perimeter.v1 import model_pb2

from edge_agent import histograms, privacy, privacy_noise
from edge_agent.egress import encode_checked
from edge_agent.errors import EgressRefused, StorageError
from edge_agent.histograms import ReleaseTerms, count_samples, is_noised, release_of, with_noise
from edge_agent.privacy import PrivacyBook
from edge_agent.privacy_noise import geometric_noise

CAMPAIGN = b"c" * 16
# 0.999 quantiles of chi-square by degrees of freedom.
CHI_SQUARE_999 = {8: 26.12, 16: 39.25}


def campaign(release: int = 500, total: int = 1200, **changes) -> model_pb2.Campaign:
    fields = {
        "campaign_id": CAMPAIGN,
        "egress": model_pb2.EGRESS_MODE_HISTOGRAM,
        "epsilon_release_milli": release,
        "epsilon_total_milli": total,
    }
    return model_pb2.Campaign(**(fields | changes))


def terms(version: int, of: model_pb2.Campaign | None = None) -> ReleaseTerms:
    return ReleaseTerms(of or campaign(), version, bytes(32), 20_000, bytes([version]) * 16)


@pytest.fixture
def book(tmp_path) -> PrivacyBook:
    made = PrivacyBook(tmp_path / "state")
    made.open(CAMPAIGN, 1200)
    return made


def test_the_examples_in_the_docstrings_hold():
    results = [doctest.testmod(module) for module in (histograms, privacy, privacy_noise)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 3


@pytest.mark.parametrize(("epsilon_milli", "reach"), [(500, 8), (1000, 4)])
def test_noise_is_two_sided_geometric(epsilon_milli, reach):
    chance = Random(epsilon_milli)
    count = 20_000
    drawn = [geometric_noise(epsilon_milli, chance.randrange) for _ in range(count)]
    alpha = math.exp(-epsilon_milli / 1000)
    share = {k: (1 - alpha) / (1 + alpha) * alpha ** abs(k) for k in range(1 - reach, reach)}
    tail = (1 - sum(share.values())) / 2
    seen = {k: drawn.count(k) for k in share}
    below, above = sum(k <= -reach for k in drawn), sum(k >= reach for k in drawn)
    wanted = [*(count * p for p in share.values()), count * tail, count * tail]
    found = [*seen.values(), below, above]
    chi_square = sum((f - w) ** 2 / w for f, w in zip(found, wanted, strict=True))
    assert chi_square < CHI_SQUARE_999[2 * reach]


def test_a_test_like_that_catches_noise_that_was_removed_or_halved():
    chance = Random(1)
    count = 20_000
    drawn = [geometric_noise(1000, chance.randrange) for _ in range(count)]
    alpha = math.exp(-0.5)
    zero = count * (1 - alpha) / (1 + alpha)
    assert (drawn.count(0) - zero) ** 2 / zero > CHI_SQUARE_999[16]


def test_one_sample_more_changes_the_release_by_no_more_than_epsilon_says():
    """The likelihood ratio of one count with and without a sample, over 20000 paired releases."""
    chance = Random(3)
    without = [with_noise(np.zeros((1, 1), np.int64), 500, chance.randrange)[0, 0]
               for _ in range(20_000)]  # fmt: skip
    beside = [with_noise(np.ones((1, 1), np.int64), 500, chance.randrange)[0, 0]
              for _ in range(20_000)]  # fmt: skip
    for value in range(-3, 5):
        ratio = beside.count(value) / without.count(value)
        assert abs(math.log(ratio)) < 0.5 + 0.15, "beyond what 20000 runs blur"


def test_every_sample_is_counted_once():
    counts = count_samples(np.uint16([0, 2, 2]), np.uint8([0, 63, 60]), 3)
    assert counts.sum() == 3
    assert (counts[0, 0], counts[2, 15]) == (1, 2)


def test_a_retry_sends_the_same_bytes_and_costs_nothing_more(book):
    counts = np.zeros((4, 16), np.int64)
    first = release_of(book, terms(1), counts)
    again = release_of(book, terms(1), counts + 7)
    assert first is not None
    assert again == first
    assert encode_checked(first) == book.release(CAMPAIGN, 1)
    assert book.account(CAMPAIGN).spent_milli == 500


def test_a_crash_between_charge_and_release_costs_and_never_refunds(book):
    def crash(_: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release_of(book, terms(1), np.zeros((1, 16), np.int64), below=crash)
    assert book.account(CAMPAIGN).spent_milli == 500
    assert book.release(CAMPAIGN, 1) is None
    assert release_of(book, terms(1), np.zeros((1, 16), np.int64)) is not None
    assert book.account(CAMPAIGN).spent_milli == 1000


def test_the_limit_is_a_hard_stop(book):
    counts = np.zeros((1, 16), np.int64)
    assert release_of(book, terms(1), counts) is not None
    assert release_of(book, terms(2), counts) is not None
    assert release_of(book, terms(3), counts) is None
    assert book.account(CAMPAIGN).spent_milli == 1000
    assert release_of(book, terms(2), counts) is not None, "what was paid for may be sent again"


def test_a_state_folder_from_a_backup_gets_nothing_refunded(tmp_path, book):
    counts = np.zeros((1, 16), np.int64)
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    release_of(book, terms(1), counts)
    release_of(book, terms(2), counts)
    shutil.rmtree(tmp_path / "state")
    shutil.copytree(tmp_path / "backup", tmp_path / "state")
    restored = PrivacyBook(tmp_path / "state")
    assert restored.account(CAMPAIGN).spent_milli == 1000
    assert release_of(restored, terms(1), counts) is None


def test_a_limit_can_be_lowered_from_afar_and_never_raised(book):
    assert book.open(CAMPAIGN, 9000).limit_milli == 1200
    assert book.open(CAMPAIGN, 700).limit_milli == 700
    assert book.open(CAMPAIGN, 1200).limit_milli == 700


def test_a_campaign_never_goes_back_to_rows_on_a_device(tmp_path):
    book = PrivacyBook(tmp_path / "state")
    rows = campaign(egress=model_pb2.EGRESS_MODE_UNSPECIFIED)
    assert not is_noised(rows, book)
    assert is_noised(campaign(), book)
    assert is_noised(rows, book)
    assert release_of(book, terms(1, campaign(release=0)), np.zeros((1, 16), np.int64)) is None


def test_a_damaged_account_stops_every_release(tmp_path, book):
    (tmp_path / "state" / "privacy" / "accounts.json").write_text("{")
    with pytest.raises(StorageError, match="Nothing is released"):
        release_of(book, terms(1), np.zeros((1, 16), np.int64))


def test_a_histogram_with_a_wrong_length_may_not_leave(book):
    message = release_of(book, terms(1), np.zeros((2, 16), np.int64))
    message.noised_counts += b"JOE!"
    with pytest.raises(EgressRefused, match="noised_counts"):
        encode_checked(message)
