"""The issuer's public keys: its key set, read in a thread and kept.

A set that was read once stays until a newer one is there, also while the issuer is away. A key that
is not in it makes the set be read again, but not often: tokens with made-up key ids cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
import urllib.error
from collections.abc import Sequence
from typing import Final

import jwt

from downloadjobs_api.identity import KeysUnavailableError
from downloadjobs_api.key_sets import FETCH_SECONDS, KEY_TYPES, Jwk, Load, parse
from downloadjobs_core import logs

FRESH_SECONDS: Final = 300.0
"""After which a set is read again, while requests go on with it: so long a key that was taken out counts."""

PAUSE_SECONDS: Final = 10.0
"""Between two readings, whatever tokens ask for, and whether they succeed or not."""

READ_SECONDS: Final = FETCH_SECONDS + 1
"""For which requests wait for a reading, whatever its thread hangs in, such as the look-up of a name."""

MAX_REASON: Final = 200
"""Characters of the log's `error`; the fault may quote what the issuer sent."""

log = logs.logger(__name__)


class SigningKeys:
    """The newest set that could be read."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._keys: Sequence[Jwk] = ()
        self._made: dict[tuple[str | None, str], list[jwt.PyJWK]] = {}
        self._read_at = -FRESH_SECONDS
        self._tried_at = -PAUSE_SECONDS
        self._reading: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[bytes] | None = None
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
            keys = parse(await self._loaded())
        except Exception as error:  # noqa: BLE001 - whatever the issuer does, a set that is kept goes on being used
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            text = str(reason)[:MAX_REASON] or type(reason).__name__
            level = logging.WARNING if self._keys else logging.ERROR
            log.log(level, "the issuer's keys cannot be read", error=text, kept=len(self._keys))
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

    async def _loaded(self) -> bytes:
        """A new answer, or that which a thread waits for since an earlier reading: there are never two."""
        if self._loading is None or self._loading.done():
            self._loading = asyncio.get_running_loop().create_task(asyncio.to_thread(self._load))
        async with asyncio.timeout(READ_SECONDS):
            return await asyncio.shield(self._loading)

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
