"""The name tagger comes from a seed: same seed, same bytes; and what it learns is usable."""

import random

import pyarrow as pa
import pytest
from pyarrow import parquet

from edge_agent.masking.pack import Threshold, load_pack
from edge_agent.masking.tokens import tokenize
from simulations.name_tagger.generator import Sentence, disguise, fill, generate, templates
from simulations.name_tagger.lexicon import gazetteer_flags, load_lexicon
from simulations.name_tagger.renaming import Renamer
from simulations.name_tagger.slots import LABEL_OF_SLOT, Slots

LANGUAGES = ("en", "de", "es")
_SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("type", pa.string())])
_REAL_COLUMNS = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.string()),
        ("spans", pa.list_(_SPAN)),
        ("split", pa.string()),
        ("source", pa.string()),
    ]
)


@pytest.fixture(scope="module")
def lexicon():
    return load_lexicon()


def test_the_same_seed_gives_the_same_sentences(lexicon):
    first = list(generate(lexicon, count=200, seed=7))
    assert first == list(generate(lexicon, count=200, seed=7))
    assert first != list(generate(lexicon, count=200, seed=8))


@pytest.mark.parametrize("language", [*LANGUAGES, "negatives", "comments"])
def test_every_template_fills_and_leaves_no_slot_open(lexicon, language):
    chance = random.Random(0)
    slots = Slots(lexicon, chance, language if language in LANGUAGES else "en")
    for template in templates(language):
        sentence = fill(template, slots, chance)
        assert "[" not in sentence.text
        for slot in LABEL_OF_SLOT:
            assert f"{{{slot}}}" not in sentence.text


def test_spans_stand_where_the_values_stand(lexicon):
    chance = random.Random(0)
    slots = Slots(lexicon, chance)
    slots._makers["person"] = lambda: "Katherine Fisher"
    sentence = fill("[Hi|Hello], I am {person}, not {city}.", slots, chance)
    start, end, label = sentence.spans[0]
    assert (sentence.text[start:end], label) == ("Katherine Fisher", "PERSON")
    assert sentence.spans[1][2] == "LOCATION"


def test_negatives_hold_no_labels(lexicon):
    chance = random.Random(0)
    slots = Slots(lexicon, chance)
    labels = {
        label
        for template in templates("negatives")
        for _, _, label in fill(template, slots, chance).spans
    }
    assert labels <= {"IGNORE"}


def test_a_disguise_keeps_every_offset(lexicon):
    chance = random.Random(3)
    for sentence in generate(lexicon, count=300, seed=1):
        changed = disguise(sentence, chance)
        assert len(changed.text) == len(sentence.text)
        assert changed.spans == sentence.spans


def test_word_lists_know_names_places_and_ordinary_words(lexicon):
    from edge_agent.masking.gazetteer import Flag
    from edge_agent.masking.tokens import word_hash

    flags = gazetteer_flags(lexicon)
    assert flags[word_hash("Katherine")] & Flag.FIRST_NAME
    assert flags[word_hash("Fisher")] & Flag.LAST_NAME
    assert flags[word_hash("Chicago")] & Flag.PLACE
    assert flags[word_hash("Rose")] & Flag.FIRST_NAME
    assert flags[word_hash("rose")] & Flag.ORDINARY
    assert len(lexicon.first_names) > 10_000


def test_frequent_words_are_ordinary_and_names_among_them_are_not(lexicon):
    assert {"video", "channel", "parcel"} <= lexicon.ordinary
    assert not {"john", "jessica", "london"} & lexicon.ordinary


def test_another_name_keeps_the_other_spans_and_the_case(lexicon):
    chance = random.Random(4)
    renamer = Renamer(lexicon, chance)
    text = "ann met Bo Lee in Rome, @ann said"
    spans = ((0, 3, "PERSON"), (8, 14, "PERSON"), (18, 22, "LOCATION"), (24, 28, "PERSON"))
    sentence = Sentence(text, spans, is_real=True)
    renamed = [renamer.rename(sentence) for _ in range(60)]
    values = [[r.text[a:b] for a, b, _ in r.spans] for r in renamed]
    assert all(v[2:] == ["Rome", "@ann"] for v in values)
    assert all(v[0].islower() for v in values)
    assert len({v[1] for v in values}) > 20
    assert all([label for *_, label in r.spans] == [label for *_, label in spans] for r in renamed)
    unlabelled = [r.text[r.spans[0][1] : r.spans[1][0]] for r in renamed]
    assert set(unlabelled) == {" met "}


def test_the_source_held_out_is_not_trained_on(tmp_path):
    from simulations.name_tagger.corpora import read_real

    rows = [
        {"id": n, "text": f"text {n}", "spans": [], "split": split, "source": source}
        for n, (split, source) in enumerate(
            [("train", "tweets"), ("train", "comments"), ("test", "comments")]
        )
    ]
    file = tmp_path / "real.parquet"
    parquet.write_table(pa.Table.from_pylist(rows, _REAL_COLUMNS), file)

    def texts(split: str, held_out: str = "") -> list[str]:
        return [s.text for s in read_real(file, split=split, held_out=held_out)]

    assert texts("train") == ["text 0", "text 1"]
    assert texts("train", "comments") == ["text 0"]
    assert texts("held_out", "comments") == ["text 1"]
    assert texts("test", "comments") == ["text 2"]


@pytest.mark.federation
def test_a_small_rebuild_gives_the_same_bytes_and_finds_names(tmp_path):
    from edge_agent.masking.tagger import NameTagger
    from edge_agent.masking.tokens import Featurizer
    from simulations.name_tagger.build import BuildPlan, build
    from simulations.name_tagger.training import TrainingPlan

    plan = BuildPlan("synthetic", 1500, TrainingPlan(epochs=2, seed=5))
    folders = [build(plan, tmp_path / part, report=print).folder for part in ("a", "b")]
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert first == second

    pack = load_pack(folders[0])
    tagger = NameTagger(pack.tagger, pack.labels, Featurizer(pack.flags))
    sentences = list(generate(load_lexicon(), count=400, seed=99))
    texts = [s.text for s in sentences]
    found = tagger.find(texts, [tokenize(text) for text in texts], Threshold(0.2, 0.2, 0.2, 0.2))
    hidden = total = 0
    for sentence, findings in zip(sentences, found, strict=True):
        covered = {i for f in findings for i in range(f.start, f.end)}
        for start, end, label in sentence.spans:
            if label == "PERSON":
                total += 1
                letters = {i for i in range(start, end) if sentence.text[i].isalnum()}
                hidden += letters <= covered
    assert hidden / total > 0.6
    assert sum(len(part) for part in first.values()) < 4_000_000
