"""The security headers of every answer, whether the app or the server itself wrote it.

What each is for: https://owasp.org/www-project-secure-headers/. The API serves data, so its
policy allows a browser nothing at all; the page of `/docs` has a policy of its own.
"""

from __future__ import annotations

from typing import Final

CONTENT_SECURITY_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""Nothing may be loaded, and no page may frame the answer (W3C CSP Level 3)."""

SECURITY_HEADERS: Final = (
    # A year (RFC 6797). Without includeSubDomains: the API does not decide for its domain's other hosts.
    ("strict-transport-security", "max-age=31536000"),
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
)
"""Names in lower case, and values, as Falcon's `Response.set_headers` takes them."""


def raw() -> list[tuple[bytes, bytes]]:
    """The headers as ASGI's `http.response.start` takes them."""
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in SECURITY_HEADERS]
