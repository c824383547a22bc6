"""`dead drop` and `dead retry` of several jobs, of which the queue does only some."""

from __future__ import annotations

import json

import pytest

from downloadjobs_cli.main import run
from downloadjobs_core.errors import QueueUnavailableError


class Letters:
    """Dead letters in a queue that goes away after so many calls, and Ctrl-C at the job `interrupt`."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._dead = {"j1", "j2", "j3"}

    def drop(self, job_id: str) -> bool:
        if job_id == "interrupt":
            raise KeyboardInterrupt
        if not self._calls:
            raise QueueUnavailableError("Redis cannot be reached.")
        self._calls -= 1
        found = job_id in self._dead
        self._dead.discard(job_id)
        return found

    retry = drop


@pytest.fixture(params=["drop", "retry"])
def act(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A command whose queue goes away after two calls."""
    monkeypatch.setattr("downloadjobs_cli.dead_commands.connect", lambda: Letters(2))
    return str(request.param)


def test_what_is_done_is_told_though_the_next_fails(act: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each job is told as soon as it is done, and the error names those that are left."""
    assert run(["dead", act, "j1", "unknown", "j2", "j3"]) == 3
    captured = capsys.readouterr()
    done = "forgotten" if act == "drop" else "queued again"
    assert captured.out == f"j1  {done}\nunknown  is no dead letter\n"
    assert captured.err.endswith("Run it again with the others: j2 j3\n")


@pytest.mark.parametrize(("last", "code"), [("j2", 3), ("interrupt", 130)])
def test_scripts_get_what_is_done_too(
    act: str, capsys: pytest.CaptureFixture[str], last: str, code: int
) -> None:
    """With --json the document comes before the error, whatever ends the command in the middle."""
    assert run(["dead", act, "j1", "unknown", last, "--json"]) == code
    captured = capsys.readouterr()
    key = "dropped" if act == "drop" else "retried"
    assert json.loads(captured.out) == {key: ["j1"], "notDead": ["unknown"]}
    assert "error" in json.loads(captured.err)


def test_a_job_that_is_named_twice_is_acted_on_once(act: str) -> None:
    """Its second mention does not make it one that was no dead letter."""
    assert run(["dead", act, "j1", "j1"]) == 0
