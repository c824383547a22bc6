"""Answers that do not change while the process lives: pages, their files, the OpenAPI document."""

from __future__ import annotations

from typing import Final

import falcon.asgi

from downloadjobs_api.conditional import is_known, tag_of

CACHE_CONTROL: Final = "no-cache"
"""A browser asks each time whether its copy is still good, so that all parts are of one release."""


class FixedAnswer:
    """One of them, as a resource.

    Args:
        body: the whole body.
        media_type: its type.
        policy: the Content-Security-Policy of a page and its files, in place of that which allows nothing.
    """

    def __init__(self, body: bytes, media_type: str, *, policy: str | None = None) -> None:
        self.body = body
        self.media_type = media_type
        self._tag = tag_of(body)
        self._policy = policy

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Send it, or 304 to who has it already."""
        if self._policy is not None:
            resp.set_header("content-security-policy", self._policy)
        if not is_known(req, resp, self._tag, cache_control=CACHE_CONTROL):
            resp.content_type = self.media_type
            resp.data = self.body

    on_head = on_get
