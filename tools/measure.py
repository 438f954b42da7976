"""Measures the size of functions and files in app/, and prints what exceeds the limits.

    python -m tools.measure

Exits with 1 if something exceeds a limit without a reason in `tools/measure.toml`, or if a reason there is
not needed. The lines of a function are counted without its decorators, its docstring and blank lines. `if`,
`for`, `while`, `try`, `with` and `match` nest; `elif` does not. `self` and `cls` are not counted.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

_ROOT = Path(__file__).parents[1]
_LIMITS = {"file": 300, "lines": 50, "nesting": 3, "parameters": 6}
_MEDIAN_LINES, _MOST_LINES_OF_90_PERCENT = 8, 20
_BLOCKS = ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.With | ast.AsyncWith | ast.Match
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Measured(NamedTuple):
    """A figure of a file (`app/api/body.py`) or a function (`app/api/body.py:Reader.read`)."""

    name: str
    kind: str
    value: int


def main() -> int:
    reasons: dict[str, str] = tomllib.loads((_ROOT / "tools/measure.toml").read_text())
    found = [one for path in sorted((_ROOT / "app").rglob("*.py")) for one in measure(path)]
    lines = [one.value for one in found if one.kind == "lines"]
    middle, most = median(lines), quantiles(lines, n=10)[-1]
    print(f"{len(lines)} functions: median {middle:g} lines, 90th percentile {most:g}, longest {max(lines)}")
    failed = middle > _MEDIAN_LINES or most > _MOST_LINES_OF_90_PERCENT
    exceeding = [one for one in found if one.value > _LIMITS[one.kind]]
    for one in exceeding:
        reason = reasons.get(one.name)
        failed |= reason is None
        print(f"{one.name}: {one.kind} {one.value} > {_LIMITS[one.kind]}: {reason or 'NO REASON'}")
    for name in reasons.keys() - {one.name for one in exceeding}:
        failed = True
        print(f"{name}: has a reason, but exceeds nothing")
    return int(failed)


def measure(path: Path) -> Iterator[Measured]:
    name, text = str(path.relative_to(_ROOT)), path.read_text()
    yield Measured(name, "file", text.count("\n"))
    for qualified, function in _functions(ast.parse(text), name + ":"):
        yield Measured(qualified, "lines", _lines(function, text))
        yield Measured(qualified, "nesting", _nesting(function.body))
        yield Measured(qualified, "parameters", _parameters(function.args))


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _FUNCTIONS):
            yield prefix + child.name, child
        name = f"{child.name}." if isinstance(child, _FUNCTIONS | ast.ClassDef) else ""
        yield from _functions(child, prefix + name)


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> int:
    body = function.body[ast.get_docstring(function, clean=False) is not None :]
    last = function.end_lineno or function.lineno
    first = body[0].lineno if body else last + 1
    head = function.body[0].lineno - function.lineno
    counted = text.splitlines()[first - 1 : last]
    return head + sum(bool(line.strip()) for line in counted)


def _nesting(body: list[ast.stmt], depth: int = 0) -> int:
    deepest = depth
    for statement in body:
        if isinstance(statement, _BLOCKS):
            for inner, further in _blocks(statement):
                deepest = max(deepest, _nesting(inner, depth + further))
    return deepest


def _blocks(statement: ast.stmt) -> Iterator[tuple[list[ast.stmt], int]]:
    """Yields the bodies of a statement and how much deeper each is: an `elif` is not deeper."""
    for field in ("body", "orelse", "finalbody"):
        inner: list[ast.stmt] = getattr(statement, field, [])
        is_elif = isinstance(statement, ast.If) and field == "orelse" and [*map(type, inner)] == [ast.If]
        yield inner, 0 if is_elif else 1
    for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
        yield part.body, 1


def _parameters(args: ast.arguments) -> int:
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    return sum(arg.arg not in ("self", "cls") for arg in named) + bool(args.vararg) + bool(args.kwarg)


if __name__ == "__main__":
    sys.exit(main())
