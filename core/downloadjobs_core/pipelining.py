"""Runs scripts for many callers on an event loop, those of one moment in one pipeline.

A call by itself costs its caller more time than the script takes Redis: a connection
from the pool, time limits, a task to read the answer, two system calls. Calls that come
within one tick of the event loop, or while a pipeline is under way, share all of that.
Each has its own reply, or its own error, as if it had gone alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

from downloadjobs_core.scripts import ROOT, AsyncScripts

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(frozen=True, slots=True)
class _Call:
    script: str
    args: tuple[str | float, ...]
    reply: asyncio.Future[Any]


class PipelinedScripts:
    """The scripts of one client, whose concurrent calls go out together.

    For scripts that many callers run at once and that accept a call that comes twice: a
    pipeline whose connection breaks is sent anew as a whole.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = AsyncScripts(redis)
        self._calls: list[_Call] = []
        self._sending: asyncio.Task[None] | None = None

    async def run(self, name: str, *args: str | float) -> Any:  # noqa: ANN401 - replies differ by script
        """Run a script with `ROOT` as its one key; its header says what it replies.

        Who gives up waiting does not keep the script from running, nor others from their replies.
        Raises what redis-py raises.
        """
        loop = asyncio.get_running_loop()
        call = _Call(name, args, loop.create_future())
        self._calls.append(call)
        if self._sending is None:
            # The task begins at the next tick, when everybody who calls in this one has called.
            self._sending = loop.create_task(self._send_all())
        return await call.reply

    async def _send_all(self) -> None:
        """Send until nobody waits: what comes meanwhile goes out together after that."""
        calls: list[_Call] = []
        try:
            while self._calls:
                calls, self._calls = self._calls, []
                await self._send(calls)
        finally:
            # Whatever happened, nobody is left waiting, and the next who calls starts a new task.
            self._sending = None
            unsent, self._calls = self._calls, []
            for call in (*calls, *unsent):
                call.reply.cancel()

    async def _send(self, calls: list[_Call]) -> None:
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for call in calls:
                _ = pipeline.evalsha(self._scripts.digest(call.script), 1, ROOT, *call.args)
            replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - given to everybody who called
            replies = [error] * len(calls)
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, NoScriptError):
                await self._send_alone(call)
            else:
                _settle(call, reply)

    async def _send_alone(self, call: _Call) -> None:
        """Run a script that Redis does not know (yet, or after a restart), which loads it."""
        try:
            reply = await self._scripts.run(call.script, *call.args)
        except Exception as error:  # noqa: BLE001 - given to who called
            reply = error
        _settle(call, reply)


def _settle(call: _Call, reply: Any) -> None:  # noqa: ANN401 - Redis' reply, or an error
    if call.reply.done():  # who called gave up
        return
    if isinstance(reply, Exception):
        call.reply.set_exception(reply)
    else:
        call.reply.set_result(reply)
