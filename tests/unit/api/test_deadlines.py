"""Requests end in time, but for those that wait on purpose."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from downloadjobs_api.deadlines import GRACE_SECONDS, Deadlines
from downloadjobs_api.problems import ProblemError
from downloadjobs_api.request_context import Request


def request(*, started: float, patient: bool = False) -> Request:
    """What the responder is given of a request without a body."""
    fake = SimpleNamespace(
        context=SimpleNamespace(started=started), patient=patient, content_length=None, headers={}
    )
    return cast("Request", fake)


async def waiting(deadlines: Deadlines, *requests: Request) -> list[asyncio.Task[None]]:
    """Tasks of requests whose responders never end."""

    async def responder(_req: Request, _resp: Any) -> None:  # noqa: ANN401 - none is needed
        await asyncio.Event().wait()

    tasks = [asyncio.ensure_future(cast("Any", deadlines.limited(responder)(req, None))) for req in requests]
    await asyncio.sleep(0)
    return tasks


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    """End what is left."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_only_what_is_overdue_ends() -> None:
    """The oldest ends with 504, a later one goes on, and so does one that waits on purpose."""

    async def look() -> None:
        deadlines = Deadlines(1.0)
        now = time.monotonic()
        overdue = now - 1 - GRACE_SECONDS - 0.01
        tasks = await waiting(
            deadlines,
            request(started=overdue),
            request(started=overdue, patient=True),
            request(started=now),
        )
        deadlines.end_overdue(now)
        with pytest.raises(ProblemError) as ended:
            await tasks[0]
        assert ended.value.kind.code == "request-timeout"
        await asyncio.sleep(0)
        assert [task.done() for task in tasks] == [True, False, False]
        await stop(tasks)
        assert not deadlines._running
        assert not deadlines._ended

    asyncio.run(look())


def test_a_cancelled_request_stays_cancelled() -> None:
    """What ends a request from outside, such as a drain, is no time-out."""

    async def look() -> None:
        tasks = await waiting(Deadlines(1.0), request(started=time.monotonic()))
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    asyncio.run(look())
