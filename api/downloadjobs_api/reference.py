"""`/openapi`, `/docs` and `/doc`: the contract, for programs and for people."""

from __future__ import annotations

import hashlib
from importlib import resources as packaged
from typing import Any, Final

import falcon
import falcon.asgi
import msgspec

from downloadjobs_api.reference_page import STYLE_SHEET, render

PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Fixed:
    """An answer that does not change while the process lives, with an `ETag` that tells so."""

    def __init__(self, body: bytes, media_type: str, *, policy: str | None = None) -> None:
        self._body = body
        self._media_type = media_type
        self._etag = hashlib.sha256(body).hexdigest()[:32]
        self._policy = policy

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """Send it, or 304 to who has it already."""
        resp.etag = self._etag
        resp.cache_control = ("no-cache",)
        if any(known in ("*", self._etag) for known in req.if_none_match or ()):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = self._media_type
        resp.data = self._body
        if self._policy is not None:
            resp.set_header("content-security-policy", self._policy)

    on_head = on_get


def add_routes(app: falcon.asgi.App[Any, Any], document: dict[str, Any]) -> None:
    """Serve an OpenAPI document, and the page that is made of it."""
    page = Fixed(render(document).encode(), "text/html; charset=utf-8", policy=PAGE_POLICY)
    style = (packaged.files("downloadjobs_api") / "assets" / "reference.css").read_bytes()
    app.add_route("/openapi", Fixed(msgspec.json.encode(document), "application/json"))
    app.add_route("/docs", page)
    app.add_route("/doc", page)
    app.add_route(STYLE_SHEET, Fixed(style, "text/css; charset=utf-8"))
