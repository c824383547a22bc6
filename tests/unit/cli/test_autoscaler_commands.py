"""`autoscaler explain` and `autoscaler simulate`, as a person or a script calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

from downloadjobs_cli.main import run
from downloadjobs_cli.options import Options
from downloadjobs_operator.autoscaler.decision import Limits, Memory, Snapshot, decide
from downloadjobs_operator.autoscaler.history import History, Outcome

NOW = 1_795_510_321.25
SENTENCE = (
    "Scaling from 0 to 5 pods: 0 running and 1,000 waiting (1,000 queued; 1 s each, to be worked off in 60 s)"
    " take 17 slots, 5 pods of 4."
)


def operator(answer: httpx.Response | Exception) -> Options:
    """An operator that answers so."""

    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/autoscaler"
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Options(transport=httpx.MockTransport(handle))


def history() -> dict[str, Any]:
    """Two decisions, of which the second failed."""
    found, memory = History(), Memory(last=0)
    for second in range(3):
        found.add(decide(Snapshot(now=NOW + second), Limits(), memory)[0])
    burst = Snapshot(now=NOW + 9, queued=1_000, service_seconds=1)
    found.add(decide(burst, Limits(), memory)[0], Outcome.FAILED, error="The API server is away.")
    return found.document()


def test_explain_tells_the_newest_first(capsys: pytest.CaptureFixture[str]) -> None:
    """When, from what to what, why, what became of it, and the numbers in a sentence."""
    assert run(["autoscaler", "explain"], operator(httpx.Response(200, json=history()))) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-11-24 08:52:10Z              0 -> 5  Demand  Failed",
        f"    {SENTENCE}",
        "    The API server is away.",
        "2026-11-24 08:52:01Z - 08:52:03Z  0       Idle    Unchanged  3 times",
        "    Keeping 0 pods: nothing waits and nothing runs.",
    ]


def test_explain_gives_scripts_the_operators_document(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json it is the answer, with as many items as were asked for."""
    answer = httpx.Response(200, json=history())
    assert run(["autoscaler", "explain", "--limit", "1", "--json"], operator(answer)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"items": history()["items"][:1], "nextCursor": None}


def test_explain_with_nothing_to_tell(capsys: pytest.CaptureFixture[str]) -> None:
    """An operator that has not decided yet is no fault."""
    assert run(["autoscaler", "explain"], operator(httpx.Response(200, json={"items": []}))) == 0
    assert capsys.readouterr().out == "Nothing has been decided yet.\n"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), 3, "(Connection refused). Forward its port"),
        (httpx.Response(503), 3, "another leads"),
        (httpx.Response(404), 4, "has no autoscaler"),
        (httpx.Response(500), 1, "answered 500"),
        (httpx.Response(200, text="<html>"), 1, "is no operator"),
        (httpx.Response(200, json=[]), 1, "is no operator"),
        (httpx.Response(200, json={"items": [{}]}), 1, "is no operator"),
    ],
)
def test_explain_says_why_it_cannot(
    answer: httpx.Response | Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fault has its exit code, and a sentence that says what to do."""
    assert run(["autoscaler", "explain", "--operator", "op.test:8080"], operator(answer)) == code
    assert words in capsys.readouterr().err


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A hundred jobs at once after a minute, and one an hour later."""
    path = tmp_path / "trace.csv"
    path.write_text("seconds,count,service_seconds\n60,100,6\n3660,1,6\n")
    return path


def test_simulate_prints_a_table(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for the autoscaler, and one for each that it is compared with."""
    arguments = ["autoscaler", "simulate", str(trace), "--against", "keda", "--against", "fixed:2"]
    assert run(arguments) == 0
    first, blank, header, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("trace.csv: 101 jobs in 1 h 01 min; min 0, max 10, concurrency 4, ")
    assert blank == ""
    assert header.split()[:2] == ["POD-HOURS", "MOST"]
    assert [row.split("  ")[0] for row in rows] == ["downloadjobs", "KEDA", "2 pods"]


def test_simulate_for_scripts(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the same figures, with the settings of file, --set and --pod-start in this order."""
    limits = tmp_path / "limits.json"
    limits.write_text('{"max": 3, "cooldownSeconds": 60, "podStartSeconds": 9}')
    arguments = ["autoscaler", "simulate", str(trace), "--limits", str(limits), "--set", "max=7", "--json"]
    assert run([*arguments, "--pod-start", "2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["trace"] == {"name": "trace.csv", "jobs": 101, "seconds": 3660}
    assert printed["limits"] == {
        "min": 0, "max": 7, "concurrency": 4, "targetWaitSeconds": 60, "cooldownSeconds": 60,
        "podStartSeconds": 2,
    }  # fmt: skip
    (report,) = printed["items"]
    assert (report["jobs"], report["busyKills"], report["maxQueue"]) == (101, 0, 100)
    assert report["maxPods"] <= 7


@pytest.mark.parametrize("name", ["day", "burst", "night"])
def test_simulate_makes_traces_up(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name instead of a file; the seed decides."""
    told = []
    for seed in ("1", "1", "2"):
        assert run(["autoscaler", "simulate", name, "--seed", seed]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] != told[2]


def test_simulate_draws(trace: Path, tmp_path: Path) -> None:
    """The picture is XML with three lines for each policy, and has their names."""
    picture = tmp_path / "out.svg"
    arguments = ["autoscaler", "simulate", str(trace), "--against", "keda", "--picture", str(picture)]
    assert run(arguments) == 0
    root = ET.fromstring(picture.read_text(encoding="utf-8"))  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    lines = [path for path in root.iter(f"{space}path") if path.get("fill") == "none"]
    texts = {text.text for text in root.iter(f"{space}text")}
    assert len(lines) == 6
    assert {"trace.csv", "downloadjobs", "KEDA", "pods", "jobs in the queue", "60 min"} <= texts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["nowhere.csv"],
            "nowhere.csv cannot be read: No such file or directory. Name a CSV file, or a trace",
        ),
        (["day", "--set", "max"], "--set wants NAME=VALUE"),
        (["day", "--set", "max=many"], "max: Input should be a valid integer (it is 'many')"),
        (["day", "--set", "pods=3"], "pods: there is no such setting"),
        (["day", "--against", "hpa"], "--against wants keda, keda-1s or fixed:N"),
        (["day", "--against", "fixed:"], "--against wants"),
        (["day", "--picture", "/nowhere/out.svg"], "/nowhere/out.svg cannot be written"),
        (["day", "--against", "fixed:0"], "0 pods: 19,339 jobs never end; 19,339 of them wait"),
        (["day", "--limits", "nowhere.json"], "nowhere.json"),
        ([], "Missing argument 'TRACE'"),
    ],
)
def test_simulate_says_what_is_wrong(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what to change."""
    assert run(["autoscaler", "simulate", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_simulate_names_the_line_of_a_bad_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with a file is told with its line; so is one that is no text."""
    path = tmp_path / "trace.csv"
    path.write_text("seconds\nsoon\n")
    assert run(["autoscaler", "simulate", str(path)]) == 2
    assert "trace.csv, line 2: seconds must be a number" in capsys.readouterr().err
    path.write_bytes(b"seconds\n\xff\n")
    assert run(["autoscaler", "simulate", str(path)]) == 2
    assert "it is no UTF-8" in capsys.readouterr().err


def test_a_wrong_settings_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of the file names the file, even where --set would mend it."""
    limits = tmp_path / "limits.json"
    limits.write_text('{"max": 0}')
    assert run(["autoscaler", "simulate", "day", "--limits", str(limits), "--set", "max=3"]) == 2
    assert f"{limits}: max: " in capsys.readouterr().err
