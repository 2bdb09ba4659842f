"""A trial run of a new model in a child process with limits, before the daemon trusts it.

A model of a few bytes can ask for gigabytes while it is loaded. So it is first loaded and run at
the largest batch in a process that may be killed: limited memory, processor time and files, an
empty folder to stand in.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from model_bundle.features import FeatureSpec

_FILES_MAX = 64


def trial(path: Path, *, seconds: int, memory_bytes: int) -> str:
    """Runs the trial of a bundle file; returns an empty text, or why the model is refused."""
    command = [sys.executable, "-m", "edge_agent.warm_up", str(path.resolve())]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [*command, str(seconds), str(memory_bytes)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                capture_output=True,
                timeout=seconds + 30,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "the trial run took too long"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"the trial run was ended by signal {-done.returncode}"
    return done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]


def probe_samples(features: FeatureSpec, count: int) -> list[Any]:
    """Returns samples of the kind for a trial; their values do not matter, their shapes do.

    >>> probe_samples(FeatureSpec("text"), 1)
    ['trial run']
    """
    if features.kind == "text":
        return ["trial run"] * count
    if features.kind == "image":
        depth = (3,) if features.channels == 3 else ()
        return [np.zeros((features.height, features.width, *depth), dtype=np.uint8)] * count
    if features.kind == "series":
        return [np.zeros((features.steps, features.channels), dtype=np.float32)] * count
    return [{"trial": 0}] * count


def main() -> int:
    """Reads `BUNDLE SECONDS MEMORY_BYTES` from the command line and runs the model."""
    path, seconds, memory_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from edge_agent.inference import Predictor
    from edge_agent.scoring import score
    from model_bundle.manifest import unpack

    bundle = unpack(path.read_bytes())
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES_MAX, _FILES_MAX))
    try:
        predictor = Predictor(bundle)
        outputs = predictor.predict(probe_samples(predictor.features, 33))
        score(
            outputs,
            temperature=predictor.temperature,
            prototypes=predictor.prototypes,
            code_book=predictor.code_book,
        )
    except Exception as error:  # noqa: BLE001 - whatever goes wrong refuses the model
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
