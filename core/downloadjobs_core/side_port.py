"""A few pages for the platform, on a port of their own: metrics and probes.

They are answered by threads of their own, so that they say how the process is even when
its work is stuck. Nobody else should reach them: no page asks who it is for.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

from downloadjobs_core import logs

CONNECTION_SECONDS: Final = 5.0
"""How long one who connects may say nothing."""

TEXT: Final = "text/plain; charset=utf-8"

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says."""

    body: bytes
    status: int = HTTPStatus.OK
    content_type: str = TEXT


Page = Callable[[str], Answer]
"""Makes a page, given the request's `Accept` header. Called in several threads at once."""


def probe(*, good: bool, message: str) -> Answer:
    """The answer to a probe."""
    return Answer(f"{message}\n".encode(), HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)


class SidePort:
    """Serves pages by their paths until the process ends.

    Args:
        listener: may be shared with other processes; each connection is taken by one of them.
        pages: by path.
    """

    def __init__(self, listener: socket.socket, pages: Mapping[str, Page]) -> None:
        # Another process that shares it may be quicker to take the connection we were woken for.
        listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._server = _Server(listener, pages)
        self._thread = threading.Thread(target=self._server.serve_forever, name="side port", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, pages: Mapping[str, Page]) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()  # the one that super made
        self.socket = listener
        self.pages = pages

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: who asks may go away at any time. A page's own fault is logged by the handler."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CONNECTION_SECONDS
    server_version = "downloadjobs"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a GET or a HEAD."""
        page = self.server.pages.get(urlsplit(self.path).path)
        answer = Answer(b"There is nothing at this path.\n", HTTPStatus.NOT_FOUND)
        if page is not None:
            try:
                answer = page(self.headers.get("Accept", ""))
            except Exception:
                log.exception("a page could not be made", path=self.path)
                answer = Answer(b"An unexpected fault.\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log no requests: they come every few seconds."""
