"""One masker for all masking tests: loading presidio takes a second."""

import sys

import pytest

# spaCy imports torch wherever it finds it; the device has none.
if "spacy" not in sys.modules and "torch" not in sys.modules:
    sys.modules["torch"] = None  # type: ignore[assignment]
    import spacy  # noqa: F401

    del sys.modules["torch"]

from edge_agent.masking.child import ChildMasker
from edge_agent.masking.pipeline import BuiltinMasker
from edge_agent.masking.policy import MaskingLimits, MaskingPolicy


@pytest.fixture(scope="session")
def policy():
    return MaskingPolicy(
        languages=("en", "de", "es"),
        limits=MaskingLimits(time_out_seconds=120, start_seconds=300, idle_seconds=600),
    )


@pytest.fixture(scope="session")
def masker(policy):
    return BuiltinMasker(policy)


@pytest.fixture(scope="session")
def child(policy):
    with ChildMasker(policy) as masker:
        yield masker
