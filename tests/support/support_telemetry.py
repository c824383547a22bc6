"""Servers that stand in for what telemetry is sent to: an OTLP collector, and a Sentry."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from support_worker import eventually


@dataclass(frozen=True)
class Received:
    """One request's path, headers (names in lower case) and body, unpacked."""

    path: str
    headers: dict[str, str]
    body: bytes


class Sink:
    """An HTTP server on loopback that keeps every POST and answers 200."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                sink.received.append(Received(self.path, headers, body))
                answer = sink.answer()
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self) -> bytes:
        """The body of every answer."""
        return b""

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True)
class SeenSpan:
    """A span as a collector got it. Ids are hex; the parent's is empty for a root."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: list[str] = field(default_factory=list)
    error: bool = False
    started_ns: int = 0
    ended_ns: int = 0


def _plain(pairs: Any) -> dict[str, Any]:  # noqa: ANN401 - a repeated field
    def value(pair: KeyValue) -> Any:  # noqa: ANN401 - one of several types
        kind = pair.value.WhichOneof("value")
        return None if kind is None else getattr(pair.value, kind)

    return {pair.key: value(pair) for pair in pairs}


class Collector(Sink):
    """An OTLP collector over HTTP and protobuf."""

    @property
    def endpoint(self) -> str:
        """For `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self.port}"

    def spans(self) -> list[SeenSpan]:
        """Everything that has arrived."""
        found = []
        for request in list(self.received):
            assert request.path == "/v1/traces"
            assert request.headers["content-type"] == "application/x-protobuf"
            message = ExportTraceServiceRequest.FromString(request.body)
            for resource in message.resource_spans:
                service = _plain(resource.resource.attributes)["service.name"]
                found += [
                    SeenSpan(
                        service, span.name, span.kind, span.trace_id.hex(), span.span_id.hex(),
                        span.parent_span_id.hex(), _plain(span.attributes),
                        [link.span_id.hex() for link in span.links], span.status.code == 2,
                        span.start_time_unix_nano, span.end_time_unix_nano,
                    )
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]  # fmt: skip
        return found

    def wait_for(self, name: str, count: int = 1) -> list[SeenSpan]:
        """Spans with this name, as soon as there are so many."""
        eventually(lambda: len(self.named(name)) >= count, what=f"{count} spans {name!r}")
        return self.named(name)

    def named(self, name: str) -> list[SeenSpan]:
        """Spans with this name."""
        return [span for span in self.spans() if span.name == name]


class FakeSentry(Sink):
    """Takes envelopes, https://develop.sentry.dev/sdk/data-model/envelopes/ ."""

    @property
    def dsn(self) -> str:
        """For `SENTRY_DSN`."""
        return f"http://public@127.0.0.1:{self.port}/1"

    def answer(self) -> bytes:
        """An event's id."""
        return b"{}"

    def events(self) -> list[dict[str, Any]]:
        """Every event that has arrived."""
        found = []
        for request in list(self.received):
            assert request.path == "/api/1/envelope/"
            lines = request.body.split(b"\n")[1:]
            while len(lines) > 1:
                header, payload, *lines = lines
                if json.loads(header)["type"] == "event":
                    found.append(json.loads(payload))
        return found

    def wait_for(self, count: int = 1) -> list[dict[str, Any]]:
        """Events, as soon as there are so many."""
        eventually(lambda: len(self.events()) >= count, what=f"{count} events in Sentry")
        return self.events()


@contextmanager
def closed_after(sink: Any) -> Iterator[Any]:  # noqa: ANN401 - whichever it is
    """Close a server at the end of a test."""
    try:
        yield sink
    finally:
        sink.close()
