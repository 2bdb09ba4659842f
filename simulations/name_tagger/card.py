"""The model card of a pack: what went in, under which licences, and what it was measured to do."""

import json
from pathlib import Path

from edge_agent.masking.evaluate import Measurement, table_of
from simulations.name_tagger.build import BuildPlan, BuiltPack

_TEMPLATES = Path(__file__).parent / "templates"


def write_card(built: BuiltPack, plan: BuildPlan, measurements: dict[str, Measurement]) -> None:
    """Write CARD.md and card.json beside the pack.

    Args:
        built: What the build used.
        plan: How it was built.
        measurements: Name of a set to its measurement at level balanced.
    """
    header = json.loads((built.folder / "pack.json").read_text())
    thresholds = "; ".join(
        f"{level} {', '.join(map(str, values))}" for level, values in header["thresholds"].items()
    )
    real = next((m for name, m in measurements.items() if "real" in name), None)
    missed = 1 - real.of_type("PERSON").ratio if real else 0.1
    size = sum(p.stat().st_size for p in built.folder.iterdir() if p.suffix in {".onnx", ".npz"})
    sources = ["always", "mixed"] if plan.name == "mixed" else ["always"]
    text = _template("card").format(
        name=plan.name,
        one_in=round(1 / max(missed, 0.01)),
        parameters=f"Size {size / 1e6:.2f} MB: ONNX graph with half-precision tables, word lists.",
        seed=plan.training.seed,
        generated=built.generated_count,
        real=built.real_count,
        harmless=built.harmless_count,
        epochs=plan.training.epochs,
        thresholds=thresholds,
        data="".join(_template(f"sources_{source}") for source in sources),
        tables="\n".join(f"### {n}\n\n{table_of(m)}\n" for n, m in measurements.items()),
    )
    (built.folder / "CARD.md").write_text(text)
    told = {
        "name": plan.name,
        "licence": "Apache-2.0; data CC BY 4.0 as named in CARD.md"
        if plan.name == "mixed"
        else "Apache-2.0",
        "measured": {name: _summary(m) for name, m in measurements.items()},
    }
    (built.folder / "card.json").write_text(json.dumps(told, indent=2) + "\n")


def _template(name: str) -> str:
    return (_TEMPLATES / f"{name}.md").read_text("utf-8")


def _summary(measurement: Measurement) -> str:
    persons = measurement.of_type("PERSON")
    return f"spans {measurement.recall}, persons {persons}"
