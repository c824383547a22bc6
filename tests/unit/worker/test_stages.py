"""What an attempt tells of itself, and how often."""

from __future__ import annotations

from downloadjobs_worker.stages import PLANNING, StageLog


def test_each_stage_is_told_once() -> None:
    """After a call was answered, only what came since is told; files go on from their index."""
    now = 100.0
    log = StageLog(lambda: now)
    now = 101.0
    log.ended(PLANNING, 0, 3)
    now = 102.5
    at = log.file_done(log.now_ms() - 500, 7, "")
    told = log.unwritten()
    assert told.text == "planning 0 1000 3\nfiles 0 2000 0,500,7"
    log.written(told)
    assert not log.unwritten().text
    now = 103.0
    log.file_done(at, 0, "not-found")
    assert log.unwritten().text == "files 1 2500 0,500,0,not-found"


def test_what_was_not_answered_is_told_again() -> None:
    """A call that failed takes nothing with it."""
    log = StageLog(lambda: 0.0)
    log.file_done(0, 1, "")
    log.unwritten()
    log.file_done(0, 2, "")
    assert log.unwritten().text == "files 0 0 0,0,1;0,0,2"
