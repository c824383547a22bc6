"""Requests that depend on what the client has: ETag, If-Match, If-None-Match (RFC 9110, 8.8.3 and 13.1)."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import falcon
import falcon.asgi

CACHE_CONTROL: Final = "private, no-cache"
"""A client may keep the answer, and must ask before it is used again; a cache between may not keep it."""

TAG_BYTES: Final = 12
"""Of a digest: two bodies of one URL have the same by chance once in 2**48."""


def tag_of(body: bytes) -> str:
    """The tag of a body, for answers that have nothing simpler which changes with them.

    Weak, like all tags here: a proxy may compress the answer.
    """
    return f'W/"{blake2b(body, digest_size=TAG_BYTES).hexdigest()}"'


def matches(condition: str, tag: str) -> bool:
    """Whether an If-None-Match names a weak tag of ours. What breaks its syntax names none.

    Args:
        condition: the header's value, several of them joined by commas.
        tag: as the answer has it, `W/` included.
    """
    if condition in (tag, "*"):
        return True
    opaque = tag.removeprefix("W/")
    # Our tags hold no comma, so the parts of another tag that does are no match.
    return any(part.strip().removeprefix("W/") == opaque for part in condition.split(","))


def matches_strongly(condition: str, tag: str) -> bool:
    """Whether an If-Match names a strong tag of ours. `*` is any; what breaks its syntax names none."""
    return condition.strip() == "*" or any(part.strip() == tag for part in condition.split(","))


def is_known(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, tag: str, *, cache_control: str = CACHE_CONTROL
) -> bool:
    """Tag an answer. True if the client has it already: then it is 304, and needs no body."""
    resp.set_header("etag", tag)
    resp.set_header("cache-control", cache_control)
    condition = req.get_header("if-none-match")
    if condition is None or not matches(condition, tag):
        return False
    resp.status = falcon.HTTP_304
    return True


def send_tagged(req: falcon.asgi.Request, resp: falcon.asgi.Response, body: bytes, media_type: str) -> None:
    """Answer with a body, or with 304 if the client has it already."""
    if not is_known(req, resp, tag_of(body)):
        resp.content_type = media_type
        resp.data = body
