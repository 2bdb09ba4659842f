"""What the shipped pack reaches on real data sets; a worse pack or rule fails here."""

import os
from pathlib import Path

import pytest

from edge_agent.masking.evaluate import lower_cased, measure, read_labelled

DATA = Path(os.environ.get("PERIMETER_DATA", Path(__file__).parents[5] / "shared" / "data"))

pytestmark = [
    pytest.mark.presidio,
    pytest.mark.data,
    pytest.mark.skipif(
        not (DATA / "pii_synth.parquet").is_file(),
        reason="needs the data sets; set PERIMETER_DATA to their folder",
    ),
]
STRUCTURED = ("CREDIT_CARD", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "PHONE_NUMBER")


@pytest.fixture(scope="module")
def synthetic():
    return read_labelled(DATA / "pii_synth.parquet", split="test")


@pytest.fixture(scope="module")
def real():
    return read_labelled(DATA / "pii_real.parquet", split="test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_structured_value_is_shown(masker, split):
    examples = read_labelled(DATA / "pii_synth.parquet", split=split)
    share = measure(masker, examples).of_type(*STRUCTURED)
    assert share.whole > 50
    assert share.part == share.whole


def test_synthetic_texts_keep_their_secrets(masker, synthetic):
    result = measure(masker, synthetic)
    assert result.recall.ratio >= 0.96
    assert result.leaks.ratio <= 0.07
    assert result.over_masking.ratio <= 0.05


def test_lower_case_texts_keep_their_secrets(masker, synthetic):
    assert measure(masker, lower_cased(synthetic)).recall.ratio >= 0.90


def test_noisy_real_texts_mostly_keep_their_persons(masker, real):
    result = measure(masker, real)
    assert result.of_type("PERSON").ratio >= 0.89
    assert result.over_masking.ratio <= 0.10
