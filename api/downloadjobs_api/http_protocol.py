"""HTTP/1.1 as this API speaks it: uvicorn's httptools protocol, bounded in time and in size.

What it adds to uvicorn's:

- A client has a time for the head of a request, for each next part of its body, and to take an answer.
  One sweep over all connections looks at their deadlines, which costs less than uvicorn's timer a request.
  Only the body's own bytes count: of a chunk's size or extension the app learns nothing, so that none of
  its own limits would end a request that consists of them.
- A body whose length is too large is refused before it is read, or invited by 100 (Continue).
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
from http import HTTPStatus
from typing import Any, ClassVar, Final
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from downloadjobs_api.bodies import MAX_BODY_BYTES, too_large
from downloadjobs_api.exchange import Exchange, closing_answer, head_of, request_id_in, trace_id_in
from downloadjobs_api.problems import BAD_REQUEST, BODY_TOO_SLOW, Kind, ProblemError
from downloadjobs_core.logs import logger

MAX_TARGET_BYTES: Final = 16 * 1024
"""Of path and query. 1,000 file ids in a query would fit; browsers and proxies stop at 8 to 64 KiB."""

MAX_HEADER_BYTES: Final = 64 * 1024
"""Of all names and values together. nginx takes half of it by default, Node a quarter."""

MAX_PIPELINED: Final = 100
"""Requests read ahead on one connection. One read can bring thousands, and each costs memory."""

URI_TOO_LONG: Final = Kind("uri-too-long", HTTPStatus.REQUEST_URI_TOO_LONG, "The URL is too long")
HEADERS_TOO_LARGE: Final = Kind(
    "headers-too-large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large"
)

log = logger(__name__)


def _split(url: bytes) -> tuple[bytes, bytes]:
    """The path and the query of a whole URL; the rest of it is for proxies (RFC 9112 section 3.2)."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise _malformed("The URL is not valid.") from None
    return parsed.path or b"/", parsed.query or b""


def _malformed(message: str) -> ProblemError:
    return ProblemError(BAD_REQUEST, message)


class HttpProtocol(HttpToolsProtocol):
    """One connection. `expire` must be called every `sweep_seconds`. Durations are in seconds."""

    head_seconds: ClassVar[float] = 10
    """For a whole head, from the opening or from the first byte of a following request."""

    body_seconds: ClassVar[float] = 30
    """For each next part of a body, as long as the app takes what comes."""

    request_seconds: ClassVar[float] = math.inf
    """For the first part of a body, if that is less: the app hears of a request when that has come, and then
    ends by itself what takes too long. The setting `REQUEST_TIMEOUT_MS`."""

    linger_seconds: ClassVar[float] = 5
    """What still comes after an answer that was earlier than its request's end is read and dropped for so
    long: closing at once resets the connection, and the answer may be lost (RFC 9112 section 9.6)."""

    write_seconds: ClassVar[float] = 60
    """For a client to take some of what it was sent, once so much waits that writing has to pause."""

    sweep_seconds: ClassVar[float] = 1

    cycle: Exchange  # the newest

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.on_message_begin()  # there is a scope, though no request
        self._deadline = math.inf  # by the loop's clock; infinite while the server owes an answer
        self._write_deadline = math.inf  # finite while writing pauses
        self._served = False  # a request came, so that `cycle` is no longer None
        self._owed = False  # a request waits for its answer
        self._in_head = False
        self._measure = False  # the head may be too large: it came in several parts, or in a large one
        self._silent_bytes = 0  # received since a head, a part of a body, or a message was complete
        self._refusal: bytes | None = None  # waits for the answers before it
        self._deaf = False  # what is received is dropped

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._deadline = self.loop.time() + self.head_seconds

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what cannot be a request."""
        if self._deaf:
            return
        in_head = self._in_head
        self._measure = in_head or len(data) > MAX_TARGET_BYTES
        self._silent_bytes += len(data)
        try:
            rest = None
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
            if rest is not None:
                self._read_again(rest)
            if self._silent_bytes > MAX_TARGET_BYTES + MAX_HEADER_BYTES:
                self._check_size(received=self._silent_bytes)
        except (ProblemError, httptools.HttpParserError) as error:
            self._refuse(error)
        else:
            if self._owed:
                self._deadline = self._renewed() if self.cycle.more_body else math.inf
            elif self._in_head and not in_head and self._served:
                self._deadline = self.loop.time() + self.head_seconds

    def _renewed(self) -> float:
        """The deadline after something came: a new one if that made a head whole, or was of a body."""
        return self._deadline if self._silent_bytes else self._body_deadline(self.loop.time())

    def _body_deadline(self, now: float) -> float:
        """When the next part of the newest request's body must have come."""
        return now + (self.body_seconds if self.cycle.body else min(self.body_seconds, self.request_seconds))

    def _read_again(self, rest: bytes) -> None:
        """Parse a request that asked for an upgrade once more, as if it had not.

        Args:
            rest: what was received after its head.
        """
        while True:
            fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
            target = self.url.decode("ascii")
            first = f"{self.scope['method']} {target} HTTP/{self.parser.get_http_version()}\r\n"
            data = b"".join([first.encode("ascii"), *fields, b"\r\n", rest])
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
            else:
                return

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field, in whichever list `headers` is."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check the head, and start the app or queue behind the answers that are due."""
        self._in_head = False
        self._silent_bytes = 0
        version = self.parser.get_http_version()
        current = version == "1.1"
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        fields = dict(self.headers)
        usual = current and b"host" in fields and b"transfer-encoding" not in fields
        if not usual or len(fields) < len(self.headers) or self._measure or self.pipeline:
            self._check_head(version)
        asked = current and b"expect" in fields and fields[b"expect"].lower() == b"100-continue"
        if self.parser.should_upgrade():
            if scope["method"] == "CONNECT":
                raise _malformed("This is no proxy.")
            return  # `data_received` reads it again
        if b"content-length" in fields and int(fields[b"content-length"]) > MAX_BODY_BYTES:
            raise too_large()
        self.headers = []  # trailer fields go here, and nowhere else
        if not current:
            scope["http_version"] = version
        url = self.url
        if url.startswith(b"/") and b"#" not in url:
            raw_path, _, scope["query_string"] = url.partition(b"?")
        else:
            raw_path, scope["query_string"] = _split(url)
        path = raw_path.decode("ascii")  # llhttp refuses all else
        scope["raw_path"] = raw_path
        scope["path"] = unquote(path) if "%" in path else path
        self.cycle = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=asked,
            keep_alive=current and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if self._owed:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._served = self._owed = True
            self._start_asgi_task(self.cycle, self.app)

    def _check_head(self, version: str) -> None:
        if self._measure:
            self._check_size()
        if version not in {"1.1", "1.0"}:
            raise _malformed(f"HTTP/{version} is not spoken here: use HTTP/1.1.")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise _malformed("The request must have one Host header.")
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or version == "1.0"):
            raise _malformed("The only transfer coding known here is chunked, in HTTP/1.1.")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _malformed(f"More than {MAX_PIPELINED} requests wait on this connection.")

    def _check_size(self, received: int = 0) -> None:
        if len(self.url) > MAX_TARGET_BYTES:
            raise ProblemError(URI_TOO_LONG, f"The URL is longer than {MAX_TARGET_BYTES} bytes.")
        if max(received, sum(len(name) + len(value) for name, value in self.headers)) > MAX_HEADER_BYTES:
            raise ProblemError(
                HEADERS_TOO_LARGE, f"The headers are longer than {MAX_HEADER_BYTES} bytes together."
            )

    def on_body(self, body: bytes) -> None:
        """Hand a part of the body over."""
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Tell the app that the body is whole."""
        self._silent_bytes = 0
        if self.parser.should_upgrade():
            return
        self.cycle.more_body = False
        self.cycle.message_event.set()
        if not self._owed:
            self._deadline = self.loop.time() + self.timeout_keep_alive

    def on_response_complete(self) -> None:
        """Go on with what comes next on the connection."""
        self.server_state.total_requests += 1
        now = self.loop.time()
        if self.transport.is_closing():
            self._deadline = now + self.timeout_keep_alive  # for a client that does not take its answer
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._deadline = self._body_deadline(now) if self.cycle.more_body else math.inf
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._owed = False
        if self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self.cycle.hangs_up:
            self._hang_up()
        elif self._in_head:
            self._deadline = now + self.head_seconds
        else:
            self._deadline = now + (self.linger_seconds if self.cycle.more_body else self.timeout_keep_alive)

    def pause_writing(self) -> None:
        """Wait for the client to take what it was sent."""
        super().pause_writing()
        self._write_deadline = self.loop.time() + self.write_seconds

    def resume_writing(self) -> None:
        """Go on: it took some."""
        super().resume_writing()
        self._write_deadline = math.inf

    def expire(self, now: float) -> None:
        """End what a client has let its time run out for: its request by an answer, or the connection.

        Args:
            now: the loop's time.
        """
        if now >= self._write_deadline:
            self.transport.abort()
        if now < self._deadline:
            return
        if self.transport.is_closing():
            self.transport.abort()
        elif self.flow.read_paused:
            self._deadline = now + self.body_seconds  # the app is slower than its client
            return
        elif self._owed and self.cycle.more_body and not self.cycle.response_started and not self._deaf:
            self._refuse(ProblemError(BODY_TOO_SLOW, "The body did not arrive in time."))
            return
        else:
            self.transport.close()
        self._deadline = now + self.linger_seconds

    def _refuse(self, error: ProblemError | httptools.HttpParserError) -> None:
        """Answer in the app's place, read no further, and close."""
        refusal = error if isinstance(error, ProblemError) else error.__context__  # what a callback raised
        if not isinstance(refusal, ProblemError):
            refusal = _malformed(f"The request is not valid HTTP/1.1: {error}.")
        self._deaf = True
        request_id = request_id_in(self.scope["headers"])
        address = self.client[0] if self.client else ""
        status = refusal.kind.status
        trace_id = trace_id_in(self.scope["headers"])
        log.info(
            "request refused",
            request_id=request_id, trace_id=trace_id, client=address, status=status, reason=str(refusal),
        )  # fmt: skip
        headers, body = closing_answer(refusal, request_id, trace_id)
        self._refusal = head_of(
            status, self.server_state.default_headers, headers, asked=self.scope["headers"]
        )
        self._refusal += body
        self._deadline = math.inf
        if not self._owed:
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
            exchange.more_body = False  # so that no time runs while the answers before it are due
        elif exchange.response_started:
            self.transport.close()
            self._deadline = self.loop.time() + self.linger_seconds
        elif self._refusal is not None:
            self._send_refusal(self._refusal)

    def _send_refusal(self, answer: bytes) -> None:
        self.transport.write(answer)
        self._hang_up()

    def _hang_up(self) -> None:
        """End our side, drop what still comes, and let the client close."""
        self._deaf = True
        self.transport.write_eof()
        self._deadline = self.loop.time() + self.linger_seconds
