"""One request and its answer on a connection: uvicorn's cycle, quicker, and whole or not at all.

An answer's head has a part that all answers share: date and security headers. It is made once a
second and not by the app. Head and body go out in one write (ASGI has the head wait for the body).
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from downloadjobs_api.cors import Cors
from downloadjobs_api.problems import (
    BAD_REQUEST,
    CACHE_CONTROL,
    CONTENT_TYPE,
    DRAINING,
    INTERNAL_ERROR,
    ProblemError,
    document,
)
from downloadjobs_api.request_context import HEAD_LINES, request_id_of
from downloadjobs_api.security_headers import raw
from downloadjobs_core import trace_context

Headers = list[tuple[bytes, bytes]]

POLICY: Final = b"content-security-policy"
UNACKNOWLEDGED: Final = getattr(socket, "TCP_USER_TIMEOUT", None)
UNACKNOWLEDGED_MS: Final = 30_000
"""RFC 5482's user time-out; Linux has it."""

WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


_SECURITY: Final = _lines(header for header in raw() if header[0] != POLICY)
_POLICY: Final = _lines(header for header in raw() if header[0] == POLICY)


class _Shared:
    """The shared part of all heads, made anew when uvicorn has a new date."""

    made_of: Headers | None = None
    head = b""
    cors = Cors()

    @classmethod
    def of(cls, default_headers: Headers) -> bytes:
        if cls.made_of is not default_headers:
            cls.made_of = default_headers
            cls.head = _lines(default_headers) + _SECURITY + cls.cors.always
        return cls.head


def share(cors: Cors) -> None:
    """Have all answers of this process say who may read them."""
    _Shared.cors = cors
    _Shared.made_of = None


def head_of(
    status: int,
    default_headers: Headers,
    headers: Iterable[tuple[bytes, bytes]],
    asked: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """The head of an answer that the server itself writes.

    Args:
        status: HTTP's.
        default_headers: uvicorn's, with the date.
        headers: the answer's own.
        asked: the request's, as far as they came.
    """
    shared = _Shared.of(default_headers) + _POLICY + _Shared.cors.lines(asked)
    return b"".join([STATUS_LINE[status], shared, _lines(headers), b"\r\n"])


def closing_answer(problem: ProblemError, request_id: str, trace_id: str) -> tuple[Headers, bytes]:
    """Headers and body of an answer after which the connection closes."""
    body = document(problem.kind, problem.message, request_id, trace_id)
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"cache-control", CACHE_CONTROL.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    return headers, body


def request_id_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's request id, or a new one."""
    given = dict(headers).get(b"x-request-id")
    return request_id_of(given.decode("latin-1") if given is not None else None)


def trace_id_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id of the client's trace, or a new one."""
    given = dict(headers).get(b"traceparent")
    accepted = trace_context.accept(given.decode("latin-1") if given is not None else None)
    return trace_context.trace_id(accepted)


class Exchange(RequestResponseCycle):
    """One request and its answer."""

    hangs_up = False  # the connection ends after this answer, though the request is not whole yet
    _body_open = False  # part of the request's body was handed over, and not yet its end
    _until_close = False  # the answer's body ends with the connection
    _head: bytes | None = None  # waits for the first part of the answer's body

    async def receive(self) -> ASGIReceiveEvent:
        """The next part of the request.

        Raises:
            ProblemError: the client went away in the middle of the body. Nobody will read the answer.
        """
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            if not self.message_event.is_set():
                await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            if self._body_open and not self.response_complete:
                raise ProblemError(BAD_REQUEST, "The body ended before its whole length.")
            return {"type": "http.disconnect"}
        body, self.body = self.body, bytearray()
        self._body_open = self.more_body
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: ASGISendEvent) -> None:
        """Send the next part of the answer.

        Raises:
            RuntimeError: the app breaks the protocol, or a header would end early.
        """
        if not self.response_started and message["type"] == "http.response.start":
            self._head = self._begin(message)
            return
        if self.more_body and not self.keep_alive:
            self.keep_alive = self.hangs_up = True  # `HttpProtocol` closes, once the answer has arrived
        if self._until_close and message["type"] == "http.response.body":
            self.expected_content_length = len(message.get("body", b""))  # uvicorn wants one that is kept
        if self._head is None or message["type"] != "http.response.body":
            await super().send(message)
        else:
            await self._first_part(message, self._head)

    def _begin(self, message: HTTPResponseStartEvent) -> bytes:
        """Render the head, and learn from it how the body is framed."""
        self.response_started = True
        self.waiting_for_100_continue = False
        status = message["status"]
        parts = [STATUS_LINE[status], _Shared.of(self.default_headers)]
        policy, closing = _POLICY, False
        count = 0
        for name, value in message.get("headers", ()):
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == POLICY:
                policy = b""
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                closing = True
            parts.append(b"%b: %b\r\n" % (name, value))
            count += 1
        own = b"".join(parts[2:])
        if own.count(b"\n") != count or own.count(b"\r") != count or b"\0" in own:
            raise RuntimeError("a header's name or value has a line break")
        parts.append(policy)
        if HEAD_LINES in self.scope:
            parts.append(self.scope[HEAD_LINES])  # type: ignore[typeddict-item]  # our own key
        if _Shared.cors.by_origin:
            parts.append(_Shared.cors.lines(self.scope["headers"]))
        if not self.keep_alive and not closing:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in WITHOUT_BODY:
            parts.append(self._framed_without_length())
        parts.append(b"\r\n")
        return b"".join(parts)

    def _framed_without_length(self) -> bytes:
        """Have the body end by itself or, for HTTP/1.0, with the connection; the line that says so."""
        # HTTP/1.0 has no transfer codings (RFC 9112 section 6.1), and its connections are never kept.
        self._until_close = self.scope["http_version"] == "1.0"
        self.chunked_encoding = not self._until_close
        return b"transfer-encoding: chunked\r\n" if self.chunked_encoding else b""

    async def _first_part(self, message: HTTPResponseBodyEvent, head: bytes) -> None:
        self._head = None
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        body = message.get("body", b"")
        whole = not self.chunked_encoding and not message.get("more_body", False)
        if not whole or self.scope["method"] == "HEAD" or len(body) != self.expected_content_length:
            if message.get("more_body", False):
                self._notice_half_open()
            self.transport.write(head)
            await super().send(message)
            return
        self.transport.write(head + body)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _notice_half_open(self) -> None:
        """Have the connection closed if what is sent is not acknowledged.

        A client may vanish without a word; TCP alone would go on for some 15 minutes.
        """
        raw_socket = self.transport.get_extra_info("socket")
        if raw_socket is not None and raw_socket.family != socket.AF_UNIX and UNACKNOWLEDGED is not None:
            raw_socket.setsockopt(socket.IPPROTO_TCP, UNACKNOWLEDGED, UNACKNOWLEDGED_MS)

    async def send_500_response(self) -> None:
        """Answer for an app that raised, or that was cancelled because the drain's time is over."""
        if isinstance(sys.exception(), asyncio.CancelledError):
            problem = ProblemError(DRAINING, "The service is stopping, and this took too long. Try again.")
        else:
            problem = ProblemError(INTERNAL_ERROR, "The service met an unexpected fault.")
        given = self.scope["headers"]
        headers, body = closing_answer(problem, request_id_in(given), trace_id_in(given))
        self.scope.pop(HEAD_LINES, None)  # type: ignore[typeddict-item]  # the request's id would stand twice
        await self.send({"type": "http.response.start", "status": problem.kind.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})
