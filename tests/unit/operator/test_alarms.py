"""When the next thing happens to an object by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from downloadjobs_core.job import Job
from downloadjobs_core.states import FINISHED
from downloadjobs_operator.alarms import Alarm, next_alarm
from downloadjobs_operator.downloadjob import moment_of
from downloadjobs_operator.explaining import is_held
from downloadjobs_operator.status import Surroundings, status_of
from support_operator import NOW, dj, jobs

STARTED = {"startTime": moment_of(NOW)}
FINISHED_NOW: dict[str, Any] = {
    "startTime": moment_of(NOW - 60),
    "completionTime": moment_of(NOW),
    "conditions": [{"type": "Finished", "status": "True"}],
}
SUSPENDED = STARTED | {"conditions": [{"type": "Suspended", "status": "True"}]}
LIMITED = {"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 30}


def test_a_deadline_counts_from_the_start() -> None:
    """An unfinished job is due `activeDeadlineSeconds` after its start."""
    assert next_alarm(dj(spec=LIMITED), STARTED) == (NOW + 60, Alarm.DEADLINE)


def test_a_life_counts_from_the_end() -> None:
    """A finished object is due `ttlSecondsAfterFinished` after its end, and has no deadline any more."""
    assert next_alarm(dj(spec=LIMITED), FINISHED_NOW) == (NOW + 30, Alarm.END_OF_LIFE)
    assert next_alarm(dj(spec={"activeDeadlineSeconds": 60}), FINISHED_NOW) is None


def test_a_life_of_nothing_ends_at_once() -> None:
    """A time of 0 is a time: the object goes with its end."""
    assert next_alarm(dj(spec={"ttlSecondsAfterFinished": 0}), FINISHED_NOW) == (NOW, Alarm.END_OF_LIFE)


@pytest.mark.parametrize("status", [{}, SUSPENDED, {"startTime": "soon"}, {"startTime": None}])
def test_without_a_start_there_is_no_deadline(status: dict[str, Any]) -> None:
    """What was not queued, is held, or has a start that cannot be read, has no deadline."""
    assert next_alarm(dj(spec=LIMITED), status) is None


@pytest.mark.parametrize("status", [STARTED, FINISHED_NOW])
def test_nothing_is_due_where_nothing_is_asked(status: dict[str, Any]) -> None:
    """Without limits an object waits for ever, and stays for ever."""
    assert next_alarm(dj(), status) is None


@pytest.mark.parametrize("status", [STARTED, FINISHED_NOW])
def test_nothing_is_due_for_what_goes(status: dict[str, Any]) -> None:
    """An object that somebody deleted is left to its deletion."""
    assert next_alarm(dj(spec=LIMITED, deletionTimestamp=moment_of(NOW)), status) is None


@given(jobs())
def test_the_kind_is_the_states(job: Job) -> None:
    """An unfinished job has a deadline unless it is held, and a finished one an end of life."""
    object_ = dj(spec=LIMITED)
    found = next_alarm(object_, status_of(object_, job, {}, Surroundings(), now=NOW))
    if job.state in FINISHED:
        assert found is not None
        assert found[1] is Alarm.END_OF_LIFE
    else:
        assert (found is None) == is_held(job)
