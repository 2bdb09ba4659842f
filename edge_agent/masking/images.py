"""Images: always re-encoded without metadata; text in them blanked, or the image is held.

Reading text needs tesseract and presidio-image-redactor (an optional extra). A campaign that says
its images hold text gets no image from a device that lacks them.
"""

import io
import os
import shutil
from dataclasses import dataclass
from typing import Any

from edge_agent.masking.seam import Held, HeldReason, Masked, Masker

MAX_PIXELS = 40_000_000
_GRAY_MODES = frozenset({"1", "L", "I;16", "I"})


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """An image that may be shown.

    Attributes:
        content: PNG, 8-bit gray or RGB, without metadata.
        blanked_count: Boxes of text that were painted over.
    """

    content: bytes
    blanked_count: int


class ImageMasker:
    """Masks images.

    Args:
        masker: Masks the text that is read from an image.
        has_text: Whether the campaign says that its images hold text.
        language: Language of that text.
    """

    def __init__(self, masker: Masker, *, has_text: bool, language: str = "en") -> None:
        self._masker = masker
        self._has_text = has_text
        self._language = language

    def mask(self, content: bytes) -> MaskedImage | Held:
        """Mask one image file (PNG, JPEG, TIFF or BMP)."""
        image = self._opened(content)
        if isinstance(image, Held):
            return image
        if not self._has_text:
            return MaskedImage(_png(image), 0)
        if missing := missing_parts():
            return Held(HeldReason.DETECTOR_MISSING, f"text in images needs {', '.join(missing)}")
        try:
            boxes = self._boxes(image)
        except Exception as error:  # noqa: BLE001
            # Tesseract and OpenCV raise many types; none of them may let the image through.
            return Held(HeldReason.DETECTOR_FAILED, f"reading text raised {type(error).__name__}")
        if isinstance(boxes, Held):
            return boxes
        return MaskedImage(_png(_painted(image, boxes)), len(boxes))

    def _opened(self, content: bytes) -> Any:
        try:
            image = _open(content)
        except Exception:  # noqa: BLE001
            # Decoders raise many types on hostile files.
            return Held(HeldReason.UNREADABLE, "the image cannot be read")
        if image.width * image.height > MAX_PIXELS:
            return Held(HeldReason.OVER_LENGTH, f"more than {MAX_PIXELS} pixels")
        return image

    def _boxes(self, image: Any) -> list[tuple[int, int, int, int]] | Held:
        """Boxes of words to paint over: left, top, right, bottom in pixels."""
        words = _read_words(image)
        text = " ".join(word for word, _ in words)
        answer = self._masker.mask(text, language=self._language)
        if not isinstance(answer, Masked):
            return answer
        boxes = []
        position = 0
        for word, box in words:
            end = position + len(word)
            if any(s.raw_start < end and position < s.raw_end for s in answer.spans):
                boxes.append(box)
            position = end + 1
        return boxes


def missing_parts() -> list[str]:
    """Names of what reading text in images lacks on this machine."""
    missing = [] if shutil.which("tesseract") else ["tesseract (Debian package tesseract-ocr)"]
    try:
        import presidio_image_redactor  # noqa: F401
    except ImportError:
        missing.append("presidio-image-redactor")
    return missing


def _read_words(image: Any) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Words of an image with their boxes, by presidio's reader of tesseract."""
    # Tesseract would otherwise start a thread a core.
    os.environ["OMP_THREAD_LIMIT"] = "1"
    from presidio_image_redactor import TesseractOCR

    found = TesseractOCR().perform_ocr(image)
    words = []
    for row, word in enumerate(found["text"]):
        if word.strip():
            left, top = found["left"][row], found["top"][row]
            box = (left, top, left + found["width"][row], top + found["height"][row])
            words.append((word, box))
    return words


def _open(content: bytes) -> Any:
    from PIL import Image, ImageOps

    image = Image.open(io.BytesIO(content))
    if image.width * image.height > MAX_PIXELS:
        return image
    image.load()
    # The camera's rotation is in the metadata that is about to go.
    return _plain(ImageOps.exif_transpose(image))


def _plain(image: Any) -> Any:
    """8-bit gray or RGB; transparency becomes white."""
    if image.mode in _GRAY_MODES:
        return image.convert("L")
    if "A" in image.mode or image.mode == "P":
        from PIL import Image

        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _painted(image: Any, boxes: list[tuple[int, int, int, int]]) -> Any:
    from PIL import ImageDraw

    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    for left, top, right, bottom in boxes:
        draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill="black")
    return copy


def _png(image: Any) -> bytes:
    """Encode pixels only: a fresh image carries no EXIF, profile, comment or thumbnail."""
    from PIL import Image

    fresh = Image.frombytes(image.mode, image.size, image.tobytes())
    target = io.BytesIO()
    fresh.save(target, format="PNG")
    return target.getvalue()
