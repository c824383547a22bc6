"""Following a job: when it is asked, for how long, and what its end means."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from downloadjobs_cli.answers import Progress, Reply, Status
from downloadjobs_cli.deadlines import LEAST_SECONDS, Deadline
from downloadjobs_cli.errors import RefusedError, TimedOutError, TransientError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.patience import LONGEST_WAIT_SECONDS, Patience, backoff_seconds
from downloadjobs_cli.watching import Watcher, describe_end, outcome_of, poll_seconds


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def status(state: str, *, failed: int = 0, total: int = 3) -> Status:
    """A job's status."""
    return Status("j1", state, Progress(1, total), failed_files=failed)


def reply(state: str, retry_after: float | None = None) -> Reply[Status]:
    """An answer of the API."""
    return Reply(status(state), {"status": state}, retry_after)


def asking(answers: Iterable[Reply[Status] | Exception]) -> Callable[[float | None], Reply[Status]]:
    """An API that gives these answers, one after the other."""
    left = iter(answers)

    def ask(_seconds: float | None) -> Reply[Status]:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def watcher(
    answers: Iterable[Reply[Status] | Exception],
    clock: Clock,
    *,
    patience: float = 60,
    timeout: float | None = None,
    notes: list[str] | None = None,
) -> Watcher:
    """A watcher in a time of its own."""
    patient = Patience(patience, (notes if notes is not None else []).append, clock=clock, sleep=clock.sleep)
    deadline = Deadline(timeout, clock=clock)
    return Watcher(asking(answers), patient, deadline=deadline, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize(
    ("watched", "retry_after", "seconds"),
    [(0, None, 0.25), (20, None, 1.0), (1000, None, 5.0), (0, 1.0, 1.0), (1000, 1.0, 5.0), (0, 9999.0, 60.0)],
)
def test_polls_grow_rare_with_age_and_never_come_sooner_than_asked(
    watched: float, retry_after: float | None, seconds: float
) -> None:
    """A young job is asked often and an old one rarely; Retry-After is a minimum, up to a minute."""
    assert poll_seconds(watched, retry_after) == seconds


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "expired", "completed_with_errors"])
def test_watching_ends_with_the_job(state: str) -> None:
    """Every final state ends the polling; queued, processing and retrying do not."""
    clock = Clock()
    running = [reply("queued"), reply("processing", 1.0), reply("retrying")]
    seen = list(watcher([*running, reply(state)], clock).updates())
    assert [one.value.status for one in seen] == ["queued", "processing", "retrying", state]
    assert clock.slept[1] == 1.0


def test_an_api_that_restarts_is_waited_for() -> None:
    """Faults that pass within the patience are survived, and told once, with the good end."""
    clock, notes = Clock(), list[str]()
    gone = [TransientError("Nobody answers.") for _ in range(4)]
    seen = list(watcher([reply("queued"), *gone, reply("completed")], clock, notes=notes).updates())
    assert seen[-1].value.status == "completed"
    assert len(notes) == 2
    assert "Nobody answers." in notes[0]
    assert "answers again" in notes[1]


def test_patience_ends() -> None:
    """An API that stays away for longer than the patience is an error, not an endless wait."""
    clock = Clock()
    forever = (TransientError("Nobody answers.") for _ in range(1000))
    with pytest.raises(TransientError):
        list(watcher(forever, clock, patience=30).updates())
    assert 130 <= clock.now < 131


def test_patience_begins_anew_after_an_answer() -> None:
    """Only faults in a row count: two outages of most of the patience each are survived."""
    clock = Clock()
    outage = [TransientError("x") for _ in range(5)]
    seen = list(
        watcher([*outage, reply("queued"), *outage, reply("completed")], clock, patience=20).updates()
    )
    assert len(seen) == 2


def test_a_refusal_is_not_waited_for() -> None:
    """No such job, or somebody else's: the end at once."""
    clock = Clock()
    with pytest.raises(RefusedError):
        list(watcher([RefusedError("no")], clock).updates())
    assert clock.slept == []


@pytest.mark.parametrize("away", [False, True])
def test_the_time_the_user_allows_is_kept(away: bool) -> None:  # noqa: FBT001 - a table's column
    """--timeout ends the watching to the second, whether the API answers or not."""
    clock = Clock()
    answers = (TransientError("x") if away else reply("processing", 7.0) for _ in range(1000))
    with pytest.raises(TimedOutError):
        list(watcher(answers, clock, timeout=10).updates())
    assert clock.now == pytest.approx(110)


def test_a_request_may_take_what_is_left() -> None:
    """Each status is asked for within what is left of --timeout, the last one within half a second."""
    clock, given = Clock(), list[float | None]()

    def ask(seconds: float | None) -> Reply[Status]:
        given.append(seconds)
        clock.sleep(4)
        return reply("processing")

    deadline = Deadline(8.7, clock=clock)
    watcher = Watcher(ask, Patience(0, print), deadline=deadline, clock=clock, sleep=clock.sleep)
    with pytest.raises(TimedOutError, match=r"did not end within 8.7 s"):
        list(watcher.updates())
    assert given == [pytest.approx(8.7), pytest.approx(4.45), LEAST_SECONDS]


def test_an_api_that_never_answers_in_time_is_told_of() -> None:
    """If --timeout ends before the first status, the reason is said, and nothing of the job."""
    clock, notes = Clock(), list[str]()
    answers = (TransientError("Nobody answers.") for _ in range(1000))
    with pytest.raises(TimedOutError, match=r"^No status came within 2.0 s. Nobody answers.$"):
        list(watcher(answers, clock, timeout=2, notes=notes).updates())
    assert notes == ["Nobody answers.\nTrying again for 2.0 s."]


@pytest.mark.parametrize(
    ("failures", "retry_after", "fraction", "seconds"),
    [
        (1, None, 0, 0.5),
        (2, None, 0, 1.0),
        (3, None, 1, 2.5),
        (50, None, 0, LONGEST_WAIT_SECONDS),
        (1, 5, 0, 5),
    ],
)
def test_backoff_doubles_to_a_limit(
    failures: int, retry_after: float | None, fraction: float, seconds: float
) -> None:
    """Waits double up to a limit, are stretched by up to a quarter, and are never below Retry-After."""
    assert backoff_seconds(failures, retry_after, fraction) == seconds


@pytest.mark.parametrize(
    ("state", "failed", "code"),
    [
        ("completed", 0, ExitCode.DONE),
        ("completed", 1, ExitCode.FAILED),
        ("completed_with_errors", 1, ExitCode.FAILED),
        ("failed", 0, ExitCode.FAILED),
        ("cancelled", 0, ExitCode.FAILED),
        ("expired", 0, ExitCode.FAILED),
    ],
)
def test_only_a_whole_result_is_done(state: str, failed: int, code: ExitCode) -> None:
    """Exit 0 means every file; in part, failed, cancelled and expired are 1."""
    assert outcome_of(status(state, failed=failed)) is code


@pytest.mark.parametrize(
    ("last", "text"),
    [
        (status("completed"), "Completed: 3 files."),
        (status("completed", failed=1), "Completed in part: 1 of 3 files is missing"),
        (status("completed", failed=2), "2 of 3 files are missing"),
        (status("failed", failed=3), "Failed. Because."),
        (status("cancelled"), "Cancelled."),
        (status("expired"), "Submit the files again"),
    ],
)
def test_the_end_is_one_sentence(last: Status, text: str) -> None:
    """How a job ended is said in words, with the reason where there is one."""
    assert text in describe_end(last, "Because." if last.status == "failed" else "")
