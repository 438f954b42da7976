"""bench/ and tests/ do not import each other. What both need is in tools/rig."""

import ast
from collections.abc import Iterator

import pytest

from tests.support.server_process import ROOT


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """Yields each file of the folder with each module that it imports, also inside functions."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                yield str(path.relative_to(ROOT)), node.module or ""
            elif isinstance(node, ast.Import):
                yield from ((str(path.relative_to(ROOT)), alias.name) for alias in node.names)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        pytest.param("bench", {"tests"}, id="bench"),
        pytest.param("tests", {"bench"}, id="tests"),
        pytest.param("tools", {"bench", "tests"}, id="tools"),
    ],
)
def test_no_folder_imports_a_neighbour(folder: str, forbidden: set[str]) -> None:
    found = list(imported(folder))
    assert ("tests/test_imports.py", "ast") in found or folder != "tests"  # the files were read
    assert any(module.partition(".")[0] == "tools" for _, module in found)
    assert [one for one in found if one[1].partition(".")[0] in forbidden] == []
