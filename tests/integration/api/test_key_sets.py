"""Key sets by HTTP: read whole, bounded in size and time, and from nowhere else."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from downloadjobs_api import key_sets
from downloadjobs_api.key_sets import MAX_SET_BYTES, KeySetError, from_url
from support_webhooks import make_certificate

SET = b'{"keys": []}'

DRIPPED = {
    "/slow-status": (b"HTTP/1.1 200", b"x"),
    "/slow-head": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "/slow-line": (b"HTTP/1.1 200 OK\r\nA: ", b"b"),
    "/slow-body": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "/slow-length": (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b" "),
    "/slow-chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
}
"""What an issuer begins with, and then sends without end."""


class _Issuer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path in DRIPPED:
            self.drip(DRIPPED[self.path])
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()
        try:
            if self.path == "/large":
                for _ in range(MAX_SET_BYTES // 1024 * 4):
                    self.wfile.write(b"x" * 1024)
            else:
                self.wfile.write(SET)
        except OSError:
            return  # the reader has heard enough

    def drip(self, parts: tuple[bytes, bytes]) -> None:
        """Answer with the second part over and over."""
        try:
            self.wfile.write(parts[0])
            for _ in range(1000):
                self.wfile.write(parts[1])
                time.sleep(0.02)
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """The address of an issuer with several faults."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Issuer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tls_issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of an issuer with a certificate, and the file of who signed that."""
    served, authority = make_certificate(tmp_path_factory.mktemp("issuer"), "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Issuer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}", authority
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_set_is_read(issuer: str) -> None:
    """A set is what its URL answers."""
    assert from_url(f"{issuer}/good")() == SET


def test_an_issuer_of_ones_own_authority(tls_issuer: tuple[str, Path]) -> None:
    """`JWT_CA_FILE` has an issuer trusted that no public authority knows; without it there is no set."""
    address, authority = tls_issuer
    assert from_url(f"{address}/good", authority)() == SET
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        from_url(f"{address}/good")()


@pytest.mark.parametrize(("path", "why"), [("/large", "more than"), ("/moved", "redirects")])
def test_a_set_is_bounded(issuer: str, path: str, why: str) -> None:
    """An endless answer is cut off, and a redirect is not followed."""
    with pytest.raises(KeySetError, match=why):
        from_url(issuer + path)()


@pytest.mark.parametrize("path", DRIPPED)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_set_that_trickles_is_given_up(
    issuer: str, tls_issuer: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, path: str, *, secure: bool
) -> None:
    """The time is that of the whole answer, head and body, not of each part."""
    monkeypatch.setattr(key_sets, "FETCH_SECONDS", 0.3)
    address, authority = tls_issuer if secure else (issuer, None)
    started = time.monotonic()
    with pytest.raises(KeySetError, match="too long"):
        from_url(address + path, authority)()
    assert 0.25 < time.monotonic() - started < 3


def test_a_set_comes_through_a_proxy(issuer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment count."""
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", issuer)
    monkeypatch.setenv("http_proxy", issuer)
    assert from_url("http://sso.invalid/keys")() == SET


def test_an_error_is_no_set(issuer: str) -> None:
    """An answer that is an error is not looked at."""
    with pytest.raises(OSError, match="500"):
        from_url(f"{issuer}/broken")()
