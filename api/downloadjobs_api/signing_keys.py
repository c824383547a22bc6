"""The issuer's public keys: a JSON Web Key Set (RFC 7517) from a URL or a file, read in a thread and kept.

A set that was read once stays until a newer one is there, also while the issuer is away. A key that
is not in it makes the set be read again, but not often: tokens with made-up key ids cost nothing.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, Final

import jwt

from downloadjobs_core import logs

FETCH_SECONDS: Final = 5.0
"""For the whole of a set, from the connection on."""

MAX_SET_BYTES: Final = 512 * 1024
"""Of a set; large issuers have some 10 kB."""

CHUNK_BYTES: Final = 16 * 1024

FRESH_SECONDS: Final = 300.0
"""After which a set is read again, while requests go on with it: so long a key that was taken out counts."""

PAUSE_SECONDS: Final = 10.0
"""Between two readings, whatever tokens ask for, and whether they succeed or not."""

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

log = logs.logger(__name__)


class KeySetError(Exception):
    """A set cannot be read, or is none."""


class KeysUnavailableError(Exception):
    """There is no set yet, and none can be had now."""


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


class SigningKeys:
    """The newest set that could be read."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._keys: Sequence[Jwk] = ()
        self._made: dict[tuple[str | None, str], list[jwt.PyJWK]] = {}
        self._read_at = -FRESH_SECONDS
        self._tried_at = -PAUSE_SECONDS
        self._reading: asyncio.Task[None] | None = None
        self._failing = False
        self.version = 0
        """Another number for each set that differs from the one before."""

    async def get(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """The keys that may have made a signature: more than one only if the token does not name its key.

        Raises:
            KeysUnavailableError: no set could be read yet.
        """
        self.refresh()
        found = self._find(key_id, algorithm)
        if not found:
            if self._reading is None and time.monotonic() - self._tried_at >= PAUSE_SECONDS:
                self._read_again()
            if self._reading is not None:
                await asyncio.shield(self._reading)
                found = self._find(key_id, algorithm)
        if not found and not self._keys:
            raise KeysUnavailableError
        return found

    def refresh(self) -> None:
        """Have an old set read again, without waiting for it."""
        now = time.monotonic()
        old = now - self._read_at >= FRESH_SECONDS
        if old and self._reading is None and now - self._tried_at >= PAUSE_SECONDS:
            self._read_again()

    def _read_again(self) -> None:
        self._tried_at = time.monotonic()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            keys = parse(await asyncio.to_thread(self._load))
        except (KeySetError, OSError, ValueError) as error:
            # `URLError` and time-outs are OSErrors; a set that is kept goes on being used.
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            level = log.error if not self._keys else log.warning
            level("the issuer's keys cannot be read", error=str(reason), kept=len(self._keys))
            self._failing = True
            return
        finally:
            self._reading = None
        self._read_at = time.monotonic()
        if keys != self._keys:
            self._keys, self._made = keys, {}
            self.version += 1
        if self._failing or self.version == 1:
            self._failing = False
            log.info("the issuer's keys are read", keys=len(keys))

    def _find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        found = self._made.get((key_id, algorithm))
        if found is None:
            found = [key for jwk in self._keys if (key := _usable(jwk, key_id, algorithm)) is not None]
            if found:  # what is not there is not remembered: anybody can make ids up
                self._made[key_id, algorithm] = found
        return found


def _usable(jwk: Jwk, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
    """A key for an algorithm, if the set means it for that one; a key that cannot be read is left out."""
    kind, curve = KEY_TYPES[algorithm]
    if key_id is not None and jwk.get("kid") != key_id:
        return None
    if jwk["kty"] != kind or (curve and jwk.get("crv") != curve) or jwk.get("alg", algorithm) != algorithm:
        return None
    try:
        return jwt.PyJWK(dict(jwk), algorithm)
    except jwt.PyJWTError:
        return None
