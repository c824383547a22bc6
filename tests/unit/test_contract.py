"""Every row of docs/contract.md has tests that name it, and the table lists them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

TABLE = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")


def marked() -> dict[str, set[tuple[str, str]]]:
    """By row, the files and names of the tests that name it, without the `test_` before."""
    found = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            test = (str(path.relative_to(ROOT)), node.name.removeprefix("test_"))
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.contract":
                    for row in mark.args:
                        found[ast.literal_eval(row)].add(test)
    return dict(found)


def listed() -> dict[str, set[tuple[str, str]]]:
    """The same as the table has it."""
    rows = re.findall(r"^\| `([a-z-]+)` \| .* \| (.*) \|$", TABLE, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a row stands twice"
    links = re.compile(r"\[(\w+)\]\(\.\./([^)]+)\)")
    return {row: {(file, name) for name, file in links.findall(cell)} for row, cell in rows}


def test_every_row_has_its_tests() -> None:
    """The table and the marks agree, and no row is without a test."""
    assert listed() == marked()
    assert all(listed().values())
