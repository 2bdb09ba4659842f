"""Round trips through the packages that own the formats: label-studio-sdk, datasets, Pillow."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import numpy as np
import pytest

from review_portal.core.model import Answer, Kind
from review_portal.interchange.errors import FileUnreadable
from review_portal.interchange.formats import FORMATS
from review_portal.interchange.records import (
    ExportedItem,
    ExportedLabel,
    ImportedRow,
    RefusedRow,
    classes_of,
)
from review_portal.interchange.whole_files import json_array
from tests.unit.review_portal.test_interchange import SCHEMA, accepted, records

TEXT = "😀 Anna met 𝔄dam in Köln"
SPANNED = Answer(1, class_indices=(1, 3), spans=((2, 6, 0), (11, 15, 2)))


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    package = pytest.importorskip("datasets")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    package.disable_progress_bars()
    return package


@pytest.mark.parametrize("kind", sorted(Kind))
def test_label_studio_accepts_our_interface_and_every_task(kind, tmp_path):
    from label_studio_sdk.label_interface import LabelInterface

    FORMATS["label-studio"].write(records(kind), tmp_path / "out", SCHEMA)
    interface = LabelInterface((tmp_path / "out" / "label_config.xml").read_text())
    interface.validate()
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert len(tasks) == 6
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})
        for annotation in task["annotations"]:
            assert interface._validate_object(annotation, return_errors=True) == []
        for prediction in task["predictions"]:
            assert interface._validate_object(prediction, return_errors=True) == []


def test_label_studio_rejects_a_class_that_our_interface_does_not_name(tmp_path):
    from label_studio_sdk.label_interface import LabelInterface

    FORMATS["label-studio"].write(records(Kind.TEXT), tmp_path / "out", SCHEMA)
    interface = LabelInterface((tmp_path / "out" / "label_config.xml").read_text())
    annotation = json.loads((tmp_path / "out" / "tasks.json").read_text())[0]["annotations"][0]
    annotation["result"][0]["value"]["choices"] = ["no such class"]
    assert not interface.validate_annotation(annotation)


def test_label_studios_own_converter_reads_our_labels_and_spans(tmp_path):
    from label_studio_sdk.converter import Converter

    item = ExportedItem("0a", Kind.TEXT, TEXT.encode(), ExportedLabel(SPANNED))
    FORMATS["label-studio"].write([item], tmp_path / "out", SCHEMA)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    # The server adds what only it knows: numbers and times.
    for task in tasks:
        task["id"] = 1
        for number, annotation in enumerate(task["annotations"]):
            annotation |= {"id": number, "completed_by": 1, "created_at": "", "updated_at": ""}
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    config = (tmp_path / "out" / "label_config.xml").read_text()
    converter = Converter(config, str(tmp_path), download_resources=False)
    converter.convert_to_json_min(
        str(tmp_path / "export.json"), str(tmp_path / "min"), is_dir=False
    )
    (row,) = json.loads((tmp_path / "min" / "result.json").read_text())
    assert row["text"] == TEXT
    assert row["label"]["choices"] == ["Bag & belt", "Ankle boot"]
    assert [(s["start"], s["end"], s["text"], s["labels"]) for s in row["span"]] == [
        (2, 6, "Anna", ["T-shirt/top"]),
        (11, 15, "𝔄dam", ["größer"]),
    ]
    (back,) = accepted(FORMATS["label-studio"].read(tmp_path / "export.json", SCHEMA, Kind.TEXT))
    assert back.answer == SPANNED


def task(*annotations, text=TEXT):
    return {"id": 5, "data": {"text": text}, "annotations": list(annotations)}


def chosen(name, **fields):
    result = {"type": "choices", "from_name": "x", "to_name": "y", "value": {"choices": [name]}}
    return {"result": [result], **fields}


def spanned(start, end, text, kind="labels"):
    value = {"start": start, "end": end, "text": text, kind: ["größer"]}
    return {"result": [{"type": kind, "from_name": "x", "to_name": "y", "value": value}]}


def read_tasks(tmp_path, *tasks):
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    return list(FORMATS["label-studio"].read(tmp_path / "export.json", SCHEMA, Kind.TEXT))


def test_a_label_studio_export_with_differing_annotators_asks_for_a_ground_truth(tmp_path):
    disputed, settled, cancelled = read_tasks(
        tmp_path,
        task(chosen("größer"), chosen("Ankle boot")),
        task(chosen("größer"), chosen("Ankle boot", ground_truth=True)),
        task(chosen("größer"), chosen("Ankle boot", was_cancelled=True)),
    )
    assert isinstance(disputed, RefusedRow)
    assert "ground truth" in disputed.remedy
    assert settled.answer == Answer(3)
    assert cancelled.answer == Answer(2)
    assert settled.source_id == "5"


def test_utf16_offsets_of_older_label_studio_exports_are_recognised_by_the_quoted_text(tmp_path):
    points, units, wrong, box = read_tasks(
        tmp_path,
        task(spanned(11, 15, "𝔄dam")),
        task(spanned(12, 17, "𝔄dam")),
        task(spanned(0, 4, "Anna")),
        task(spanned(0, 4, "Anna", kind="rectanglelabels")),
    )
    assert points.answer == units.answer == Answer(None, spans=((11, 15, 2),))
    assert "quoted text" in wrong.reason
    assert "'rectanglelabels' cannot be imported" in box.reason


def test_a_label_studio_file_that_breaks_off_is_an_error_after_its_good_tasks(tmp_path):
    whole = json.dumps([task(chosen("größer")), task(chosen("größer"))])
    (tmp_path / "cut.json").write_text(whole[:-30])
    rows = FORMATS["label-studio"].read(tmp_path / "cut.json", SCHEMA, Kind.TEXT)
    assert isinstance(next(rows), ImportedRow)
    with pytest.raises(FileUnreadable, match="element 2"):
        next(rows)
    (tmp_path / "object.json").write_text('{"a": 1}')
    with pytest.raises(FileUnreadable, match="not a JSON array"):
        list(FORMATS["label-studio"].read(tmp_path / "object.json", SCHEMA, Kind.TEXT))


@pytest.mark.parametrize(
    "raw", ["[]", " [ ] ", '[1, {"a": [2]},\n"x" ]', "[" + "[0]," * 400_000 + "12]"]
)
def test_a_json_array_is_read_element_by_element_as_the_standard_library_reads_it(raw, tmp_path):
    (tmp_path / "a.json").write_text(raw)
    assert [value for _, value in json_array(tmp_path / "a.json")] == json.loads(raw)


@pytest.mark.parametrize("raw", ["", "[", "[1", "[1,", "[1 2]", "[1,]", '["x', "[1}"])
def test_a_broken_json_array_is_an_error_and_never_a_shorter_list(raw, tmp_path):
    (tmp_path / "a.json").write_text(raw)
    with pytest.raises(FileUnreadable):
        list(json_array(tmp_path / "a.json"))


@pytest.mark.parametrize("kind", sorted(Kind))
def test_datasets_loads_the_folder_with_types_and_saves_what_we_read_back(kind, tmp_path, datasets):
    made = records(kind)
    FORMATS["huggingface"].write(made, tmp_path / "out", SCHEMA)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    train = loaded["train"]
    assert len(loaded["train"]) == 5
    assert len(loaded["test"]) == 1
    assert train.features["label"].names == list(SCHEMA.classes)
    assert train.features["label"].int2str(train[1]["label"]) == "Bag & belt"
    assert train[4]["label"] is None
    assert train[0]["annotations"][1]["note"] == "see page 3"
    assert train[0]["provenance"][0] == {"name": "campaign", "value": "demo"}
    if kind is Kind.IMAGE:
        assert np.asarray(train[2]["image"]).shape == (3, 4)
    if kind is Kind.SERIES:
        assert np.asarray(train[2]["series"], np.float32).shape == (6, 2)
    # The other way: what the package writes, the portal reads.
    train.to_parquet(str(tmp_path / "saved" / "train.parquet"))
    back = accepted(FORMATS["huggingface"].read(tmp_path / "saved", SCHEMA, kind))
    assert [row.content for row in back] == [record.content for record in made[:5]]
    assert [row.source_id for row in back] == [record.item_id for record in made[:5]]
    expected = [classes_of(r.label.answer if r.label else None) for r in made[:5]]
    assert [classes_of(row.answer) for row in back] == expected
    assert {row.split for row in back} == {"train"}


def test_spans_of_a_dataset_come_back_through_the_package(tmp_path, datasets):
    item = ExportedItem("0a", Kind.TEXT, TEXT.encode(), ExportedLabel(SPANNED))
    FORMATS["huggingface"].write([item], tmp_path / "out", SCHEMA)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    loaded["train"].to_parquet(str(tmp_path / "saved.parquet"))
    (row,) = accepted(FORMATS["huggingface"].read(tmp_path / "saved.parquet", SCHEMA, Kind.TEXT))
    assert row.answer == SPANNED


def test_a_foreign_dataset_with_its_own_class_order_is_mapped_by_name(tmp_path, datasets):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["größer", "other"])}
    )
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    made.to_parquet(str(tmp_path / "foreign.parquet"))
    first, second = FORMATS["huggingface"].read(tmp_path / "foreign.parquet", SCHEMA, Kind.TEXT)
    assert first.answer == Answer(2)
    assert "'other' is not in the label schema" in second.reason
    plain = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    plain.to_parquet(str(tmp_path / "plain.parquet"))
    (row, _) = FORMATS["huggingface"].read(tmp_path / "plain.parquet", SCHEMA, Kind.TEXT)
    assert "number without a name" in row.reason


def test_datasets_loads_our_image_folders_too(tmp_path, datasets):
    FORMATS["yolo"].write(records(Kind.IMAGE), tmp_path / "out", SCHEMA)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")
    )
    # Folder names sort in the order of the schema, so the numbers agree with ours.
    assert [row["label"] for row in loaded["train"]] == [0, 1, 2, 3]
