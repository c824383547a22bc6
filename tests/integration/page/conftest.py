"""Debian's Chromium, and a page in it that allows itself no fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from support_browser import Opener
from support_page import FakeApi, served
from support_tools import require_tool


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The module's browser: while there is one, no event loop can run in the thread of the tests.

    As root, as in a container, Chromium has no sandbox.
    """
    path = require_tool("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=60_000
        )
        yield browser
        browser.close()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """An API that answers what the test decides."""
    with served(FakeApi()) as api:
        yield api


@pytest.fixture
def opener(browser: Browser) -> Iterator[Opener]:
    """Opens pages, and at the end has them checked."""
    opener = Opener(browser)
    yield opener
    opener.check_and_close()
