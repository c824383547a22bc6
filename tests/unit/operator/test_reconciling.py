"""What is due about a job: a function of the object and the record."""

from __future__ import annotations

import pytest

from downloadjobs_core.job import Job
from downloadjobs_core.states import FINISHED, JobState
from downloadjobs_operator.reconciling import Action, due
from support_operator import dj

UNFINISHED = sorted(set(JobState) - FINISHED)


def a(state: JobState, *, suspended: bool = False) -> Job:
    """A record in this state."""
    return Job(job_id="uid-of-one", user="k8s:team", state=state, suspended=suspended)


def test_what_has_no_record_is_submitted() -> None:
    """An object without a record becomes a job, held if it is to be: also after a wipe of Redis."""
    assert due(dj(), None) is Action.SUBMIT
    assert due(dj(spec={"suspend": True}), None) is Action.SUBMIT


def test_what_was_cancelled_before_never_becomes_a_job() -> None:
    """A cancelled object without a record is not submitted just to be cancelled."""
    assert due(dj(spec={"cancel": True}), None) is Action.NEVER_SUBMIT
    assert due(dj(spec={"cancel": True, "suspend": True}), None) is Action.NEVER_SUBMIT


@pytest.mark.parametrize("state", sorted(FINISHED))
@pytest.mark.parametrize("spec", [{}, {"cancel": True}, {"suspend": True}])
def test_an_end_is_an_end(state: JobState, spec: dict[str, bool]) -> None:
    """Nothing is done about a job that has ended, whatever is asked for later."""
    assert due(dj(spec=spec), a(state)) is Action.NOTHING


@pytest.mark.parametrize("state", UNFINISHED)
@pytest.mark.parametrize("suspend", [False, True])
def test_cancelling_comes_first(state: JobState, *, suspend: bool) -> None:
    """A cancelled object's job is cancelled wherever it is, held or not."""
    assert due(dj(spec={"cancel": True, "suspend": suspend}), a(state)) is Action.CANCEL


@pytest.mark.parametrize("state", UNFINISHED)
def test_holding_follows_the_spec(state: JobState) -> None:
    """What is to be held and is not is held, the reverse goes on, and where both agree nothing is done."""
    held = dj(spec={"suspend": True})
    assert due(held, a(state)) is Action.HOLD
    assert due(dj(), a(state, suspended=True)) is Action.GO_ON
    assert due(held, a(state, suspended=True)) is due(dj(), a(state)) is Action.NOTHING
