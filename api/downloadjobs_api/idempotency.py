"""The header Idempotency-Key: a request that comes again is answered as the first, and does nothing.

By draft-ietf-httpapi-idempotency-key-header-07 the value is a string of RFC 9651 (3.3.3), in quotes.
Most clients send the key bare, so that is taken too, and both mean the same.
"""

from __future__ import annotations

import re
from typing import Final

import falcon.asgi

from downloadjobs_api.problems import INVALID_IDEMPOTENCY_KEY, ProblemError

HEADER: Final = "idempotency-key"

_QUOTED: Final = re.compile(r'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')
_BARE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]+")
"""Without a comma, by which two such headers are joined (RFC 9110, 5.2), and without what quoting needs."""

MAX_KEY: Final = 255
"""Characters; a UUID has 36."""


def key_in(req: falcon.asgi.Request) -> str | None:
    """The request's key, or None without one.

    Raises:
        ProblemError: 400 for what is no key.
    """
    value = req.get_header(HEADER)
    if value is None:
        return None
    key = read_key(value)
    if key is None:
        raise ProblemError(
            INVALID_IDEMPOTENCY_KEY,
            f"Send Idempotency-Key once, with 1 to {MAX_KEY} visible ASCII characters, such as a UUID;"
            " one with a comma, a quote or a backslash in quotes.",
        )
    return key


def read_key(value: str) -> str | None:
    """The key that a header's value holds, or None if it holds none."""
    value = value.strip(" \t")
    quoted = _QUOTED.fullmatch(value)
    if quoted:
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(value):
        key = value
    else:
        return None
    return key if len(key) <= MAX_KEY else None
