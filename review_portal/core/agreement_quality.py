"""Quality of single experts: hidden gold items, self-consistency, and the alerts that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from review_portal.core.agreement_intervals import Estimate, wilson

_Key = TypeVar("_Key", str, int)


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """An answer beside the one it should equal.

    For a gold item `expected` is the known class; for a repeat it is the expert's own earlier one.

    Attributes:
        expert_id: Who answered.
        expected: Class index that counts as right.
        given: Class index that the expert chose.
    """

    expert_id: str
    expected: int
    given: int

    @property
    def is_match(self) -> bool:
        """True when the answer equals what was expected."""
        return self.given == self.expected


def accuracy(answers: Iterable[CheckedAnswer]) -> Estimate:
    """Returns the share of matching answers with Wilson's interval.

    >>> accuracy([CheckedAnswer("ann", 1, 1), CheckedAnswer("ann", 1, 0)]).value
    0.5
    """
    seen = [answer.is_match for answer in answers]
    return wilson(sum(seen), len(seen))


def accuracy_by_expert(answers: Sequence[CheckedAnswer]) -> dict[str, Estimate]:
    """Returns each expert's accuracy, experts in the order of their ids.

    >>> accuracy_by_expert([CheckedAnswer("ann", 1, 1)])["ann"].value
    1.0
    """
    return _by(answers, lambda answer: answer.expert_id)


def accuracy_by_class(answers: Sequence[CheckedAnswer]) -> dict[int, Estimate]:
    """Returns the accuracy for each expected class, classes in rising order.

    >>> shown = accuracy_by_class([CheckedAnswer("ann", 2, 1), CheckedAnswer("bob", 2, 2)])
    >>> shown[2].value
    0.5
    """
    return _by(answers, lambda answer: answer.expected)


def _by(
    answers: Sequence[CheckedAnswer], key: Callable[[CheckedAnswer], _Key]
) -> dict[_Key, Estimate]:
    groups: dict[_Key, list[CheckedAnswer]] = {}
    for answer in answers:
        groups.setdefault(key(answer), []).append(answer)
    return {name: accuracy(groups[name]) for name in sorted(groups)}


class AlertKind(Enum):
    """What fell under its threshold."""

    AGREEMENT = "agreement"
    GOLD = "gold"
    CONSISTENCY = "consistency"


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Thresholds under which a site lead is told.

    Attributes:
        alpha_min: Krippendorff's limit for tentative conclusions (2004, page 241).
        gold_min: Least share of gold items answered right.
        consistency_min: Least share of an expert's repeats answered as before.
        unit_count_min: Answers or paired items below which nothing is said: a rate of three
            answers is noise, and it would point at a person.
    """

    alpha_min: float = 0.667
    gold_min: float = 0.8
    consistency_min: float = 0.9
    unit_count_min: int = 20


@dataclass(frozen=True, slots=True)
class Alert:
    """One threshold that is not met.

    Attributes:
        kind: Which rule.
        subject: Whom it is about: an expert's id, a class name, or "campaign".
        estimate: What was measured.
        threshold: What was asked for.
        is_certain: True when the whole 95 % interval lies below the threshold.
    """

    kind: AlertKind
    subject: str
    estimate: Estimate
    threshold: float
    is_certain: bool


DEFAULT_RULES = AlertRules()


def quality_alerts(
    *,
    alpha: Mapping[str, Estimate],
    gold: Mapping[str, Estimate],
    consistency: Mapping[str, Estimate],
    rules: AlertRules = DEFAULT_RULES,
) -> tuple[Alert, ...]:
    """Returns the alerts of a campaign, worst distance to its threshold first.

    Args:
        alpha: Alpha by subject: "campaign", class names, or both.
        gold: Gold accuracy by expert.
        consistency: Self-consistency by expert.
        rules: Thresholds.

    >>> from review_portal.core.agreement_intervals import wilson
    >>> found = quality_alerts(alpha={}, gold={"ann": wilson(15, 20)}, consistency={})
    >>> [(alert.kind.value, alert.subject, alert.is_certain) for alert in found]
    [('gold', 'ann', False)]
    """
    checks = (
        (AlertKind.AGREEMENT, alpha, rules.alpha_min),
        (AlertKind.GOLD, gold, rules.gold_min),
        (AlertKind.CONSISTENCY, consistency, rules.consistency_min),
    )
    found = [
        alert
        for kind, estimates, threshold in checks
        for subject, estimate in estimates.items()
        if estimate.unit_count >= rules.unit_count_min
        and (alert := _alert(kind, subject, estimate, threshold)) is not None
    ]
    return tuple(sorted(found, key=_shortfall, reverse=True))


def _alert(kind: AlertKind, subject: str, estimate: Estimate, threshold: float) -> Alert | None:
    if estimate.value is None or estimate.value >= threshold:
        return None
    certain = estimate.high is not None and estimate.high < threshold
    return Alert(kind, subject, estimate, threshold, certain)


def _shortfall(alert: Alert) -> float:
    return alert.threshold - (alert.estimate.value or 0.0)
