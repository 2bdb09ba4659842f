"""What a campaign of the demo is made of, before any process starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TRAIN = "train"
TEST = "test"
DEVICES_PER_SITE = 2


@dataclass(frozen=True, eq=False)
class SourceSample:
    """One raw sample with its true class. Its class never reaches a device; it is the expert's eye.

    Attributes:
        key: Unique in the campaign, safe as a file name.
        content: Text, or an image as uint8[height, width].
        label: Name of the true class.
        site: Slug of the site that holds it.
        split: `train` for a device's pool, `test` for the site's held-out set.
        device: Name of the device that holds it, empty for the held-out set.
    """

    key: str
    content: str | NDArray[np.uint8]
    label: str
    site: str
    split: str = TRAIN
    device: str = ""


@dataclass(frozen=True)
class CampaignSource:
    """All samples of one campaign.

    Attributes:
        name: Campaign slug.
        kind: text or image.
        classes: Class names in label schema order.
        samples: Every sample, pool and held-out.
        guideline: Markdown shown to experts.
        notes: Sentences that a reader of the report must know (rows left out and why).
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    samples: tuple[SourceSample, ...]
    guideline: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def sites(self) -> tuple[str, ...]:
        """Slugs of the sites that hold samples, in order."""
        return tuple(sorted({sample.site for sample in self.samples}))

    def held_by(self, site: str, device: str = "") -> tuple[SourceSample, ...]:
        """Returns the pool of one device, or the held-out set of the site for an empty device."""
        return tuple(s for s in self.samples if s.site == site and s.device == device)

    def class_counts(self, site: str) -> dict[str, int]:
        """Returns how many pool samples of each class a site holds."""
        counts = Counter(s.label for s in self.samples if s.site == site and s.split == TRAIN)
        return {name: counts[name] for name in self.classes}


def device_names(count: int = DEVICES_PER_SITE) -> tuple[str, ...]:
    """Returns the device names of a site.

    >>> device_names()
    ('device-1', 'device-2')
    """
    return tuple(f"device-{number}" for number in range(1, count + 1))


def dealt_to_devices(
    samples: Sequence[SourceSample], *, device_count: int = DEVICES_PER_SITE
) -> tuple[SourceSample, ...]:
    """Deals each site's pool over its devices in turn; held-out samples stay with the site.

    >>> pool = [SourceSample(str(i), "x", "a", "alder") for i in range(3)]
    >>> [sample.device for sample in dealt_to_devices(pool)]
    ['device-1', 'device-2', 'device-1']
    """
    names = device_names(device_count)
    turns: Counter[str] = Counter()
    dealt = []
    for sample in samples:
        device = ""
        if sample.split == TRAIN:
            device = names[turns[sample.site] % device_count]
            turns[sample.site] += 1
        dealt.append(
            SourceSample(
                sample.key, sample.content, sample.label, sample.site, sample.split, device
            )
        )
    return tuple(dealt)
