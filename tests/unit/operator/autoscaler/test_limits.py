"""The settings' file: what it may hold, and what becomes of a change."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from downloadjobs_operator.autoscaler.decision import Limits, Mode
from downloadjobs_operator.autoscaler.limits import LimitsError, LimitsFile, decode, parse


def test_all_may_be_left_out() -> None:
    """An empty file, and an empty object, give the defaults."""
    assert parse(decode("")) == parse(decode("{}")) == Limits()


AS_JSON = """{
  "mode": "Recommend", "min": 1, "max": 20, "concurrency": 8, "targetWaitSeconds": 30, "cooldownSeconds": 0,
  "staleSeconds": 9, "podStartSeconds": 12.5
}"""
AS_YAML = """
mode: Recommend
min: 1
max: 20
concurrency: 8
targetWaitSeconds: 30
cooldownSeconds: 0
staleSeconds: 9  # seconds
podStartSeconds: 12.5
"""


@pytest.mark.parametrize("text", [AS_JSON, AS_YAML], ids=["json", "yaml"])
def test_json_and_yaml_say_the_same(text: str) -> None:
    """Both are read, whatever the file is called."""
    assert parse(decode(text)) == Limits(1, 20, 8, 30, 0, 9, 12.5, Mode.RECOMMEND)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"min": 5, "max": 2}, ["min must not be above max", "5 and 2"]),
        (
            {"max": 0, "min": -1, "speed": 9},
            ["max: ", "min: ", "speed: there is no such setting", "podStart"],
        ),
        ({"max": "10"}, ["max: ", "'10'"]),
        ({"cooldownSeconds": float("nan")}, ["cooldownSeconds: "]),
        ({"mode": "off"}, ["mode: ", "'Scale' or 'Recommend'"]),
        ({"min": True}, ["min: "]),
        ({1: 2}, ["1"]),
        ([], ["must be an object"]),
        ("max", ["must be an object"]),
    ],
)
def test_every_fault_is_named(document: object, words: list[str]) -> None:
    """The error has the file, and each wrong setting by its name in the file."""
    with pytest.raises(LimitsError) as refused:
        parse(document, "limits.json")
    assert str(refused.value).startswith("limits.json: ")
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("text", ["{", "a: b: c", "\t- x"])
def test_what_cannot_be_read_is_an_error(text: str) -> None:
    """Neither JSON nor YAML is no document."""
    with pytest.raises(LimitsError):
        decode(text)


class Mounted:
    """A ConfigMap as Kubernetes mounts it: the file is a link through `..data`, which is turned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.turns = 0
        self.path = folder / "limits.json"
        self.path.symlink_to("..data/limits.json")

    def put(self, text: str) -> None:
        """Turn the link to a new folder, whose file has the time of the old one."""
        self.turns += 1
        version = self.folder / f"..version{self.turns}"
        version.mkdir()
        (version / "limits.json").write_text(text)
        os.utime(version / "limits.json", (1, 1))
        (self.folder / "..new").symlink_to(version.name)
        (self.folder / "..new").replace(self.folder / "..data")


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    """A mounted file with a maximum of 3."""
    found = Mounted(tmp_path)
    found.put('{"max": 3}')
    return found


def test_a_change_is_seen(mounted: Mounted) -> None:
    """A turned link is noticed, even with the same size and time; the same content is no change."""
    file = LimitsFile(mounted.path)
    assert (file.limits.max, file.look()) == (3, False)
    mounted.put('{"max": 4}')
    assert (file.look(), file.limits.max, file.look()) == (True, 4, False)
    mounted.put('{ "max": 4 }')
    assert not file.look()


def test_a_wrong_file_changes_nothing_and_is_told_once(
    mounted: Mounted, caplog: pytest.LogCaptureFixture
) -> None:
    """The last good limits stay, the fault is told once, and it is over when the file is good again."""
    file = LimitsFile(mounted.path)
    told: list[Any] = []
    with caplog.at_level(logging.INFO):
        for text in ('{"max": -1}', '{"max": -1}', "{", '{"max": 3}', '{"max": 5}'):
            mounted.put(text)
            changed = file.look() or file.look()
            told.append((changed, file.limits.max, file.fault is not None))
    assert told == [
        (False, 3, True), (False, 3, True), (False, 3, True), (False, 3, False), (True, 5, False),
    ]  # fmt: skip


def test_a_file_that_goes_and_comes_back(mounted: Mounted) -> None:
    """A file that is missing for a while changes nothing, and its return ends the fault."""
    file = LimitsFile(mounted.path)
    (mounted.folder / "..data").unlink()
    assert not file.look()
    assert "No such file" in (file.fault or "")
    mounted.put('{"max": 3}')
    assert not file.look()
    assert file.fault is None


def test_the_first_file_must_be_good(tmp_path: Path) -> None:
    """There are no good limits to keep at the beginning: a missing or wrong file is an error."""
    path = tmp_path / "limits.json"
    with pytest.raises(LimitsError, match=r"limits\.json: No such file"):
        LimitsFile(path)
    path.write_bytes(b"\xff")
    with pytest.raises(LimitsError, match="UTF-8"):
        LimitsFile(path)
    path.write_text(json.dumps({"max": 2}))
    assert LimitsFile(path).limits == Limits(max=2)
