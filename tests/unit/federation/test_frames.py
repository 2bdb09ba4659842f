"""Bytes between centre and site: what is no message is refused before memory is taken."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation import frames, messages
from federation.errors import FederationError, FrameInvalid, RequestInvalid
from federation.frames import Frame
from federation.local_settings import LocalSettings
from federation.networks import NetworkSpec, initial_arrays
from federation.statistics import GroupSums
from model_bundle.features import ColumnSpec, FeatureSpec

SPEC = NetworkSpec(
    "record",
    FeatureSpec("record", columns=(ColumnSpec("a"),)),
    3,
    embedding_width=4,
    hidden_width=4,
)


def command(kind: str = messages.TRAIN) -> messages.Command:
    book = np.ones((2, 4), dtype=np.float32)
    arrays = initial_arrays(SPEC, seed=1)
    return messages.Command(kind, "ab" * 16, "run", SPEC, LocalSettings(), 7, arrays, book)


def update() -> messages.UpdateReply:
    cells = GroupSums(np.zeros(2, np.int64), np.zeros((2, 4), np.float32))
    table = np.zeros((3, 3), np.int64)
    return messages.UpdateReply(initial_arrays(SPEC, seed=2), 5, 0.5, cells, table)


def test_a_command_survives_the_way_to_the_site() -> None:
    sent = command()
    read = messages.read_command(frames.decode(frames.encode(messages.command_frame(sent))))
    assert (read.kind, read.spec, read.local, read.seed) == ("train", SPEC, sent.local, 7)
    assert all((read.arrays[n] == a).all() for n, a in sent.arrays.items())
    assert read.code_book.shape == (2, 4)


def test_a_teacher_travels_whole_or_not_at_all() -> None:
    sent = dataclasses.replace(command(), teacher=initial_arrays(SPEC, seed=9))
    frame = frames.decode(frames.encode(messages.command_frame(sent)))
    read = messages.read_command(frame)
    assert all((read.teacher[n] == a).all() for n, a in sent.teacher.items())
    assert all((read.arrays[n] == a).all() for n, a in sent.arrays.items())
    part = {n: a for n, a in frame.arrays.items() if n != "teacher/head.bias"}
    with pytest.raises(FrameInvalid):
        messages.read_command(dataclasses.replace(frame, arrays=part))


def test_a_frame_is_the_same_bytes_for_the_same_message() -> None:
    one = frames.encode(Frame("x", {"b": 1, "a": 2}, {"q": np.zeros(1), "p": np.ones(1)}))
    two = frames.encode(Frame("x", {"a": 2, "b": 1}, {"p": np.ones(1), "q": np.zeros(1)}))
    assert one == two


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_do_worse_than_a_refusal(raw: bytes) -> None:
    for candidate in (raw, frames.MAGIC + raw):
        with pytest.raises(FrameInvalid):
            frames.decode(candidate)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_is_refused_or_changes_a_value_only(data: st.DataObject) -> None:
    raw = bytearray(frames.encode(messages.command_frame(command())))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        read = messages.read_command(frames.decode(bytes(raw)))
    except FederationError:
        return
    assert set(read.arrays) == set(initial_arrays(SPEC, seed=1)) or read.spec != SPEC


@pytest.mark.parametrize("cut", [0, 3, 15, 16, 40, -1])
def test_a_cut_frame_is_refused(cut: int) -> None:
    raw = frames.encode(messages.command_frame(command()))
    with pytest.raises(FrameInvalid):
        frames.decode(raw[:cut])
    with pytest.raises(FrameInvalid):
        frames.decode(raw + b"x")


def test_an_announced_giant_is_refused_from_its_prefix() -> None:
    prefix = struct.pack("<4sIQ", frames.MAGIC, 10, 1 << 40)
    with pytest.raises(FrameInvalid, match="at most"):
        frames.read_prefix(prefix)


@pytest.mark.parametrize(
    "described",
    [
        [["w", "|O", [1]]],
        [["w", "<f4", [-1]]],
        [["w", "<f4", [1 << 50]]],
        [["w", "<f4", [1] * 9]],
        [["w", "<f4", [0]], ["w", "<f4", [0]]],
        [["w", "<f4", ["x"]]],
        "nothing",
    ],
)
def test_arrays_that_lie_about_themselves_are_refused(described: object) -> None:
    header = json.dumps({"kind": "train", "fields": {}, "arrays": described}).encode()
    raw = frames.PREFIX.pack(frames.MAGIC, len(header), 0) + header
    with pytest.raises(FrameInvalid):
        frames.decode(raw)


def test_objects_cannot_travel() -> None:
    with pytest.raises(FrameInvalid, match="dtype"):
        frames.encode(Frame("x", {}, {"o": np.array([object()])}))


def test_a_reply_with_an_unknown_key_is_refused() -> None:
    good = messages.update_frame(update(), SPEC)
    messages.read_update(good, SPEC, 2)
    more_fields = Frame(good.kind, {**good.fields, "patient": 1}, good.arrays)
    more_arrays = Frame(good.kind, good.fields, {**good.arrays, "embedding": np.zeros(1, "f4")})
    fewer = Frame(good.kind, {"loss": 0.5}, good.arrays)
    for bad in (more_fields, more_arrays, fewer, Frame("report", good.fields, good.arrays)):
        with pytest.raises(FrameInvalid, match="known keys"):
            messages.read_update(bad, SPEC, 2)


@pytest.mark.parametrize("count", [-1, 1.5, True, "5", None, 1 << 60])
def test_a_count_that_is_no_count_is_refused(count: object) -> None:
    good = messages.update_frame(update(), SPEC)
    with pytest.raises(FrameInvalid, match="count"):
        messages.read_update(
            Frame(good.kind, {**good.fields, "example_count": count}, good.arrays), SPEC, 2
        )


def test_a_reply_of_another_shape_is_refused() -> None:
    good = messages.update_frame(update(), SPEC)
    with pytest.raises(FrameInvalid, match="cell_counts"):
        messages.read_update(good, SPEC, 3)


def test_a_command_with_wrong_settings_is_refused_at_the_site() -> None:
    good = messages.command_frame(command())
    bad = Frame(good.kind, {**good.fields, "local": {"local_epochs": 10**9}}, good.arrays)
    with pytest.raises(RequestInvalid, match="local_epochs"):
        messages.read_command(bad)
    with pytest.raises(FrameInvalid, match="campaign_id"):
        messages.read_command(
            Frame(good.kind, {**good.fields, "campaign_id": "../../etc/passwd"}, good.arrays)
        )


def test_a_refusal_names_its_kind_and_no_data() -> None:
    frame = messages.refused_frame(FrameInvalid("patient Ada Lovelace is not a class"))
    assert dict(frame.fields) == {"reason": "FrameInvalid"}
    with pytest.raises(FrameInvalid, match="refused: FrameInvalid"):
        messages.read_update(frame, SPEC, 2)
