"""Ends requests that take longer than `REQUEST_TIMEOUT_MS`.

A timer for each request would cost some 3 µs; here each is put into a dict, whose order is that
of their beginnings, and one task looks at the oldest a few times a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final

import falcon.asgi
from falcon.inspect import inspect_compiled_router, register_router
from falcon.routing import CompiledRouter

from downloadjobs_api.problems import BODY_TOO_SLOW, REQUEST_TIMEOUT, RETRY_SECONDS, ProblemError
from downloadjobs_api.request_context import Request

GRACE_SECONDS: Final = 0.5
"""Beyond the time-out, so that what knows the cause, such as a call to storage, says it first."""

LOOK_SECONDS: Final = 0.25
"""Between two looks at the oldest request."""

Responder = Callable[..., Awaitable[None]]


class Deadlines:
    """The requests under way in one worker process."""

    def __init__(self, timeout_seconds: float) -> None:
        self._seconds = timeout_seconds + GRACE_SECONDS
        self._running: dict[asyncio.Task[Any], Request] = {}
        self._ended: set[asyncio.Task[Any]] = set()

    def limited(self, responder: Responder) -> Responder:
        """The same responder, with an end: 504, or 408 if it is the client's body that takes so long."""
        running = self._running

        @wraps(responder)
        async def respond(req: Request, resp: falcon.asgi.Response, **params: str) -> None:
            task = asyncio.current_task()
            assert task is not None, "the server runs each request in a task"  # noqa: S101 - for the type
            running[task] = req
            try:
                await responder(req, resp, **params)
            except asyncio.CancelledError:
                if task not in self._ended:
                    raise
                self._ended.discard(task)
                task.uncancel()
                raise _too_long(req) from None
            finally:
                running.pop(task, None)

        return respond

    async def watch(self) -> None:
        """End what takes too long, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.end_overdue(time.monotonic())

    def end_overdue(self, now: float) -> None:
        """End what began too long ago, but for long polls.

        Args:
            now: as `time.monotonic` tells it.
        """
        overdue = []
        for task, req in self._running.items():
            if now - req.context.started < self._seconds:
                break
            overdue.append((task, req))
        for task, req in overdue:
            del self._running[task]
            if not req.patient:
                self._ended.add(task)
                task.cancel()


class Router(CompiledRouter):
    """Falcon's router, which puts something around each responder.

    Args:
        around: takes a responder and its resource; gives the responder that is called in its stead.
    """

    def __init__(self, around: Callable[[Responder, object], Responder]) -> None:
        super().__init__()
        self._around = around

    def map_http_methods(self, resource: object, **kwargs: Any) -> Any:  # noqa: ANN401 - as Falcon has it
        """The responders of a resource, by method."""
        methods: dict[str, Any] = dict(super().map_http_methods(resource, **kwargs))
        return {method: self._around(responder, resource) for method, responder in methods.items()}


_ = register_router(Router)(inspect_compiled_router)
"""`falcon.inspect`, which lists an app's routes, knows routers by their class alone."""


def _too_long(req: Request) -> ProblemError:
    if (req.content_length or "transfer-encoding" in req.headers) and not req.stream.eof:
        # The rest of the body is not read, so the connection cannot be used again.
        return ProblemError(
            BODY_TOO_SLOW, "The body did not arrive in time.", headers={"Connection": "close"}
        )
    return ProblemError(
        REQUEST_TIMEOUT,
        "This took too long and was given up. Try again soon.",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )
