"""The taint search itself: it finds every form of every secret, and nothing in noise."""

import base64
import copy
import gzip
import io
import random
import sqlite3
import time
import zipfile
import zlib

import hpack
import pyarrow as pa
import pytest

from tests.journey.taint.encodings import digests_of, encodings_of, patterns_of
from tests.journey.taint.markers import Place, make_markers
from tests.journey.taint.matcher import Matcher
from tests.journey.taint.search import OVERLAP, Search, SearchReport
from tests.journey.taint.unpacking import http2_parts

MARKERS = make_markers(20)
SECRET = MARKERS[0].value


def noise(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


WHOLE = Search(MARKERS)


def fresh() -> Search:
    search = copy.copy(WHOLE)
    search.report = SearchReport()
    return search


def found(searched: bytes) -> set[str]:
    search = fresh()
    search.bytes_of("here", searched)
    return search.report.markers()


def test_there_are_two_hundred_markers_in_five_places_and_over_thirty_encodings_of_each():
    assert len(MARKERS) == 200
    assert {place: sum(m.place is place for m in MARKERS) for place in Place} == {
        Place.TEXT: 120, Place.FILE_NAME: 20, Place.COLUMN: 20, Place.NOTE: 20, Place.USER_NAME: 20,
    }  # fmt: skip
    assert min(len(patterns_of(marker.value)) for marker in MARKERS) >= 30
    assert make_markers(20) == MARKERS
    assert make_markers(21) != MARKERS


def test_every_encoding_of_every_marker_is_found_at_its_offset_inside_noise():
    matcher = fresh().matcher
    for number, marker in enumerate(MARKERS):
        for pattern, encoding in patterns_of(marker.value).items():
            before = noise(number, 13 + number % 8)
            hits = matcher.hits(before + pattern + noise(number + 1, 20), "here")
            assert any(hit.marker == marker.name and hit.offset == len(before) for hit in hits), (
                marker.name,
                encoding,
            )


@pytest.mark.parametrize("shift", range(5))
def test_alignment_does_not_hide_a_secret_inside_a_longer_encoded_text(shift):
    raw = b"q" * shift + SECRET.encode() + b" and more"
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode, base64.b85encode,
                   base64.a85encode):  # fmt: skip
        assert found(b"{" + encode(raw) + b"}") == {"person-00"}, encode


def test_a_hundred_megabytes_of_noise_hold_no_secret_and_are_searched_in_seconds():
    matcher, searched = fresh().matcher, noise(5, 100_000_000)
    started = time.process_time()
    assert matcher.hits(searched, "noise") == []
    assert time.process_time() - started < 10


def test_packed_and_doubly_packed_secrets_are_found():
    raw = b"text " + SECRET.encode() + b" text"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inner.txt", raw)
    zstd = io.BytesIO()
    with pa.CompressedOutputStream(zstd, "zstd") as stream:
        stream.write(raw)
    for packed in (
        gzip.compress(raw), zlib.compress(raw), zlib.compress(raw, 1), archive.getvalue(),
        gzip.compress(zlib.compress(raw)), base64.b64encode(gzip.compress(raw)),
        base64.b64encode(base64.b64encode(base64.b64encode(raw))),
        gzip.compress(archive.getvalue()),
    ):  # fmt: skip
        assert SECRET.encode() not in packed
        assert found(noise(3, 99) + packed + noise(4, 99)) == {"person-00"}


def test_a_secret_that_a_file_part_or_a_database_page_cuts_in_two_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.journey.taint.search.CHUNK", OVERLAP * 2)
    path = tmp_path / "big.log"
    path.write_bytes(b"." * (OVERLAP * 2 - 5) + SECRET.encode() + b"." * OVERLAP)
    search = fresh()
    search.file(path)
    assert search.report.markers() == {"person-00"}
    database = sqlite3.connect(tmp_path / "d.db")
    database.execute("PRAGMA page_size=512")
    database.execute("CREATE TABLE items (blob BLOB)")
    for start in range(480, 520):
        database.execute("INSERT INTO items VALUES (?)", (b"." * start + SECRET.encode(),))
    database.commit()
    search = fresh()
    search.file(tmp_path / "d.db")
    assert (
        sum("table items" in hit.place and hit.encoding == "utf-8" for hit in search.report.hits)
        == 40
    )


def test_what_sits_in_a_write_ahead_log_or_a_deleted_row_is_found(tmp_path):
    database = sqlite3.connect(tmp_path / "d.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE items (note TEXT)")
    database.execute("INSERT INTO items VALUES (?)", (SECRET,))
    database.commit()
    database.execute("DELETE FROM items")
    database.commit()
    search = fresh()
    search.folder(tmp_path)
    assert search.report.markers() == {"person-00"}
    assert all("table" not in hit.place for hit in search.report.hits)


def test_file_and_folder_names_are_searched(tmp_path):
    (tmp_path / MARKERS[125].value).mkdir()
    (tmp_path / "log").write_text("nothing here")
    search = fresh()
    search.folder(tmp_path)
    assert search.report.markers() == {MARKERS[125].name}


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload
    )


def connection(headers: list[tuple[str, str]], pieces: list[bytes]) -> bytes:
    block = hpack.Encoder().encode(headers, huffman=True)
    return b"".join([
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        frame(4, 0, 0, b""),
        frame(1, 0, 1, block[:7]),
        frame(9, 4, 1, block[7:]),
        *(frame(0, 0, 1, piece) for piece in pieces),
    ])  # fmt: skip


def test_frames_and_huffman_coded_headers_of_http2_do_not_hide_a_secret():
    raw = SECRET.encode()
    stream = connection([("x-remark", f"see {SECRET}")], [])
    assert raw not in stream
    search = fresh()
    search.stream("wire", stream)
    assert "wire headers of stream 1" in {hit.place for hit in search.report.hits}
    cut = connection([("a", "b")], [b"x" + raw[:6], raw[6:12], raw[12:] + b"y"])
    assert raw not in cut
    search = fresh()
    search.stream("wire", cut)
    assert {hit.place for hit in search.report.hits} == {"wire data of stream 1"}
    assert list(http2_parts(b"HTTP/1.1 200 OK\r\n\r\n")) == []


def test_digests_of_whole_samples_are_found():
    text = b"a whole sample that somebody could guess"
    search = Search([], [("sample-1", text)])
    for _, digest in digests_of(text):
        search.bytes_of("here", noise(8, 9) + digest)
    assert search.report.markers() == {"sample-1"}


def test_the_number_of_encodings_is_what_the_report_may_claim():
    names = {name for marker in MARKERS for name, _ in encodings_of(marker.value)}
    assert len(names) >= 90


def test_a_pattern_that_noise_would_match_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        Matcher({b"short": ("m", "e")})
    with pytest.raises(ValueError, match="uniform"):
        Matcher({b"0" * 40: ("m", "e")})
