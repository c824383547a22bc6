"""JSON Web Key Sets (RFC 7517): read one from a URL or a file, and find the keys that may sign tokens."""

from __future__ import annotations

import io
import json
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FETCH_SECONDS: Final = 5.0
"""For the whole of an answer, its head included; as long for each step of the connection before it."""

MAX_SET_BYTES: Final = 512 * 1024
"""Of a set; large issuers have some 10 kB."""

CHUNK_BYTES: Final = 16 * 1024

KEY_TYPES: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None), "RS384": ("RSA", None), "RS512": ("RSA", None),
    "PS256": ("RSA", None), "PS384": ("RSA", None), "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}  # fmt: skip
"""Algorithms whose keys have a public half, and the type and curve of those keys (RFC 7518, RFC 8037)."""

Load = Callable[[], bytes]
"""Reads a set; it may block."""

Jwk = Mapping[str, Any]


class KeySetError(Exception):
    """A set cannot be read, or is none."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, _req: object, _fp: IO[bytes], code: int, _msg: str, _headers: HTTPMessage, newurl: str
    ) -> None:
        raise KeySetError(f"it redirects (HTTP {code}) to {newurl}: name that URL instead")


class _TimedReader(io.RawIOBase):
    """What a socket receives until a moment: its own time-out would begin anew with each byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, end: float) -> None:
        self._raw = raw
        self._sock = sock
        self._end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(HTTPResponse):
    def __init__(self, sock: socket.socket, method: str | None = None, *, end: float) -> None:
        super().__init__(sock, method=method)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock, end))


def _timed(make: Callable[..., HTTPConnection], host: str, *, timeout: float) -> HTTPConnection:
    connection = make(host, timeout=timeout)
    end = time.monotonic() + timeout
    connection.response_class = partial(_TimedResponse, end=end)  # type: ignore[assignment]  # it is only called
    return connection


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_timed, HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._make = partial(HTTPSConnection, context=context)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_timed, self._make), req)


def from_url(url: str, ca_file: Path | None = None) -> Load:
    """Read the set at a URL. Proxies of the environment count, redirects do not.

    Args:
        url: `https://…`, or `http://…` inside of a cluster.
        ca_file: certificates to trust instead of the system's (PEM).
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    opener = urllib.request.build_opener(_Http(), _Https(context), _NoRedirects())
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - a setting

    def load() -> bytes:
        found = bytearray()
        try:
            with opener.open(request, timeout=FETCH_SECONDS) as answer:
                while chunk := answer.read1(CHUNK_BYTES):
                    found += chunk
                    if len(found) > MAX_SET_BYTES:
                        raise KeySetError(f"it has more than {MAX_SET_BYTES} bytes")
        except TimeoutError:
            raise KeySetError("it takes too long") from None
        return bytes(found)

    return load


def from_file(path: Path) -> Load:
    """Read the set in a file, such as a mounted ConfigMap, which may change."""
    return path.read_bytes


def parse(data: bytes) -> Sequence[Jwk]:
    """The keys of a set that can sign tokens; others are left out (RFC 7517, 5).

    Raises:
        KeySetError: it is no set, or has none of them.
    """
    try:
        listed = json.loads(data)["keys"]
        keys = [key for key in listed if isinstance(key, dict) and isinstance(key.get("kty"), str)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeySetError('it is not a JSON Web Key Set, {"keys": [...]}') from None
    known = {kind for kind, _ in KEY_TYPES.values()}
    usable = [key for key in keys if key.get("kty") in known and key.get("use", "sig") == "sig"]
    if not usable:
        raise KeySetError("it has no public key for signatures")
    return usable
