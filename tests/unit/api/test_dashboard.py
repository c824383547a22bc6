from __future__ import annotations

import re
from html.parser import HTMLParser

import falcon.asgi
import falcon.testing
import pytest

from downloadjobs_api import problems
from downloadjobs_api.dashboard import PAGE, POLICY, Dashboard, load_assets
from downloadjobs_api.request_context import Request

ASSETS = load_assets()


@pytest.fixture
def client() -> falcon.testing.TestClient:
    """A client of an app that has the page only."""
    app: falcon.asgi.App = falcon.asgi.App(request_type=Request)  # type: ignore[type-arg]
    problems.install(app)
    dashboard = Dashboard(ASSETS)
    app.add_route("/dashboard", dashboard)
    app.add_route("/dashboard/{name}", dashboard)
    return falcon.testing.TestClient(app)


class Markup(HTMLParser):
    """What a page of HTML loads, and what in it is inline."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.inline: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._script = tag in {"script", "style"}
        self.loaded |= {
            value for name, value in given.items() if name in {"src", "href"} and value and tag != "a"
        }
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)


def test_the_page_loads_its_own_assets_only() -> None:
    """Everything that page, modules and style sheet name is one of the assets, and nothing is inline."""
    markup = Markup()
    markup.feed(ASSETS[PAGE].body.decode())
    assert markup.inline == []
    assert {f"dashboard/{name}" for name in ASSETS} >= markup.loaded
    imported = {
        name
        for asset, found in ASSETS.items()
        if asset.endswith(".js")
        for name in re.findall(r'from "\./([^"]+)"', found.body.decode())
    }
    assert imported <= set(ASSETS)
    reached = imported | {name.removeprefix("dashboard/") for name in markup.loaded}
    assert reached == set(ASSETS) - {PAGE}
    assert not re.search(r"url\(|@import", ASSETS["style.css"].body.decode())


@pytest.mark.parametrize("name", [name for name in ASSETS if name.endswith(".js")])
def test_no_module_makes_markup(name: str) -> None:
    """No module has a way by which data could become markup, style or code."""
    text = ASSETS[name].body.decode()
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\.style\b"
    assert not re.search(markup, text)


@pytest.mark.parametrize("name", ["", *(f"/{name}" for name in ASSETS)])
def test_an_asset_is_served(client: falcon.testing.TestClient, name: str) -> None:
    """Page and assets have their type, the page's own policy, and an ETag; HEAD has no body."""
    answer = client.simulate_get(f"/dashboard{name}")
    asset = ASSETS[name.removeprefix("/") or PAGE]
    assert answer.status_code == 200
    assert answer.content == asset.body
    assert answer.headers["content-type"] == asset.media_type
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-cache"
    etag = answer.headers["etag"]
    for known in (etag, f'"other", {etag.removeprefix("W/")}', "*"):
        again = client.simulate_get(f"/dashboard{name}", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.simulate_get(f"/dashboard{name}", headers={"if-none-match": '"old"'}).status_code == 200
    head = client.simulate_head(f"/dashboard{name}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(asset.body))


def test_the_policy_allows_nothing_inline_and_nobody_else() -> None:
    """Every directive of the policy is 'none' or 'self', and Trusted Types are required."""
    directives = dict(directive.split(" ", 1) for directive in POLICY.split("; "))
    assert directives.pop("require-trusted-types-for") == "'script'"
    assert set(directives.values()) == {"'none'", "'self'"}
    assert directives["default-src"] == "'none'"
    assert {"base-uri", "form-action", "frame-ancestors"} <= set(directives)


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fdashboard.py", "__init__.py", "style.css%00"])
def test_what_is_no_asset_is_404(client: falcon.testing.TestClient, name: str) -> None:
    """Only the files of the folder are served, by their whole names."""
    assert client.simulate_get(f"/dashboard/{name}").status_code == 404


def test_a_slash_at_the_end_leads_back(client: falcon.testing.TestClient) -> None:
    """`/dashboard/` is sent to the page, relatively, since a prefix may stand before it."""
    answer = client.simulate_get("/dashboard/")
    assert (answer.status_code, answer.headers["location"]) == (308, "../dashboard")
