"""What a campaign calls its classes, as examples that nobody had to label.

A class of texts has a name that says what its texts are about. Read like a sample, it is a labelled
example, also of classes that a site has never met. Names teach; nothing is measured on them, and no
sum or count that a site reports has them in.

Source of the idea: Chang et al., "Importance of semantic representation: dataless classification",
2008; Meng et al., "Text classification using label names only", 2020.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from federation.dataset import Examples, from_samples, no_examples
from federation.errors import RequestInvalid
from federation.local_settings import CLASS_TEXT_MAX
from model_bundle.features import FeatureSpec

_BETWEEN_WORDS = re.compile(r"[\W_]+")
_LOWER_UPPER = re.compile(r"(?<=[^\W\d_])(?=[A-Z][a-z])")
_LETTERS = re.compile(r"[^\W\d_]{2}")


def class_texts(names: Sequence[str]) -> list[str]:
    """Returns the names of classes as words, in their order; "" where there are none.

    >>> class_texts(["card_arrival", "lostCard", "7"])
    ['card arrival', 'lost card', '']
    """
    found = []
    for name in names:
        words = _BETWEEN_WORDS.sub(" ", _LOWER_UPPER.sub(" ", name)).strip().lower()
        found.append(words[:CLASS_TEXT_MAX] if _LETTERS.search(words) else "")
    return found


def named_examples(texts: Sequence[str], features: FeatureSpec) -> Examples:
    """Returns an example of each class that has a text.

    Args:
        texts: By class index.
        features: Of the campaign's samples, which are texts.

    >>> named_examples(["card arrival", ""], FeatureSpec("text")).classes.tolist()
    [0]
    """
    known = [index for index, text in enumerate(texts) if text]
    if not known:
        return no_examples()
    nothing = [False] * len(known)
    return from_samples([texts[index] for index in known], known, features, calibration=nothing)


def check_label_names(wanted: bool, family: str, unsupervised_width: int) -> None:
    """Checks whether a network can learn from the names of its classes.

    Raises:
        RequestInvalid: Its samples are no texts, or it has no layer that learns without labels.

    >>> check_label_names(True, "text", 400)
    """
    if not wanted:
        return
    if family != "text":
        raise RequestInvalid(f"label_names reads texts; set it to false for the family {family}")
    if not unsupervised_width:
        raise RequestInvalid(
            "label_names needs unsupervised_width; set it, or label_names to false"
        )
