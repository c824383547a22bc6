"""`/dashboard`: a page to start jobs and to watch them. It is a client of the REST contract like any other.

The page and its assets are files of `dashboard_assets/`, read once at the start. Anybody may fetch
them: what they show, they ask the API for, as the user who looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final

import falcon
import falcon.asgi

from downloadjobs_api.fixed_answers import FixedAnswer
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

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


PATH: Final = "/dashboard"
CONFIG: Final = "config.json"


def paths() -> frozenset[str]:
    """The page and all that it consists of."""
    names = (file.name for file in _files())
    return frozenset({PATH, f"{PATH}/{CONFIG}", *(f"{PATH}/{name}" for name in names)})


def _files() -> list[Traversable]:
    found = (resources.files("downloadjobs_api") / "dashboard_assets").iterdir()
    return [file for file in found if _media_type(file.name)]


def _media_type(name: str) -> str:
    return _TYPES.get(f".{name.rpartition('.')[2]}", "")


def load_assets() -> Mapping[str, FixedAnswer]:
    """The page and its assets, by their names."""
    return {
        file.name: FixedAnswer(file.read_bytes(), _media_type(file.name), policy=POLICY) for file in _files()
    }


class Dashboard:
    """`GET /dashboard`, and `/dashboard/{name}` for an asset."""

    def __init__(self, assets: Mapping[str, FixedAnswer]) -> None:
        self._assets = assets

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str = PAGE) -> None:
        """One file, or 304 where the browser has it."""
        if not name:
            raise falcon.HTTPPermanentRedirect("../dashboard")  # relative, since a proxy may stand before it
        asset = self._assets.get(name)
        if asset is None:
            raise ProblemError(NOT_FOUND, "There is nothing at this path.")
        await asset.on_get(req, resp)

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
