"""DICOM files: their pixels alone. The header, which says who was examined where, stays behind."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_agent.errors import SampleRefused

if TYPE_CHECKING:
    from PIL.Image import Image

_MAGIC = slice(128, 132)
_KNOWN = frozenset({"MONOCHROME1", "MONOCHROME2", "RGB"})


def is_dicom(raw: bytes) -> bool:
    """True for a DICOM file; its first 128 bytes may hold anything.

    >>> is_dicom(bytes(128) + b"DICM")
    True
    """
    return raw[_MAGIC] == b"DICM"


def dicom_pixels(raw: bytes, *, pixels_max: int) -> Image:
    """Returns the one picture of a DICOM file, 8-bit gray over its whole range, or RGB.

    Raises:
        SampleRefused: The package that reads DICOM is missing, the picture is too large, or it is
            of a sort that is not shown as it is (several frames, other colours).
    """
    from PIL import Image

    try:
        import pydicom
    except ImportError:
        raise SampleRefused(
            "DICOM files need the package pydicom: pip install 'perimeter[images]'",
            reason="bad-image",
        ) from None
    dataset: Any = pydicom.dcmread(io.BytesIO(raw))
    size = int(dataset.Rows) * int(dataset.Columns)
    if size > pixels_max:
        raise SampleRefused(
            f"the image has {size} pixels, more than limits.image_pixels_max", reason="too-large"
        )
    colours = str(dataset.PhotometricInterpretation)
    if colours not in _KNOWN or int(dataset.get("NumberOfFrames", 1) or 1) != 1:
        raise SampleRefused(
            "the DICOM file holds several frames or colours other than gray and RGB; "
            "export single frames",
            reason="bad-image",
        )
    values = dataset.pixel_array.astype(np.float64)
    if colours == "RGB":
        return Image.fromarray(values.astype(np.uint8))
    low, high = float(values.min()), float(values.max())
    gray = (values - low) * (255.0 / max(high - low, 1.0))
    return Image.fromarray((255.0 - gray if colours == "MONOCHROME1" else gray).astype(np.uint8))
