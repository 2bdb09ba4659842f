"""Records, series, images and the risk band."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from edge_agent.masking.images import ImageMasker, MaskedImage, missing_parts
from edge_agent.masking.records import ColumnPolicy, ColumnRule, allowed_channels, mask_record
from edge_agent.masking.risk import risk_band
from edge_agent.masking.seam import Held, HeldReason

RULES = ColumnPolicy(
    {
        "pressure": ColumnRule.KEEP,
        "note": ColumnRule.FREE_TEXT,
        "operator": ColumnRule.MASK,
        "device": ColumnRule.DROP,
    }
)


@pytest.mark.presidio
def test_a_record_follows_its_column_policy_and_unknown_columns_are_masked(masker):
    record = {
        "pressure": 4.2,
        "note": "call ann@x.org",
        "operator": "Ann Lee",
        "device": "serial 7",
        "new_column": "Bob",
    }
    assert mask_record(record, RULES, masker) == {
        "pressure": 4.2,
        "note": "call <EMAIL_ADDRESS_1>",
        "operator": "<MASKED>",
        "new_column": "<MASKED>",
    }


@pytest.mark.presidio
def test_one_held_column_holds_the_record(masker):
    answer = mask_record({"note": "x" * 200_000, "pressure": 1}, RULES, masker)
    assert isinstance(answer, Held)


@pytest.mark.presidio
def test_a_record_without_a_column_policy_is_held(masker):
    answer = mask_record({"pressure": 1}, None, masker)
    assert isinstance(answer, Held)
    assert answer.reason is HeldReason.NO_COLUMN_POLICY


def test_a_series_keeps_only_allowed_channels_in_order():
    series = np.arange(6, dtype=np.float32).reshape(2, 3)
    kept = allowed_channels(series, ("x", "lat", "y"), frozenset({"y", "x"}))
    assert kept.tolist() == [[0.0, 2.0], [3.0, 5.0]]
    assert isinstance(allowed_channels(series, ("x",), frozenset({"x"})), Held)
    assert isinstance(allowed_channels(series, ("x", "lat", "y"), frozenset()), Held)


def photo(text="", kind="JPEG"):
    image = Image.new("RGB", (900, 120), "white")
    ImageDraw.Draw(image).text((20, 30), text, fill="black", font=ImageFont.load_default(34))
    exif = Image.Exif()
    exif[0x010E] = "taken by Ann Lee"
    target = io.BytesIO()
    image.save(target, kind, exif=exif)
    return target.getvalue()


def test_an_image_is_re_encoded_without_metadata():
    raw = photo()
    assert b"Ann Lee" in raw
    answer = ImageMasker(None, has_text=False).mask(raw)
    assert isinstance(answer, MaskedImage)
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == "PNG"
        assert image.size == (900, 120)
        assert dict(image.getexif()) == {}
        assert image.info == {}
    assert b"Ann Lee" not in answer.content


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_image_becomes_eight_bit_gray_or_rgb(mode):
    target = io.BytesIO()
    Image.new(mode, (8, 6)).save(target, "TIFF")
    answer = ImageMasker(None, has_text=False).mask(target.getvalue())
    assert isinstance(answer, MaskedImage)
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.mode in {"L", "RGB"}


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_image_is_held(content):
    answer = ImageMasker(None, has_text=False).mask(content)
    assert isinstance(answer, Held)
    assert answer.reason is HeldReason.UNREADABLE


def test_an_image_of_too_many_pixels_is_held_before_it_is_decoded():
    target = io.BytesIO()
    Image.new("1", (20_000, 3_000)).save(target, "PNG")
    answer = ImageMasker(None, has_text=False).mask(target.getvalue())
    assert isinstance(answer, Held)
    assert answer.reason is HeldReason.OVER_LENGTH


def test_images_with_text_are_held_where_nothing_can_read_them(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    answer = ImageMasker(None, has_text=True).mask(photo("x"))
    assert isinstance(answer, Held)
    assert answer.reason is HeldReason.DETECTOR_MISSING


@pytest.mark.presidio
@pytest.mark.skipif(bool(missing_parts()), reason=f"needs {', '.join(missing_parts())}")
def test_personal_data_in_an_image_is_painted_over(masker):
    answer = ImageMasker(masker, has_text=True).mask(
        photo("mail kate@example.com 4111111111111111")
    )
    assert isinstance(answer, MaskedImage)
    assert answer.blanked_count >= 2


def test_the_risk_band_grows_with_the_kinds_of_signs():
    assert risk_band("the pump is loud again") == 0
    assert risk_band("mail bob@example.com") == 1
    assert risk_band("Dear Ann, mail bob@example.com or call 202-555-0147") == 3
    assert risk_band("") == 0
