"""docs/autoscaler.md says what the code does: its tables, its example, and the table of its simulation."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import pytest

from downloadjobs_cli.main import cli, run
from downloadjobs_operator.autoscaler.decision import Limits, Memory, Pod, Reason, Snapshot, decide
from downloadjobs_operator.autoscaler.history import History, Outcome
from downloadjobs_operator.autoscaler.limits import LimitsDocument
from downloadjobs_operator.autoscaler.traces import GENERATED, read

DOCS = Path(__file__).parents[4] / "docs"
PAGE = (DOCS / "autoscaler.md").read_text(encoding="utf-8")
NOW = 1_795_510_321.25


def section(title: str) -> str:
    """A part of the page."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of its table, without the head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_names(title: str) -> list[str]:
    """What stands in ticks in the first column."""
    return [name for row in rows(title) for name in re.findall(r"`([^`]+)`", row[0])]


def block(title: str, language: str) -> str:
    """A block of code."""
    return section(title).partition(f"```{language}\n")[2].partition("```")[0]


def history() -> dict[str, Any]:
    """What the operator answers after the decision that the page shows."""
    pods = (Pod("0b9a", "downloadjobs-worker-7d9f8-x2x4k", True, False, 4, NOW - 900),)  # noqa: FBT003 - as it was
    snapshot = Snapshot(
        now=NOW,
        queued=180,
        due_retries=2,
        running=4,
        service_seconds=12.4,
        pods=pods,
        replicas=1,
        signal_age_seconds=0.012,
        next_due_at=NOW + 18,
    )
    found = History()
    found.add(decide(snapshot, Limits(max=5), Memory(last=1))[0], latency_seconds=0.041)
    return found.document()


def test_reasons_are_told() -> None:
    """Every reason, and no other."""
    assert first_names("Reasons") == [reason.value for reason in Reason]


def test_settings_are_told_with_their_defaults() -> None:
    """Every setting of the file, under its name there."""
    known = {
        field.alias or name: str(getattr(field.default, "value", field.default)).removesuffix(".0")
        for name, field in LimitsDocument.model_fields.items()
    }
    assert {row[0].strip("`"): row[1].strip("`") for row in rows("Settings")} == known


def test_worked_examples_are_right() -> None:
    """The decision gives the slots and pods that the page says."""
    for cells in rows("Worked examples"):
        queued, running, service, slots, pods = map(int, cells)
        snapshot = Snapshot(now=NOW, queued=queued, running=running, service_seconds=service)
        found, _ = decide(snapshot, Limits(max=100), Memory(last=0))
        assert (found.formula.slots, found.desired) == (slots, pods), cells


def test_the_document_is_what_the_operator_answers() -> None:
    """The example is the document of a decision, and its members are told."""
    example = json.loads(block("The document", "json"))
    assert example == history()
    told = set(first_names("The document"))
    assert told <= set(example["items"][0])
    assert set(example["items"][0]) - told == {"at", "until", "times", "direction", "reason"}


def test_outcomes_are_told() -> None:
    """The document's table has every outcome."""
    (row,) = (row for row in rows("The document") if row[0] == "`outcome`")
    assert set(re.findall(r"`([^`]+)`", row[1])) == {outcome.value for outcome in Outcome}


def test_what_explain_prints_is_shown() -> None:
    """The example of `explain` has the example's sentence."""
    (item,) = history()["items"]
    told = block("Ask it why", "console")
    assert item["message"] in told
    assert f"{item['current']} -> {item['desired']}  {item['reason']}  {item['outcome']}" in told


def test_the_table_is_what_simulate_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of the page prints the page's table, and draws the picture beside it."""
    monkeypatch.chdir(tmp_path)
    command, _, table = block("Try settings out", "console").partition("\n")
    assert run(shlex.split(command.removeprefix("$ downloadjobs "))) == 0
    assert capsys.readouterr().out == table

    def names(path: Path) -> list[str | None]:
        root = ET.parse(path).getroot()  # noqa: S314 - our own
        return [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]

    assert names(DOCS / "autoscaler-day.svg") == names(tmp_path / "day.svg")


def test_options_of_simulate_are_told() -> None:
    """Every option, and no other."""
    group = cli.commands["autoscaler"]
    assert isinstance(group, click.Group)
    known = {name for option in group.commands["simulate"].params for name in option.opts}
    assert set(first_names("Try settings out")) == known - {"trace"}


def test_traces_are_told() -> None:
    """The example is a trace, its columns are told, and so are those that are made up."""
    trace = read(block("Traces", "csv").splitlines(), "example")
    assert (len(trace.arrivals), trace.seconds) == (302, 3_600)
    assert first_names("Traces") == ["seconds", "count", "service_seconds", "size"]
    for name in GENERATED:
        assert f"`{name}` (" in section("Traces")
