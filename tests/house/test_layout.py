"""The tree is the architecture: known folders, plain names, empty package files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_sizes import ROOT, modules, where

FORBIDDEN_MODULES = {"common", "utils", "util", "helpers", "helper", "shared", "misc", "manager"}
FORBIDDEN_NAME_PARTS = {"util", "utils", "helper", "helpers", "manager", "processor", "misc"}
COMMANDS = {
    "edge_agent.__main__": {"numpy", "grpc", "onnxruntime", "presidio_analyzer", "pyarrow"},
    "coordinator.__main__": {"numpy", "grpc", "sqlalchemy", "pydantic"},
    "review_portal.__main__": {"grpc", "sqlalchemy", "fastapi", "pydantic"},
    "federation.__main__": {"torch", "flwr", "numpy", "onnxruntime"},
    "simulations.__main__": {"torch", "flwr", "numpy", "sklearn", "matplotlib"},
    "simulations.demo.__main__": {"torch", "flwr", "numpy", "sklearn", "matplotlib"},
}


def test_no_module_is_a_junk_drawer() -> None:
    bad = [where(path) for path in modules() if set(path.with_suffix("").parts) & FORBIDDEN_MODULES]
    assert not bad, bad


def test_no_name_says_helper_or_manager() -> None:
    bad = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                parts = re.findall(r"[A-Z]?[a-z]+", node.name)
                if {part.lower() for part in parts} & FORBIDDEN_NAME_PARTS:
                    bad.append(f"{where(path, node)} {node.name}")
    assert not bad, bad


def test_package_files_hold_a_docstring_and_names_only() -> None:
    for path in modules():
        if path.name != "__init__.py":
            continue
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), f"{where(path)} needs a docstring"
        for node in tree.body[1:]:
            allowed = isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign)
            assert allowed, f"{where(path, node)} holds code"


def test_generated_code_is_fresh() -> None:
    command = [sys.executable, str(ROOT / "protos" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", sorted(COMMANDS))
def test_help_imports_nothing_heavy(module: str) -> None:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['{module}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code in (0, None), stop.code\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rsplit("LOADED", 1)[1].split())
    assert not loaded & COMMANDS[module]


def test_nothing_is_said_of_where_it_was_built() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    absolute = re.compile(r"/(?:work|root|home/\w+)/")
    bad = []
    for name in listed.stdout.split():
        path = ROOT / name
        if (
            (
                path.suffix in {".py", ".md", ".toml", ".html", ".js", ".css", ".proto"}
                and path.exists()
            )
            and absolute.search(path.read_text(errors="ignore"))
            and path != Path(__file__)
        ):
            bad.append(name)
    assert not bad, bad
