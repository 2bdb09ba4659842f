"""Chooses the thresholds of a pack on train parts only, and measures the pack for its card."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.masking.evaluate import LabelledText, Measurement, measure
from edge_agent.masking.evaluate import read_labelled as read_texts
from edge_agent.masking.pack import Threshold
from edge_agent.masking.pipeline import BuiltinMasker
from edge_agent.masking.policy import MaskingPolicy
from edge_agent.masking.seam import Level
from simulations.name_tagger.corpora import read_real
from simulations.name_tagger.thresholds import FLOORS, levels

CALM = tuple((o, x) for o in (0.3, 0.2, 0.15, 0.1) for x in (0.05, 0.02))
HASTY = tuple((o, round(o / 3, 4)) for o in (0.05, 0.03, 0.02, 0.015, 0.01, 0.0075, 0.005))
MAX_OVER_MASKING = 0.042
"""Share of harmless letters that may be masked in synthetic texts of the train part.

The goal on the test part is 0.05; its sentences differ from those of the train part.
"""
MAX_PRICE = 0.10
"""Share of harmless letters in real texts of the train part that the tagger may add to what is
masked without it (addresses of web pages, handles, numbers)."""
_NEVER = (2.0, 2.0)


@dataclass(frozen=True, slots=True)
class Tried:
    """A pair of thresholds, and what it does to one set."""

    pair: tuple[float, float]
    result: Measurement


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


def choose_thresholds(
    folder: Path, data: Path, *, held_out: str, report: Callable[[str], None]
) -> dict[str, Threshold]:
    """Choose the thresholds of a pack on the train parts, whose synthetic texts no pack has seen.

    Args:
        folder: A pack that was trained without the source that is held out.
        data: Folder of the data sets.
        held_out: Source of real texts that the pack has not seen.
        report: Receives one line for each pair that was tried.

    Returns:
        Threshold by level name. Calm texts: most spans at no more than `MAX_OVER_MASKING`; hasty
        ones: most persons in real texts at no more than `MAX_PRICE`.
    """
    synthetic = read_texts(data / "pii_synth.parquet", split="train")
    held = read_real(data / "pii_real.parquet", split="held_out", held_out=held_out)
    real = [LabelledText(s.text, s.spans) for s in held]

    def tried(threshold: Threshold, texts: list[LabelledText]) -> Measurement:
        set_thresholds(folder, dict.fromkeys(("strict", "balanced", "light"), threshold))
        result = measure(BuiltinMasker(pack_policy(folder)), texts)
        report(
            f"{tuple(threshold)}: spans {result.recall}, leaks {result.leaks.ratio:.3f}, "
            f"over-masking {result.over_masking.ratio:.3f}, persons {result.of_type('PERSON')}"
        )
        return result

    calm = best_calm([Tried(p, tried(Threshold(*p, *HASTY[-1], *FLOORS), synthetic)) for p in CALM])
    floor = tried(Threshold(*calm, *_NEVER, *FLOORS), real).over_masking.ratio
    hasty = best_hasty([Tried(p, tried(Threshold(*calm, *p, *FLOORS), real)) for p in HASTY], floor)
    return levels(Threshold(*calm, *hasty, *FLOORS))


def best_calm(tried: Sequence[Tried]) -> tuple[float, float]:
    """Most masked spans among those that over-mask little; else the least over-masking."""
    enough = [one for one in tried if one.result.over_masking.ratio <= MAX_OVER_MASKING]
    least = min(tried, key=lambda one: one.result.over_masking.ratio)
    return max(enough, key=lambda one: one.result.recall.ratio, default=least).pair


def best_hasty(tried: Sequence[Tried], floor: float) -> tuple[float, float]:
    """Most masked persons among those that cost little; else the cheapest."""
    enough = [one for one in tried if one.result.over_masking.ratio - floor <= MAX_PRICE]
    least = min(tried, key=lambda one: one.result.over_masking.ratio)
    return max(enough, key=lambda one: one.result.of_type("PERSON").ratio, default=least).pair


def set_thresholds(folder: Path, thresholds: dict[str, Threshold]) -> None:
    """Write thresholds into a pack and pin the pack anew."""
    header = json.loads((folder / "pack.json").read_text())
    header["thresholds"] = dict(sorted(thresholds.items()))
    content = json.dumps(header, indent=2, sort_keys=True) + "\n"
    (folder / "pack.json").write_text(content)
    pins = folder.parent / "pins.json"
    known = json.loads(pins.read_text()) if pins.is_file() else {}
    known[folder.name] = hashlib.sha256(content.encode()).hexdigest()
    pins.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
