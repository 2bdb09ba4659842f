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
    embedding, logits = _head(spec, ops, rows)
    for member in range(1, spec.ensemble_size):
        logits = ops.added(logits, _head(spec, ops, rows, member_prefix(member))[1])
    if spec.ensemble_size > 1:
        logits = ops.scaled(logits, 1.0 / spec.ensemble_size)
    outputs = {"logits": logits}
    if spec.plain_head:
        embedding, outputs["acquisition_logits"] = _head(spec, ops, rows, PLAIN_PREFIX)
    outputs["embedding"] = ops.unit(rows if untaught else embedding)
    if spec.committee_count:
        votes = ops.linear(embedding, "committee", spec.committee_count * spec.class_count)
        outputs["committee_logits"] = ops.split(votes, spec.committee_count, spec.class_count)
    return outputs


def _head(spec: NetworkSpec, ops: Operations[T], rows: T, prefix: str = "") -> tuple[T, T]:
    """Embedding and logits of the head whose parameters begin like this."""
    hidden = ops.relu(ops.linear(rows, f"{prefix}hidden", spec.hidden_width))
    hidden = ops.drop(hidden, spec.dropout_ratio)
    embedding = ops.relu(ops.linear(hidden, f"{prefix}embedding", spec.embedding_width))
    logits = ops.linear(embedding, f"{prefix}head", spec.class_count)
    if spec.linear_skip:
        logits = ops.added(logits, ops.linear(rows, f"{prefix}skip", spec.class_count))
    return embedding, logits
