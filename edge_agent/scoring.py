"""Acquisition scores of a device's samples, in pure numpy.

Every acquisition function maps model outputs of ``n`` samples to ``float32[n]`` in [0, 1], and
higher always means "more worth a label". What leaves the device are the quantised columns of
:class:`CandidateColumns`, never the outputs themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_agent.coverage import coverage, coverage_bands
from edge_agent.geometry import assign_cells, density, nearest_prototype

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Shorts = NDArray[np.uint16]

SCORE_LEVELS = 63
"""Largest value of a 6-bit score column."""
DENSITY_LEVELS = 15
"""Largest density band."""
_TINY = np.float32(1e-12)


class ScoringError(ValueError):
    """Model outputs or model parts that cannot be scored; says which and why."""


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """What one forward pass gives for ``n`` samples.

    Attributes:
        logits: float32[n, classes] of the shared model.
        embedding: float32[n, d], L2-normalised.
        committee_logits: float32[n, members, classes], or None when the model has no committee.
        site_logits: float32[n, classes] of a model that only the site's labels taught, or None. No
            bundle carries one: it would publish what the site's labels say. Simulations do.
        acquisition_logits: float32[n, classes] of a head that only labels taught, which says what
            is worth a label, or None where `logits` say that as well.
    """

    logits: Floats
    embedding: Floats
    committee_logits: Floats | None = None
    site_logits: Floats | None = None
    acquisition_logits: Floats | None = None


@dataclass(frozen=True, slots=True)
class CandidateColumns:
    """The score columns of a candidate batch, one row a candidate, ready for the wire.

    Attributes:
        margins: uint8[n], 0 to 63, margin score.
        top_probabilities: uint8[n], 0 to 63, largest calibrated class probability of the model
            that is served.
        entropies: uint8[n], 0 to 63, entropy over log(classes).
        divergence_risk: uint8[n], bits 0-5 divergence, bits 6-7 personal-data risk band.
        predicted_classes: uint16[n], arg-max class of the model that is served.
        runner_up_classes: uint16[n], class of the largest probability but for the predicted class.
        prototype_classes: uint16[n], class of the nearest prototype.
        cell_ids: uint16[n], nearest row of the code book.
        density_cost: uint8[n], bits 0-3 density band, bits 4-6 cost band.
    """

    margins: Bytes
    top_probabilities: Bytes
    entropies: Bytes
    divergence_risk: Bytes
    predicted_classes: Shorts
    runner_up_classes: Shorts
    prototype_classes: Shorts
    cell_ids: Shorts
    density_cost: Bytes

    def __len__(self) -> int:
        return len(self.margins)

    def with_bands(self, *, risk_bands: Bytes, cost_bands: Bytes) -> CandidateColumns:
        """Returns a copy that carries risk bands (0 to 3) and cost bands (0 to 7).

        Raises:
            ScoringError: a band is out of range or the length differs.
        """
        _check_band("risk_bands", risk_bands, rows=len(self), largest=3)
        _check_band("cost_bands", cost_bands, rows=len(self), largest=7)
        risk = (self.divergence_risk & 0x3F) | (risk_bands.astype(np.uint8) << 6)
        cost = (self.density_cost & 0x0F) | (cost_bands.astype(np.uint8) << 4)
        return replace(
            self, divergence_risk=risk.astype(np.uint8), density_cost=cost.astype(np.uint8)
        )

    def take(self, rows: NDArray[np.int64]) -> CandidateColumns:
        """Returns the columns of the given rows, in that order."""
        return CandidateColumns(
            margins=self.margins[rows],
            top_probabilities=self.top_probabilities[rows],
            entropies=self.entropies[rows],
            divergence_risk=self.divergence_risk[rows],
            predicted_classes=self.predicted_classes[rows],
            runner_up_classes=self.runner_up_classes[rows],
            prototype_classes=self.prototype_classes[rows],
            cell_ids=self.cell_ids[rows],
            density_cost=self.density_cost[rows],
        )


def score(
    outputs: ModelOutputs, *, temperature: float, prototypes: Floats, code_book: Floats
) -> CandidateColumns:
    """Turns model outputs into the columns that may leave the site.

    Predicted class and largest probability are those of `logits`: the live accuracy is that of the
    model which is served. Where the model has `acquisition_logits`, margin, entropy, runner-up and
    divergence are those of that head; the temperature, measured on `logits`, is used for both.

    Args:
        outputs: one forward pass over ``n`` samples; NaN or infinity anywhere is refused.
        temperature: softmax temperature of the site, above 0; 1.0 when not calibrated.
        prototypes: float32[classes, d], a zero row stands for a class that nobody has seen.
        code_book: float32[cells, d], shared by all sites; no rows puts everything into cell 0.

    Returns:
        Columns with risk band and cost band 0; :meth:`CandidateColumns.with_bands` sets them.

    Raises:
        ScoringError: shapes disagree, a value is not finite, or the temperature is not positive.
    """
    _check_outputs(outputs, prototypes, code_book)
    probabilities = softmax(outputs.logits, temperature=temperature)
    asked = probabilities
    if outputs.acquisition_logits is not None:
        asked = softmax(outputs.acquisition_logits, temperature=temperature)
    predicted = probabilities.argmax(axis=1).astype(np.uint16)
    cells, similarity = assign_cells(outputs.embedding, code_book)
    return CandidateColumns(
        margins=quantise(margin(asked)),
        top_probabilities=quantise(probabilities.max(axis=1, initial=0.0)),
        entropies=quantise(entropy(asked)),
        divergence_risk=quantise(_divergence(outputs, asked, temperature)),
        predicted_classes=predicted,
        runner_up_classes=likeliest_but(asked, predicted),
        prototype_classes=nearest_prototype(outputs.embedding, prototypes, fallback=predicted),
        cell_ids=cells,
        density_cost=quantise(density(similarity), levels=DENSITY_LEVELS),
    )


def is_untrained(prototypes: Floats) -> bool:
    """True when no label taught the model: a version has a prototype for each class it has seen.

    >>> is_untrained(np.zeros((2, 3), np.float32)), is_untrained(np.eye(2, dtype=np.float32))
    (True, False)
    """
    return not prototypes.any()


def with_coverage(columns: CandidateColumns, embedding: Floats) -> CandidateColumns:
    """The columns with what each sample stands for among the given ones as its density band.

    For columns of a model that `is_untrained`, and of it alone: its code book was drawn at random,
    so nearness to a cell's centre says nothing. All rows of a pool, or of the part of it that is
    sealed together, belong into one call, since a sample's gain depends on the others.

    Args:
        columns: of :func:`score`, with or without bands.
        embedding: float32[n, d] of the same samples in the same order, of the same model.

    Raises:
        ScoringError: the lengths differ.

    >>> alike = np.float32([[1, 0]] * 30 + [[0, 1]] * 2)
    >>> outputs = ModelOutputs(np.zeros((32, 2), np.float32), alike)
    >>> none = np.zeros((2, 2), np.float32)
    >>> columns = score(outputs, temperature=1.0, prototypes=none, code_book=none)
    >>> bands = with_coverage(columns, alike).density_cost
    >>> bands[bands > 0].tolist()
    [8, 2]
    """
    if len(embedding) != len(columns):
        raise ScoringError(f"embedding has {len(embedding)} rows, the columns have {len(columns)}")
    bands = (columns.density_cost & 0xF0) | coverage_bands(coverage(embedding))
    return replace(columns, density_cost=bands.astype(np.uint8))


def softmax(logits: Floats, *, temperature: float = 1.0) -> Floats:
    """Class probabilities, float32 of the same shape, along the last axis.

    Source: temperature scaling, Guo et al., "On calibration of modern neural networks", 2017.

    >>> softmax(np.float32([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    if not temperature > 0 or not np.isfinite(temperature):
        raise ScoringError(f"temperature must be a positive number, not {temperature}")
    scaled = logits.astype(np.float32) / np.float32(temperature)
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True), dtype=np.float32)


def margin(probabilities: Floats) -> Floats:
    """One minus the gap between the two largest probabilities.

    Source: Scheffer et al., "Active hidden Markov models", 2001 (best versus second best).

    >>> margin(np.float32([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), dtype=np.float32)
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(1.0 - (top[:, 1] - top[:, 0]), dtype=np.float32)


def entropy(probabilities: Floats) -> Floats:
    """Shannon entropy over log(classes).

    Source: Shannon 1948; as an acquisition function Settles, "Active learning literature
    survey", 2009.

    >>> entropy(np.float32([[0.5, 0.5], [1.0, 0.0]])).round().tolist()
    [1.0, 0.0]
    """
    classes = probabilities.shape[-1]
    if classes < 2:
        return np.zeros(probabilities.shape[:-1], dtype=np.float32)
    nats = -(probabilities * np.log(np.maximum(probabilities, _TINY))).sum(axis=-1)
    return np.asarray(np.clip(nats / np.log(classes), 0.0, 1.0) + 0.0, dtype=np.float32)


def least_confidence(probabilities: Floats) -> Floats:
    """One minus the largest probability, scaled to reach 1 at the uniform distribution.

    Source: Lewis and Gale, "A sequential algorithm for training text classifiers", 1994.

    >>> least_confidence(np.float32([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    classes = probabilities.shape[1]
    if classes < 2:
        return np.zeros(len(probabilities), dtype=np.float32)
    gap = (1.0 - probabilities.max(axis=1)) * (classes / (classes - 1))
    return np.asarray(np.clip(gap, 0.0, 1.0), dtype=np.float32)


def variation_ratio(committee: Floats) -> Floats:
    """Share of committee members that do not vote for the most voted class.

    Args:
        committee: float32[n, members, classes] of probabilities or logits.

    Source: Freeman 1965; Gal et al., "Deep Bayesian active learning with image data", 2017.

    >>> variation_ratio(np.float32([[[0.9, 0.1], [0.2, 0.8]]])).tolist()
    [0.5]
    """
    votes = committee.argmax(axis=2)
    members, classes = committee.shape[1], committee.shape[2]
    flat = votes + np.arange(len(votes))[:, None] * classes
    counts = np.bincount(flat.ravel(), minlength=len(votes) * classes).reshape(-1, classes)
    return np.asarray(1.0 - counts.max(axis=1) / members, dtype=np.float32)


def bald(committee: Floats) -> Floats:
    """Mutual information between label and committee member, over log(classes).

    Args:
        committee: float32[n, members, classes] of probabilities.

    Source: Houlsby et al., "Bayesian active learning for classification and preference
    learning", 2011.

    >>> bald(np.float32([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])).tolist()
    [1.0, 0.0]
    """
    gain = entropy(committee.mean(axis=1)) - entropy(committee).mean(axis=1)
    return np.asarray(np.clip(gain, 0.0, 1.0), dtype=np.float32)


def divergence(shared: Floats, local: Floats) -> Floats:
    """Jensen-Shannon divergence in bits between two models' class probabilities.

    Unlike a distance between sorted probability values, it sees which class the mass lies on.

    Source: Lin, "Divergence measures based on the Shannon entropy", 1991.

    >>> divergence(np.float32([[1.0, 0.0]]), np.float32([[0.0, 1.0]])).tolist()
    [1.0]
    """
    middle = ((shared + local) / 2).astype(np.float32)
    bits = (_relative_entropy(shared, middle) + _relative_entropy(local, middle)) / 2
    return np.asarray(np.clip(bits, 0.0, 1.0), dtype=np.float32)


def random(count: int, *, rng: np.random.Generator) -> Floats:
    """Uniform scores, the baseline of every comparison.

    >>> random(2, rng=np.random.default_rng(0)).shape
    (2,)
    """
    return rng.random(count, dtype=np.float32)


def likeliest_but(probabilities: Floats, classes: Shorts) -> Shorts:
    """Class of each row's largest probability, one class of it left out, uint16[n].

    With one class it is that class. Ties go to the smaller class index.

    >>> likeliest_but(np.float32([[0.2, 0.5, 0.3]] * 2), np.uint16([1, 2])).tolist()
    [2, 1]
    """
    if probabilities.shape[1] < 2:
        return classes
    rest = probabilities.copy()
    rest[np.arange(len(rest)), classes] = -1.0
    return np.asarray(rest.argmax(axis=1), dtype=np.uint16)


def quantise(scores: Floats, *, levels: int = SCORE_LEVELS) -> Bytes:
    """Rounds scores in [0, 1] to whole levels 0 to ``levels``.

    >>> quantise(np.float32([0.0, 0.5, 1.0])).tolist()
    [0, 32, 63]
    """
    return np.rint(np.clip(scores, 0.0, 1.0) * levels).astype(np.uint8)


def dequantise(levels: Bytes, *, largest: int = SCORE_LEVELS) -> Floats:
    """The middle score of each level, float32[n] in [0, 1].

    >>> dequantise(np.uint8([0, 63])).tolist()
    [0.0, 1.0]
    """
    return np.asarray(levels.astype(np.float32) / largest, dtype=np.float32)


def _divergence(outputs: ModelOutputs, probabilities: Floats, temperature: float) -> Floats:
    """Disagreement of the shared model with the site's head, else inside the committee, else 0."""
    if outputs.site_logits is not None:
        return divergence(probabilities, softmax(outputs.site_logits, temperature=temperature))
    if outputs.committee_logits is not None:
        return bald(softmax(outputs.committee_logits, temperature=temperature))
    return np.zeros(len(probabilities), dtype=np.float32)


def _relative_entropy(left: Floats, right: Floats) -> Floats:
    ratio = np.maximum(left, _TINY) / np.maximum(right, _TINY)
    return np.asarray((left * np.log2(ratio)).sum(axis=1), dtype=np.float32)


def _check_band(name: str, bands: Bytes, *, rows: int, largest: int) -> None:
    if len(bands) != rows:
        raise ScoringError(f"{name} has {len(bands)} rows, the batch has {rows}")
    if rows and (bands.min() < 0 or bands.max() > largest):
        raise ScoringError(f"{name} must lie between 0 and {largest}")


def _check_outputs(outputs: ModelOutputs, prototypes: Floats, code_book: Floats) -> None:
    if outputs.logits.ndim != 2 or not 1 <= outputs.logits.shape[1] <= 0xFFFF:
        raise ScoringError(f"logits must be [n, classes], not {outputs.logits.shape}")
    rows, classes = outputs.logits.shape
    if outputs.embedding.ndim != 2 or len(outputs.embedding) != rows:
        raise ScoringError(f"embedding must be [{rows}, d], not {outputs.embedding.shape}")
    width = outputs.embedding.shape[1]
    if prototypes.shape != (classes, width):
        raise ScoringError(f"prototypes must be [{classes}, {width}], not {prototypes.shape}")
    if code_book.ndim != 2 or (len(code_book) and code_book.shape[1] != width):
        raise ScoringError(f"code_book must be [cells, {width}], not {code_book.shape}")
    if len(code_book) > 0x10000:
        raise ScoringError(f"code_book has {len(code_book)} cells; 65536 is the most")
    _check_heads(outputs, rows, classes)


def _check_heads(outputs: ModelOutputs, rows: int, classes: int) -> None:
    asked = outputs.acquisition_logits
    if asked is not None and asked.shape != (rows, classes):
        raise ScoringError(f"acquisition_logits must be [{rows}, {classes}], not {asked.shape}")
    parts = {"site_logits": outputs.site_logits, "committee_logits": outputs.committee_logits}
    for name, part in parts.items():
        if part is not None and (len(part) != rows or part.shape[-1] != classes):
            raise ScoringError(f"{name} must end in {classes} classes for {rows} rows")
    parts |= {"logits": outputs.logits, "embedding": outputs.embedding, "acquisition_logits": asked}
    for name, part in parts.items():
        if part is not None and not np.isfinite(part).all():
            raise ScoringError(f"{name} holds a value that is not finite")
