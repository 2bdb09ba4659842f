"""Raw bytes of the outside world to the canonical content of a kind, and back to model samples.

Canonical content is what the portal shows and what the model reads: text UTF-8; image PNG, 8-bit
gray or RGB, re-encoded so that no metadata survives; series `.npy` float32[steps, channels];
record JSON with sorted keys. Anything else is refused with a stable reason, never with content.
"""

from __future__ import annotations

import io
import json
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.config import Limits
from edge_agent.errors import SampleRefused
from edge_agent.sources.dicom import dicom_pixels, is_dicom

if TYPE_CHECKING:
    from PIL.Image import Image

_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"})
_ARRAYS_MAX = 4096


def canonical(raw: bytes, kind: str, limits: Limits) -> list[bytes]:
    """Returns the samples in `raw`, in canonical form: one, or several for arrays of windows.

    Raises:
        SampleRefused: Empty, too large, or not of its kind; says which and the remedy.

    >>> canonical(b"hello", "text", Limits())
    [b'hello']
    """
    check_size(len(raw), limits)
    if kind == "text":
        return [canonical_text(raw)]
    if kind == "image":
        return [canonical_image(raw, limits)]
    if kind == "series":
        return list(canonical_series(raw, limits))
    return [canonical_record(_parsed_record(raw))]


def check_size(size: int, limits: Limits) -> None:
    """Refuses an empty or huge sample.

    Raises:
        SampleRefused: The size is 0 or above the limit.
    """
    if size == 0:
        raise SampleRefused("the sample is empty; check what writes it", reason="empty")
    if size > limits.sample_bytes_max:
        raise SampleRefused(
            f"the sample has {size} bytes, more than limits.sample_bytes_max "
            f"({limits.sample_bytes_max}); split it or raise the limit",
            reason="too-large",
        )


def canonical_text(raw: bytes) -> bytes:
    """Returns the text as UTF-8 without a byte order mark."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SampleRefused(
            f"the text is not UTF-8 (byte {error.start}); convert it, for example with iconv",
            reason="not-utf8",
        ) from None
    return checked_text(text)


def checked_text(text: str) -> bytes:
    """Refuses a text without signs or with NUL bytes; returns its UTF-8."""
    if not text.strip():
        raise SampleRefused("the text is empty; check what writes it", reason="empty")
    if "\0" in text:
        raise SampleRefused("the text holds NUL signs, so it looks binary", reason="not-text")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise SampleRefused("the text holds half a character pair", reason="not-utf8") from None


def canonical_image(raw: bytes, limits: Limits) -> bytes:
    """Returns the image as PNG, gray or RGB, upright, without metadata."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if is_dicom(raw):
                plain = dicom_pixels(raw, pixels_max=limits.image_pixels_max)
            else:
                with Image.open(io.BytesIO(raw), formats=_IMAGE_FORMATS) as image:
                    _check_pixels(image.size, limits)
                    image.load()
                    plain = _plain_image(image)
        except SampleRefused:
            raise
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise many kinds
            raise SampleRefused(
                f"the image cannot be read ({type(error).__name__}): it is truncated, damaged, "
                f"or none of {', '.join(_IMAGE_FORMATS)}, DICOM",
                reason="bad-image",
            ) from None
    png = io.BytesIO()
    plain.save(png, format="PNG")
    return png.getvalue()


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    if size[0] * size[1] > limits.image_pixels_max:
        raise SampleRefused(
            f"the image has {size[0]} x {size[1]} pixels, more than limits.image_pixels_max",
            reason="too-large",
        )


def _plain_image(image: Image) -> Image:
    """Only pixels: upright, 8 bits a channel, gray where the source was gray."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in {"I", "F", "I;16", "I;16B", "I;16L"}:
        values = np.asarray(upright, dtype=np.float64)
        top = 65535.0 if upright.mode.startswith("I") and values.max(initial=0) > 255 else 255.0
        return Image.fromarray(np.clip(values * (255.0 / top), 0, 255).round().astype(np.uint8))
    pixels = np.asarray(upright.convert("L" if upright.mode in _GRAY_MODES else "RGB"))
    return Image.fromarray(pixels)


def canonical_series(raw: bytes, limits: Limits) -> Iterator[bytes]:
    """Yields each window of an .npy or .npz file as .npy float32[steps, channels]."""
    arrays = _npz_arrays(raw, limits) if raw.startswith(b"PK") else [_npy_array(raw)]
    for array in arrays:
        windows = array[None] if array.ndim == 2 else array
        if windows.ndim != 3 or 0 in windows.shape:
            raise SampleRefused(
                f"an array must be [steps, channels] or [n, steps, channels], not {array.shape}",
                reason="bad-series",
            )
        for window in windows:
            yield encode_series(window)


def encode_series(window: NDArray[Any]) -> bytes:
    """Returns one window as .npy float32; refuses values that are not finite."""
    values = np.ascontiguousarray(window, dtype=np.float32)
    if not np.isfinite(values).all():
        raise SampleRefused(
            "a window holds a value that is not finite; drop or repair it", reason="bad-series"
        )
    stored = io.BytesIO()
    np.save(stored, values, allow_pickle=False)
    return stored.getvalue()


def _npy_array(raw: bytes) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(io.BytesIO(raw), allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - numpy raises several kinds for damaged files
        raise SampleRefused(
            f"the array cannot be read ({type(error).__name__}); write it with numpy.save",
            reason="bad-series",
        ) from None
    if array.dtype.kind not in "iuf":
        raise SampleRefused(f"the array holds {array.dtype}, not numbers", reason="bad-series")
    return array


def _npz_arrays(raw: bytes, limits: Limits) -> list[NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
            # A small archive can announce gigabytes, so the sizes are judged before unpacking.
            if sum(e.file_size for e in entries) > 8 * limits.sample_bytes_max:
                raise SampleRefused("the archive unpacks to too much", reason="too-large")
            if len(entries) > _ARRAYS_MAX:
                raise SampleRefused("the archive holds too many arrays", reason="too-large")
            members = [archive.read(entry) for entry in entries]
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        raise SampleRefused(
            f"the archive cannot be read ({type(error).__name__}); write it with numpy.savez",
            reason="bad-series",
        ) from None
    return [_npy_array(member) for member in members]


def _parsed_record(raw: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        raise SampleRefused("the record is not JSON", reason="bad-record") from None
    if not isinstance(record, dict):
        raise SampleRefused("a record must be a JSON object", reason="bad-record")
    return record


def canonical_record(record: Mapping[str, Any]) -> bytes:
    """Returns the one JSON form of a record: sorted keys, numbers and texts only.

    >>> canonical_record({"b": 1, "a": None})
    b'{"a":null,"b":1}'
    """
    if not record:
        raise SampleRefused("the record is empty", reason="empty")
    for column, value in record.items():
        finite = not isinstance(value, float) or math.isfinite(value)
        if not isinstance(value, str | int | float | None) or not finite:
            raise SampleRefused(
                f"column {column!r} must hold a number or a text", reason="bad-record"
            )
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(content: bytes, kind: str) -> Any:
    """Turns canonical content into what `model_bundle.features.extract` takes.

    >>> decode(b'{"a":1}', "record")
    {'a': 1}
    """
    if kind == "text":
        return content.decode()
    if kind == "image":
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(content)))
    if kind == "series":
        return np.load(io.BytesIO(content), allow_pickle=False)
    return json.loads(content)


def cost_band(content: bytes, kind: str) -> int:
    """Expected effort of the expert, 0 to 7: doublings of a text over 40 words, else 0.

    >>> cost_band(b"short", "text"), cost_band(b"word " * 200, "text")
    (0, 3)
    """
    if kind != "text":
        return 0
    words = len(content.split())
    return min(7, max(0, math.ceil(math.log2(max(words, 1) / 40)))) if words else 0
