"""Errors of the allocation core. They mean a caller's mistake, never a tight budget."""


class AllocationError(ValueError):
    """Pool, budget or policy are malformed; the message names the field and the remedy."""
