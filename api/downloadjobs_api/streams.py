"""`/v1/jobs/{id}/events` and `/v1/events`: Server-Sent Events. `docs/events.md` shows them.

A stream is told what its client missed, or how things are, and then each change. Both are read again for a
client that has fallen behind. What is sent waits in the socket's buffer only as far as that goes: then the
writing waits for the client, and events wait in the subscription.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

import falcon
import falcon.asgi

from downloadjobs_api import problems
from downloadjobs_api.event_documents import COMMENT, LAST_KINDS, retry_chunk
from downloadjobs_api.following import CaughtUp, Following
from downloadjobs_api.identity import Identity
from downloadjobs_api.live import Live, Subscription
from downloadjobs_api.metrics import Follower
from downloadjobs_api.problems import ProblemError
from downloadjobs_api.request_context import Request
from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError, JobNotFoundError, NotOwnerError
from downloadjobs_core.event_stream import position_of

EVENT_STREAM: Final = "text/event-stream"

CACHE_CONTROL: Final = "no-store, no-transform"
"""A proxy that compresses would hold events back until more come (RFC 9111, 5.2.2.6)."""

COMMENT_SECONDS: Final = 15.0
"""Proxies close what is silent for 30 to 60 s."""

RETRY_MS: Final = 2_000
"""What a client waits before it comes back, on the average; spread, so that not all come at once."""

MOST_SECONDS: Final = 86_400.0
"""A stream is not ended later than this by its token: a timer takes no number that a token may hold."""

AGAIN_SECONDS: Final = 1.0
"""Between two tries to read what a client must be told."""

CatchUp = Callable[[str | None], Awaitable[CaughtUp]]
"""Reads what a client must be told who knows the events up to this one."""

log = logs.logger(__name__)


class EventBody:
    """The body of one stream, part by part; Falcon closes it, however it ends.

    Args:
        live: whose subscription it is.
        subscription: what comes.
        first: what the client is told first.
        catch_up: reads what it missed.
        gone: returns when it has gone.
        until: when its user's token ends, and so the stream, as `time.time` tells it.
    """

    def __init__(
        self,
        live: Live,
        subscription: Subscription,
        first: CaughtUp,
        catch_up: CatchUp,
        gone: Callable[[], Awaitable[None]],
        *,
        until: float,
    ) -> None:
        self._live = live
        self._subscription = subscription
        self._catch_up = catch_up
        self._ready: list[bytes] = [retry_chunk(_spread(RETRY_MS)), *first.chunks]
        self._last = first.last
        self._ended = first.ended
        self._gone = gone
        self._until = until
        self._ending: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None

    def __aiter__(self) -> EventBody:
        return self

    async def __anext__(self) -> bytes:
        """The next part to send."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._subscription.close_after(self._gone()))
            if self._until < math.inf:
                left = min(self._until - time.time(), MOST_SECONDS)
                self._ending = asyncio.get_running_loop().call_later(left, self._subscription.close)
        while not self._ready:
            if self._ended or self._subscription.closed:
                raise StopAsyncIteration
            await self._more()
        ready, self._ready = self._ready, []
        return b"".join(ready)

    async def close(self) -> None:
        """Let go of it."""
        self._live.leave(self._subscription)
        if self._watching is not None:
            self._watching.cancel()
        if self._ending is not None:
            self._ending.cancel()

    async def _more(self) -> None:
        subscription = self._subscription
        if not await subscription.wait(COMMENT_SECONDS):
            self._ready.append(COMMENT)
            return
        if subscription.closed:
            return
        behind = subscription.behind
        heard = subscription.take()
        if behind:
            await self._catch_up_again()
            return
        known = position_of(self._last) or (0, 0)
        for event, chunk in heard:
            if event.position > known:
                self._ready.append(chunk)
                self._last = event.entry
                if subscription.job_id and event.kind in LAST_KINDS:
                    self._ended = True
                    return

    async def _catch_up_again(self) -> None:
        try:
            caught_up = await self._catch_up(self._last)
        except (JobNotFoundError, NotOwnerError):
            self._ended = True  # its record has gone, or is another's of the same id
        except DownloadJobsError as error:
            log.warning("events wait for the queue", error=str(error))
            self._subscription.fall_behind()
            self._ready.append(COMMENT)
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            self._ready.extend(caught_up.chunks)
            self._last = caught_up.last
            self._ended = caught_up.ended


def _spread(milliseconds: int) -> int:
    return random.randint(milliseconds // 2, milliseconds * 3 // 2)  # noqa: S311 - so that clients come apart


class Streams:
    """Opens streams, as many as one process may have."""

    def __init__(self, live: Live, *, most: int, most_of_a_user: int) -> None:
        self._live = live
        self._most = most
        self._most_of_a_user = most_of_a_user

    def admit(self, req: Request, user: str) -> None:
        """Refuse a stream that cannot be.

        Raises:
            ProblemError: 406, 429 or 503.
        """
        if not req.client_accepts(EVENT_STREAM):
            raise ProblemError(problems.NOT_ACCEPTABLE, f"This is {EVENT_STREAM}, which Accept excludes.")
        later = {"Retry-After": str(problems.RETRY_SECONDS)}
        counts = self._live.counts
        if counts[Follower.JOB_STREAM] + counts[Follower.USER_STREAM] >= self._most:
            raise ProblemError(
                problems.STREAMS_FULL,
                "As many event streams are open as this process takes. Try again, or poll.",
                headers=later,
            )
        if self._live.streams_of(user) >= self._most_of_a_user:
            raise ProblemError(
                problems.TOO_MANY_STREAMS,
                f"You have {self._most_of_a_user} event streams open. Close some, or follow all jobs by one.",
                headers=later,
            )

    async def open(
        self, req: Request, resp: falcon.asgi.Response, user: str, catch_up: CatchUp, job_id: str = ""
    ) -> None:
        """Answer with a stream, or with 204 where a client that comes back has heard the end."""
        last = req.get_header("last-event-id")
        kind = Follower.JOB_STREAM if job_id else Follower.USER_STREAM
        subscription = await self._live.subscribe(kind, user, job_id)
        if subscription.closed:
            self._live.leave(subscription)
            raise ProblemError(
                problems.DRAINING, "This process is about to end. Try again.", headers={"Retry-After": "1"}
            )
        try:
            first = await catch_up(last)
        except BaseException:
            self._live.leave(subscription)
            raise
        resp.set_header("cache-control", CACHE_CONTROL)
        if first.ended and not first.chunks:
            self._live.leave(subscription)
            resp.status = falcon.HTTP_204
            return
        resp.content_type = EVENT_STREAM
        resp.set_header("x-accel-buffering", "no")
        resp.stream = EventBody(self._live, subscription, first, catch_up, req.gone, until=req.until)


class JobEvents:
    """`GET /v1/jobs/{id}/events`."""

    def __init__(self, streams: Streams, following: Following, identity: Identity) -> None:
        self._streams = streams
        self._following = following
        self._identity = identity

    async def on_get(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Follow one job to its end."""
        user = self._identity.user(req)
        self._streams.admit(req, user)
        await self._streams.open(
            req, resp, user, lambda last: self._following.job(user, job_id, last), job_id
        )


class UserEvents:
    """`GET /v1/events`."""

    def __init__(self, streams: Streams, following: Following, identity: Identity) -> None:
        self._streams = streams
        self._following = following
        self._identity = identity

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Follow all jobs that the user may see."""
        user = self._identity.user(req)
        self._streams.admit(req, user)
        await self._streams.open(req, resp, user, lambda last: self._following.user(user, last))
