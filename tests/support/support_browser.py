"""Pages in a real browser: opened, watched for faults, and examined by axe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from support_page import AT

DESKTOP: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 390, "height": 844}
SMALLEST: Final = {"width": 320, "height": 640}
"""At which nothing may need scrolling in two directions (WCAG 2.2, 1.4.10)."""

RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")

NETWORK: Final = "Failed to load resource"
"""What Chromium itself says of each answer with an error's status; the page says nothing."""

expect.set_options(timeout=15_000)


class Opener:
    """Opens pages. What they may not do is found out at the end: faults, violations, requests elsewhere."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.faults: list[str] = []
        self.elsewhere: list[str] = []
        """Requests to other hosts than the page's own. They never leave this machine."""

    def open(
        self,
        url: str,
        *,
        size: dict[str, int] = DESKTOP,
        dark: bool = False,
        fixed: bool = True,
        also: Sequence[str] = (),
        **context: object,
    ) -> Page:
        """Open a page.

        Args:
            url: where it is.
            size: of the window, in CSS pixels.
            dark: the system's colours.
            fixed: the time stands still at `AT`.
            also: other hosts, with their ports, that may be asked.
            context: more of the browser's settings.
        """
        settings: dict[str, Any] = {
            "viewport": size, "color_scheme": "dark" if dark else "light", "reduced_motion": "reduce",
            "locale": "en-GB", "timezone_id": "UTC", **context,
        }  # fmt: skip
        opened = self._browser.new_context(**settings)
        self._contexts.append(opened)
        own = {urlsplit(url).netloc, *also}
        opened.route(lambda found: urlsplit(found).netloc not in own, self._answer)
        page = opened.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        if fixed:
            page.clock.set_fixed_time(AT)
        page.goto(url)
        return page

    def _answer(self, route: Any) -> None:  # noqa: ANN401 - Playwright's Route
        request: Request = route.request
        self.elsewhere.append(request.url)
        route.fulfill(
            status=200, content_type="application/zip", body=b"PK",
            headers={"content-disposition": "attachment; filename=result.zip"},
        )  # fmt: skip

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(NETWORK):
            self.faults.append(f"{message.type}: {message.text}")

    def check_and_close(self) -> None:
        """Close all pages, and fail if one did what it may not."""
        for context in self._contexts:
            context.close()
        assert self.faults == []
        assert self.elsewhere == []


def violations(page: Page) -> Sequence[str]:
    """What axe finds wrong with the page as it is now."""
    options = {"runOnly": {"type": "tag", "values": list(RULES)}, "resultTypes": ["violations"]}
    found = Axe().run(page, options=options).response["violations"]
    return [f"{rule['id']}: {rule['help']}: {node['html']}" for rule in found for node in rule["nodes"]]


def small_targets(page: Page) -> Sequence[str]:
    """Controls smaller than 24 by 24 px (WCAG 2.2, 2.5.8), but for links within a sentence."""
    found: list[str] = page.evaluate("""() =>
        [...document.querySelectorAll("button, input, textarea, a[href], summary")].filter((element) => {
            const box = element.getBoundingClientRect();
            const seen = box.width > 1 && box.height > 1 && element.checkVisibility() && box.bottom > 0;
            return seen && (box.width < 24 || box.height < 24);
        }).map((element) => element.outerHTML.slice(0, 200))""")
    return found
