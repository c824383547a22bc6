"""HTTP/1.1 as this API speaks it: uvicorn's httptools protocol, bounded in time and in size.

What it adds to uvicorn's:

- A client has a time for the head of a request and for each next part of its body. One sweep
  over all connections looks at their deadlines, which costs less than uvicorn's timer a request.
- The request target and the head have a size (llhttp and httptools have no limits).
- What the server refuses is answered as the app answers: RFC 9457, after the answers that are due.
- Framing that two readers may understand differently is refused (RFC 9112 sections 6.1 and 11.2).
  llhttp does most of it; the rest stands in `_check_head`. Trailer fields never become headers.
- A request to upgrade is answered as if it had not asked (RFC 9110 section 7.8). httptools takes its
  body for the next protocol's bytes, which uvicorn would read as the next request.
- An app that reads a body cut short gets an error where uvicorn tells of a disconnect, which
  Falcon takes for the body's end.
"""

from __future__ import annotations

import asyncio
import math
import sys
from http import HTTPStatus
from typing import Any, ClassVar, Final
from urllib.parse import unquote
from uuid import uuid4

import httptools
from uvicorn._types import ASGIReceiveEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from downloadjobs_api.problems import (
    BAD_REQUEST,
    CONTENT_TYPE,
    DRAINING,
    INTERNAL_ERROR,
    Kind,
    ProblemError,
    document,
)
from downloadjobs_api.security_headers import raw
from downloadjobs_core.logs import logger

MAX_TARGET_BYTES: Final = 16 * 1024
"""Of path and query. 1,000 file ids in a query would fit; browsers and proxies stop at 8 to 64 KiB."""

MAX_HEADER_BYTES: Final = 64 * 1024
"""Of all names and values together: eight times what nginx lets a whole head have by default."""

MAX_PIPELINED: Final = 100
"""Requests read ahead on one connection. One read can bring thousands, and each costs memory."""

URI_TOO_LONG: Final = Kind("uri-too-long", HTTPStatus.REQUEST_URI_TOO_LONG, "The URL is too long")
HEADERS_TOO_LARGE: Final = Kind(
    "headers-too-large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large"
)

log = logger(__name__)


def _answer(problem: ProblemError, request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of an answer after which the connection closes."""
    body = document(problem.kind, problem.message, request_id)
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *raw(),
        (b"connection", b"close"),
    ]
    return headers, body


def _malformed(message: str) -> ProblemError:
    return ProblemError(BAD_REQUEST, message)


class Exchange(RequestResponseCycle):
    """One request and its answer."""

    _body_open = False  # part of the body was handed over, and not yet its end

    async def receive(self) -> ASGIReceiveEvent:
        """The next part of the request.

        Raises:
            ProblemError: the client went away in the middle of the body. Nobody will read the answer.
        """
        message = await super().receive()
        if message["type"] == "http.request":
            self._body_open = message["more_body"]
        elif self._body_open and not self.response_complete:
            raise _malformed("The body ended before its whole length.")
        return message

    async def send_500_response(self) -> None:
        """Answer for an app that raised, or that was cancelled because the drain's time is over."""
        if isinstance(sys.exception(), asyncio.CancelledError):
            problem = ProblemError(DRAINING, "The service is stopping, and this took too long. Try again.")
        else:
            problem = ProblemError(INTERNAL_ERROR, "The service met an unexpected fault.")
        headers, body = _answer(problem, str(uuid4()))
        await self.send({"type": "http.response.start", "status": problem.kind.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


class HttpProtocol(HttpToolsProtocol):
    """One connection. `expire` must be called every `sweep_seconds`. Durations are in seconds."""

    head_seconds: ClassVar[float] = 10
    """For a whole head, from the opening or from the first byte of a following request."""

    body_seconds: ClassVar[float] = 30
    """For each next part of a body, as long as the app takes what comes."""

    linger_seconds: ClassVar[float] = 5
    """After an answer that came before its request's end, what still comes is read and dropped for so long:
    closing at once resets the connection, and the answer may be lost (RFC 9112 section 9.6)."""

    sweep_seconds: ClassVar[float] = 1

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._deadline = math.inf  # by the loop's clock; infinite while the server owes an answer
        self._served = False  # `cycle` is set, and no longer None
        self._in_head = False
        self._silent_bytes = 0  # received since a head, a part of a body, or a message was complete
        self._measure = False  # the head may be too large: it came in several parts, or in a large one
        self._hosts = 0
        self._coding: bytes | None = None
        self._refusal: bytes | None = None  # waits for the answers before it
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._deadline = self.loop.time() + self.head_seconds

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what cannot be a request."""
        if self._refused:
            return
        self._measure = self._in_head or len(data) > MAX_TARGET_BYTES
        self._silent_bytes += len(data)
        try:
            self._feed(data)
            if self._silent_bytes > MAX_TARGET_BYTES + MAX_HEADER_BYTES:
                self._check_size(received=self._silent_bytes)
        except ProblemError as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            cause = error.__context__  # of what a callback raised
            if isinstance(cause, ProblemError):
                self._refuse(cause)
            else:
                self._refuse(_malformed(f"The request is not valid HTTP/1.1: {error}."))

    def _owes_answer(self) -> bool:
        return self._served and not self.cycle.response_complete

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        head = [self.scope["method"].encode(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        return b"".join([*head, b"\r\n"])

    def on_message_begin(self) -> None:
        """Begin a request. The time of the first one's head runs since the connection opened."""
        super().on_message_begin()
        self._in_head = True
        self._hosts = 0
        self._coding = None
        if self._served and not self._owes_answer():
            self._deadline = self.loop.time() + self.head_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field, and drop a trailer field (RFC 9110 section 6.5.1)."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._coding = value.lower()
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head, and start the app or queue behind the answers that are due."""
        self._in_head = False
        self._silent_bytes = 0
        self._deadline = self.loop.time() + self.body_seconds
        version = self.parser.get_http_version()
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        self._check_head(version)
        if self.parser.should_upgrade():
            return  # `_feed` reads it again
        if version != "1.1":
            scope["http_version"] = version
        raw_path, scope["query_string"] = self._target()
        path = raw_path.decode("ascii")  # llhttp refuses all else
        scope["raw_path"] = raw_path
        scope["path"] = unquote(path) if "%" in path else path
        at_once = not self._owes_answer()
        self.cycle = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue and version == "1.1",
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self._served = True
        if at_once:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _check_head(self, version: str) -> None:
        if self._measure:
            self._check_size()
        if version not in {"1.1", "1.0"}:
            raise _malformed(f"HTTP/{version} is not spoken here: use HTTP/1.1.")
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            raise _malformed("The request must have one Host header.")
        if self._coding is not None and (self._coding != b"chunked" or version == "1.0"):
            raise _malformed("The only transfer coding known here is chunked, in HTTP/1.1.")
        if self.scope["method"] == "CONNECT":
            raise _malformed("This is no proxy.")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _malformed(f"More than {MAX_PIPELINED} requests wait on this connection.")

    def _check_size(self, received: int = 0) -> None:
        if len(self.url) > MAX_TARGET_BYTES:
            raise ProblemError(URI_TOO_LONG, f"The URL is longer than {MAX_TARGET_BYTES} bytes.")
        if max(received, sum(len(name) + len(value) for name, value in self.headers)) > MAX_HEADER_BYTES:
            raise ProblemError(
                HEADERS_TOO_LARGE, f"The headers are longer than {MAX_HEADER_BYTES} bytes together."
            )

    def _target(self) -> tuple[bytes, bytes]:
        """The path and the query; the rest of an absolute URL is for proxies (RFC 9112 section 3.2)."""
        if self.url.startswith(b"/") and b"#" not in self.url:
            path, _, query = self.url.partition(b"?")
            return path, query
        try:
            url = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            raise _malformed("The URL is not valid.") from None
        return url.path or b"/", url.query or b""

    def on_body(self, body: bytes) -> None:
        """Hand a part of the body over; the client has time anew, unless the answer is already out."""
        self._silent_bytes = 0
        if not self.cycle.response_complete:
            self._deadline = self.loop.time() + self.body_seconds
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: no deadline runs until it is answered."""
        self._silent_bytes = 0
        if self.parser.should_upgrade():
            return
        self.cycle.more_body = False
        self.cycle.message_event.set()
        answered = self.cycle.response_complete
        self._deadline = self.loop.time() + self.timeout_keep_alive if answered else math.inf

    def on_response_complete(self) -> None:
        """Go on with what comes next on the connection."""
        self.server_state.total_requests += 1
        now = self.loop.time()
        if self.transport.is_closing():
            self._deadline = now + self.timeout_keep_alive  # for a client that does not take its answer
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._deadline = now + self.body_seconds if self.cycle.more_body else math.inf
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self.cycle.more_body:
            self._deadline = now + self.linger_seconds
        else:
            self._deadline = now + (self.head_seconds if self._in_head else self.timeout_keep_alive)

    def expire(self, now: float) -> None:
        """Close the connection if its client has let its time run out.

        Args:
            now: the loop's time.
        """
        if now < self._deadline:
            return
        if self.transport.is_closing():
            self.transport.abort()
        elif self.flow.read_paused:
            self._deadline = now + self.body_seconds  # the app is slower than its client
            return
        else:
            self.transport.close()
        self._deadline = now + self.linger_seconds

    def _refuse(self, refusal: ProblemError) -> None:
        """Answer in the app's place, read no further, and close."""
        self._refused = True
        request_id = str(uuid4())
        address = self.client[0] if self.client else ""
        status = refusal.kind.status
        log.info("request refused", request_id=request_id, client=address, status=status, reason=str(refusal))
        headers, body = _answer(refusal, request_id)
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        self._refusal = b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
        if not self._owes_answer():
            self._send_refusal(self._refusal)
        elif self.cycle.more_body:
            self._give_up(self.cycle)
        # else: the fault is in a request behind that one, so that one's answer comes first.

    def _give_up(self, exchange: RequestResponseCycle) -> None:
        """End a request whose body turned out to be at fault."""
        exchange.disconnected = True
        exchange.message_event.set()
        if self.pipeline:
            self.pipeline.popleft()  # it is the newest, and was not started
        elif exchange.response_started:
            self.transport.close()
        elif self._refusal is not None:
            self._send_refusal(self._refusal)

    def _send_refusal(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.write_eof()
        self._deadline = self.loop.time() + self.linger_seconds
