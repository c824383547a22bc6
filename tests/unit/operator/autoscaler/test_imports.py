"""The pure half of the autoscaler needs none of the operator's extra: the command line has only its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ABSENT = ("aiohttp", "falcon", "kopf", "kubernetes", "redis", "uvloop", "yaml")
"""Of the operator's and the API's extras, and what these modules must not speak with."""

MODULES = ("decision", "wording", "limits", "history", "traces", "policies", "simulation")


def loaded(program: str) -> set[str]:
    """The top modules that a program has loaded, where those above cannot be."""
    block = f"""if True:
        import json, sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {ABSENT!r}:
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Absent())
    """
    ending = "\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", block + "\n" + program + ending], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("name", MODULES)
def test_they_import_without_the_extra(name: str) -> None:
    """Each module can be imported where neither kopf, Kubernetes nor Redis' client is installed."""
    assert f"downloadjobs_operator.autoscaler.{name}" in loaded(
        f"import downloadjobs_operator.autoscaler.{name}"
    )


def test_json_limits_need_no_yaml() -> None:
    """Where PyYAML is not installed, JSON is read, and YAML is refused with a reason."""
    loaded(
        "from downloadjobs_operator.autoscaler.limits import *\n"
        "assert parse(decode('{\"max\": 3}')).max == 3\n"
        "try:\n    decode('max: 3')\n"
        "except LimitsError as error:\n    assert 'PyYAML' in str(error)\n"
        "else:\n    raise SystemExit('read')"
    )


def test_the_command_line_begins_without_the_autoscaler() -> None:
    """`downloadjobs --help` waits for none of it."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, sys, downloadjobs_cli.main; print(json.dumps(sorted(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not [name for name in json.loads(done.stdout) if name.startswith("downloadjobs_operator")]
