"""The REST resources: HTTP in, a call of `Downloads`, HTTP out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final
from zlib import crc32

import falcon
import falcon.asgi
import msgspec

from downloadjobs_api import problems
from downloadjobs_api.bodies import FileBody, InitiateBody, read_body
from downloadjobs_api.callbacks import Callbacks
from downloadjobs_api.conditional import is_known, matches
from downloadjobs_api.downloads import (
    Download,
    Downloads,
    NoResultError,
    Origin,
    ResultExpiredError,
    ResultNotReadyError,
    Submitted,
    estimated_time,
)
from downloadjobs_api.drain import Drain
from downloadjobs_api.idempotency import key_in
from downloadjobs_api.identity import Identity
from downloadjobs_api.problems import ProblemError
from downloadjobs_api.request_context import Request
from downloadjobs_api.waiting import Waiting, wanted_wait
from downloadjobs_core import __version__, logs
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_core.job import rfc3339
from downloadjobs_core.jobstore import JobStatus
from downloadjobs_core.states import FINISHED, WITH_RESULT, JobState

POLL_SECONDS: Final = 1
"""What clients are told to wait between two looks at a job."""

HEALTH_SECONDS: Final = 5.0
"""For a server's answer to a health check at most: monitors themselves give up after 10 s or so."""

JSON: Final = "application/json"
log = logs.logger(__name__)
encode = msgspec.json.Encoder().encode


def send_json(resp: falcon.asgi.Response, body: object) -> None:
    """Answer with a JSON document."""
    resp.content_type = JSON
    resp.data = encode(body)


_SHAPE: Final = crc32(__version__.encode())
"""Another release may answer the same state of a job with another body."""

_WIRE_STATES: Final = {
    state: JobState.COMPLETED.value if state in WITH_RESULT else state.value for state in JobState
}


def wire_state(state: JobState) -> str:
    """A state on the first routes: a result in part is `completed`, so that existing pollers end."""
    return _WIRE_STATES[state]


def status_document(job_id: str, status: JobStatus) -> dict[str, object]:
    """The body of a status answer."""
    progress: dict[str, int] = {"processed": status.files_done, "total": status.files_total}
    if status.bytes_total:
        progress |= {"bytes": status.bytes_done, "bytesTotal": status.bytes_total}
    document: dict[str, object] = {
        "jobId": job_id,
        "status": wire_state(status.state),
        "progress": progress,
        "updatedAt": rfc3339(status.updated_us),
    }
    if status.files_failed:
        document["failedFiles"] = status.files_failed
    return document


def status_tag(status: JobStatus) -> str:
    """The ETag of a status answer: made of what changes with each change of it, so no body is needed."""
    return f'W/"{_SHAPE}-{status.updated_us:x}-{status.state}-{status.files_done:x}-{status.bytes_done:x}"'


class Root:
    """`GET /`."""

    def __init__(self, message: str) -> None:
        self._body = {"message": message}

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Say who answers."""
        send_json(resp, self._body)

    on_head = on_get


class Initiate:
    """`POST /v1/download/initiate`."""

    def __init__(self, downloads: Downloads, callbacks: Callbacks, identity: Identity) -> None:
        self._downloads = downloads
        self._callbacks = callbacks
        self._identity = identity

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Accept a job."""
        user = self._identity.user(req)
        key = key_in(req)
        body = await read_body(req, InitiateBody)
        origin = Origin(req.request_id, req.traceparent)
        callback = None if body.callback_url is None else self._callbacks.judge(body.callback_url)
        submitted = await self._downloads.initiate(
            user, body.file_ids, body.priority, origin, key=key, callback=callback
        )
        send_accepted(resp, submitted)


def send_accepted(resp: falcon.asgi.Response, submitted: Submitted, *, retry_of: str | None = None) -> None:
    """Answer that a job was accepted. A request that came again is answered as it was the first time."""
    resp.status = falcon.HTTP_202
    resp.location = f"/v1/download/status/{submitted.job_id}"
    resp.retry_after = POLL_SECONDS
    document: dict[str, object] = {
        "jobId": submitted.job_id,
        "status": JobState.QUEUED.value,
        "totalFileIds": submitted.total_file_ids,
        "estimatedTime": estimated_time(submitted.accepted),
    }
    if retry_of is not None:
        document["retryOf"] = retry_of
    send_json(resp, document)


class Status:
    """`GET /v1/download/status/{jobId}`."""

    reads_only = True
    """The rate limit is looked at beside the read, see `Gate`."""

    def __init__(self, downloads: Downloads, identity: Identity, waiting: Waiting) -> None:
        self._downloads = downloads
        self._identity = identity
        self._waiting = waiting

    async def on_get(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """How far a job is."""
        user = self._identity.user(req)
        prefer = req.get_header("prefer")
        seconds = None if prefer is None else wanted_wait(prefer)
        if seconds is None:
            status = await self._downloads.status(user, job_id)
        else:
            status = await self._held(req, resp, user, job_id, seconds)
        if status.state not in FINISHED:
            resp.set_header("retry-after", str(POLL_SECONDS))
        if not is_known(req, resp, status_tag(status)):
            send_json(resp, status_document(job_id, status))

    on_head = on_get

    async def _held(
        self, req: Request, resp: falcon.asgi.Response, user: str, job_id: str, seconds: int
    ) -> JobStatus:
        """The status once it is another than the client's, or, without one, once the job has ended."""
        known = req.get_header("if-none-match")

        def is_news(status: JobStatus) -> bool:
            return known is None or not matches(known, status_tag(status))

        status, waited = await self._waiting.status(
            req, user, job_id, seconds=seconds, is_news=None if known is None else is_news
        )
        if waited is not None:
            resp.set_header("preference-applied", f"wait={waited}")
        return status


class Result:
    """`GET /v1/download/result/{jobId}`."""

    def __init__(self, downloads: Downloads, identity: Identity) -> None:
        self._downloads = downloads
        self._identity = identity

    async def on_get(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Where the result can be fetched."""
        user = self._identity.user(req)
        await send_download(resp, job_id, self._downloads.result(user, job_id))


async def send_download(resp: falcon.asgi.Response, job_id: str, wanted: Awaitable[Download]) -> None:
    """Answer with where a result can be fetched, or with the problem that says why it cannot."""
    try:
        download = await wanted
    except ResultNotReadyError:
        raise ProblemError(
            problems.RESULT_NOT_READY,
            "The job has not finished. Ask its status again, then its result.",
            headers={"Retry-After": str(POLL_SECONDS)},
        ) from None
    except NoResultError as error:
        raise ProblemError(problems.NO_RESULT, f"The job has no result: {error}") from None
    except ResultExpiredError:
        raise ProblemError(
            problems.RESULT_EXPIRED, "The result has expired and was removed. Ask for the files again."
        ) from None
    except TimeoutError:
        raise _storage_timeout() from None
    resp.cache_control = ("no-store",)
    body: dict[str, object] = {
        "jobId": job_id,
        "status": JobState.COMPLETED.value,
        "downloadUrl": download.url,
        "expiresIn": download.expires_seconds,
    }
    if download.files_failed:
        body["failedFiles"] = download.files_failed
    send_json(resp, body)


class Check:
    """`POST /v1/download/check`."""

    def __init__(self, downloads: Downloads, identity: Identity) -> None:
        self._downloads = downloads
        self._identity = identity

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Whether a file exists."""
        self._identity.admit(req)
        if req.get_param("sentry_test") == "true":
            raise RuntimeError("a test error, asked for by sentry_test")
        body = await read_body(req, FileBody)
        try:
            found = await self._downloads.look_up(body.file_id)
        except TimeoutError:
            raise _storage_timeout() from None
        send_json(
            resp,
            {
                "file_id": body.file_id,
                "available": found is not None,
                "s3Key": found.key if found else None,
                "size": found.size if found else None,
            },
        )


class Start:
    """`POST /v1/download/start`: the synchronous call for one file."""

    def __init__(self, downloads: Downloads, identity: Identity, *, anonymous: bool) -> None:
        self._downloads = downloads
        self._identity = identity
        self._anonymous = anonymous

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Where one file can be fetched."""
        if self._anonymous:
            self._identity.admit(req)
        else:
            _ = self._identity.user(req)
        body = await read_body(req, FileBody)
        started = time.monotonic()
        try:
            found = await self._downloads.start(body.file_id)
        except TimeoutError:
            raise _storage_timeout() from None
        stat, url = found or (None, None)
        resp.cache_control = ("no-store",)
        send_json(
            resp,
            {
                "file_id": body.file_id,
                "status": "completed" if stat else "failed",
                "downloadUrl": url,
                "size": stat.size if stat else None,
                "processingTimeMs": round((time.monotonic() - started) * 1000),
                "message": "The file is ready." if stat else "There is no such file.",
            },
        )


class Health:
    """`GET /health`: whether the servers behind the API can be used.

    Args:
        downloads: asks them.
        timeout_seconds: what a request may take. A server has half of that to answer, and no more than
            `HEALTH_SECONDS`: the answer must come before the request is ended.
        mock_storage: whether it stands in for storage.
    """

    def __init__(self, downloads: Downloads, *, timeout_seconds: float, mock_storage: bool) -> None:
        self._downloads = downloads
        self._seconds = min(HEALTH_SECONDS, timeout_seconds / 2)
        self._mock_storage = mock_storage

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Ask all of them at once."""
        storage, queue = await asyncio.gather(
            self._asked("storage", self._downloads.check_storage),
            self._asked("queue", self._downloads.check_queue_takes_jobs),
        )
        healthy = storage and queue
        document: dict[str, object] = {
            "status": "healthy" if healthy else "unhealthy",
            "checks": {"storage": "ok" if storage else "error", "queue": "ok" if queue else "error"},
        }
        if self._mock_storage:
            document["mockStorage"] = True
        resp.status = falcon.HTTP_200 if healthy else falcon.HTTP_503
        send_json(resp, document)

    on_head = on_get

    async def _asked(self, server: str, check: Callable[[], Awaitable[None]]) -> bool:
        try:
            async with asyncio.timeout(self._seconds):
                await check()
        except (DownloadJobsError, TimeoutError) as error:
            log.warning("unhealthy", server=server, error=str(error) or "it did not answer in time")
            return False
        return True


class Livez:
    """`GET /livez`: the process is alive."""

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Answer; the event loop turns."""
        send_json(resp, {"status": "ok"})

    on_head = on_get


class Readyz:
    """`GET /readyz`: the process can take work, so Redis answers, and it is not about to end."""

    def __init__(self, downloads: Downloads, drain: Drain) -> None:
        self._downloads = downloads
        self._drain = drain

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Ask Redis."""
        if self._drain.begun:
            raise ProblemError(problems.DRAINING, "This process is about to end.")
        await self._downloads.check_queue()
        send_json(resp, {"status": "ok"})

    on_head = on_get


def _storage_timeout() -> ProblemError:
    return ProblemError(
        problems.STORAGE_TIMEOUT,
        "The storage did not answer in time. Try again soon.",
        headers={"Retry-After": str(problems.RETRY_SECONDS)},
    )
