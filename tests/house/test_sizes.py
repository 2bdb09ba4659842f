"""The house keeps its sizes: short modules, short bodies, few arguments."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "coordinator",
    "edge_agent",
    "federation",
    "model_bundle",
    "review_portal",
    "simulations",
    "benchmarks",
)
MODULE_LINES_MAX = 400
BODY_LINES_MAX = 50
BODY_LINES_MEDIAN_MAX = 10
ARGUMENTS_MAX = 5


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def where(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if node is not None and hasattr(node, "lineno") else ""
    return f"{path.relative_to(ROOT)}{line}"


def test_every_module_is_short() -> None:
    long = [
        f"{where(path)} has {count} lines"
        for path in modules()
        if (count := len(path.read_text().splitlines())) > MODULE_LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_every_function_body_is_short() -> None:
    long = [
        f"{where(path, node)} {node.name}: {count} lines"
        for path, node in functions()
        if (count := body_lines(node)) > BODY_LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_the_median_body_is_at_most_ten_lines() -> None:
    assert statistics.median(body_lines(node) for _, node in functions()) <= BODY_LINES_MEDIAN_MAX


def test_functions_take_at_most_five_arguments() -> None:
    many = []
    for path, node in functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        named = [a for a in arguments if a.arg not in {"self", "cls"}]
        if len(named) > ARGUMENTS_MAX:
            many.append(f"{where(path, node)} {node.name}: {len(named)} arguments")
    assert not many, "\n".join(many)
