"""Samples come in whole or are refused with a reason; nothing else is lost."""

from __future__ import annotations

import http.client
import io
import json
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perimeter.v1 import model_pb2
from PIL import Image, PngImagePlugin

from edge_agent.config import Limits, parse_config
from edge_agent.errors import SampleRefused, StorageFull
from edge_agent.queue.stores import Stores, open_stores
from edge_agent.sources.decoding import canonical, decode
from edge_agent.sources.folder import FolderSource
from edge_agent.sources.growing import GrowingFile
from edge_agent.sources.intake import Intake
from edge_agent.sources.push import PushListener

LIMITS = Limits(sample_bytes_max=5000, image_pixels_max=10_000)
CAMPAIGN = b"c" * 16


class Inlet:
    """A queue with one source in front of it."""

    def __init__(self, folder: Path, **source) -> None:
        self.folder = folder
        values = {"name": "in", "campaign": "camp", "kind": "text", "type": "folder"} | source
        self.config = parse_config({"state": "state", "sources": [values]}, {}, base=folder)
        self.source = self.config.sources[0]
        self.stores: Stores = open_stores(self.config)
        self.stores.campaigns.record(
            [model_pb2.Campaign(campaign_id=CAMPAIGN, name="camp", kind=self.source.kind)]
        )
        self.intake = Intake(
            self.stores.database,
            self.stores.samples,
            self.stores.journal,
            queue_bytes_max=1 << 30,
            drop_oldest=False,
        )

    def reader(self):
        if self.source.type == "folder":
            return FolderSource(self.source, LIMITS, self.stores.journal, settle_seconds=0)
        return GrowingFile(self.source, LIMITS, self.stores.journal)

    def read(self, reader=None) -> None:
        """Polls until there is nothing more."""
        reader = reader or self.reader()
        while True:
            delivery = reader.poll(time.time())
            self.intake.take(self.source, delivery, 1.0)
            reader.took(delivery)
            if not delivery.more:
                return

    def contents(self) -> list[bytes]:
        found = self.stores.samples.waiting(CAMPAIGN, 1, after=0, count_max=10_000)
        return [sample.content for sample in found]

    def reasons(self) -> dict[str, int]:
        return self.stores.journal.refusal_counts()


def png(pixels: np.ndarray, **options) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG", **options)
    return stored.getvalue()


def test_each_file_of_a_folder_becomes_one_sample_and_is_read_once(tmp_path):
    inlet = Inlet(tmp_path, path="inbox")
    inbox = tmp_path / "inbox"
    (inbox / "deep").mkdir(parents=True)
    (inbox / "a.txt").write_text("first")
    (inbox / "deep" / "b.txt").write_text("second")
    inlet.read()
    inlet.read()
    assert sorted(inlet.contents()) == [b"first", b"second"]
    (inbox / "a.txt").write_text("changed")
    inlet.read()
    assert sorted(inlet.contents()) == [b"changed", b"first", b"second"]


def test_a_file_that_is_still_being_written_waits(tmp_path):
    inlet = Inlet(tmp_path, path="inbox")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.txt").write_text("half")
    reader = FolderSource(inlet.source, LIMITS, inlet.stores.journal, settle_seconds=60)
    inlet.read(reader)
    assert inlet.contents() == []


def test_a_text_that_is_not_utf8_is_refused_and_its_neighbours_are_taken(tmp_path):
    inlet = Inlet(tmp_path, path="inbox")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "1-good.txt").write_text("good")
    (tmp_path / "inbox" / "2-müller.txt").write_bytes("Schröder".encode("latin-1"))
    (tmp_path / "inbox" / "3-good.txt").write_text("also good")
    inlet.read()
    assert sorted(inlet.contents()) == [b"also good", b"good"]
    (refusal,) = inlet.stores.journal.refusals()
    assert (refusal.reason, refusal.location) == ("not-utf8", "2-müller.txt")
    assert "iconv" in refusal.detail
    assert "Schr" not in refusal.detail


def test_the_refusal_log_holds_no_content_and_no_file_name_in_clear(tmp_path):
    inlet = Inlet(tmp_path, path="inbox")
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "marker-name.txt").write_bytes(b"\xffmarker-content")
    inlet.read()
    assert inlet.reasons() == {"not-utf8": 1}
    inlet.stores.database.close()
    for path in filter(Path.is_file, (tmp_path / "state").rglob("*")):
        assert b"marker" not in path.read_bytes()


@pytest.mark.parametrize(
    ("raw", "kind", "reason"),
    [
        (b"", "text", "empty"),
        (b" \n\t ", "text", "empty"),
        (b"x" * 5001, "text", "too-large"),
        (b"a\0b", "text", "not-text"),
        (b"\xc3\x28", "text", "not-utf8"),
        (png(np.arange(900, dtype=np.uint8).reshape(30, 30))[:-80], "image", "bad-image"),
        (b"GIF89a-no", "image", "bad-image"),
        (png(np.zeros((101, 100), np.uint8)), "image", "too-large"),
        (b"\x93NUMPY broken", "series", "bad-series"),
        (b"PK broken archive", "series", "bad-series"),
        (b"[1, 2]", "record", "bad-record"),
        (b"{}", "record", "empty"),
        (b'{"a": [1]}', "record", "bad-record"),
    ],
)
def test_bad_input_is_refused_with_its_reason(raw, kind, reason):
    with pytest.raises(SampleRefused) as refused:
        canonical(raw, kind, LIMITS)
    assert refused.value.reason == reason


def test_an_image_loses_its_metadata_and_stands_upright():
    note = PngImagePlugin.PngInfo()
    note.add_text("Author", "marker-person")
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (content,) = canonical(png(gray, pnginfo=note), "image", LIMITS)
    assert b"marker" not in content
    assert (decode(content, "image") == gray).all()
    stored = io.BytesIO()
    tag = Image.Exif()
    tag[274] = 6  # rotated
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(stored, "JPEG", exif=tag)
    (content,) = canonical(stored.getvalue(), "image", LIMITS)
    assert decode(content, "image").shape == (8, 4, 3)


def test_a_sixteen_bit_image_keeps_its_range():
    deep = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    (content,) = canonical(png(deep), "image", LIMITS)
    assert decode(content, "image").max() > 200


def test_a_series_file_with_several_windows_becomes_several_samples():
    stored = io.BytesIO()
    np.savez(stored, one=np.ones((3, 5, 2)), two=np.zeros((5, 2)))
    contents = canonical(stored.getvalue(), "series", LIMITS)
    assert len(contents) == 4
    assert decode(contents[0], "series").dtype == np.float32


def test_a_pickled_array_is_never_opened():
    stored = io.BytesIO()
    np.save(stored, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SampleRefused):
        canonical(stored.getvalue(), "series", LIMITS)


def test_a_window_that_is_not_finite_is_refused():
    stored = io.BytesIO()
    np.save(stored, np.array([[1.0, np.nan]]))
    with pytest.raises(SampleRefused, match="finite"):
        canonical(stored.getvalue(), "series", LIMITS)


def test_a_growing_jsonl_file_goes_on_where_it_was_and_half_a_line_waits(tmp_path):
    inlet = Inlet(tmp_path, type="file", path="rows.jsonl")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one"}\n{"text": "tw')
    inlet.read()
    assert inlet.contents() == [b"one"]
    with path.open("a") as file:
        file.write('o"}\n{"text": "three"}\n')
    inlet.read()
    assert inlet.contents() == [b"one", b"two", b"three"]


def test_a_row_without_the_text_column_is_refused_and_the_others_are_taken(tmp_path):
    inlet = Inlet(tmp_path, type="file", path="rows.jsonl")
    (tmp_path / "rows.jsonl").write_text(
        '{"text": "one"}\n{"body": "secret-word"}\nnot json\n\n{"text": 5}\n{"text": "two"}\n'
    )
    inlet.read()
    assert inlet.contents() == [b"one", b"two"]
    assert inlet.reasons() == {"no-text-column": 1, "bad-row": 2}
    refusal = next(r for r in inlet.stores.journal.refusals() if r.reason == "no-text-column")
    assert refusal.location == "rows.jsonl, row 2"
    assert "'body'" in refusal.detail
    assert "secret-word" not in refusal.detail


def test_a_csv_field_may_hold_line_ends_and_a_row_of_another_width_is_refused(tmp_path):
    inlet = Inlet(tmp_path, type="file", path="rows.csv", text_column="message")
    (tmp_path / "rows.csv").write_text(
        'id,message\r\n1,"two\r\nlines"\r\n2,plain\r\n3,too,many\r\n4,"half'
    )
    inlet.read()
    assert inlet.contents() == [b"two\r\nlines", b"plain"]
    assert inlet.reasons() == {"bad-row": 1}


def test_a_table_without_the_text_column_names_those_it_has(tmp_path):
    inlet = Inlet(tmp_path, type="file", path="rows.csv")
    (tmp_path / "rows.csv").write_text("id,body\n1,hello\n")
    with pytest.raises(SampleRefused, match="'id', 'body'"):
        inlet.read()
    assert inlet.stores.journal.position("in") is None


def test_a_row_that_is_too_large_is_passed_over(tmp_path):
    inlet = Inlet(tmp_path, type="file", path="rows.jsonl")
    huge = json.dumps({"text": "x" * 1_100_000})
    (tmp_path / "rows.jsonl").write_text(f'{huge}\n{{"text": "small"}}\n')
    inlet.read()
    assert inlet.contents() == [b"small"]
    assert inlet.reasons() == {"too-large": 1}


def test_a_rotated_file_is_read_from_its_start(tmp_path):
    inlet = Inlet(tmp_path, type="file", path="rows.jsonl")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "old one"}\n{"text": "old two"}\n')
    inlet.read()
    path.write_text('{"text": "new one"}\n{"text": "new two"}\n{"text": "new three"}\n')
    inlet.read()
    assert len(inlet.contents()) == 5


def test_a_parquet_file_that_is_replaced_by_a_longer_one_goes_on(tmp_path):
    inlet = Inlet(tmp_path, type="file", path="rows.parquet")
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 not finished")
    with pytest.raises(SampleRefused, match="rename"):
        inlet.read()
    pq.write_table(pa.table({"text": ["a", "b", None]}), path)
    inlet.read()
    pq.write_table(pa.table({"text": ["a", "b", None, "d"]}), path)
    inlet.read()
    assert inlet.contents() == [b"a", b"b", b"d"]
    assert inlet.reasons() == {"empty": 1}


def test_records_leave_out_the_columns_that_the_source_excludes(tmp_path):
    inlet = Inlet(
        tmp_path, type="file", path="r.csv", kind="record", exclude_columns=["label", "row"]
    )
    (tmp_path / "r.csv").write_text("row,b,a,label\n1,2.5,x,yes\n")
    inlet.read()
    assert inlet.contents() == [b'{"a":"x","b":"2.5"}']


def test_nothing_is_read_twice_or_lost_when_the_queue_refuses_in_between(tmp_path, monkeypatch):
    inlet = Inlet(tmp_path, type="file", path="rows.jsonl")
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')

    def full(*_):
        raise StorageFull("full")

    with monkeypatch.context() as patch:
        patch.setattr(inlet.stores.journal, "record_position", full)
        with pytest.raises(StorageFull):
            inlet.read()
    assert inlet.contents() == []
    inlet.read()
    assert inlet.contents() == [b"one", b"two"]


# -- push ---------------------------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path):
    inlet = Inlet(tmp_path, type="push", listen="127.0.0.1:0")
    push = PushListener(inlet.source, LIMITS, inlet.intake, lambda: 1.0, lambda: None)
    push.start()
    yield inlet, push
    push.stop()


def post(push: PushListener, body: bytes, **headers) -> tuple[int, str]:
    connection = http.client.HTTPConnection(push.address, timeout=5)
    connection.request("POST", "/", body=body, headers=headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())["message"]


def test_a_pushed_sample_is_in_the_queue_when_it_is_answered(listener):
    inlet, push = listener
    assert post(push, b"hello") == (202, "stored")
    assert post(push, b"hello") == (202, "known already")
    assert inlet.contents() == [b"hello"]


def test_a_bad_push_gets_the_reason_and_is_logged(listener):
    inlet, push = listener
    assert post(push, b"\xff")[0] == 400
    assert post(push, b"")[0] == 400
    assert post(push, b"x" * 6000)[0] == 413
    assert inlet.reasons() == {"not-utf8": 1, "empty": 1, "too-large": 1}


def test_a_browser_page_cannot_push(listener):
    inlet, push = listener
    assert post(push, b"hello", Origin="https://evil.example")[0] == 403
    assert post(push, b"hello", Host="evil.example")[0] == 403
    assert inlet.contents() == []


def test_a_push_before_the_campaign_is_known_is_told_to_come_back(listener):
    inlet, push = listener
    inlet.stores.database.write("DELETE FROM campaign")
    status, message = post(push, b"hello")
    assert status == 503
    assert "later" in message


def test_a_unix_socket_takes_samples_too(tmp_path):
    inlet = Inlet(tmp_path, type="push", listen=f"unix:{tmp_path}/s")
    push = PushListener(inlet.source, LIMITS, inlet.intake, lambda: 1.0, lambda: None)
    push.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
        assert b" 202 " in client.recv(1000)
    push.stop()
    assert inlet.contents() == [b"hello"]


def dicom(**changes):
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"Ann Lee".ljust(128, b"\0"))
    dataset.PatientName, dataset.PatientID, dataset.StudyDate = "Lee^Ann", "4711", "20240101"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 4, 5, 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(range(20))
    dataset.private_block(0x0011, "Ann Lee Imaging", create=True).add_new(1, "LO", "Ann Lee")
    for name, value in changes.items():
        setattr(dataset, name, value)
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def test_of_a_dicom_file_only_the_pixels_come_in():
    raw = dicom()
    assert b"Ann" in raw
    (content,) = canonical(raw, "image", LIMITS)
    assert not any(secret in content for secret in (b"Ann", b"4711", b"2024", b"DICM"))
    pixels = decode(content, "image")
    assert pixels.shape == (4, 5)
    assert (pixels.min(), pixels.max()) == (0, 255)
    (inverted,) = canonical(dicom(PhotometricInterpretation="MONOCHROME1"), "image", LIMITS)
    assert abs(decode(inverted, "image").astype(int) + pixels - 255).max() <= 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Rows": 101, "Columns": 100}, "too-large"),
        ({"NumberOfFrames": 2}, "bad-image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "bad-image"),
        ({"PixelData": b"\0" * 3}, "bad-image"),
    ],
)
def test_a_dicom_file_that_cannot_be_shown_as_it_is_is_refused(change, reason):
    with pytest.raises(SampleRefused) as refused:
        canonical(dicom(**change), "image", LIMITS)
    assert refused.value.reason == reason
    assert "Ann" not in str(refused.value)


def test_without_the_package_a_dicom_file_is_refused_with_a_remedy(monkeypatch):
    raw = dicom()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(SampleRefused, match="pip install"):
        canonical(raw, "image", LIMITS)
