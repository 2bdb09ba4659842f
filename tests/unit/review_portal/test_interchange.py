"""Labels leave for other tools and come back, and what a format cannot hold is said."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Answer, Kind
from review_portal.interchange.errors import (
    FileUnreadable,
    FormatUnknown,
    FormatUnsuited,
    TargetExists,
)
from review_portal.interchange.formats import FORMATS, format_named
from review_portal.interchange.records import (
    ExportedAnnotation,
    ExportedItem,
    ExportedLabel,
    ExportedSuggestion,
    ImportedRow,
    RefusedRow,
    classes_of,
)

SCHEMA = LabelSchema(("T-shirt/top", "Bag & belt", "größer", "Ankle boot"))


def png(width: int = 4, height: int = 3, shade: int = 7) -> bytes:
    """A gray PNG made by hand: header, one chunk of pixels, end."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes([shade] * width) for _ in range(height)))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def npy(steps: int = 5, channels: int = 2) -> bytes:
    values = np.random.default_rng(3).normal(size=(steps, channels)).astype(np.float32)
    written = io.BytesIO()
    np.save(written, values)
    return written.getvalue()


def content_of(kind: Kind, number: int) -> bytes:
    if kind is Kind.TEXT:
        return f"Item {number}: 😀 größe 𝔄 <PERSON_1>\nsecond line".encode()
    if kind is Kind.IMAGE:
        return png(shade=number)
    if kind is Kind.SERIES:
        return npy(steps=4 + number)
    return json.dumps(
        {"age": number, "city": "Köln", "none": None, "score": 0.25},
        ensure_ascii=False, sort_keys=True, separators=(",", ":"),
    ).encode()  # fmt: skip


def records(kind: Kind, count: int = 6) -> list[ExportedItem]:
    made = []
    for number in range(count):
        answer = Answer(number % 4)
        experts = tuple(
            ExportedAnnotation(f"expert-{who}", answer, 2.5, note="see page 3" if who else "")
            for who in range(2)
        )
        made.append(
            ExportedItem(
                item_id=f"{number:032x}",
                kind=kind,
                content=content_of(kind, number),
                label=ExportedLabel(answer, "agreement") if number != 4 else None,
                annotations=experts if number != 4 else (),
                suggestion=ExportedSuggestion(1, 0.75, 3),
                split="test" if number == 5 else "train",
                provenance=(("campaign", "demo"), ("policy", "v2")),
            )
        )
    return made


def accepted(rows):
    rows = list(rows)
    assert all(isinstance(row, ImportedRow) for row in rows), rows
    return rows


PAIRS = [(name, kind) for name, form in FORMATS.items() for kind in sorted(form.kinds)]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_content_label_id_and_split_come_back_from_every_format(name, kind, tmp_path):
    form, made = FORMATS[name], records(kind)
    report = form.write(made, tmp_path / "out", SCHEMA)
    back = {row.source_id: row for row in accepted(form.read(tmp_path / "out", SCHEMA, kind))}
    kept = [r for r in made if name != "yolo" or r.label is not None]
    assert report.count == len(kept) == len(back)
    for record in kept:
        row = back[record.item_id]
        assert row.content == record.content
        assert row.split == record.split
        expected = record.label.answer if record.label else None
        assert classes_of(row.answer) == classes_of(expected)
        assert (row.answer is None) == (expected is None)


SPANNED = ["jsonl", "label-studio", "prodigy", "doccano", "huggingface"]


@pytest.mark.parametrize("name", SPANNED)
def test_spans_and_several_classes_come_back_in_code_points(name, tmp_path):
    text = "😀 Anna met 𝔄dam in Köln"
    answer = Answer(1, class_indices=(1, 3), spans=((2, 6, 0), (11, 15, 2)))
    only_spans = Answer(None, spans=((0, 1, 3),))
    made = [
        ExportedItem("0a", Kind.TEXT, text.encode(), ExportedLabel(answer)),
        ExportedItem("0b", Kind.TEXT, text.encode(), ExportedLabel(only_spans)),
    ]
    FORMATS[name].write(made, tmp_path / "out", SCHEMA)
    both, spans = accepted(FORMATS[name].read(tmp_path / "out", SCHEMA, Kind.TEXT))
    assert both.answer == answer
    assert spans.answer == only_spans
    assert text[2:6] == "Anna"


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(str.strip)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(made=st.lists(st.tuples(texts, st.integers(0, 3), st.randoms()), min_size=1, max_size=4))
@pytest.mark.parametrize("name", SPANNED)
def test_any_text_with_any_span_survives(name, made, tmp_path):
    items = []
    for number, (text, index, chance) in enumerate(made):
        start = chance.randrange(len(text))
        spans = ((start, chance.randrange(start, len(text)) + 1, index),)
        label = ExportedLabel(Answer(index, spans=spans))
        items.append(ExportedItem(f"{number:02x}", Kind.TEXT, text.encode(), label))
    target = tmp_path / os.urandom(6).hex()
    FORMATS[name].write(items, target, SCHEMA)
    back = accepted(FORMATS[name].read(target, SCHEMA, Kind.TEXT))
    assert [row.content for row in back] == [item.content for item in items]
    assert [row.answer for row in back] == [item.label.answer for item in items]


def test_every_loss_is_named_with_the_number_of_items(tmp_path):
    said = {
        name: FORMATS[name].write(records(kind), tmp_path / name, SCHEMA).lossy_steps
        for name, kind in [
            ("jsonl", Kind.TEXT), ("huggingface", Kind.TEXT), ("prodigy", Kind.RECORD),
            ("label-studio", Kind.TEXT), ("doccano", Kind.RECORD), ("coco", Kind.IMAGE),
            ("yolo", Kind.IMAGE),
        ]
    }  # fmt: skip
    assert said["jsonl"] == said["huggingface"] == ()
    assert "records are shown as their JSON text (6 items)" in said["prodigy"]
    assert any("importing user" in step and "(5 items)" in step for step in said["label-studio"])
    assert any("notes" in step for step in said["label-studio"])
    assert any("metadata" in step for step in said["doccano"])
    assert any("box over all of it (5 items)" in step for step in said["coco"])
    assert "items without a class are left out (1 item)" in said["yolo"]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_an_export_never_overwrites_and_a_failed_one_leaves_nothing(name, tmp_path):
    form = FORMATS[name]
    kind = Kind.IMAGE if form.kinds == {Kind.IMAGE} else Kind.TEXT
    (tmp_path / "out").mkdir()
    with pytest.raises(TargetExists, match="exists"):
        form.write(records(kind), tmp_path / "out", SCHEMA)

    def broken():
        yield records(kind)[0]
        raise RuntimeError("the store went away")

    with pytest.raises(RuntimeError):
        form.write(broken(), tmp_path / "new", SCHEMA)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_kind_that_a_format_cannot_hold_is_refused_with_another_format_named(tmp_path):
    for name in ("prodigy", "doccano", "coco", "yolo"):
        with pytest.raises(FormatUnsuited, match="huggingface"):
            FORMATS[name].write(records(Kind.SERIES), tmp_path / name, SCHEMA)
    for name in ("coco", "yolo"):
        with pytest.raises(FormatUnsuited, match="text"):
            list(FORMATS[name].read(tmp_path, SCHEMA, Kind.TEXT))
    mixed = [*records(Kind.TEXT, 1), *records(Kind.RECORD, 1)]
    with pytest.raises(FormatUnsuited, match="one kind"):
        FORMATS["huggingface"].write(mixed, tmp_path / "mixed", SCHEMA)
    with pytest.raises(FormatUnknown, match="coco, doccano"):
        format_named("csv")


def jsonl(path, *lines):
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return path


def test_bad_rows_are_refused_one_by_one_with_number_reason_and_remedy(tmp_path):
    file = jsonl(
        tmp_path / "seed.jsonl",
        {"id": "a", "text": "good", "label": "Bag & belt"},
        {"id": "b", "text": "typo", "label": "Bag & bel"},
        "",
        "not json",
        {"id": "c", "text": "   "},
        {"id": "d", "text": "x", "spans": [[0, 9, "größer"]]},
        {"id": "e", "text": "x", "spans": [[0, True, "größer"]]},
        {"id": "f", "text": "x", "label": 3},
        {"id": "g", "text": "x", "split": "dev"},
        {"id": "h", "text": "\ud800"},
        [1, 2],
        {"id": "i", "text": "unlabelled is fine"},
    )
    rows = list(FORMATS["jsonl"].read(file, SCHEMA, Kind.TEXT))
    refused = {row.row_number: row for row in rows if isinstance(row, RefusedRow)}
    assert [row.row_number for row in rows if isinstance(row, ImportedRow)] == [1, 12]
    assert refused[2].source_id == "b"
    assert "'Bag & bel' is not in the label schema" in refused[2].reason
    assert "did you mean 'Bag & belt'?" in refused[2].remedy
    assert "not JSON" in refused[4].reason
    assert "no text" in refused[5].reason
    assert "outside the text of 1 characters" in refused[6].reason
    assert "from a number to true or false" in refused[7].reason
    assert (
        "a label is a number" in refused[8].reason or "the label is a number" in refused[8].reason
    )
    assert refused[9].remedy == "use train or test"
    assert "surrogate" in refused[10].reason
    assert "not an object" in refused[11].reason
    assert all(row.remedy for row in refused.values())


def test_a_missing_or_non_utf8_file_is_an_error_that_names_it(tmp_path):
    for name in sorted(set(FORMATS) - {"yolo"}):
        kind = Kind.IMAGE if name == "coco" else Kind.TEXT
        with pytest.raises(FileUnreadable, match="nowhere"):
            list(FORMATS[name].read(tmp_path / "nowhere", SCHEMA, kind))
    with pytest.raises(FileUnreadable, match="folder"):
        list(FORMATS["yolo"].read(tmp_path, SCHEMA, Kind.IMAGE))
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "gr\xf6\xdfe"}')
    with pytest.raises(FileUnreadable, match="UTF-8"):
        list(FORMATS["jsonl"].read(tmp_path / "latin.jsonl", SCHEMA, Kind.TEXT))


def test_an_image_reference_cannot_leave_the_folder_of_the_import(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    inside = tmp_path / "import"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    file = jsonl(
        inside / "rows.jsonl",
        *({"image": name} for name in (
            "../secret.png", str(tmp_path / "secret.png"), "link.png", "http://x/y.png", "none.png",
            "data:image/png;base64,%%%", "data:image/png;base64,AAAA",
        )),
    )  # fmt: skip
    rows = list(FORMATS["jsonl"].read(file, SCHEMA, Kind.IMAGE))
    assert len(rows) == 7
    assert all(isinstance(row, RefusedRow) for row in rows)
    assert "outside the folder" in rows[0].reason
    assert "outside the folder" in rows[2].reason


def test_imported_images_lose_their_metadata_and_become_gray_or_rgb_png(tmp_path):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    remark = PngInfo()
    remark.add_text("Comment", "PATIENT-JOE")
    Image.new("RGBA", (5, 4), (1, 2, 3, 9)).save(tmp_path / "a.png", pnginfo=remark)
    Image.new("RGB", (5, 4)).save(tmp_path / "b.jpg", exif=b"Exif\0\0PATIENT-JOE")
    file = jsonl(tmp_path / "rows.jsonl", {"image": "a.png"}, {"image": "b.jpg"})
    for row in accepted(FORMATS["jsonl"].read(file, SCHEMA, Kind.IMAGE)):
        assert b"PATIENT" not in row.content
        assert row.content[:4] == b"\x89PNG"
        assert row.content[24:26] == b"\x08\x02"


def test_series_and_records_with_gaps_or_nesting_are_refused(tmp_path):
    file = jsonl(tmp_path / "s.jsonl", '{"series": [[1, NaN]]}', {"series": [[1], [1, 2]]},
                 {"series": [1, 2]}, {"series": "x"}, {"series": [[1e300]]})  # fmt: skip
    assert all(isinstance(r, RefusedRow) for r in FORMATS["jsonl"].read(file, SCHEMA, Kind.SERIES))
    file = jsonl(tmp_path / "r.jsonl", {"record": {}}, {"record": {"a": [1]}}, {"record": 3})
    assert all(isinstance(r, RefusedRow) for r in FORMATS["jsonl"].read(file, SCHEMA, Kind.RECORD))


def test_foreign_prodigy_tasks_are_understood(tmp_path):
    file = jsonl(
        tmp_path / "p.jsonl",
        {"text": "hi", "label": "größer", "answer": "accept", "_input_hash": 3},
        {"text": "hi", "label": "größer", "answer": "reject"},
        {"text": "hi", "accept": ["größer", "Ankle boot"], "answer": "accept"},
        {"text": "hi", "accept": [], "answer": "ignore"},
        {"text": "hi", "spans": [{"start": 0, "end": 2, "label": "größer", "token_start": 0}],
         "answer": "accept", "tokens": [{"text": "hi", "start": 0, "end": 2, "id": 0}]},
    )  # fmt: skip
    rows = list(FORMATS["prodigy"].read(file, SCHEMA, Kind.TEXT))
    assert rows[0].answer == Answer(2)
    assert "names no class" in rows[1].reason
    assert rows[2].answer.class_indices == (2, 3)
    assert rows[3].answer is None
    assert rows[4].answer.spans == ((0, 2, 2),)


def test_every_shape_of_doccano_export_is_understood(tmp_path):
    file = jsonl(
        tmp_path / "d.jsonl",
        {"id": 1, "text": "hi you", "label": ["größer"]},
        {"id": 2, "text": "hi you", "label": [[0, 2, "größer"]]},
        {"id": 3, "text": "hi you", "entities": [[0, 2, "größer"]], "cats": ["Ankle boot"]},
        {"id": 4, "text": "hi you", "relations": [],
         "entities": [{"id": 9, "start_offset": 3, "end_offset": 6, "label": "größer"}]},
        {"id": 5, "text": "hi you", "label": "größer", "Comments": []},
    )  # fmt: skip
    answers = [row.answer for row in accepted(FORMATS["doccano"].read(file, SCHEMA, Kind.TEXT))]
    assert answers == [
        Answer(2), Answer(None, spans=((0, 2, 2),)), Answer(3, spans=((0, 2, 2),)),
        Answer(None, spans=((3, 6, 2),)), Answer(2),
    ]  # fmt: skip


def test_a_broken_coco_file_is_an_error_and_a_missing_image_a_refused_row(tmp_path):
    made = records(Kind.IMAGE)
    FORMATS["coco"].write(made, tmp_path / "set", SCHEMA)
    (tmp_path / "set" / "images" / f"{made[0].item_id}.png").unlink()
    rows = list(FORMATS["coco"].read(tmp_path / "set", SCHEMA, Kind.IMAGE))
    assert isinstance(rows[0], RefusedRow)
    assert rows[0].source_id == made[0].item_id
    assert sum(isinstance(row, ImportedRow) for row in rows) == 5
    (tmp_path / "set" / "annotations.json").write_text('{"images": []}')
    with pytest.raises(FileUnreadable, match="no COCO file"):
        list(FORMATS["coco"].read(tmp_path / "set", SCHEMA, Kind.IMAGE))


def test_yolo_folders_with_plain_class_names_are_read_without_our_index_file(tmp_path):
    schema = LabelSchema(("cat", "dog"))
    for split, name in (("train", "cat"), ("test", "dog"), ("val", "dog"), ("train", "cow")):
        (tmp_path / split / name).mkdir(parents=True)
        (tmp_path / split / name / "1.png").write_bytes(png())
    rows = list(FORMATS["yolo"].read(tmp_path, schema, Kind.IMAGE))
    assert [(r.split, r.answer.class_index) for r in rows if isinstance(r, ImportedRow)] == [
        ("test", 1), ("train", 0), ("", 1),
    ]  # fmt: skip
    assert [row.reason for row in rows if isinstance(row, RefusedRow)] == [
        "class 'cow' is not in the label schema"
    ]
