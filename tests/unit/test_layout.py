"""The layout's own rules, which no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from downloadjobs_core import __version__

ROOT = Path(__file__).parents[2]
FOLDERS = ("api", "cli", "core", "operator", "worker")
LUA = ROOT / "core" / "downloadjobs_core" / "lua"
SCRIPTS = sorted(LUA.glob("*.lua"))
FRAGMENTS = sorted(LUA.glob("*/**/*.lua"))


def header(script: Path) -> list[str]:
    """The comment that a script begins with, line by line."""
    lines = []
    for line in script.read_text(encoding="utf-8").splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return lines


def test_operator_folder_holds_no_python_file_of_its_own() -> None:
    """`operator/` holds no .py file beside its package: at the root it would shadow Python's operator."""
    assert list((ROOT / "operator").glob("*.py*")) == []


def test_operator_is_pythons_own_at_the_root() -> None:
    """With the root first on sys.path, as `python -m` puts it, `import operator` is still Python's own."""
    code = "import collections, operator; print(operator.__file__)"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    found = subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    assert not Path(found).is_relative_to(ROOT / "operator")


def test_tests_are_no_packages() -> None:
    """No folder of tests has an __init__.py: pytest imports test files by path."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_holds_its_one_package(folder: str) -> None:
    """Each of the five folders holds one package, named for it and typed."""
    packages = {path.parent for path in (ROOT / folder).glob("*/*.py")}
    package = ROOT / folder / f"downloadjobs_{folder}"
    assert packages == {package}
    assert (package / "__init__.py").is_file()
    assert (package / "py.typed").is_file()


def test_every_package_is_shipped_and_checked() -> None:
    """The wheel, the editable install and mypy know the same five packages."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    packages = {f"{folder}/downloadjobs_{folder}" for folder in FOLDERS}
    assert set(tool["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages
    assert set(tool["hatch"]["build"]["dev-mode-dirs"]) == set(FOLDERS)
    assert set(tool["mypy"]["files"]) >= packages


def test_installed_version_is_the_packages() -> None:
    """The distribution's version is the one in downloadjobs_core."""
    assert version("downloadjobs") == __version__


def test_there_are_lua_scripts() -> None:
    """The two tests below look at something."""
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_lua_script_says_its_keys_arguments_and_reply(script: Path) -> None:
    """Each Lua script begins with what it does, and then lists KEYS, ARGV and Reply."""
    lines = header(script)
    assert lines
    assert not lines[0].startswith(("KEYS", "ARGV", "Reply"))
    for part in (r"KEYS(\[\d+\]| +none)", r"ARGV(\[\d+|\[\.\.\.\]| +none)", r"Reply "):
        assert any(re.match(part, line) for line in lines), f"{script.name}: no line for {part} in its header"


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.name)
def test_lua_fragment_says_what_it_is_for(fragment: Path) -> None:
    """What stands before or inside scripts has a header as well."""
    assert header(fragment)
