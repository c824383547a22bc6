"""Errors as `application/problem+json` (RFC 9457), each with a stable type.

A problem's `type` is a URI whose last segment is its code; `docs/problems/`
has a page for each. Beside the standard members stand `error` (the code),
`message` and `requestId`, which clients of the first API read, and `traceId`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import falcon
import falcon.asgi
import msgspec

from downloadjobs_core import logs, trace_context
from downloadjobs_core.errors import (
    CallbackRefusedError,
    ClaimUnknownError,
    CredentialsRefusedError,
    DownloadJobsError,
    JobNotFoundError,
    KeyReusedError,
    NothingToRetryError,
    NotOwnerError,
    ObjectStoreError,
    PriorityTooHighError,
    QueueUnavailableError,
    TooManyQueuedError,
    UnfinishedError,
    WebhooksOffError,
)

if TYPE_CHECKING:
    from downloadjobs_api.request_context import Request

TYPE_PREFIX: Final = "https://downloadjobs.dev/problems/"
CONTENT_TYPE: Final = "application/problem+json"

CACHE_CONTROL: Final = "no-store"
"""Without it a cache may keep some, such as 404 and 410, by a guess of its own (RFC 9110, 15.1)."""

RETRY_SECONDS: Final = 5
"""What a client is told to wait when a server behind the API is down."""

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its code, HTTP status and title."""

    code: str
    status: HTTPStatus
    title: str


BAD_REQUEST: Final = Kind("bad-request", HTTPStatus.BAD_REQUEST, "The request is malformed")
INVALID_JSON: Final = Kind("invalid-json", HTTPStatus.BAD_REQUEST, "The body is not JSON")
INVALID_BODY: Final = Kind("invalid-body", HTTPStatus.BAD_REQUEST, "The body breaks a rule")
INVALID_PARAMETER: Final = Kind("invalid-parameter", HTTPStatus.BAD_REQUEST, "A parameter breaks a rule")
INVALID_IDEMPOTENCY_KEY: Final = Kind(
    "invalid-idempotency-key", HTTPStatus.BAD_REQUEST, "The Idempotency-Key is not valid"
)
IDEMPOTENCY_KEY_REUSED: Final = Kind(
    "idempotency-key-reused", HTTPStatus.UNPROCESSABLE_ENTITY, "The key was used for another request"
)
RATE_LIMITED: Final = Kind("rate-limited", HTTPStatus.TOO_MANY_REQUESTS, "Too many requests")
REQUEST_TIMEOUT: Final = Kind("request-timeout", HTTPStatus.GATEWAY_TIMEOUT, "The request took too long")
BODY_TOO_SLOW: Final = Kind("body-too-slow", HTTPStatus.REQUEST_TIMEOUT, "The body came too slowly")
SIGN_IN_UNAVAILABLE: Final = Kind(
    "sign-in-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "Tokens cannot be checked"
)
UNAUTHENTICATED: Final = Kind("unauthenticated", HTTPStatus.UNAUTHORIZED, "Not signed in")
FORBIDDEN: Final = Kind("forbidden", HTTPStatus.FORBIDDEN, "Not yours")
RESERVED_USER: Final = Kind("reserved-user", HTTPStatus.FORBIDDEN, "This user id is reserved")
CLAIM_UNKNOWN: Final = Kind("claim-unknown", HTTPStatus.FORBIDDEN, "No such claim stands")
NOT_FOUND: Final = Kind("not-found", HTTPStatus.NOT_FOUND, "No such path")
JOB_NOT_FOUND: Final = Kind("job-not-found", HTTPStatus.NOT_FOUND, "No such job")
METHOD_NOT_ALLOWED: Final = Kind("method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed")
JOB_UNFINISHED: Final = Kind("job-unfinished", HTTPStatus.CONFLICT, "The job goes on")
NOTHING_TO_RETRY: Final = Kind("nothing-to-retry", HTTPStatus.CONFLICT, "No file of the job failed")
RESULT_NOT_READY: Final = Kind("result-not-ready", HTTPStatus.CONFLICT, "The job has not finished")
NO_RESULT: Final = Kind("no-result", HTTPStatus.CONFLICT, "The job ended without a result")
RESULT_EXPIRED: Final = Kind("result-expired", HTTPStatus.GONE, "The result has expired")
BODY_TOO_LARGE: Final = Kind("body-too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large")
UNSUPPORTED_MEDIA_TYPE: Final = Kind(
    "unsupported-media-type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body's type is not supported"
)
INTERNAL_ERROR: Final = Kind("internal-error", HTTPStatus.INTERNAL_SERVER_ERROR, "An unexpected fault")
QUEUE_UNAVAILABLE: Final = Kind(
    "queue-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "The queue cannot be used"
)
STORAGE_UNAVAILABLE: Final = Kind(
    "storage-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "The storage cannot be used"
)
TOO_MANY_QUEUED: Final = Kind("too-many-queued", HTTPStatus.TOO_MANY_REQUESTS, "Too many of your jobs wait")
PRIORITY_TOO_HIGH: Final = Kind("priority-too-high", HTTPStatus.FORBIDDEN, "The priority is above yours")
ALREADY_FINISHED: Final = Kind("already-finished", HTTPStatus.CONFLICT, "The job has ended")
RANGE_NOT_SATISFIABLE: Final = Kind(
    "range-not-satisfiable", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "The range is beyond the end"
)
PRECONDITION_FAILED: Final = Kind(
    "precondition-failed", HTTPStatus.PRECONDITION_FAILED, "The file is another one"
)
CALLBACK_REFUSED: Final = Kind("callback-refused", HTTPStatus.BAD_REQUEST, "The callback URL is refused")
WEBHOOKS_OFF: Final = Kind("webhooks-off", HTTPStatus.BAD_REQUEST, "No webhooks are sent here")
DRAINING: Final = Kind("draining", HTTPStatus.SERVICE_UNAVAILABLE, "The process is ending")
NOT_ACCEPTABLE: Final = Kind("not-acceptable", HTTPStatus.NOT_ACCEPTABLE, "Accept excludes what there is")
STREAMS_FULL: Final = Kind("streams-full", HTTPStatus.SERVICE_UNAVAILABLE, "Too many event streams are open")
TOO_MANY_STREAMS: Final = Kind(
    "too-many-streams", HTTPStatus.TOO_MANY_REQUESTS, "Too many of your streams are open"
)
STORAGE_TIMEOUT: Final = Kind("storage-timeout", HTTPStatus.GATEWAY_TIMEOUT, "The storage took too long")


_REFUSALS: Final[Mapping[type[DownloadJobsError], Kind]] = {
    JobNotFoundError: JOB_NOT_FOUND,
    NotOwnerError: FORBIDDEN,
    ClaimUnknownError: CLAIM_UNKNOWN,
    PriorityTooHighError: PRIORITY_TOO_HIGH,
    CallbackRefusedError: CALLBACK_REFUSED,
    WebhooksOffError: WEBHOOKS_OFF,
    KeyReusedError: IDEMPOTENCY_KEY_REUSED,
    UnfinishedError: JOB_UNFINISHED,
    NothingToRetryError: NOTHING_TO_RETRY,
}
"""Errors whose own sentence tells the client what is wrong."""


@dataclass(slots=True)
class ProblemError(Exception):
    """Ends a request with a problem.

    Attributes:
        message: one sentence for a person, saying what to do where it can.
        errors: for a body: every field at fault, as `{"field", "message"}`.
        headers: for the answer, such as `Retry-After`.
    """

    kind: Kind
    message: str
    errors: Sequence[Mapping[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


def document(
    kind: Kind, message: str, request_id: str, trace_id: str, errors: Sequence[Mapping[str, str]] = ()
) -> bytes:
    """A problem's JSON."""
    members: dict[str, Any] = {
        "type": TYPE_PREFIX + kind.code,
        "title": kind.title,
        "status": kind.status.value,
        "detail": message,
        "error": kind.code,
        "message": message,
        "requestId": request_id,
        "traceId": trace_id,
    }
    if errors:
        members["errors"] = errors
    return msgspec.json.encode(members)


def answer(req: Request, resp: falcon.asgi.Response, problem: ProblemError) -> None:
    """Write a problem into a response."""
    resp.status = problem.kind.status
    resp.content_type = CONTENT_TYPE
    resp.set_header("cache-control", CACHE_CONTROL)
    trace_id = trace_context.trace_id(req.traceparent)
    resp.data = document(problem.kind, problem.message, req.request_id, trace_id, problem.errors)
    for name, value in problem.headers.items():
        resp.set_header(name, value)


def of_domain_error(error: DownloadJobsError) -> ProblemError:
    """Translate an error of the domain; what went wrong inside is logged, not told."""
    for refused, kind in _REFUSALS.items():
        if isinstance(error, refused):
            return ProblemError(kind, str(error))
    retry = {"Retry-After": str(RETRY_SECONDS)}
    if isinstance(error, TooManyQueuedError):
        return ProblemError(TOO_MANY_QUEUED, str(error), headers=retry)
    if isinstance(error, QueueUnavailableError):
        return ProblemError(QUEUE_UNAVAILABLE, "The queue cannot be used now. Try again soon.", headers=retry)
    if isinstance(error, ObjectStoreError):
        message = (
            "The storage cannot be reached. Try again soon."
            if error.retryable and not isinstance(error, CredentialsRefusedError)
            else "The storage refuses this service. Its operator must correct the settings."
        )
        return ProblemError(STORAGE_UNAVAILABLE, message, headers=retry)
    return ProblemError(INTERNAL_ERROR, "The service met an unexpected fault.")


def of_http_error(error: falcon.HTTPError) -> ProblemError:
    """Translate the errors that Falcon itself raises: routing, methods, malformed requests."""
    headers = dict(error.headers or {})
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = headers.get("Allow", "")
        return ProblemError(METHOD_NOT_ALLOWED, f"This path answers {allowed} only.", headers=headers)
    if isinstance(error, falcon.HTTPRangeNotSatisfiable):
        return ProblemError(RANGE_NOT_SATISFIABLE, "The range begins after the file's end.", headers=headers)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return ProblemError(NOT_FOUND, "There is nothing at this path.")
    if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return ProblemError(BAD_REQUEST, error.description or "The request is malformed.", headers=headers)
    return ProblemError(INTERNAL_ERROR, "The service met an unexpected fault.", headers=headers)


def install(app: falcon.asgi.App[Any, Any]) -> None:
    """Make every error of an app a problem."""

    async def on_problem(
        req: Request, resp: falcon.asgi.Response, error: ProblemError, _params: Mapping[str, Any]
    ) -> None:
        answer(req, resp, error)

    async def on_domain_error(
        req: Request,
        resp: falcon.asgi.Response,
        error: DownloadJobsError,
        _params: Mapping[str, Any],
    ) -> None:
        problem = of_domain_error(error)
        if problem.kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("a server behind the api failed", error=str(error), path=req.shown_path)
        answer(req, resp, problem)

    async def on_http_error(
        req: Request,
        resp: falcon.asgi.Response,
        error: falcon.HTTPError,
        _params: Mapping[str, Any],
    ) -> None:
        answer(req, resp, of_http_error(error))

    async def on_fault(
        req: Request, resp: falcon.asgi.Response, error: Exception, _params: Mapping[str, Any]
    ) -> None:
        log.error("an unexpected fault", path=req.shown_path, exc_info=error)
        answer(req, resp, ProblemError(INTERNAL_ERROR, "The service met an unexpected fault."))

    app.add_error_handler(Exception, on_fault)
    app.add_error_handler(DownloadJobsError, on_domain_error)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(ProblemError, on_problem)
