"""Chooses the thresholds of a pack on train parts only, and measures the pack for its card."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.masking.evaluate import LabelledText, Measurement, lower_cased, measure
from edge_agent.masking.evaluate import read_labelled as read_texts
from edge_agent.masking.pipeline import BuiltinMasker
from edge_agent.masking.policy import MaskingPolicy
from edge_agent.masking.seam import Level
from simulations.name_tagger.corpora import read_real

GRID = (0.02, 0.03, 0.035, 0.04, 0.06, 0.1, 0.2)
_LOWEST = 0.02
"""Training smooths labels, so that even plain words keep nearly this probability of a name."""
MAX_OVER_MASKING = 0.04
"""Share of harmless letters that may be masked on the train part; the goal is 0.05."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One threshold on the train parts."""

    threshold: float
    synthetic: Measurement
    lower: Measurement
    real: Measurement


def pack_policy(folder: Path, level: Level = Level.BALANCED) -> MaskingPolicy:
    """The policy that runs a pack from a folder, pinned to what lies there now."""
    digest = hashlib.sha256((folder / "pack.json").read_bytes()).hexdigest()
    signed = "measurement" if level is Level.LIGHT else ""
    return MaskingPolicy(
        level=level,
        light_signed_by=signed,
        languages=("en", "de", "es"),
        pack=str(folder.resolve()),
        pack_sha256=digest,
    )


def try_thresholds(
    folder: Path, data: Path, *, grid: Sequence[float] = GRID, report: Callable[[str], None]
) -> list[Tried]:
    """Measure each threshold on the train parts (real: the part held out from training)."""
    synthetic = read_texts(data / "pii_synth.parquet", split="train")
    real = [
        LabelledText(s.text, s.spans)
        for s in read_real(data / "pii_real.parquet", split="validation")
    ]
    tried = []
    for threshold in grid:
        set_thresholds(folder, dict.fromkeys(("strict", "balanced", "light"), threshold))
        masker = BuiltinMasker(pack_policy(folder))
        one = Tried(
            threshold,
            measure(masker, synthetic),
            measure(masker, lower_cased(synthetic)),
            measure(masker, real),
        )
        report(
            f"threshold {threshold}: synthetic {one.synthetic.recall}, over-masking "
            f"{one.synthetic.over_masking.ratio:.3f}, lower {one.lower.recall}, real persons "
            f"{one.real.of_type('PERSON')}"
        )
        tried.append(one)
    return tried


def chosen_thresholds(tried: Sequence[Tried]) -> dict[str, float]:
    """Balanced is the lowest threshold that over-masks little enough: recall comes first.

    Strict and light stand around it.
    """
    enough = [
        one.threshold for one in tried if one.synthetic.over_masking.ratio <= MAX_OVER_MASKING
    ]
    balanced = min(enough) if enough else max(one.threshold for one in tried)
    return {
        "strict": round(max(_LOWEST, balanced * 0.6), 4),
        "balanced": balanced,
        "light": round(min(0.6, balanced * 8), 4),
    }


def set_thresholds(folder: Path, thresholds: dict[str, float]) -> None:
    """Write thresholds into a pack and pin the pack anew."""
    header = json.loads((folder / "pack.json").read_text())
    header["thresholds"] = dict(sorted(thresholds.items()))
    content = json.dumps(header, indent=2, sort_keys=True) + "\n"
    (folder / "pack.json").write_text(content)
    pins = folder.parent / "pins.json"
    known = json.loads(pins.read_text()) if pins.is_file() else {}
    known[folder.name] = hashlib.sha256(content.encode()).hexdigest()
    pins.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
