"""Runs a model: the only module that imports onnxruntime.

One thread and no spinning, because the device has other work to do. Small batches: beyond 32 rows
the cache is lost and nothing is won. The model comes as bytes that were scanned before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edge_agent.onnx_scan import ModelUnsafe, check_model
from edge_agent.scoring import ModelOutputs, is_untrained
from model_bundle.features import FeatureSpec, extract
from model_bundle.manifest import FITTED_CELLS, PART_CODE_BOOK, PART_MODEL, PART_PROTOTYPES, Bundle

_LOG_ERRORS_ONLY = 3
_OPTIONAL = ("committee_logits", "acquisition_logits")


class Predictor:
    """A loaded model version.

    Args:
        bundle: An unpacked bundle whose signature was verified.
        minibatch_rows: Samples in one run.
        site_id: Site of the samples; "" scores them at the federation's temperature.

    Raises:
        ModelUnsafe: The model is refused by the scan, or its outputs and parts do not fit.
    """

    def __init__(self, bundle: Bundle, *, minibatch_rows: int = 32, site_id: str = "") -> None:
        self.manifest = bundle.manifest
        self.version = bundle.manifest.version
        self.temperature = bundle.manifest.temperature_at(site_id)
        self._minibatch_rows = minibatch_rows
        model = bundle.parts[PART_MODEL]
        check_model(model)
        self._session = _opened(model)
        self._names = [output.name for output in self._session.get_outputs()]
        if not {"logits", "embedding"} <= set(self._names):
            raise ModelUnsafe("the model must have the outputs logits and embedding")
        classes, width = len(self.manifest.label_schema), self.manifest.embedding_width
        self.prototypes = _matrix(bundle, PART_PROTOTYPES, rows=classes, width=width)
        self.code_book = _matrix(bundle, PART_CODE_BOOK, rows=self.manifest.cell_count, width=width)

    @property
    def is_untrained(self) -> bool:
        """True for a campaign's first version, which no label taught.

        A trained version may lack prototypes too, where no site has labels enough of any class.
        """
        return self.manifest.parent_version == 0 and is_untrained(self.prototypes)

    def needs_coverage(self, *, alone: bool) -> bool:
        """Whether a sample's worth is what it stands for among those that are sealed with it.

        That is so for a campaign's first version. Where the sites found its cells together,
        nearness to a centre says as much, unless a device chooses `alone`, by no one's order but
        its own.
        """
        return self.is_untrained and (alone or not self.manifest.training.get(FITTED_CELLS))

    @property
    def features(self) -> FeatureSpec:
        """How samples become input."""
        return self.manifest.features

    def predict(self, samples: Sequence[Any]) -> ModelOutputs:
        """Runs decoded samples through the model, any number of them.

        Raises:
            FeatureInvalid: A sample does not fit.
        """
        step = self._minibatch_rows
        parts = []
        for start in range(0, len(samples), step):
            inputs = extract(samples[start : start + step], self.features)
            parts.append(self._session.run(None, inputs))
        joined = {
            name: np.concatenate([part[i] for part in parts]).astype(np.float32, copy=False)
            for i, name in enumerate(self._names)
        }
        if any(len(values) != len(samples) for values in joined.values()):
            raise ModelUnsafe("the model answers with another number of rows than it was given")
        return ModelOutputs(
            joined["logits"],
            joined["embedding"],
            **{name: joined[name] for name in _OPTIONAL if name in joined},
        )


def _opened(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The arena would keep the working memory of the largest run for ever; see `memory`.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    onnxruntime.disable_telemetry_events()
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - its kinds share no public base
        raise ModelUnsafe(f"the model cannot be loaded ({type(error).__name__})") from None


def _matrix(bundle: Bundle, part: str, *, rows: int, width: int) -> NDArray[np.float32]:
    raw = bundle.parts.get(part)
    if raw is None:
        return np.zeros((rows if part == PART_PROTOTYPES else 0, width), dtype=np.float32)
    if len(raw) != 4 * rows * width:
        raise ModelUnsafe(f"{part} must hold float32[{rows}, {width}]")
    return np.frombuffer(raw, dtype="<f4").reshape(rows, width).astype(np.float32)
