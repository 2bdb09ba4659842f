"""Runs the name tagger: a small ONNX graph over the tokens of a text. NumPy, onnxruntime only."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.masking.errors import PackError
from edge_agent.masking.findings import Finding
from edge_agent.masking.pack import Threshold
from edge_agent.masking.tokens import Featurizer, Token, is_hasty

WINDOW = 256
OVERLAP = 24
BATCH = 16
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        the of and to in is was are were be been being for on with at by from as it its this
        that these those or not but if then than when where which who what how why they them
        their he she him her his we us our you your me about into over under after before
        between during including because while has have had does did would could should can
        cannot there here also very just
        """,
    )
)
_WORDS = "|".join(sorted(_FUNCTION_WORDS))
_LEADING = re.compile(rf"(?:(?:{_WORDS}|Hi|Hello|Hey|Dear)\b[^\w\n]*)+")
_TRAILING = re.compile(rf"(?:[^\w\n]+(?:{_WORDS}))+\Z|\n(?:Phone|Address|E-?mail|City|Date|Tel)\Z")
_NAMES_ONLY = frozenset({"PERSON", "ORGANIZATION", "NRP", "TITLE"})

FloatArray = NDArray[np.float32]


class NameTagger:
    """Probability of each label for each token.

    Args:
        graph: ONNX graph with inputs `words`, `trigrams`, `forms` and output `probabilities`.
        labels: Names of the output columns; the first is the outside label.
        featurizer: Turns tokens into the inputs.

    Raises:
        PackError: The graph cannot be loaded or does not fit the labels.
    """

    def __init__(self, graph: bytes, labels: Sequence[str], featurizer: Featurizer) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._labels = tuple(labels)
        self._featurizer = featurizer
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
            width = self._run(["Ann"], [[Token(0, 3, "Ann")]])[0].shape[-1]
        except Exception as error:
            # onnxruntime raises many unrelated types; all of them mean a bad graph.
            raise PackError("the tagger of the pack cannot be loaded") from error
        if width != len(self._labels):
            raise PackError(f"the tagger gives {width} labels, the pack names {len(self._labels)}")

    def find(
        self, texts: Sequence[str], token_lists: Sequence[Sequence[Token]], threshold: Threshold
    ) -> list[list[Finding]]:
        """Findings per text: tokens whose probability of any entity reaches the threshold."""
        found: list[list[Finding]] = []
        floors = self._floors(threshold)
        for text, tokens, probabilities in zip(
            texts, token_lists, self.probabilities(texts, token_lists), strict=True
        ):
            limits = self._limits(tokens, threshold, is_hasty=is_hasty(text, tokens))
            best = 1 + probabilities[:, 1:].argmax(axis=1)
            limits = np.maximum(limits, floors[best])
            found.append(self._decode(probabilities, tokens, limits))
        return [
            [kept for finding in findings if (kept := _trimmed(text, finding)) is not None]
            for text, findings in zip(texts, found, strict=True)
        ]

    def probabilities(
        self, texts: Sequence[str], token_lists: Sequence[Sequence[Token]]
    ) -> list[FloatArray]:
        """Label probabilities, float32[tokens, labels] for each text."""
        jobs = [
            (index, low)
            for index, tokens in enumerate(token_lists)
            for low in range(0, max(1, len(tokens) - OVERLAP), WINDOW - OVERLAP)
        ]
        results: list[FloatArray] = [
            np.zeros((len(tokens), len(self._labels)), np.float32) for tokens in token_lists
        ]
        jobs.sort(key=lambda job: min(WINDOW, len(token_lists[job[0]]) - job[1]))
        for first in range(0, len(jobs), BATCH):
            batch = jobs[first : first + BATCH]
            windows = [token_lists[index][low : low + WINDOW] for index, low in batch]
            outputs = self._run([texts[index] for index, _ in batch], windows)
            for (index, low), window, output in zip(batch, windows, outputs, strict=True):
                target = results[index][low : low + len(window)]
                better = output[: len(window), 0] < target[:, 0]
                fresh = target.sum(axis=1) == 0
                chosen = better | fresh
                target[chosen] = output[: len(window)][chosen]
        return results

    def _run(self, texts: Sequence[str], token_lists: Sequence[Sequence[Token]]) -> FloatArray:
        arrays = self._featurizer.arrays(texts, token_lists)
        outputs: list[FloatArray] = self._session.run(
            ["probabilities"],
            {"words": arrays.words, "trigrams": arrays.trigrams, "forms": arrays.forms},
        )
        return outputs[0]

    def _decode(
        self, probabilities: FloatArray, tokens: Sequence[Token], limits: FloatArray
    ) -> list[Finding]:
        scores = 1.0 - probabilities[:, 0]
        findings: list[Finding] = []
        for here in np.flatnonzero(scores >= limits).tolist():
            label = self._labels[1 + int(probabilities[here, 1:].argmax())]
            token, score = tokens[here], float(scores[here])
            last = findings[-1] if findings else None
            is_next = last is not None and here > 0 and last.end == tokens[here - 1].end
            if last is not None and is_next and label == last.entity_type:
                findings[-1] = Finding(last.start, token.end, label, max(last.score, score))
                continue
            findings.append(Finding(token.start, token.end, label, score))
        return findings

    def _floors(self, threshold: Threshold) -> FloatArray:
        """float32[labels], least probability by what a token looks like most."""
        least = {"ORGANIZATION": threshold.organization, "TITLE": threshold.title}
        return np.array([least.get(label, 0.0) for label in self._labels], np.float32)

    def _limits(
        self, tokens: Sequence[Token], threshold: Threshold, *, is_hasty: bool
    ) -> FloatArray:
        """float32[tokens], the probability from which on each token is masked."""
        ordinary, other = threshold[2:4] if is_hasty else threshold[:2]
        is_ordinary = self._featurizer.is_ordinary
        return np.array(
            [ordinary if is_ordinary(t.text) or not t.text.isalnum() else other for t in tokens],
            np.float32,
        )


def _trimmed(text: str, found: Finding) -> Finding | None:
    """A finding without small function words at its edges; None when nothing is left to hide.

    >>> _trimmed("in the Alps", Finding(0, 11, "LOCATION", 0.9)).start
    7
    """
    value = text[found.start : found.end]
    start, end = found.start, found.end
    if not value.startswith("the corner"):
        if leading := _LEADING.match(value):
            start += leading.end()
        if trailing := _TRAILING.search(value, start - found.start):
            end = found.start + trailing.start()
    value = text[start:end]
    if found.entity_type in _NAMES_ONLY and not any(sign.isalpha() for sign in value):
        return None
    if value.lower() in _FUNCTION_WORDS or not any(sign.isalnum() for sign in value):
        return None
    # A lone sign needs more than a doubt.
    return found._replace(start=start, end=end) if len(value) > 1 or found.score > 0.5 else None
