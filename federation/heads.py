"""What lies on the rows that a network's body gives: one head, an ensemble, or two.

Read by the three engines as a part of `networks.network`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from federation.operations import Operations
from federation.seeding import PLAIN_PREFIX, member_prefix

if TYPE_CHECKING:
    from federation.networks import NetworkSpec

T = TypeVar("T")


def heads(spec: NetworkSpec, ops: Operations[T], rows: T, *, untaught: bool) -> dict[str, T]:
    """Returns the named outputs of a network.

    Args:
        spec: The network.
        ops: The engine.
        rows: What its body gives.
        untaught: The embedding is that of the rows, which seeded units only blur.
    """
    embedding = _embedded(spec, ops, rows)
    logits = _classed(spec, ops, embedding, rows)
    for member in range(1, spec.ensemble_size):
        prefix = member_prefix(member)
        own = _embedded(spec, ops, rows, prefix)
        logits = ops.added(logits, _classed(spec, ops, own, rows, prefix))
    if spec.ensemble_size > 1:
        logits = ops.scaled(logits, 1.0 / spec.ensemble_size)
    outputs = {"logits": logits}
    if spec.plain_head:
        embedding = _embedded(spec, ops, rows, PLAIN_PREFIX)
        asked = _classed(spec, ops, embedding, rows, PLAIN_PREFIX)
        outputs["acquisition_logits"] = asked
    outputs["embedding"] = ops.unit(rows if untaught else embedding)
    if spec.committee_count:
        votes = ops.linear(embedding, "committee", spec.committee_count * spec.class_count)
        outputs["committee_logits"] = ops.split(votes, spec.committee_count, spec.class_count)
    return outputs


def _embedded(spec: NetworkSpec, ops: Operations[T], rows: T, prefix: str = "") -> T:
    hidden = ops.relu(ops.linear(rows, f"{prefix}hidden", spec.hidden_width))
    hidden = ops.drop(hidden, spec.dropout_ratio)
    return ops.relu(ops.linear(hidden, f"{prefix}embedding", spec.embedding_width))


def _classed(spec: NetworkSpec, ops: Operations[T], embedding: T, rows: T, prefix: str = "") -> T:
    logits = ops.linear(embedding, f"{prefix}head", spec.class_count)
    if not spec.linear_skip:
        return logits
    return ops.added(logits, ops.linear(rows, f"{prefix}skip", spec.class_count))
