"""JSON Web Key Sets (RFC 7517): read one from a URL or a file, and find the keys that may sign tokens."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, Final

FETCH_SECONDS: Final = 5.0
"""For the whole of a set, from the connection on."""

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


def from_url(url: str, ca_file: Path | None = None) -> Load:
    """Read the set at a URL. Proxies of the environment count, redirects do not.

    Args:
        url: `https://…`, or `http://…` inside of a cluster.
        ca_file: certificates to trust instead of the system's (PEM).
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects())
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - a setting

    def load() -> bytes:
        end = time.monotonic() + FETCH_SECONDS
        found = bytearray()
        with opener.open(request, timeout=FETCH_SECONDS) as answer:
            while chunk := answer.read1(CHUNK_BYTES):
                found += chunk
                if len(found) > MAX_SET_BYTES:
                    raise KeySetError(f"it has more than {MAX_SET_BYTES} bytes")
                if time.monotonic() > end:
                    raise KeySetError("it takes too long")
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
