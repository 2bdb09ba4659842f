"""Temperature and calibration error of a site, from its own labels or reported decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.scoring import ScoringError, softmax

Floats = NDArray[np.float32]
TEMPERATURES = np.geomspace(0.25, 8.0, 51)
FEWEST_LABELS = 20
"""With fewer labels the temperature stays at the shared model's."""
PRIOR_LABELS = 50.0
"""Labels at which the site's own temperature counts as much as the shared one."""


@dataclass(frozen=True, slots=True)
class SiteCalibration:
    """How well probabilities match what experts found.

    Attributes:
        temperature: divide logits by it before the softmax; above 0.
        error: expected calibration error at that temperature in [0, 1], -1 when unknown.
        label_count: labels behind both.
    """

    temperature: float
    error: float
    label_count: int


def fit_temperature(
    logits: Floats, classes: NDArray[np.int64], *, shared: float = 1.0
) -> SiteCalibration:
    """The temperature of the lowest log loss, drawn towards the shared one when labels are few.

    Args:
        logits: float32[n, classes] of labelled samples that did not train the model.
        classes: int64[n].
        shared: temperature of the federation.

    Source: Guo et al., "On calibration of modern neural networks", 2017; the shrinkage on the
    logarithmic scale is ours.

    Raises:
        ScoringError: lengths differ.
    """
    if len(logits) != len(classes):
        raise ScoringError(f"{len(logits)} rows of logits, {len(classes)} classes")
    count = len(classes)
    if count < FEWEST_LABELS:
        return SiteCalibration(shared, -1.0, count)
    losses = [_log_loss(logits, classes, float(t)) for t in TEMPERATURES]
    own = float(TEMPERATURES[int(np.argmin(losses))])
    weight = count / (count + PRIOR_LABELS)
    temperature = float(np.exp(weight * np.log(own) + (1.0 - weight) * np.log(shared)))
    probabilities = softmax(logits, temperature=temperature)
    return SiteCalibration(temperature, calibration_error(probabilities, classes), count)


def calibration_error(
    probabilities: Floats, classes: NDArray[np.int64], *, bins: int = 15
) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over equal bins.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", 2015.

    >>> round(calibration_error(np.float32([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 3)
    0.4
    """
    if not len(classes):
        return 0.0
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == classes
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(classes))


def _log_loss(logits: Floats, classes: NDArray[np.int64], temperature: float) -> float:
    probabilities = softmax(logits, temperature=temperature)
    own = probabilities[np.arange(len(classes)), classes]
    return float(-np.log(np.maximum(own, 1e-12)).mean())
