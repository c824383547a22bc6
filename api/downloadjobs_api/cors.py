"""Cross-origin requests of browsers (https://fetch.spec.whatwg.org/#http-cors-protocol).

No answer allows credentials: browsers are told of no cookie, and send a user's token or header
only where the page itself names it. So `*` gives nobody more than a program has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

ANY: Final = "*"

METHODS: Final = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")

REQUEST_HEADERS: Final = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer",
    "X-Request-ID", "X-User-ID", "traceparent", "tracestate",
)  # fmt: skip
"""What a page may send beyond what browsers always allow."""

EXPOSED: Final = (
    "Allow", "ETag", "Location", "Preference-Applied", "RateLimit", "RateLimit-Limit", "RateLimit-Policy",
    "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "WWW-Authenticate", "X-Request-ID",
)  # fmt: skip
"""What a page may read of an answer's headers."""

PREFLIGHT_SECONDS: Final = 7200
"""How long a browser may remember a preflight's answer; Chromium does no longer."""

PREFLIGHT: Final = (
    ("access-control-allow-methods", ", ".join(METHODS)),
    ("access-control-allow-headers", ", ".join(REQUEST_HEADERS)),
    ("access-control-max-age", str(PREFLIGHT_SECONDS)),
    ("vary", "Access-Control-Request-Method, Access-Control-Request-Headers"),
)
"""The headers of a preflight's answer, beside those of every answer."""


class Cors:
    """What every answer says of who may read it.

    Args:
        origins: `*` alone for all, or such as `https://app.example.com`; none for nobody.
    """

    def __init__(self, origins: Sequence[str] = ()) -> None:
        exposed = f"access-control-expose-headers: {', '.join(EXPOSED)}\r\n"
        if ANY in origins:
            self.always = f"access-control-allow-origin: *\r\n{exposed}".encode()
            self._lines: dict[bytes, bytes] = {}
        else:
            self.always = b"vary: Origin\r\n" if origins else b""
            self._lines = {
                origin.encode(): f"access-control-allow-origin: {origin}\r\n{exposed}".encode()
                for origin in origins
            }
        self.by_origin = bool(self._lines)
        """Whether answers differ by who asks, so that `lines` must be asked."""

    def lines(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """What the answer to a request says beside `always`, as lines of a head.

        Args:
            headers: the request's, with names in lower case.
        """
        for name, value in headers:
            if name == b"origin":
                return self._lines.get(value, b"")
        return b""
