"""`Prefer: wait=N` (RFC 7240, 4.3) on a job's status: the answer waits for news. `docs/following-jobs.md`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from downloadjobs_api.downloads import Downloads
from downloadjobs_api.event_documents import LAST_KINDS
from downloadjobs_api.live import Live, Subscription
from downloadjobs_api.metrics import Follower
from downloadjobs_api.request_context import Request
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_core.jobstore import JobStatus
from downloadjobs_core.states import FINISHED

_WAIT: Final = re.compile(r'wait\s*=\s*(?:"(\d{1,9})"|(\d{1,9}))\s*(?:;.*)?', re.IGNORECASE)


def wanted_wait(prefer: str) -> int | None:
    """The seconds that a Prefer header is ready to wait; None if it says nothing of that.

    The first `wait` counts (RFC 7240, 2); one that is no number of seconds is as none.
    """
    for preference in prefer.split(","):
        if preference.partition("=")[0].partition(";")[0].strip().lower() == "wait":
            found = _WAIT.fullmatch(preference.strip())
            return int(found[1] or found[2]) if found is not None else None
    return None


class Waiting:
    """Holds requests until their job has changed.

    Args:
        downloads: reads the status.
        live: says when it has changed; nobody asks Redis meanwhile.
        admit: ends a request that is over the rate limit, before it is held.
        longest: seconds that a request may be held.
        most: requests that may be held at once; more are answered at once, as if they had not asked.
        most_of_a_user: of them, those of one user.
    """

    def __init__(
        self,
        downloads: Downloads,
        live: Live,
        admit: Callable[[Request], Awaitable[None]],
        *,
        longest: float,
        most: int,
        most_of_a_user: int,
    ) -> None:
        self._downloads = downloads
        self._admit = admit
        self._live = live
        self._longest = longest
        self._most = most
        self._most_of_a_user = most_of_a_user

    async def status(
        self,
        req: Request,
        user: str,
        job_id: str,
        *,
        seconds: int,
        is_news: Callable[[JobStatus], bool] | None,
    ) -> tuple[JobStatus, int | None]:
        """A job's status, as soon as it is news, or when the time is over, or the user's token.

        Args:
            req: whose client may go away meanwhile.
            user: who asks.
            job_id: the job.
            seconds: the longest wait that the client wants.
            is_news: whether a status is what the client waits for; None if that is the job's end.

        Returns:
            the status, and the longest wait it was given, or None if it was not held because too many are.

        Raises:
            JobNotFoundError, NotOwnerError, QueueUnavailableError
            ProblemError: 429.
        """
        await self._admit(req)
        req.patient = True
        read = partial(self._downloads.status, user, job_id)
        status = await read()  # the user is checked before anything is kept
        wait = min(float(seconds), self._longest, max(0.0, req.until - time.time()))
        if self._is_full(user):
            return status, None
        if (is_news or _has_ended)(status) or wait <= 0:
            return status, int(wait)
        end = time.monotonic() + wait
        try:
            subscription = await self._live.subscribe(Follower.WAIT, user, job_id)
        except QueueUnavailableError:
            return status, None
        with self._held(req, subscription):
            status = await _next_status(subscription, read, end=end, is_news=is_news)
        return status, int(wait)

    @contextmanager
    def _held(self, req: Request, subscription: Subscription) -> Iterator[None]:
        """Hold a request, for as long as its client is there, and note for how long."""
        began = time.monotonic()
        watching = asyncio.create_task(subscription.close_after(req.gone()))
        try:
            yield
        finally:
            watching.cancel()
            self._live.leave(subscription)
            req.held_seconds = time.monotonic() - began

    def _is_full(self, user: str) -> bool:
        if self._live.counts[Follower.WAIT] >= self._most:
            return True
        return self._live.waits_of(user) >= self._most_of_a_user


def _has_ended(status: JobStatus) -> bool:
    return status.state in FINISHED


async def _next_status(
    subscription: Subscription,
    read: Callable[[], Awaitable[JobStatus]],
    *,
    end: float,
    is_news: Callable[[JobStatus], bool] | None,
) -> JobStatus:
    """The first status that is what is waited for, or how things are when the time or the subscription ends.

    Args:
        subscription: says when to look again.
        read: gives the status as it is.
        end: of the time, as `time.monotonic` tells it.
        is_news: see `Waiting.status`.
    """
    enough = is_news or _has_ended
    status = await read()
    while not enough(status):
        left = end - time.monotonic()
        if left <= 0 or subscription.closed or not await subscription.wait(left):
            break
        behind = subscription.behind
        heard = subscription.take()
        if is_news or behind or any(e.event.kind in LAST_KINDS for e in heard):
            status = await read()
    if is_news is None and not enough(status) and not subscription.closed:
        with suppress(QueueUnavailableError):  # progress was not looked at while it waited for the end
            status = await read()
    return status
