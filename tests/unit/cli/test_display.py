"""What is printed while a job runs."""

from __future__ import annotations

import json

import pytest

from downloadjobs_cli.answers import Progress, Reply, Status
from downloadjobs_cli.bars import JobBar
from downloadjobs_cli.display import JsonLines, Lines, Rate, describe
from downloadjobs_cli.output import Output, aligned, amount, counted, duration, harmless, styled


def reply(state: str, done: int, count: int = 0, total: int = 0) -> Reply[Status]:
    """An answer for a job of 40 files."""
    value = Status("j1", state, Progress(done, 40, count, total))
    return Reply(value, {"status": state, "done": done})


def test_lines_come_on_change_and_not_too_often(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe: a line only if something changed, at most every two seconds, and always at the end."""
    times = iter([0.0, 2.5, 5.0, 6.0, 7.5, 7.6])
    lines = Lines(stderr=False, clock=lambda: next(times))
    for state, done in (
        ("queued", 0),
        ("queued", 0),
        ("processing", 1),
        ("processing", 2),
        ("processing", 3),
        ("completed", 40),
    ):
        lines.update(reply(state, done))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed] == [
        ["queued", "0/40", "files"],
        ["processing", "1/40", "files"],
        ["processing", "3/40", "files"],
        ["completed", "40/40", "files"],
    ]


def test_json_lines_are_the_apis_documents(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json each changed answer is printed as it came, one on a line."""
    lines = JsonLines(Output(as_json=True))
    for answer in (reply("queued", 0), reply("queued", 0), reply("completed", 40)):
        lines.update(answer)
    lines.note("for people only")
    captured = capsys.readouterr()
    assert [json.loads(line)["status"] for line in captured.out.splitlines()] == ["queued", "completed"]
    assert captured.err == ""


def test_a_bar_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """In what is drawn and noted at a terminal they are replaced, and no emoji is made of its words."""
    with JobBar(stderr=False) as bar:
        bar.update(reply("\x1b[2K\x9b1m", 1))
        bar.note("a\x1b]0;pwned\x07 :warning:")
    out = capsys.readouterr().out
    assert "�[2K�1m" in out
    assert "a�]0;pwned� :warning:" in out
    assert set("\x1b\x07\x9b").isdisjoint(out)


@pytest.mark.parametrize(
    ("name", "value", "coloured"),
    [("TERM", "xterm", True), ("TERM", "dumb", False), ("NO_COLOR", "1", False), ("NO_COLOR", "", True)],
)
def test_colours_are_for_who_wants_them(
    monkeypatch: pytest.MonkeyPatch, *, name: str, value: str, coloured: bool
) -> None:
    """With NO_COLOR, and at a terminal that is dumb, a text stays plain."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    assert (styled("error:", fg="red") != "error:") is coloured


def test_ends_of_lines_and_tabs_are_harmless() -> None:
    """All other control characters are replaced: C0, DEL and C1."""
    assert harmless("a\tb\nc\r\nd – é") == "a\tb\nc\nd – é"
    controls = "".join(map(chr, [*range(9), *range(11, 32), *range(0x7F, 0xA0)]))
    assert set(harmless(controls)) == {"�"}


def test_what_is_unknown_is_left_out() -> None:
    """Bytes are shown once the API knows them, a rate only while the job runs."""
    assert describe(reply("queued", 0).value, None) == "0/40 files"
    running = reply("processing", 3, 1_500_000, 40_000_000).value
    assert describe(running, 2e6) == "3/40 files  1.5 MB of 40.0 MB  2.0 MB/s"
    assert "/s" not in describe(reply("completed", 40, 1, 1).value, 2e6)


def test_rate_is_the_mean_of_the_last_seconds() -> None:
    """The rate looks back over its window only, and begins anew when a new attempt starts at zero."""
    rate = Rate(window=10)
    assert rate.add(0, 0) is None
    assert rate.add(10, 1000) == 100.0
    assert rate.add(20, 11_000) == 1000.0
    assert rate.add(21, 0) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (46_200_000, "46.2 MB"),
        (5e9, "5.0 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_amounts_are_decimal(count: float, text: str) -> None:
    """Bytes are shown in decimal units."""
    assert amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (185, "3 min 05 s"),
        (600, "10 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    """A time span has the unit a person would choose."""
    assert duration(seconds) == text


def test_nouns_agree_with_their_number() -> None:
    """One file, two files, thousands with a comma."""
    assert [counted(number, "file") for number in (1, 2, 1000)] == ["1 file", "2 files", "1,000 files"]


def test_columns_stand_under_each_other() -> None:
    """Cells are padded to their column; no line ends in blanks."""
    assert aligned([("A", "SIZE"), ("long", "1"), ("x", "")], right=(1,)) == ["A     SIZE", "long     1", "x"]
