"""What every request and answer has: a request id, a trace, a log line; `exchange.py` has the rest."""

from __future__ import annotations

import logging
import math
import random
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final

import falcon.asgi

from downloadjobs_api.metrics import ApiMetrics
from downloadjobs_api.problems import ProblemError
from downloadjobs_core import logs, trace_context
from downloadjobs_core.objectstore.mock_links import LINK_PATH

if TYPE_CHECKING:
    from downloadjobs_core.rate_counts import Ticket

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
"""A client's id is kept if it is a sane token: it goes into logs and headers."""

SLOW_SECONDS: Final = 1.0
"""Answers that took longer are logged, as are errors; the rest only at debug level."""

ERROR_STATUS: Final = 400
FAULT_STATUS: Final = 500

HEAD_LINES: Final = "downloadjobs.head_lines"
"""Where in a request's scope the server finds `Request.head_lines`."""

NAME: Final = "downloadjobs_api.requests"

log = logs.logger(NAME)
enabled = logging.getLogger(NAME)
"""Asked before `log` for whether a line is wanted: it caches the answer."""


def request_id_of(header: str | None) -> str:
    """The client's request id if it is a sane token, else a new UUID."""
    if header is not None and REQUEST_ID.fullmatch(header):
        return header
    # A version 4 UUID (RFC 9562, 5.4) from the plain generator: ids need not be secret, only distinct.
    digits = f"{random.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Request(falcon.asgi.Request):
    """A request with its id and its trace, which are made when they are first needed."""

    user: str | None = None
    """Who asks, once `Identity.sign_in` knows."""

    until = math.inf
    """When the token ends that says so, as `time.time` tells it: nothing is held open for longer."""

    refusal: ProblemError | None = None
    """Why nobody is signed in, where that is more than a missing header."""

    patient = False
    """Set by a responder that waits on purpose, such as a long poll: `REQUEST_TIMEOUT_MS` does not end it."""

    held_seconds = 0.0
    """How long it waited because its client asked for that: no slowness of ours, so no part of its time."""

    limited = False
    """Whether the rate limit still has to be looked at."""

    ticket: Ticket | None = None
    """The request's place in the count."""

    head_lines = b""
    """Lines for the answer's head, rendered: what each answer has is quicker so than by Falcon."""

    _request_id: str | None = None

    @property
    def request_id(self) -> str:
        """The client's id if it is a sane token, or a UUID."""
        if self._request_id is None:  # `cached_property` would take a lock, before Python 3.12
            self._request_id = request_id_of(self.get_header("x-request-id"))
        return self._request_id

    @cached_property
    def traceparent(self) -> str:
        """The client's trace context, or a new one."""
        return trace_context.accept(self.get_header("traceparent"))

    @property
    def shown_path(self) -> str:
        """The path without what is a secret in it, also where it is not quite a path of ours."""
        before, found, _ = self.path.partition(LINK_PATH)
        return f"{before}{found}{{token}}" if found else before

    async def gone(self) -> None:
        """Return when the client has closed the connection. What still comes of a body is dropped."""
        with suppress(ProblemError):  # so `Exchange.receive` tells of it in the middle of a body
            while (await self._receive())["type"] != "http.disconnect":
                pass

    def log_fields(self) -> Mapping[str, str]:
        """What every log line within the request carries."""
        return {"request_id": self.request_id, "trace_id": trace_context.trace_id(self.traceparent)}


class RequestContext:
    """Falcon middleware; it stands before every other."""

    def __init__(self, metrics: ApiMetrics) -> None:
        self._metrics = metrics

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
        req.scope[HEAD_LINES] = b"%bx-request-id: %b\r\n" % (req.head_lines, req.request_id.encode("ascii"))
        seconds = time.monotonic() - req.context.started - req.held_seconds
        status = resp.status_code
        self._metrics.request(req.method, req.uri_template, status, seconds)
        level = _level(status, seconds)
        if enabled.isEnabledFor(level):
            log.log(
                level,
                "request",
                method=req.method,
                path=req.shown_path,
                status=status,
                milliseconds=round(seconds * 1000, 1),
            )


def _level(status: int, seconds: float) -> int:
    if status >= FAULT_STATUS:
        return logging.ERROR
    if status >= ERROR_STATUS or seconds > SLOW_SECONDS:
        return logging.INFO
    return logging.DEBUG
