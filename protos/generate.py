"""Makes the Python modules beside the .proto files; `--check` compares instead of writing.

Generated code is committed, so that an install needs no compiler. The generator is pinned in
pyproject.toml: newer ones write code for protobuf 7, which flwr's bounds exclude.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def generate(target: Path) -> list[Path]:
    """Writes the generated modules under `target` and returns their paths relative to it."""
    sources = sorted((ROOT / "perimeter" / "v1").glob("*.proto"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={ROOT}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        f"--grpc_python_out={target}",
        *[str(source) for source in sources],
    ]
    subprocess.run(command, check=True)
    return sorted(
        p.relative_to(target) for p in target.rglob("*_pb2*.py*") if "__pycache__" not in p.parts
    )


def stale(fresh_root: Path, fresh: list[Path]) -> list[Path]:
    """Returns the committed modules that differ from the fresh ones or are missing."""
    return [
        path
        for path in fresh
        if not (ROOT / path).exists()
        or not filecmp.cmp(ROOT / path, fresh_root / path, shallow=False)
    ]


def main() -> int:
    """Runs the generator; exit status 1 when `--check` finds stale code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed code")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        different = stale(Path(folder), generate(Path(folder)))
    for path in different:
        sys.stderr.write(f"stale: protos/{path}; run `make proto` and commit the result\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
