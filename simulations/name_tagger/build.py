"""Builds a pack from a seed: sentences, training, export, thresholds, card."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulations.name_tagger import corpora
from simulations.name_tagger.export import export_onnx
from simulations.name_tagger.generator import Sentence, generate
from simulations.name_tagger.lexicon import gazetteer_flags, load_lexicon
from simulations.name_tagger.pack_writer import write_pack
from simulations.name_tagger.renaming import Renamer
from simulations.name_tagger.thresholds import THRESHOLDS
from simulations.name_tagger.training import TrainingPlan, train

_REAL_REPEATS = 4
_HARMLESS_TEXTS = 2000


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What goes into a pack.

    Attributes:
        name: `mixed` (own sentences and real ones) or `synthetic` (own sentences only).
        sentence_count: Generated texts.
        training: Epochs, rate, seed.
        data: Folder of the real sets; needed for `mixed`.
        held_out: Source of real texts that training leaves out, to choose thresholds on.
    """

    name: str
    sentence_count: int = 45_000
    training: TrainingPlan = field(default_factory=TrainingPlan)
    data: Path | None = None
    held_out: str = ""


@dataclass(frozen=True, slots=True)
class BuiltPack:
    """What a build used, for the card."""

    folder: Path
    generated_count: int
    real_count: int
    harmless_count: int
    ordinary_count: int


def build(plan: BuildPlan, target: Path, *, report: Callable[[str], None]) -> BuiltPack:
    """Build a pack into `target / plan.name`.

    Args:
        plan: Data, seed and size.
        target: Folder of packs.
        report: Receives progress lines.

    Raises:
        FileNotFoundError: A mixed pack was asked for and the real sets are not there.
    """
    lexicon = load_lexicon()
    seed = plan.training.seed
    generated = list(generate(lexicon, count=plan.sentence_count, seed=seed + 1))
    real: list[Sentence] = []
    harmless: list[Sentence] = []
    ordinary: frozenset[str] = frozenset()
    if plan.name == "mixed":
        folder = _data(plan)
        names = frozenset(name.lower() for name in lexicon.first_names)
        ordinary = corpora.ordinary_words(folder, names)
        real = corpora.read_real(folder / "pii_real.parquet", split="train", held_out=plan.held_out)
        harmless = corpora.harmless_sentences(folder, names, _HARMLESS_TEXTS)
    flags = gazetteer_flags(lexicon, sorted(ordinary))
    sentences: Sequence[Sentence] = [*generated, *real * _REAL_REPEATS, *harmless]
    report(f"{len(generated)} generated, {len(real)} real, {len(harmless)} harmless sentences")
    renamer = Renamer(lexicon, random.Random(seed + 2))
    network = train(sentences, flags, plan.training, renamed=renamer.rename, report=report)
    write_pack(
        target / plan.name,
        flags=flags,
        thresholds=THRESHOLDS[plan.name],
        tagger=export_onnx(network),
    )
    return BuiltPack(target / plan.name, len(generated), len(real), len(harmless), len(ordinary))


def _data(plan: BuildPlan) -> Path:
    folder = plan.data or corpora.data_folder()
    if folder is None or not (folder / "pii_real.parquet").is_file():
        raise FileNotFoundError(
            "the mixed pack needs the real sets; set PERIMETER_DATA to their folder, or build the "
            "pack called synthetic"
        )
    return folder
