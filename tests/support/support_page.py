"""An API for the tests of the page: the real page and its policy, and answers that a test decides.

It is for states that a real API is hard to bring into: each is one line of a test.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import falcon
import falcon.asgi
import uvicorn

from downloadjobs_api.dashboard import Dashboard, DashboardConfig, load_assets
from downloadjobs_api.http_protocol import HttpProtocol
from downloadjobs_cli.embedded import free_ports
from downloadjobs_core.states import FINISHED, JobState

AT: Final = "2026-11-24T09:30:00.000Z"
"""When all of it happens, unless a test says otherwise."""

Detail = dict[str, Any]


def moment(seconds: float) -> str:
    """So many seconds after `AT` (before it, if negative)."""
    whole = 1_795_512_600 + seconds
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{round(whole * 1000) % 1000:03}Z"


def job_id(number: int) -> str:
    """The id of the `number`th job."""
    return f"{number:08x}-6de6-4913-84ea-0f5cd1d8e9aa"


def job(number: int = 1, state: str = "queued", **members: Any) -> Detail:  # noqa: ANN401 - JSON
    """A detail as the API gives it: of a job that was asked for `number` minutes before `AT`."""
    ended = JobState(state) in FINISHED
    begun = state != "queued"
    with_result = state in {"completed", "completed_with_errors"}
    done = {"processed": 120, "total": 120, "bytes": 4_510_000_000, "bytesTotal": 4_510_000_000}
    half = {"processed": 51, "total": 120, "bytes": 1_894_000_000, "bytesTotal": 4_510_000_000}
    none = {"processed": 0, "total": 120, "bytes": 0, "bytesTotal": 0}
    failed = state == "failed"
    return {
        "jobId": job_id(number),
        "state": state,
        "priority": "normal",
        "suspended": False,
        "createdAt": moment(-60 * number),
        "startedAt": moment(-60 * number + 2) if begun else None,
        "updatedAt": moment(-60 * number + (40 if ended else 2)),
        "finishedAt": moment(-60 * number + 40) if ended else None,
        "expiresAt": moment(86_400 - 60 * number + 40) if with_result else None,
        "retryAt": None,
        "totalFileIds": 120,
        "failedFiles": 3 if state == "completed_with_errors" else 0,
        "progress": done if with_result else half if begun else none,
        "attempt": 1 if begun else 0,
        "maxAttempts": 3,
        "deliveries": 0,
        "worker": None if ended or not begun else "worker-7f9c4-x2x8v",
        "queue": None
        if begun
        else {"place": "ready", "ahead": 2, "startsInSeconds": 12.4, "estimateErrorPercent": 9},
        "resultBytes": 4_510_240_000 if with_result else None,
        "error": {"code": "storage-unavailable", "message": "The storage cannot be reached."}
        if failed
        else None,
        "requestId": f"checkout-{number:04x}",
        "traceId": f"4bf92f3577b34da6a3ce929d0e0e47{number & 0xFF:02x}",
        "retryOf": None,
        "workerSeconds": 38.0 if ended else None,
        "deduplicated": False,
        "callback": None,
    } | members


STATS: Final[Mapping[str, Any]] = {
    "at": AT,
    "waiting": 12,
    "running": 7,
    "slots": 8,
    "finishedPerMinute": 14.2,
    "meanServiceSeconds": 21.4,
    "oldestWaitingSeconds": 48.0,
    "own": {"waiting": 1, "running": 1},
}

CONFIG: Final[Mapping[str, Any]] = {
    "version": "1.0.0",
    "authMode": "header",
    "mockStorage": False,
    "fileIds": {"least": 10_000, "most": 100_000_000, "count": 1_000},
    "callbacks": True,
}


@dataclass
class Refusal:
    """What the API answers in place of what it would."""

    status: int
    code: str = "internal-error"
    message: str = "The service met an unexpected fault."
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[Mapping[str, str], ...] = ()
    trace_id: str = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Any


class FakeApi:
    """What the API knows and does. A test changes it while the page is open."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = dict(CONFIG)
        self.stats: dict[str, Any] = dict(STATS)
        self.health: dict[str, Any] = {"status": "healthy", "checks": {"storage": "ok", "queue": "ok"}}
        self.jobs: dict[str, Detail] = {}
        self.timelines: dict[str, dict[str, Any]] = {}
        self.users: set[str] | None = None
        """Who is signed in; None for everybody, as behind an ingress that says who asks."""
        self.refusals: dict[str, Refusal] = {}
        """By method and path, such as `POST /v1/download/initiate`."""
        self.result_url = "https://s3.example.com/result.zip"
        self.rate = (100, 88)
        self.asked: list[Asked] = []
        self.port = free_ports(1)[0]
        self._events: list[tuple[str, str, str]] = []
        self._streams: set[asyncio.Queue[tuple[str, str, str] | None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}/dashboard"

    @property
    def streams(self) -> int:
        """Open event streams."""
        return len(self._streams)

    def add(self, *details: Detail) -> None:
        """The API knows these jobs."""
        self.jobs.update({detail["jobId"]: detail for detail in details})

    def change(self, kind: str, number: int = 1, *, tell: bool = True, **members: Any) -> None:  # noqa: ANN401 - JSON
        """A job changes, and an event tells so."""
        detail = self.jobs[job_id(number)]
        detail.update(members)
        data = {name: detail[name] for name in ("jobId", "state", "progress", "updatedAt")}
        event = (str(len(self._events) + 1), kind, json.dumps(data))
        self._events.append(event)
        if tell:
            self._each(event)

    def end_streams(self) -> None:
        """Every stream ends, as in a drain."""
        self._each(None)

    def _each(self, event: tuple[str, str, str] | None) -> None:
        assert self._loop is not None
        for queue in tuple(self._streams):
            self._loop.call_soon_threadsafe(queue.put_nowait, event)

    def requests(self, method: str, path: str) -> list[Asked]:
        """Those that came for this."""
        return [asked for asked in tuple(self.asked) if (asked.method, asked.path) == (method, path)]

    async def stream(self, last: str | None) -> AsyncIterator[bytes]:
        """A snapshot, or what came since; then what comes."""
        queue: asyncio.Queue[tuple[str, str, str] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        if last is None:
            snapshot = json.dumps({"items": list(self.jobs.values())[:20]})
            queue.put_nowait((str(len(self._events)), "snapshot", snapshot))
        else:
            for event in self._events[int(last) :]:
                queue.put_nowait(event)
        self._streams.add(queue)
        try:
            yield b": hello\n\n"
            while (found := await queue.get()) is not None:
                yield "id: {}\nevent: {}\ndata: {}\n\n".format(*found).encode()
        finally:
            self._streams.discard(queue)

    def app(self) -> falcon.asgi.App[Any, Any]:
        """The page, and the paths that it asks."""
        app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[_Gate(self)])
        dashboard = Dashboard(load_assets())
        app.add_route("/dashboard", dashboard)
        app.add_route("/dashboard/{name}", dashboard)
        app.add_route("/dashboard/config.json", DashboardConfig(self.config))
        paths = _Paths(self)
        app.add_route("/health", paths, suffix="health")
        app.add_route("/v1/stats", paths, suffix="stats")
        app.add_route("/v1/events", paths, suffix="events")
        app.add_route("/v1/jobs", paths, suffix="jobs")
        app.add_route("/v1/jobs/{job_id}", paths, suffix="job")
        app.add_route("/v1/jobs/{job_id}/retry", paths, suffix="retry")
        app.add_route("/v1/jobs/{job_id}/timeline", paths, suffix="timeline")
        app.add_route("/v1/download/initiate", paths, suffix="initiate")
        app.add_route("/v1/download/result/{job_id}", paths, suffix="result")
        return app


class _Gate:
    """Middleware: notes each request, and refuses those that shall be."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api

    async def process_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        api = self._api
        body = await req.stream.read()
        headers = {name.lower(): value for name, value in req.headers.items()}
        query = req.query_string
        api.asked.append(Asked(req.method, req.path, query, headers, json.loads(body) if body else None))
        if req.path.startswith("/dashboard"):
            return
        limit, remaining = api.rate
        resp.set_header("ratelimit-limit", str(limit))
        resp.set_header("ratelimit-remaining", str(remaining))
        resp.set_header("x-request-id", "page-request-1")
        refusal = api.refusals.get(f"{req.method} {req.path}")
        if refusal is None and api.users is not None and req.path != "/health" and not self._signed_in(req):
            refusal = Refusal(401, "unauthenticated", "Send the user in the x-user-id header.")
        if refusal is not None:
            resp.complete = True
            resp.status = refusal.status
            resp.content_type = "application/problem+json"
            for name, value in refusal.headers.items():
                resp.set_header(name, value)
            resp.text = json.dumps({
                "title": refusal.code.replace("-", " ").capitalize(), "status": refusal.status,
                "error": refusal.code, "message": refusal.message, "requestId": "page-request-1",
                "traceId": refusal.trace_id, "errors": refusal.errors,
            })  # fmt: skip

    def _signed_in(self, req: falcon.asgi.Request) -> bool:
        bearer = (req.get_header("authorization") or "").removeprefix("Bearer ")
        return (req.get_header("x-user-id") or bearer) in (self._api.users or set())


class _Paths:
    """The answers."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api

    async def on_get_health(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = self._api.health
        resp.status = 200 if self._api.health["status"] == "healthy" else 503

    async def on_get_stats(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = self._api.stats

    async def on_get_events(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = "text/event-stream"
        resp.stream = self._api.stream(req.get_header("last-event-id"))

    async def on_get_jobs(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        states = req.get_param_as_list("state") or [
            state for text in (req.get_param("state") or "",) for state in text.split(",") if state
        ]
        states = [state for text in states for state in text.split(",")]
        newest = sorted(self._api.jobs.values(), key=lambda detail: str(detail["createdAt"]), reverse=True)
        found = [detail for detail in newest if not states or detail["state"] in states]
        first, limit = int(req.get_param("cursor") or 0), req.get_param_as_int("limit") or 50
        more = first + limit < len(found)
        resp.media = {
            "items": found[first : first + limit],
            "nextCursor": str(first + limit) if more else None,
        }

    async def on_get_job(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        resp.media = self._api.jobs[job_id]

    async def on_delete_job(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        detail = self._api.jobs[job_id]
        error = {"code": "cancelled", "message": "Its owner cancelled it."}
        detail.update(state="cancelled", finishedAt=AT, updatedAt=AT, queue=None, error=error)
        resp.media = {"jobId": job_id, "state": "cancelled"}

    async def on_post_retry(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        self._start(resp, 3, retry_of=job_id)

    async def on_get_timeline(
        self, _req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str
    ) -> None:
        nothing: dict[str, Any] = {"jobId": job_id, "traceId": None, "traceUrl": None, "items": []}
        resp.media = self._api.timelines.get(job_id, nothing)

    async def on_post_initiate(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        body = self._api.asked[-1].body
        self._start(resp, len(body["file_ids"]), priority=body.get("priority", "normal"))

    async def on_get_result(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        resp.media = {
            "jobId": job_id,
            "status": "completed",
            "downloadUrl": self._api.result_url,
            "expiresIn": 600,
        }

    def _start(
        self, resp: falcon.asgi.Response, files: int, *, retry_of: str | None = None, priority: str = "normal"
    ) -> None:
        number = 0xA000 + len(self._api.jobs)
        progress = {"processed": 0, "total": files, "bytes": 0, "bytesTotal": 0}
        members: dict[str, Any] = {
            "createdAt": AT,
            "updatedAt": AT,
            "retryOf": retry_of,
            "priority": priority,
        }
        self._api.add(job(number, totalFileIds=files, progress=progress, **members))
        resp.status = 202
        resp.media = {
            "jobId": job_id(number), "status": "queued", "totalFileIds": files,
            "estimatedTime": "30-90 seconds", "retryOf": retry_of,
        }  # fmt: skip


Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def _hanging_up(app: Asgi) -> Asgi:
    """An app whose answers end when the client goes; Falcon's streams would find out at their next piece."""

    async def run(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has them
        first = await receive()
        told = False

        async def once() -> Any:  # noqa: ANN401 - the same
            nonlocal told
            if not told:
                told = True
                return first
            return await asyncio.get_running_loop().create_future()

        answering = asyncio.ensure_future(app(scope, once, send))
        going = asyncio.ensure_future(receive())
        await asyncio.wait((answering, going), return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        if not answering.done():
            answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering

    return run


@contextmanager
def served(api: FakeApi) -> Iterator[FakeApi]:
    """Serve it in a thread, by the protocol that the real one has."""
    config = uvicorn.Config(
        _hanging_up(api.app()), port=api.port, http=HttpProtocol, lifespan="off", log_config=None,
        access_log=False,
        server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < end, "the page's API does not start"
        time.sleep(0.01)
    try:
        yield api
    finally:
        if api._loop is not None:
            api.end_streams()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
