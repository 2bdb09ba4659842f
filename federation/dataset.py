"""A site's labelled examples as arrays: the one door from training to the portal's label store.

Nothing in this module travels: it runs in the site's trainer only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from federation.errors import DatasetInvalid
from model_bundle.errors import FeatureInvalid
from model_bundle.features import FeatureSpec, extract

SPLITS = ("train", "test")
IMAGE_PIXELS_MAX = 64_000_000
UNKNOWN_CLASS = -1
"""Class index of a sample that nobody has labelled."""
VIEWS = "views"
"""Name of moved copies among an example's inputs: float32[n, copies, width] of features."""
CALIBRATION_PARTS = 2
"""Every second test example (by a hash of its id) fits the temperature, the others measure it."""


class StoredSample(Protocol):
    """What the label store gives for one item."""

    @property
    def item_id(self) -> bytes:
        """16 bytes."""
        ...

    @property
    def kind(self) -> str:
        """Kind text, image, series or record."""
        ...

    @property
    def content(self) -> bytes:
        """Masked content in the item's encoding."""
        ...


class StoredExample(StoredSample, Protocol):
    """What the label store gives for one settled label."""

    @property
    def class_index(self) -> int:
        """Position in the label schema."""
        ...


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of one split as model input.

    Attributes:
        inputs: Named arrays of `model_bundle.features.extract`, n rows each, and `VIEWS`, if any.
        classes: int64[n], class indices; `UNKNOWN_CLASS` throughout in unlabelled examples.
        calibration: bool[n], true where an example fits the temperature (test split only).
    """

    inputs: Mapping[str, NDArray[Any]]
    classes: NDArray[np.int64]
    calibration: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.classes)


def no_examples() -> Examples:
    """Returns a split without examples.

    >>> len(no_examples())
    0
    """
    return Examples({}, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_))


def unlabelled_examples(inputs: Mapping[str, NDArray[Any]], count: int) -> Examples:
    """Wraps model inputs that nobody has labelled.

    Args:
        inputs: Named arrays of `model_bundle.features.extract`, `count` rows each.
        count: Rows.

    >>> unlabelled_examples({"values": np.zeros((2, 3), np.float32)}, 2).classes.tolist()
    [-1, -1]
    """
    classes = np.full(count, UNKNOWN_CLASS, dtype=np.int64)
    return Examples(inputs, classes, np.zeros(count, dtype=np.bool_))


@dataclass(frozen=True, eq=False)
class SiteData:
    """What one site knows for one campaign.

    Attributes:
        train: Labelled examples to learn from.
        test: Labelled examples to be judged by.
        unlabelled: Samples without a label, which may help learning; none in most deployments.
        named: What the classes are called, as examples to learn from that count nowhere else.

    Raises:
        DatasetInvalid: A sample among the unlabelled ones carries a class.
    """

    train: Examples
    test: Examples
    unlabelled: Examples = field(default_factory=no_examples)
    named: Examples = field(default_factory=no_examples)

    def __post_init__(self) -> None:
        if (self.unlabelled.classes != UNKNOWN_CLASS).any():
            raise DatasetInvalid("an unlabelled example carries a class; it belongs to a split")


def decode(kind: str, content: bytes) -> Any:
    """Turns stored content into a sample as `model_bundle.features` expects it.

    Raises:
        DatasetInvalid: The bytes are not of that kind.

    >>> decode("text", b"hello")
    'hello'
    """
    try:
        return _DECODERS[kind](content)
    except KeyError:
        raise DatasetInvalid(f"kind {kind!r} is not known") from None
    except Exception as error:
        raise DatasetInvalid(f"the stored {kind} cannot be read: {error}") from error


def _decode_text(content: bytes) -> str:
    return content.decode("utf-8")


def _decode_image(content: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        if image.width * image.height > IMAGE_PIXELS_MAX:
            raise DatasetInvalid("an image has more than 64 million pixels")
        return np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))


def _decode_series(content: bytes) -> NDArray[np.float32]:
    window = np.load(io.BytesIO(content), allow_pickle=False)
    return np.asarray(window, dtype=np.float32)


def _decode_record(content: bytes) -> dict[str, Any]:
    record = json.loads(content)
    if not isinstance(record, dict):
        raise DatasetInvalid("a record must be a JSON object")
    return record


_DECODERS = {
    "text": _decode_text,
    "image": _decode_image,
    "series": _decode_series,
    "record": _decode_record,
}


def to_examples(
    stored: Iterable[StoredExample], features: FeatureSpec, *, class_count: int
) -> Examples:
    """Decodes and extracts stored examples.

    Args:
        stored: Settled labels of one split.
        features: Feature settings of the campaign.
        class_count: Classes of its label schema.

    Raises:
        DatasetInvalid: An example is of another kind, cannot be read, or names no known class.
            The message names the item, so that the site can correct it.
    """
    samples, classes, calibration = [], [], []
    for example in stored:
        name = example.item_id.hex()
        if example.kind != features.kind or not 0 <= example.class_index < class_count:
            raise DatasetInvalid(
                f"item {name} is {example.kind} of class {example.class_index}; the campaign "
                f"takes {features.kind} of classes 0 to {class_count - 1}"
            )
        samples.append(_decoded(example))
        classes.append(example.class_index)
        digest = hashlib.sha256(example.item_id).digest()
        calibration.append(digest[0] % CALIBRATION_PARTS == 0)
    return from_samples(samples, classes, features, calibration=calibration)


def to_unlabelled(stored: Iterable[StoredSample], features: FeatureSpec) -> Examples:
    """Decodes and extracts samples without a label.

    One that cannot be read is left out: nobody is waiting for it, and a run must not end for it.
    """
    samples = []
    for sample in stored:
        with contextlib.suppress(DatasetInvalid):
            if sample.kind == features.kind:
                samples.append(_decoded(sample))
    found = from_samples(samples, [UNKNOWN_CLASS] * len(samples), features)
    return unlabelled_examples(found.inputs, len(found))


def _decoded(example: StoredSample) -> Any:
    try:
        return decode(example.kind, example.content)
    except DatasetInvalid as error:
        raise DatasetInvalid(f"item {example.item_id.hex()}: {error}") from error


def from_samples(
    samples: Sequence[Any],
    classes: Sequence[int],
    features: FeatureSpec,
    *,
    calibration: Sequence[bool] | None = None,
) -> Examples:
    """Builds examples from decoded samples; simulations come in here.

    Without `calibration` every second example fits the temperature.

    Raises:
        DatasetInvalid: A sample does not fit the feature settings.
    """
    marks = [i % CALIBRATION_PARTS == 0 for i in range(len(classes))]
    try:
        inputs = extract(samples, features) if samples else {}
    except FeatureInvalid as error:
        raise DatasetInvalid(f"an example cannot become model input: {error}") from error
    return Examples(
        inputs,
        np.asarray(classes, dtype=np.int64),
        np.asarray(marks if calibration is None else calibration, dtype=np.bool_),
    )


@dataclass(frozen=True)
class Wanted:
    """What of a label store a run may learn from.

    Attributes:
        class_count: Classes of the campaign's label schema.
        unlabelled_max: Most samples without a label, the newest first; 0 for none.
    """

    class_count: int
    unlabelled_max: int = 0


def load(folder: Path, campaign_id: bytes, features: FeatureSpec, wanted: Wanted) -> SiteData:
    """Reads a campaign's examples from the site's label store, without writing to it.

    Args:
        folder: The label store's folder.
        campaign_id: 16 bytes.
        features: Feature settings of the campaign.
        wanted: All settled labels, and how many samples without one.

    Raises:
        DatasetInvalid: The store has an example that cannot be used.
    """
    from review_portal.label_store import LabelStore

    store = LabelStore.open(folder, read_only=True)
    try:
        train, test = (
            to_examples(
                store.examples(campaign_id, split), features, class_count=wanted.class_count
            )
            for split in SPLITS
        )
        pool = store.unlabeled(campaign_id, wanted.unlabelled_max)
        return SiteData(train, test, to_unlabelled(pool, features))
    finally:
        store.close()
