"""`/openapi`, `/docs` and `/doc`: the contract, for programs and for people."""

from __future__ import annotations

from importlib import resources as packaged
from typing import Any, Final

import falcon.asgi
import msgspec

from downloadjobs_api.fixed_answers import FixedAnswer
from downloadjobs_api.reference_page import STYLE_SHEET, render

PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_routes(app: falcon.asgi.App[Any, Any], document: dict[str, Any]) -> None:
    """Serve an OpenAPI document, and the page that is made of it."""
    page = FixedAnswer(render(document).encode(), "text/html; charset=utf-8", policy=PAGE_POLICY)
    style = (packaged.files("downloadjobs_api") / "reference_assets" / "reference.css").read_bytes()
    app.add_route("/openapi", FixedAnswer(msgspec.json.encode(document), "application/json"))
    app.add_route("/docs", page)
    app.add_route("/doc", page)
    app.add_route(STYLE_SHEET, FixedAnswer(style, "text/css; charset=utf-8"))
