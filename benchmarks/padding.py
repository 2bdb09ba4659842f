"""What padding to size classes costs in bytes, and what a message's size still tells.

`python -m benchmarks.padding`
"""

from __future__ import annotations

from collections.abc import Iterator

from perimeter.v1 import candidate_pb2, grant_pb2

from edge_agent.padding import padded

WIDTHS = {
    "candidate_ids": 16, "margins": 1, "top_probabilities": 1, "entropies": 1,
    "divergence_risk": 1, "predicted_classes": 2, "runner_up_classes": 2,
    "prototype_classes": 2, "cell_ids": 2, "density_cost": 1,
}  # fmt: skip


def batch(rows: int) -> candidate_pb2.CandidateBatch:
    """Returns a candidate batch as devices send it; the values do not change its size."""
    columns = {name: b"\1" * (rows * width) for name, width in WIDTHS.items()}
    return candidate_pb2.CandidateBatch(
        request_id=b"r" * 16, campaign_id=b"c" * 16, sequence=100, model_version=12,
        code_book_version=12, label_schema_digest=b"d" * 32, day=20_000, row_count=rows, **columns,
    )  # fmt: skip


def outcomes(count: int) -> grant_pb2.RecordOutcomesRequest:
    """Returns outcomes as a portal sends them."""
    request = grant_pb2.RecordOutcomesRequest(request_id=b"r" * 16)
    for _ in range(count):
        request.outcomes.add(
            grant_id=b"g" * 16,
            state="OUTCOME_STATE_LABELED",
            suggestion="SUGGESTION_VERDICT_STOOD",
            decision_seconds=9,
            class_index_plus_one=3,
        )
    return request


def pool(classes: int) -> candidate_pb2.ReportPoolRequest:
    """Returns the totals of a pool."""
    return candidate_pb2.ReportPoolRequest(
        request_id=b"r" * 16, campaign_id=b"c" * 16, model_version=12, day=20_000,
        class_counts=b"\1" * (4 * classes), top_probability_sum=1 << 40,
        top_probability_square_sum=1 << 40, complete=True,
    )  # fmt: skip


def rows() -> Iterator[str]:
    """Yields the lines of the table."""
    yield "| message | bytes | padded | factor | bytes a row |"
    yield "|---|---|---|---|---|"
    for count in (1, 10, 100, 300, 1000, 3000, 8192, 9000, 10_000):
        yield line(f"batch of {count} candidates", batch(count), count)
    for count in (1, 5, 10, 100, 1000):
        yield line(f"{count} outcomes", outcomes(count), count)
    for classes in (3, 77, 1000):
        yield line(f"totals of {classes} classes", pool(classes), 0)
    sizes = {padded(batch(count)).ByteSize() for count in range(1, 10_001)}
    yield f"\nBatches of 1 to 10000 candidates have {len(sizes)} sizes in all, instead of 10000."
    over = [padded(batch(n)).ByteSize() / batch(n).ByteSize() for n in range(100, 10_001, 50)]
    yield f"Factor over 100 to 10000 candidates: mean {sum(over) / len(over):.3f}."


def line(name: str, message: candidate_pb2.CandidateBatch | object, count: int) -> str:
    """Returns one line of the table."""
    bare, full = message.ByteSize(), padded(message).ByteSize()  # type: ignore[attr-defined, arg-type]
    share = f"{full / count:.1f}" if count else ""
    return f"| {name} | {bare} | {full} | {full / bare:.2f} | {share} |"


if __name__ == "__main__":
    print("\n".join(rows()))
