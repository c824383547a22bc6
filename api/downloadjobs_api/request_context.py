"""What every request and answer has: a request id, a trace, the security headers, a log line."""

from __future__ import annotations

import re
import time
import uuid
from typing import Final

import falcon.asgi
from structlog.contextvars import bind_contextvars

from downloadjobs_api.security_headers import SECURITY_HEADERS
from downloadjobs_core import logs, trace_context

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
"""A client's id is kept if it is a sane token: it goes into logs and headers."""

SLOW_SECONDS: Final = 1.0
"""Answers that took longer are logged, as are errors; the rest only at debug level."""

ERROR_STATUS: Final = 400
FAULT_STATUS: Final = 500

log = logs.logger("downloadjobs_api.requests")


def request_id_of(header: str | None) -> str:
    """The client's request id if it is a sane token, else a new UUID."""
    if header is not None and REQUEST_ID.fullmatch(header):
        return header
    return str(uuid.uuid4())


class RequestContext:
    """Falcon middleware; it stands before every other."""

    async def process_request(self, req: falcon.asgi.Request, _resp: falcon.asgi.Response) -> None:
        """Give the request its id and trace, for the answer, the job, and every log line."""
        context = req.context
        context.started = time.monotonic()
        context.request_id = request_id_of(req.get_header("x-request-id"))
        context.traceparent = trace_context.accept(req.get_header("traceparent"))
        bind_contextvars(request_id=context.request_id, trace_id=trace_context.trace_id(context.traceparent))

    async def process_response(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        _resource: object,
        _req_succeeded: bool,  # noqa: FBT001 - Falcon's signature
    ) -> None:
        """Add what every answer carries, and log it if it is worth a line."""
        resp.set_headers(SECURITY_HEADERS)
        resp.set_header("x-request-id", req.context.request_id)
        seconds = time.monotonic() - req.context.started
        status = resp.status_code
        if status >= FAULT_STATUS:
            write = log.error
        elif status >= ERROR_STATUS or seconds > SLOW_SECONDS:
            write = log.info
        else:
            write = log.debug
        write(
            "request", method=req.method, path=req.path, status=status, milliseconds=round(seconds * 1000, 1)
        )
