"""Which candidates get the label budget: pure functions of columns, budget, policy and chance.

Start at :mod:`coordinator.core.allocation.seam`.
"""
