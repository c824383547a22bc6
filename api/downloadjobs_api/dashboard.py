"""`/dashboard`: a page to start jobs and to watch them. It is a client of the REST contract like any other.

The page and its assets are files of `dashboard_assets/`, read once at the start. Anybody may fetch
them: what they show, they ask the API for, as the user who looks at them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import falcon
import falcon.asgi

from downloadjobs_api.problems import NOT_FOUND, ProblemError
from downloadjobs_api.resources import send_json
from downloadjobs_api.settings import ApiSettings
from downloadjobs_core import __version__
from downloadjobs_core.job import MAX_FILE_ID, MAX_FILES, MIN_FILE_ID

PAGE: Final = "index.html"

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # No text of a job can become markup, whatever a script does (W3C Trusted Types).
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing inline, nothing from elsewhere (W3C CSP Level 3)."""

CACHE_CONTROL: Final = "no-cache"
"""A browser asks each time whether its copy is still good, so that all parts are of one release."""

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    content: bytes
    content_type: str
    etag: str
    """With its quotes (RFC 9110, 8.8.3)."""


def load_assets() -> Mapping[str, Asset]:
    """The page and its assets, by their names."""
    found = {}
    for file in (resources.files("downloadjobs_api") / "dashboard_assets").iterdir():
        content_type = _TYPES.get(f".{file.name.rpartition('.')[2]}")
        if content_type is not None:
            content = file.read_bytes()
            found[file.name] = Asset(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


class Dashboard:
    """`GET /dashboard`, and `/dashboard/{name}` for an asset."""

    def __init__(self, assets: Mapping[str, Asset]) -> None:
        self._assets = assets

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str = PAGE) -> None:
        """One file, or 304 where the browser has it."""
        if not name:
            raise falcon.HTTPPermanentRedirect("../dashboard")  # relative, since a proxy may stand before it
        asset = self._assets.get(name)
        if asset is None:
            raise ProblemError(NOT_FOUND, "There is nothing at this path.")
        resp.set_header("content-security-policy", POLICY)
        resp.set_header("cache-control", CACHE_CONTROL)
        resp.set_header("etag", asset.etag)
        known = req.get_header("if-none-match")
        if known is not None and (known == "*" or asset.etag in known):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = asset.content_type
        resp.data = asset.content

    on_head = on_get


def dashboard_config(settings: ApiSettings, *, mock_storage: bool) -> dict[str, Any]:
    """What the page must know before it asks for anything; `docs/dashboard.md` shows it."""
    return {
        "version": __version__,
        "authMode": settings.auth_mode.value,
        "mockStorage": mock_storage,
        "fileIds": {"least": MIN_FILE_ID, "most": MAX_FILE_ID, "count": MAX_FILES},
        "callbacks": settings.webhook_public_key_file is not None,
    }


class DashboardConfig:
    """`GET /dashboard/config.json`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    async def on_get(self, _req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        """It does not change while the process lives, but may with the next."""
        resp.set_header("cache-control", "no-store")
        send_json(resp, self._config)
