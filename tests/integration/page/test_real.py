"""The page on the real thing: API, worker, Valkey and S3, and a zip at the end."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from support_browser import Opener, violations
from support_processes import System, running
from support_worker import eventually, put_files

FILES = {61_100: 4_000_000, 61_101: 3_000_000, 61_102: 2_000_000}
SLOW = {"DOWNLOAD_DELAY_ENABLED": "true", "DOWNLOAD_DELAY_MIN_MS": "1500", "DOWNLOAD_DELAY_MAX_MS": "1500"}


@pytest.fixture
def system(valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path) -> Iterator[System]:
    """An API with files; a test starts workers."""
    with running(System(valkey, seaweedfs, tmp_path)) as system:
        put_files(system.store, FILES)
        system.start_api()
        yield system


def signed_in(system: System, opener: Opener, user: str = "ada") -> Page:
    """The page as a user sees it on a machine without an ingress."""
    s3 = urlsplit(system.s3.endpoint).netloc
    page = opener.open(f"http://127.0.0.1:{system.port}/dashboard", fixed=False, also=[s3])
    page.get_by_label("User id").fill(user)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#connection .pill-text")).to_have_text("Live")
    return page


def start(page: Page, ids: str) -> None:
    """Ask for files by the form."""
    page.get_by_label("File ids").fill(ids)
    page.get_by_role("button", name="Start download").click()


def test_from_ids_to_a_zip(system: System, opener: Opener) -> None:
    """A job is started, waits, is worked on and ends; its result is the zip of the files."""
    page = signed_in(system, opener)
    start(page, "61100-61102")
    card = page.locator("article")
    expect(card).to_contain_text("Next in the queue")
    expect(page.locator("#stat-waiting .stat-value")).to_have_text("1")
    card.get_by_role("button", name="Details").click()
    system.start_worker(**SLOW)
    expect(card.locator(".badge")).to_have_text("Processing")
    expect(card.locator(".badge")).to_have_text("Completed", timeout=30_000)
    rows = card.locator(".timeline-label")
    expect(rows).to_contain_text(["Queued", "Leased", "Planning", "File 61100", "File 61102", "Finish"])
    expect(rows.filter(has_text="Upload")).to_have_count(1)
    assert violations(page) == []
    with page.expect_download() as download:
        card.get_by_role("button", name="Download").click()
    archive = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert {f"{file_id}.zip" for file_id in FILES} < set(archive.namelist())
    assert archive.testzip() is None


def test_missing_files_are_named_and_retried(system: System, opener: Opener) -> None:
    """A result in part says which file is missing and why; once that is there, a retry completes."""
    system.start_worker()
    page = signed_in(system, opener)
    start(page, "61100 61190")
    card = page.locator("article").last
    expect(card.locator(".badge")).to_have_text("Completed with errors", timeout=30_000)
    card.get_by_role("button", name="Details").click()
    expect(card.locator(".missing li")).to_contain_text("61190")
    put_files(system.store, {61_190: 1_000})
    card.get_by_role("button", name="Retry 1 missing file").click()
    expect(page.locator("article")).to_have_count(2)
    expect(page.locator("article").first.locator(".badge")).to_have_text("Completed", timeout=30_000)


def test_a_job_is_cancelled(system: System, opener: Opener) -> None:
    """Cancelling a waiting job ends it, here and in the queue."""
    page = signed_in(system, opener)
    start(page, "61100")
    card = page.locator("article")
    card.get_by_role("button", name="Cancel").click()
    card.get_by_role("button", name="Yes, cancel it").click()
    expect(card.locator(".badge")).to_have_text("Cancelled")
    expect(page.locator("#announcements")).to_contain_text("is cancelled")


def test_a_restart_of_the_api_is_survived(system: System, opener: Opener) -> None:
    """When the API drains and another starts, the page goes on by itself, and misses nothing."""
    page = signed_in(system, opener)
    start(page, "61100")
    card = page.locator("article")
    expect(card.locator(".badge")).to_have_text("Queued")
    api = system.children[0]
    api.ask_to_end()
    assert api.wait(20)
    expect(page.locator("#connection .pill-text")).to_have_text("Offline")
    system.start_worker()
    system.start_api()
    eventually(lambda: page.locator("#connection .pill-text").text_content() == "Live", 60, "a stream")
    expect(card.locator(".badge")).to_have_text("Completed", timeout=30_000)


def test_users_see_their_own_jobs(system: System, opener: Opener) -> None:
    """What one user starts, another neither sees in the list nor hears of."""
    ada, bob = signed_in(system, opener, "ada"), signed_in(system, opener, "bob")
    start(ada, "61100")
    expect(ada.locator("article")).to_have_count(1)
    start(bob, "61101")
    expect(bob.locator("article")).to_have_count(1)
    expect(ada.locator("article")).to_have_count(1)
