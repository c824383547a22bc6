"""The table of transitions."""

import pytest

from downloadjobs_core.states import FINISHED, TRANSITIONS, WITH_RESULT, JobState, can_move

UNFINISHED = set(JobState) - FINISHED


def test_every_state_has_a_row() -> None:
    """The table says for each state where a job may go from it."""
    assert set(TRANSITIONS) == set(JobState)


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_unfinished_jobs_can_be_cancelled(state: JobState) -> None:
    """Any unfinished job may be cancelled."""
    assert can_move(state, JobState.CANCELLED)


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_finished_jobs_cannot_be_cancelled(state: JobState) -> None:
    """A finished job stays what it is when somebody cancels it."""
    assert not can_move(state, JobState.CANCELLED)


@pytest.mark.parametrize("state", sorted(JobState))
def test_only_jobs_with_a_result_expire(state: JobState) -> None:
    """A job expires only if it had a result."""
    assert can_move(state, JobState.EXPIRED) == (state in WITH_RESULT)


def test_a_dead_letter_can_be_tried_again() -> None:
    """A failed job may go back to the queue by hand."""
    assert can_move(JobState.FAILED, JobState.QUEUED)


@pytest.mark.parametrize("state", sorted(JobState))
def test_no_state_leads_to_itself(state: JobState) -> None:
    """A job never moves to the state it is in: that would be a second outcome."""
    assert not can_move(state, state)


def test_every_unfinished_state_reaches_an_end() -> None:
    """From each unfinished state some way leads to a finished one."""
    for state in UNFINISHED:
        reached, frontier = set[JobState](), {state}
        while frontier:
            reached |= frontier
            frontier = {to for at in frontier for to in TRANSITIONS[at]} - reached
        assert reached & FINISHED
