"""The digits campaign: 1,797 real handwritten digits, unevenly spread over the sites.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998; scikit-learn bundles its test part (8 x 8 pixels, 17 gray levels).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulations.demo.partition import dirichlet_sites, stratified_test_mask
from simulations.demo.samples import TEST, TRAIN, CampaignSource, SourceSample, dealt_to_devices

NAME = "digits"
CLASSES = tuple("0123456789")
TEST_RATIO = 0.2
GUIDELINE = "Which digit did the person write? Choose **can't tell** when two readings are likely."


def digits_campaign(
    sites: Sequence[str], *, seed: int, alpha: float = 0.5, pool_max: int | None = None
) -> CampaignSource:
    """Reads the digits and spreads them over the sites.

    Args:
        sites: Site slugs.
        seed: Seed of the partition.
        alpha: Dirichlet concentration; smaller means more uneven.
        pool_max: Keep only this many samples, drawn by chance; None for all 1,797.

    Returns:
        The campaign: gray images uint8[8, 8], 20 % of each site's classes held out.
    """
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    bundled = load_digits()
    order = rng.permutation(len(bundled.target))[:pool_max]
    labels = bundled.target[order].astype(np.int64)
    images = (bundled.images[order] * 255 / 16).round().astype(np.uint8)
    site_of = dirichlet_sites(labels, site_count=len(sites), alpha=alpha, rng=rng)
    groups = list(zip(site_of.tolist(), labels.tolist(), strict=True))
    held_out = stratified_test_mask(groups, ratio=TEST_RATIO, rng=rng)
    samples = [
        SourceSample(
            key=f"scan-{row:05d}",
            content=images[row],
            label=CLASSES[labels[row]],
            site=sites[site_of[row]],
            split=TEST if held_out[row] else TRAIN,
        )
        for row in range(len(labels))
    ]
    return CampaignSource(NAME, "image", CLASSES, dealt_to_devices(samples), guideline=GUIDELINE)
