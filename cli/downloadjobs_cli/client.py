"""A typed client of the REST API. Its errors carry an exit code, and say whether trying again can help."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import msgspec

from downloadjobs_cli.answers import Answer, Cancelled, Checked, Problem, Reply, Result, Status, Submitted
from downloadjobs_cli.errors import CliError, RefusedError, TransientError
from downloadjobs_cli.http_clients import http_client
from downloadjobs_core import __version__

TIMEOUT_SECONDS: Final = 30.0
"""The API's own limit for its synchronous calls."""

CONNECT_SECONDS: Final = 5.0

TIMEOUT: Final = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS)

AGAIN_SECONDS: Final = (0.2, 1.0)
"""Waits before a request whose answer was lost is sent again."""

STREAM_TIMEOUT: Final = httpx.Timeout(45.0, connect=CONNECT_SECONDS)
"""Seconds. A stream has a comment every 15."""

EVENT_STREAM: Final = "text/event-stream"

USER_AGENT: Final = f"downloadjobs/{__version__}"


@dataclass(frozen=True, slots=True)
class Login:
    """Where the API is, and who asks."""

    api: str
    user: str | None = None
    token: str | None = None

    def headers(self) -> dict[str, str]:
        """What each request says of its user."""
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        if self.user:
            headers["x-user-id"] = self.user
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers


def retry_after_seconds(value: str | None, now: datetime | None = None) -> float | None:
    """Read a Retry-After header: seconds, or a date (RFC 9110, 10.2.3). None if absent or nonsense."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def request_timeout(seconds: float | None) -> httpx.Timeout:
    """How long each step of a request may take: connecting, and each silence.

    Args:
        seconds: its limit, where that is less than usual.
    """
    if seconds is None:
        return TIMEOUT
    return httpx.Timeout(min(TIMEOUT_SECONDS, seconds), connect=min(CONNECT_SECONDS, seconds))


def why_silent(error: httpx.RequestError) -> str:
    """Why nobody answered, in brackets; empty if nobody knows."""
    if isinstance(error, httpx.TimeoutException):
        return " (it took too long)"
    why = re.sub(r"^\[Errno -?\d+\] ", "", str(error))
    return f" ({why})" if why else ""


class ApiClient:
    """One connection pool to one API. Close it, or use it as a context manager.

    Args:
        login: where the API is, and who asks.
        transport: stands in for the network in tests.

    Raises:
        SettingsError: the environment's proxies or certificates cannot be used.
    """

    def __init__(self, login: Login, transport: httpx.BaseTransport | None = None) -> None:
        self._login = login
        self._http = http_client(
            login.api, base_url=login.api, headers=login.headers(), timeout=TIMEOUT, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def initiate(self, file_ids: Sequence[int]) -> Reply[Submitted]:
        """Ask for a job with these files: one job, also if the connection breaks and it is asked again."""
        return self._ask(Submitted, "POST", "/v1/download/initiate", {"file_ids": list(file_ids)}, once=True)

    def retry(self, job_id: str) -> Reply[Submitted]:
        """Ask for a job with those files of another that failed.

        Raises:
            RefusedError: with status 409 while that one is unfinished, or when none of its files failed.
        """
        return self._ask(Submitted, "POST", f"/v1/jobs/{quote(job_id, safe='')}/retry", once=True)

    def status(self, job_id: str, seconds: float | None = None) -> Reply[Status]:
        """How far a job is.

        Args:
            job_id: which job.
            seconds: how long to wait for the answer, as for `request_timeout`.
        """
        return self._ask(Status, "GET", f"/v1/download/status/{quote(job_id, safe='')}", seconds=seconds)

    @contextmanager
    def events(self, job_id: str, last: str | None) -> Iterator[Iterator[str]]:
        """The lines of a job's event stream, after the event with the id `last`.

        Raises:
            RefusedError: there is no such stream, or it has nothing more to say.
            TransientError: it broke off, or could not be opened now.
        """
        path = f"/v1/jobs/{quote(job_id, safe='')}/events"
        headers = {"Accept": EVENT_STREAM} | ({"Last-Event-ID": last} if last else {})
        try:
            with self._http.stream("GET", path, headers=headers, timeout=STREAM_TIMEOUT) as response:
                kind = response.headers.get("Content-Type", "")
                if response.is_success and kind.startswith(EVENT_STREAM):
                    yield response.iter_lines()
                    return
                response.read()
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        if response.is_success:
            raise RefusedError("There are no events.", code="no-events")
        raise self._error(response)

    def result(self, job_id: str) -> Reply[Result]:
        """A fresh presigned URL of a finished job's zip.

        Raises:
            RefusedError: with status 409 while the job is unfinished, 410 once its result has expired.
        """
        return self._ask(Result, "GET", f"/v1/download/result/{quote(job_id, safe='')}")

    def claim(self, job_id: str, nonce: str) -> Reply[Result]:
        """The same for who has claimed a DownloadJob, whoever they are.

        Raises:
            RefusedError: with code `claim-unknown` while no such claim stands, and what `result` raises.
        """
        return self._ask(Result, "POST", "/v1/claims", {"jobId": job_id, "nonce": nonce})

    def cancel(self, job_id: str) -> Reply[Cancelled]:
        """Cancel a job.

        Raises:
            RefusedError: with status 409 when it has ended.
        """
        return self._ask(Cancelled, "DELETE", f"/v1/jobs/{quote(job_id, safe='')}")

    def check(self, file_id: int) -> Reply[Checked]:
        """Whether a file is there."""
        return self._ask(Checked, "POST", "/v1/download/check", {"file_id": file_id})

    def _send(
        self,
        method: str,
        path: str,
        body: Any,  # noqa: ANN401 - JSON
        *,
        once: bool,
        seconds: float | None,
    ) -> httpx.Response:
        if not once:
            return self._http.request(method, path, json=body, timeout=request_timeout(seconds))
        # The answer may be lost after the job was accepted. With the key, to ask again is no second job.
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        for wait in AGAIN_SECONDS:
            try:
                return self._http.request(method, path, json=body, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                raise
            except httpx.TransportError:
                time.sleep(wait)
        return self._http.request(method, path, json=body, headers=headers)

    def _ask(
        self,
        answer: type[Answer],
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - JSON
        *,
        once: bool = False,
        seconds: float | None = None,
    ) -> Reply[Answer]:
        try:
            response = self._send(method, path, body, once=once, seconds=seconds)
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        if not response.is_success:
            raise self._error(response)
        try:
            document = response.json()
            value = msgspec.convert(document, answer)
        except (ValueError, msgspec.ValidationError) as error:
            raise RefusedError(
                f"What answers at {self._login.api} is no downloadjobs API: {method} {path} gave something"
                " else than was asked for. Correct --api (or DOWNLOADJOBS_API).",
                code="unexpected-answer",
            ) from error
        return Reply(value, document, retry_after_seconds(response.headers.get("Retry-After")))

    def _unreachable(self, error: httpx.RequestError) -> TransientError:
        return TransientError(
            f"The API at {self._login.api} does not answer{why_silent(error)}. Is it running, and is --api"
            " (or DOWNLOADJOBS_API) right? `downloadjobs up` starts one on this machine."
        )

    def _error(self, response: httpx.Response) -> CliError:
        try:
            problem = msgspec.convert(response.json(), Problem)
        except (ValueError, msgspec.ValidationError):
            problem = Problem()
        status = response.status_code
        request_id = problem.request_id or response.headers.get("X-Request-ID")
        code = problem.error or None
        text = problem.text or (
            f"The API at {self._login.api} answered {status} {response.reason_phrase},"
            " not as a downloadjobs API would. Is --api (or DOWNLOADJOBS_API) right?"
        )
        wait = retry_after_seconds(response.headers.get("Retry-After"))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return TransientError(
                text, retry_after=wait, code=code, exit_code=RefusedError.exit_code, request_id=request_id
            )
        if response.is_server_error:
            return TransientError(text, retry_after=wait, code=code, request_id=request_id)
        if status == HTTPStatus.UNAUTHORIZED and not (self._login.user or self._login.token):
            text = f"{text} Say who you are by --user (or DOWNLOADJOBS_USER), or --token."
        return RefusedError(text, status=status, code=code, request_id=request_id)
