"""A larger model from a local folder joins the built-in chain; it never replaces it."""

import sys
import types

import pytest

from edge_agent.masking.child import ChildMasker
from edge_agent.masking.detectors import folder_digest, load_detector
from edge_agent.masking.errors import MaskingConfigError, PackError
from edge_agent.masking.pipeline import BuiltinMasker
from edge_agent.masking.policy import MaskingPolicy
from edge_agent.masking.seam import Held, HeldReason, Masked

pytestmark = pytest.mark.presidio

TEXT = "The zorblax unit failed, write to bob@example.com"


@pytest.fixture(scope="module")
def spacy_folder(tmp_path_factory):
    spacy = pytest.importorskip("spacy")
    folder = tmp_path_factory.mktemp("model")
    model = spacy.blank("en")
    model.add_pipe("entity_ruler").add_patterns([{"label": "ORG", "pattern": "zorblax"}])
    model.to_disk(folder)
    return folder


def policy(folder, kind="spacy"):
    return MaskingPolicy(detector=f"{kind}:{folder}", detector_sha256=folder_digest(folder))


def test_a_spacy_model_adds_its_findings_to_those_of_the_chain(spacy_folder):
    plain = BuiltinMasker(MaskingPolicy())
    larger = BuiltinMasker(policy(spacy_folder))
    answer = larger.mask(TEXT)
    assert isinstance(answer, Masked)
    assert "zorblax" not in answer.text
    assert "bob@" not in answer.text
    assert larger.digest != plain.digest


def test_a_spacy_model_works_in_the_masking_process(spacy_folder):
    with ChildMasker(policy(spacy_folder)) as masker:
        answer = masker.mask(TEXT)
    assert isinstance(answer, Masked)
    assert "zorblax" not in answer.text


def test_a_changed_model_folder_is_refused(spacy_folder, tmp_path):
    pinned = policy(spacy_folder)
    (spacy_folder / "added.txt").write_text("x")
    try:
        with pytest.raises(PackError, match="not the pinned one"):
            BuiltinMasker(pinned)
        with ChildMasker(pinned) as masker:
            answer = masker.mask(TEXT)
        assert isinstance(answer, Held)
        assert answer.reason is HeldReason.MODEL_CHANGED
    finally:
        (spacy_folder / "added.txt").unlink()


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(PackError, match="missing"):
        load_detector(f"spacy:{tmp_path / 'none'}", "00")
    with pytest.raises(PackError, match="empty"):
        load_detector(f"spacy:{tmp_path}", "00")


def fake_library(monkeypatch, name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


def model_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_transformers_model_is_read_from_its_folder_only(tmp_path, monkeypatch):
    folder = model_folder(tmp_path)

    def pipeline(task, *, model, **_settings):
        assert (task, model) == ("token-classification", str(folder))
        return lambda text: [
            {"start": text.index("zorblax"), "end": text.index("zorblax") + 7,
             "entity_group": "PER", "score": 0.9}
        ]  # fmt: skip

    fake_library(monkeypatch, "transformers", pipeline=pipeline)
    found = load_detector(f"transformers:{folder}", folder_digest(folder)).find(TEXT)
    assert [(TEXT[f.start : f.end], f.entity_type) for f in found] == [("zorblax", "PERSON")]


def test_a_gliner_model_is_read_from_its_folder_only(tmp_path, monkeypatch):
    folder = model_folder(tmp_path)

    class Model:
        @staticmethod
        def from_pretrained(path, *, local_files_only):
            assert (path, local_files_only) == (str(folder), True)
            return Model()

        def predict_entities(self, text, labels, *, threshold):
            assert "person" in labels
            start = text.index("zorblax")
            return [{"start": start, "end": start + 7, "label": "person", "score": 0.8}]

    fake_library(monkeypatch, "gliner", GLiNER=Model)
    found = load_detector(f"gliner:{folder}", folder_digest(folder)).find(TEXT)
    assert [f.entity_type for f in found] == ["PERSON"]


def test_a_detector_whose_library_is_missing_says_so(tmp_path, monkeypatch):
    folder = model_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "gliner", None)
    with pytest.raises(MaskingConfigError, match="gliner"):
        load_detector(f"gliner:{folder}", folder_digest(folder))


def test_findings_in_a_long_text_keep_their_places(tmp_path, monkeypatch):
    folder = model_folder(tmp_path)

    class Model:
        @staticmethod
        def from_pretrained(_path, **_settings):
            return Model()

        def predict_entities(self, text, _labels, **_settings):
            start = text.find("zorblax")
            return [{"start": start, "end": start + 7, "label": "person", "score": 0.8}] * (
                start >= 0
            )

    fake_library(monkeypatch, "gliner", GLiNER=Model)
    text = "word " * 900 + "zorblax"
    found = load_detector(f"gliner:{folder}", folder_digest(folder)).find(text)
    assert {text[f.start : f.end] for f in found} == {"zorblax"}
