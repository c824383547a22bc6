"""The page's modules that know no browser, tested by Node: `*.test.js` beside this file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support_tools import require_tool

HERE = Path(__file__).parent
ASSETS = HERE.parents[2] / "api" / "downloadjobs_api" / "dashboard_assets"
TESTS = sorted(HERE.glob("*.test.js"))
MODULES = sorted(ASSETS.glob("*.js"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Modules and tests together, where Node takes them for ES modules."""
    for path in (*TESTS, *MODULES):
        shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    return tmp_path


def test_modules_can_be_parsed(folder: Path) -> None:
    """Node finds no fault in the syntax of any of the page's scripts."""
    node = require_tool("node", "nodejs")
    for module in MODULES:
        ended = subprocess.run(
            [node, "--check", folder / module.name], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", [path.name for path in TESTS])
def test_modules(folder: Path, name: str) -> None:
    """Every rule in the file holds, and there is at least one."""
    node = require_tool("node", "nodejs")
    ended = subprocess.run(
        [node, "--test", "--test-reporter=tap", name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "\n# pass 0\n" not in ended.stdout


def test_each_pure_module_has_tests() -> None:
    """A module that says it is pure has a file of tests."""
    pure = {
        path.stem for path in MODULES if path.read_text(encoding="utf-8").split("\n", 1)[0].endswith("Pure.")
    }
    pure |= {"event_stream", "api", "identity"}
    assert pure == {path.name.removesuffix(".test.js") for path in TESTS}
