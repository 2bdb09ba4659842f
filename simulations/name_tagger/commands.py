"""`tagger build` and `tagger evaluate`: make a pack, choose its thresholds, measure it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.masking.evaluate import Measurement

_PACKS = Path(__file__).resolve().parents[2] / "edge_agent" / "masking" / "packs"


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the `tagger` command; `run` answers it."""
    parser = subparsers.add_parser("tagger", help="build or measure the name tagger of devices")
    add_actions(parser)


def add_actions(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the tagger to a parser."""
    actions = parser.add_subparsers(dest="action", required=True)
    build = actions.add_parser("build", help="train a pack from a seed")
    build.add_argument("--pack", choices=("mixed", "synthetic"), default="mixed")
    build.add_argument("--out", type=Path, default=_PACKS, help="folder of packs")
    build.add_argument("--sentences", type=int, default=45_000, help="generated texts")
    build.add_argument("--epochs", type=int, default=4)
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--held-out", default="", help="choose thresholds on a source left out")
    build.add_argument("--no-measure", action="store_true", help="skip thresholds and card")
    measure = actions.add_parser("evaluate", help="measure a pack on the test parts")
    measure.add_argument("folder", type=Path, help="folder of the pack")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run an action; 0 when done, 2 when something is missing."""
    try:
        return _build(args) if args.action == "build" else _evaluate(args.folder)
    except (FileNotFoundError, ValueError) as error:
        sys.stderr.write(f"tagger: {error}\n")
        return 2


def _build(args: argparse.Namespace) -> int:
    from simulations.name_tagger.build import BuildPlan, build
    from simulations.name_tagger.calibrate import choose_thresholds, set_thresholds
    from simulations.name_tagger.card import write_card
    from simulations.name_tagger.corpora import data_folder
    from simulations.name_tagger.training import TrainingPlan

    training = TrainingPlan(epochs=args.epochs, seed=args.seed)
    plan = BuildPlan(args.pack, args.sentences, training, held_out=args.held_out)
    built = build(plan, args.out, report=_say)
    data = data_folder()
    if args.no_measure or data is None:
        _say("nothing was measured")
    elif args.held_out:
        chosen = choose_thresholds(built.folder, data, held_out=args.held_out, report=_say)
        set_thresholds(built.folder, chosen)
        _say(f"for thresholds.py: {chosen}")
    else:
        write_card(built, plan, measured(built.folder, data))
    return 0


def _evaluate(folder: Path) -> int:
    from edge_agent.masking.evaluate import table_of
    from simulations.name_tagger.corpora import data_folder

    data = data_folder()
    if data is None:
        raise FileNotFoundError("no data; set PERIMETER_DATA to the folder of the data sets")
    for name, measurement in measured(folder, data).items():
        _say(f"\n{name}\n\n{table_of(measurement)}")
    return 0


def measured(folder: Path, data: Path) -> "dict[str, Measurement]":
    """Measure a pack at level balanced on the test parts and their lower-case copies."""
    from edge_agent.masking.evaluate import lower_cased, measure, read_labelled
    from edge_agent.masking.pipeline import BuiltinMasker
    from simulations.name_tagger.calibrate import pack_policy

    masker = BuiltinMasker(pack_policy(folder))
    results = {}
    for name, file in (("synthetic", "pii_synth.parquet"), ("real", "pii_real.parquet")):
        examples = read_labelled(data / file, split="test")
        results[name] = measure(masker, examples)
        results[f"{name}, lower case"] = measure(masker, lower_cased(examples))
    return results


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
