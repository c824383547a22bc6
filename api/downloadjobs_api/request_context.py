"""What every request and answer has: a request id, a trace, the security headers, a log line."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from functools import cached_property
from typing import Final

import falcon.asgi

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


class Request(falcon.asgi.Request):
    """A request with its id and its trace, which are made when they are first needed."""

    @cached_property
    def request_id(self) -> str:
        """The client's id if it is a sane token, or a UUID."""
        return request_id_of(self.get_header("x-request-id"))

    @cached_property
    def traceparent(self) -> str:
        """The client's trace context, or a new one."""
        return trace_context.accept(self.get_header("traceparent"))

    def log_fields(self) -> Mapping[str, str]:
        """What every log line within the request carries."""
        return {"request_id": self.request_id, "trace_id": trace_context.trace_id(self.traceparent)}


class RequestContext:
    """Falcon middleware; it stands before every other."""

    async def process_request(self, req: Request, _resp: falcon.asgi.Response) -> None:
        """Let log lines name the request, and note when it began."""
        req.context.started = time.monotonic()
        logs.caused_by(req)

    async def process_response(
        self,
        req: Request,
        resp: falcon.asgi.Response,
        _resource: object,
        _req_succeeded: bool,  # noqa: FBT001 - Falcon's signature
    ) -> None:
        """Add what every answer carries, and log it if it is worth a line."""
        resp.set_headers(SECURITY_HEADERS)
        resp.set_header("x-request-id", req.request_id)
        seconds = time.monotonic() - req.context.started
        level = _level(resp.status_code, seconds)
        if log.isEnabledFor(level):
            log.log(
                level,
                "request",
                method=req.method,
                path=req.path,
                status=resp.status_code,
                milliseconds=round(seconds * 1000, 1),
            )


def _level(status: int, seconds: float) -> int:
    if status >= FAULT_STATUS:
        return logging.ERROR
    if status >= ERROR_STATUS or seconds > SLOW_SECONDS:
        return logging.INFO
    return logging.DEBUG
