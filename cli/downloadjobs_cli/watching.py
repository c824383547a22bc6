"""Follows a job to its end by its status: asked for when an event says so, or else by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from downloadjobs_cli.answers import FAILED, Reply, Status
from downloadjobs_cli.deadlines import Deadline, in_time
from downloadjobs_cli.errors import TimedOutError, TransientError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.nudging import Nudges
from downloadjobs_cli.output import counted
from downloadjobs_cli.patience import LONGEST_ASKED_SECONDS, NEVER, Patience

FIRST_POLL_SECONDS: Final = 0.25
LONGEST_POLL_SECONDS: Final = 5.0
POLLS_PER_AGE: Final = 20
"""A job that has been watched for t seconds is asked for every t/20: news is at most 5 % of its age late."""


def poll_seconds(watched: float, retry_after: float | None) -> float:
    """How long to wait for the next poll.

    Args:
        watched: seconds since the first poll.
        retry_after: what the API asked for in its last answer; never polled sooner.
    """
    own = min(max(watched / POLLS_PER_AGE, FIRST_POLL_SECONDS), LONGEST_POLL_SECONDS)
    return max(own, min(retry_after or 0.0, LONGEST_ASKED_SECONDS))


def outcome_of(status: Status) -> ExitCode:
    """The exit code that a job's last status stands for."""
    return ExitCode.DONE if status.whole else ExitCode.FAILED


def describe_end(status: Status, reason: str = "") -> str:
    """One sentence on how a job ended.

    Args:
        status: the job's last status.
        reason: why there is no result, in the API's words, where it told.
    """
    total = status.progress.total
    if status.whole:
        return f"Completed: {counted(total, 'file')}."
    if status.failed_files and status.status != FAILED:
        failed = status.failed_files
        verb = "is" if failed == 1 else "are"
        return (
            f"Completed in part: {failed:,} of {counted(total, 'file')} {verb} missing;"
            " manifest.json in the zip says which."
        )
    if status.status == "expired":
        return "Expired: its result was removed. Submit the files again."
    return f"{status.status.capitalize()}. {reason}".rstrip()


class Watcher:
    """Polls one job.

    Args:
        ask: gets the job's status, within the seconds it is given; None for as long as it takes.
        patience: what to do while the API does not answer.
        deadline: at which watching ends, whatever the job does.
        nudges: say when to ask; while they can, the clock is only the net.
        clock: monotonic seconds.
        sleep: waits.
    """

    def __init__(
        self,
        ask: Callable[[float | None], Reply[Status]],
        patience: Patience,
        *,
        deadline: Deadline = NEVER,
        nudges: Nudges | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ask = ask
        self._patience = patience
        self._deadline = deadline
        self._nudges = nudges
        self._clock = clock
        self._sleep = sleep

    def updates(self) -> Iterator[Reply[Status]]:
        """Every answer, the last one of an ended job.

        Raises:
            TimedOutError: the time is over before the job is.
            TransientError: the API did not answer for longer than the patience.
            RefusedError: there is no such job, or it is somebody else's.
        """
        began = self._clock()
        with in_time(self._deadline):
            reply = self._answer()
        while True:
            yield reply
            if reply.value.ended:
                return
            if self._deadline.over:
                raise self._timed_out()
            nudged = self._nudges is not None and self._nudges.open
            wait = LONGEST_POLL_SECONDS if nudged else poll_seconds(self._clock() - began, reply.retry_after)
            if (left := self._deadline.left) is not None:
                wait = min(wait, left)
            if self._nudges is not None:
                self._nudges.wait(wait)
            else:
                self._sleep(wait)
            try:
                reply = self._answer()
            except TransientError as error:
                if self._deadline.over:
                    raise self._timed_out() from error
                raise

    def _answer(self) -> Reply[Status]:
        return self._patience.call(lambda: self._ask(self._deadline.request_seconds), self._deadline)

    def _timed_out(self) -> TimedOutError:
        return TimedOutError(
            f"The job did not end within {self._deadline.span}. It goes on; watch it again to see its end."
        )
