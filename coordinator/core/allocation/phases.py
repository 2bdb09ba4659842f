"""Cold, warm or hot: how far the shared model may steer the budget."""

from __future__ import annotations

from coordinator.core.allocation.policy import Phase, Policy
from coordinator.core.allocation.pool import Progress


def phase_of(progress: Progress, *, class_count: int, policy: Policy) -> Phase:
    """Phase by label count and measured calibration.

    With hardly a label a class, uncertainty is noise and typical samples teach more (Hacohen et
    al., 2022, "opposite strategies suit high and low budgets"). Without phases it is always hot.

    >>> import numpy as np
    >>> none = Progress(class_labels=np.zeros(3, np.int64), site_labels=np.zeros(1, np.int64))
    >>> phase_of(none, class_count=3, policy=Policy()).value
    'cold'
    """
    if not policy.switches.phases:
        return Phase.HOT
    if int(progress.site_labels.sum()) < policy.cold_labels_per_class * class_count:
        return Phase.COLD
    error = progress.calibration_error
    if error is None or error > policy.hot_calibration_error:
        return Phase.WARM
    return Phase.HOT
