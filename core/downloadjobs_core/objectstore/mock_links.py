"""The signed links of the mock storage: what presigned URLs are to S3."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final

from downloadjobs_core.errors import LinkRefusedError

LINK_PATH: Final = "/v1/mock/"
"""Where the API serves them. What follows it is a secret for as long as the link is good: no log, trace or
metric has it."""

KEY_BYTES: Final = 32


class LinkSigner:
    """Makes and checks tokens that name one object, until a time.

    Args:
        key_file: holds the random key; made on first use, readable by its owner alone. All
            processes with the same file accept one another's tokens.
    """

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def sign(self, key: str, expires_at: int, filename: str | None) -> str:
        """A token for the object `key`, good until `expires_at` (Unix time, seconds)."""
        payload = json.dumps([key, expires_at, filename], separators=(",", ":")).encode()
        return f"{_encode(payload)}.{_encode(self._mac(payload))}"

    def verify(self, token: str, now: float) -> tuple[str, str | None]:
        """The object's key and the file name that a token was signed for.

        Raises:
            LinkRefusedError: it is past its time, or was not signed with this key.
        """
        payload, _, mac = token.partition(".")
        try:
            content = _decode(payload)
            genuine = hmac.compare_digest(_decode(mac), self._mac(content))
        except (binascii.Error, UnicodeEncodeError):
            genuine, content = False, b""
        if not genuine:
            raise LinkRefusedError("This link was not made by this server, or was changed on the way.")
        key, expires_at, filename = json.loads(content)
        if now >= expires_at:
            raise LinkRefusedError("This link is past its time: ask for a new one.")
        return key, filename

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, payload, hashlib.sha256)

    @cached_property
    def _secret(self) -> bytes:
        # A whole file takes its name in one step, so that no process ever reads half a key;
        # linking fails where another process was first.
        if not self._key_file.exists():
            fresh = self._key_file.with_name(f"{self._key_file.name}.{secrets.token_hex(8)}")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            try:
                with suppress(FileExistsError):
                    self._key_file.hardlink_to(fresh)
            finally:
                fresh.unlink()
        return self._key_file.read_bytes()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
