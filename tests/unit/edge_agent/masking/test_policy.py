"""What a site may set, and what it may not."""

import pytest

from edge_agent.masking.errors import MaskingConfigError
from edge_agent.masking.policy import MaskingPolicy, policy_from_json, policy_to_json
from edge_agent.masking.seam import Level


def test_level_light_needs_the_site_leads_name():
    with pytest.raises(MaskingConfigError, match="sign-off"):
        MaskingPolicy(level=Level.LIGHT)
    assert MaskingPolicy(level=Level.LIGHT, light_signed_by="Dr. Lee").level is Level.LIGHT


def test_level_none_is_no_level_for_texts():
    with pytest.raises(MaskingConfigError):
        MaskingPolicy(level=Level.NONE)


@pytest.mark.parametrize("detector", ["spacy", "spacy:", "http://x", "flair:/models/x"])
def test_an_unknown_detector_is_refused(detector):
    with pytest.raises(MaskingConfigError, match="unknown"):
        MaskingPolicy(detector=detector)


def test_an_additional_detector_must_be_pinned():
    with pytest.raises(MaskingConfigError, match="detector_sha256"):
        MaskingPolicy(detector="spacy:/models/en")


def test_a_pack_from_a_folder_must_be_pinned():
    with pytest.raises(MaskingConfigError, match="pack_sha256"):
        MaskingPolicy(pack="/models/pack")


def test_a_policy_survives_its_way_to_the_child():
    policy = MaskingPolicy(level=Level.STRICT, languages=("en", "de"), deny=("Project Blue",))
    assert policy_from_json(policy_to_json(policy)) == policy


def test_unknown_keys_are_refused():
    with pytest.raises(MaskingConfigError, match="levle"):
        policy_from_json({"levle": "strict"})


@pytest.mark.parametrize("values", [{"level": "none at all"}, {"limits": {"max_words": 3}}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(MaskingConfigError):
        policy_from_json(values)


@pytest.mark.presidio
def test_a_misspelt_entity_name_is_refused_at_start():
    from edge_agent.masking.pipeline import BuiltinMasker

    with pytest.raises(MaskingConfigError, match="CREDIT_CARDS"):
        BuiltinMasker(MaskingPolicy(entities=("CREDIT_CARDS",)))


@pytest.mark.presidio
def test_site_lists_are_obeyed_but_cannot_open_structured_data():
    from edge_agent.masking.pipeline import BuiltinMasker

    policy = MaskingPolicy(allow=("Katherine Fisher", "bob@example.com"), deny=("Project Blue",))
    masker = BuiltinMasker(policy)
    answer = masker.mask("My name is Katherine Fisher of project blue, bob@example.com")
    assert "Katherine Fisher" in answer.text
    assert "<SITE_TERM_1>" in answer.text
    assert "bob@" not in answer.text


@pytest.mark.presidio
def test_all_that_decides_what_is_masked_changes_the_digest():
    from edge_agent.masking.pipeline import BuiltinMasker

    policies = [
        MaskingPolicy(),
        MaskingPolicy(level=Level.STRICT),
        MaskingPolicy(deny=("x1",)),
        MaskingPolicy(allow=("x1",)),
        MaskingPolicy(entities=("EMAIL_ADDRESS",)),
    ]
    assert len({BuiltinMasker(policy).digest for policy in policies}) == len(policies)
    assert BuiltinMasker(policies[0]).digest == BuiltinMasker(policies[0]).digest
