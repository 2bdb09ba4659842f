"""From scored samples to the one noised histogram of a model version that leaves the device."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from perimeter.v1 import candidate_pb2, model_pb2

from edge_agent.privacy import PrivacyBook
from edge_agent.privacy_noise import Below, geometric_noise

BINS = 16
_LEVELS_PER_BIN = 4

Integers = NDArray[np.int64]


def is_noised(campaign: model_pb2.Campaign, book: PrivacyBook) -> bool:
    """Whether no rows of a campaign may leave; once true it stays true on this device."""
    if campaign.egress == model_pb2.EGRESS_MODE_HISTOGRAM:
        book.open(campaign.campaign_id, campaign.epsilon_total_milli)
        return True
    return book.account(campaign.campaign_id) is not None


def count_samples(
    cells: NDArray[np.uint16], margins: NDArray[np.uint8], cell_count: int
) -> Integers:
    """int64[cell_count, 16]: samples by cell and by bin of the margin score (0 to 63).

    >>> count_samples(np.uint16([0, 0]), np.uint8([63, 1]), 1)[0].tolist()[::15]
    [1, 1]
    """
    flat = cells.astype(np.int64) * BINS + margins.astype(np.int64) // _LEVELS_PER_BIN
    counts = np.bincount(flat, minlength=cell_count * BINS)
    return counts.reshape(cell_count, BINS).astype(np.int64)


def with_noise(counts: Integers, epsilon_milli: int, below: Below) -> Integers:
    """int64, each count with noise of its own.

    A sample adds one to one count, so the whole is (epsilon_milli / 1000)-differentially private.
    """
    noise = [geometric_noise(epsilon_milli, below) for _ in range(counts.size)]
    return counts + np.array(noise, dtype=np.int64).reshape(counts.shape)


@dataclass(frozen=True)
class ReleaseTerms:
    """What a release is about.

    Attributes:
        campaign: As the coordinator described it.
        model_version: Version that scored the samples.
        label_schema_digest: 32 bytes.
        day: Days since 1970-01-01.
        request_id: 16 bytes.
    """

    campaign: model_pb2.Campaign
    model_version: int
    label_schema_digest: bytes
    day: int
    request_id: bytes


def release_of(
    book: PrivacyBook,
    terms: ReleaseTerms,
    counts: Integers,
    *,
    below: Below = secrets.randbelow,
) -> candidate_pb2.ReportHistogramRequest | None:
    """Returns the one release of a model version: the kept one, or a new one that is charged first.

    Returns:
        None when the campaign's limit on this device forbids another release.
    """
    campaign_id = terms.campaign.campaign_id
    kept = book.release(campaign_id, terms.model_version)
    if kept is not None:
        return candidate_pb2.ReportHistogramRequest.FromString(kept)
    epsilon_milli = terms.campaign.epsilon_release_milli
    if not book.charge(campaign_id, epsilon_milli):
        return None
    noised = with_noise(counts, epsilon_milli, below)
    message = candidate_pb2.ReportHistogramRequest(
        request_id=terms.request_id,
        campaign_id=campaign_id,
        model_version=terms.model_version,
        label_schema_digest=terms.label_schema_digest,
        day=terms.day,
        cell_count=len(counts),
        epsilon_milli=epsilon_milli,
        noised_counts=noised.astype("<i4").tobytes(),
    )
    book.keep(campaign_id, terms.model_version, message.SerializeToString(deterministic=True))
    return message
