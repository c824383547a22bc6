"""API server processes for tests: how to start one and talk to it, and a tiny app to run in it.

Run as a program, this file serves the tiny app; `start` does that, in the environment of the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import falcon.asgi

from downloadjobs_api.drain import Drain
from downloadjobs_api.http_protocol import HttpProtocol
from downloadjobs_api.server import serve
from downloadjobs_api.settings import ApiSettings
from downloadjobs_core import logs
from downloadjobs_core.settings import load

PATIENCE_SECONDS = 10
"""For anything that should happen at once, on a busy machine."""

Line = dict[str, Any]
Event = Mapping[str, Any]


class Answer(NamedTuple):
    """An HTTP answer. Header names are in lower case, and each stands for one line."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever the tiny app answers
        """The body, decoded."""
        return json.loads(self.body)


class Wire:
    """A raw connection, for requests that no HTTP client would send."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.reader = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.reader.close()
        self.socket.close()

    def send(self, data: bytes | str) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def get(self, path: str) -> Answer:
        """A plain GET that keeps the connection."""
        self.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
        return self.answer()

    def answer(self) -> Answer:
        """Read one answer with a Content-Length."""
        status = int(self.reader.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self.reader.readline().strip():
            name, _, value = line.decode().partition(": ")
            assert name not in headers, f"{name} stands twice"
            headers[name] = value
        return Answer(status, headers, self.reader.read(int(headers.get("content-length", 0))))

    def rest(self) -> bytes:
        """Whatever comes until the server closes the connection."""
        try:
            return self.reader.read()
        except ConnectionResetError:
            return b""


class ApiProcess:
    """A server process, whose standard error is read line by line."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        # Of the environment only what is no setting: how to find programs, and to measure coverage.
        base = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "COV"))}
        base |= {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOST": "127.0.0.1",
            "PORT": "0",
            "METRICS_PORT": "0",
        }
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env={**base, **env},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.output.append(line)
        self.process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the group: workers of a killed master too
        self.wait()

    def wait(self) -> int:
        """The exit code, once the process and its output have ended."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return code

    def stop(self) -> int:
        """Ask the process to stop, and wait for its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def events(self, event: str, **fields: str) -> list[Line]:
        """The log lines with this event and these fields, so far."""
        lines = [json.loads(line) for line in tuple(self.output) if line.startswith("{")]
        wanted = {"event": event, **fields}
        return [line for line in lines if wanted == {name: line.get(name) for name in wanted}]

    def wait_for(self, event: str, count: int = 1, **fields: str) -> Line:
        """The `count`th log line with this event and these fields."""
        for _ in ticks():
            if len(found := self.events(event, **fields)) >= count:
                return found[count - 1]
            if self.process.poll() is not None and not self._reader.is_alive():
                break
        raise AssertionError(f"no {event!r} in:\n{''.join(self.output)}")

    @property
    def port(self) -> int:
        """Where it listens."""
        found = re.search(r":(\d+)$", self.wait_for("listening")["address"])
        assert found is not None
        return int(found[1])

    def wire(self) -> Wire:
        """Connect."""
        return Wire(self.port)


def ticks() -> Iterator[None]:
    """Yield every few milliseconds until patience ends."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        yield
        time.sleep(0.01)


def start(*arguments: str, **env: str) -> ApiProcess:
    """Start the tiny app, with these arguments of `main` below, and settings."""
    return ApiProcess([__file__, *arguments], env)


# What runs in the server process.


class Impatient(HttpProtocol):
    """The real protocol, with times that a test can wait for."""

    head_seconds: ClassVar[float] = 0.5
    body_seconds: ClassVar[float] = 0.5
    linger_seconds: ClassVar[float] = 0.5
    sweep_seconds: ClassVar[float] = 0.05


log = logs.logger("tiny")


class Echo:
    """Tells what it was asked, once it has the whole body."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **_path: str) -> None:
        await self._answer(req, resp)

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **_path: str) -> None:
        await self._answer(req, resp)

    async def _answer(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        body = await req.stream.read()
        if req.method == "POST":
            log.info("body read", bytes=len(body))
        resp.media = {
            "pid": os.getpid(),
            "path": req.path,
            "query": req.query_string,
            "user": req.get_header("x-user-id"),
            "body": body.decode(),
        }


class Slow:
    """Begins to read the body after a second."""

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        await asyncio.sleep(1)
        resp.media = len(await req.stream.read())


class Deaf:
    """Answers a POST without reading it."""

    async def on_post(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.status = falcon.HTTP_413


class Sleep:
    """Sleeps, `?seconds=`, and with `?block=true` it stops the event loop meanwhile."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        seconds = req.get_param_as_float("seconds", required=True)
        log.info("sleeping")
        if req.get_param_as_bool("block"):
            time.sleep(seconds)  # noqa: ASYNC251 - that is what it is for
        await asyncio.sleep(seconds)
        resp.media = {"pid": os.getpid()}


class Poll:
    """Answers when the drain begins."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        log.info("polling", drain=self._drain.begun)
        await self._drain.wait()
        resp.media = {"drain": self._drain.begun}


class UnknownError(BaseException):
    """What Falcon catches not."""


class Fault:
    """Raises past Falcon's own error handlers."""

    async def on_get(self, _req: falcon.asgi.Request, _resp: falcon.asgi.Response) -> None:
        raise UnknownError


class Startup:
    """The app's start: `fails`, or `hangs`."""

    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour

    async def process_startup(self, scope: Event, event: Event) -> None:  # noqa: ARG002 - Falcon's names
        log.info("starting", pid=os.getpid())
        if self._behaviour == "fails":
            raise RuntimeError("no database")
        if self._behaviour == "hangs":
            await asyncio.sleep(60)

    async def process_shutdown(self, scope: Event, event: Event) -> None:  # noqa: ARG002 - the same
        log.info("stopped")


def main(behaviour: str = "works", protocol: str = "patient") -> None:
    """Serve the tiny app."""

    def create_app(_settings: ApiSettings, drain: Drain) -> falcon.asgi.App[Any, Any]:
        app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[Startup(behaviour)])
        app.add_route("/sleep", Sleep())
        app.add_route("/poll", Poll(drain))
        app.add_route("/slow", Slow())
        app.add_route("/deaf", Deaf())
        app.add_route("/fault", Fault())
        echo = Echo()
        app.add_route("/", echo)
        app.add_route("/{path:path}", echo)
        return app

    settings = load(ApiSettings, "tiny")
    logs.configure(level=settings.log_level, log_format=settings.log_format)
    serve(settings, create_app, Impatient if protocol == "impatient" else HttpProtocol)


if __name__ == "__main__":
    main(*sys.argv[1:])
