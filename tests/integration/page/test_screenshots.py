"""The pictures of the page in docs/: always the same, taken anew by `make screenshots`."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support_browser import Opener
from support_page import FakeApi, job, job_id, moment

DOCS = Path(__file__).parents[3] / "docs"
TAKE = os.environ.get("DOWNLOADJOBS_SCREENSHOTS") == "1"

WIDE = {"width": 1280, "height": 1180}
NARROW = {"width": 390, "height": 1700}


def stage(api: FakeApi) -> None:
    """An afternoon's jobs."""

    def progress(files: int, total: int, done: int, size: int) -> dict[str, int]:
        return {"processed": files, "total": total, "bytes": done, "bytesTotal": size}

    # Since all things in the picture happen at one moment, the speed comes by the API's own estimate.
    api.add(
        job(
            0x9B41_07D2, "queued", totalFileIds=240, priority="low", createdAt=moment(-9),
            queue={"place": "ready", "ahead": 2, "startsInSeconds": 14.0, "estimateErrorPercent": 9},
        ),
        job(
            0x77_8032, "processing", totalFileIds=320, createdAt=moment(-52), updatedAt=moment(0),
            progress=progress(201, 320, 5_870_000_000, 8_940_000_000), etaSeconds=24.0,
        ),
        job(
            0x1F2F_879B, "completed_with_errors", totalFileIds=8, failedFiles=1, resultBytes=412_600_000,
            workerSeconds=13.4, createdAt=moment(-190), startedAt=moment(-187.6), finishedAt=moment(-174.2),
            updatedAt=moment(-174.2),
            expiresAt=moment(86_400 - 174.2), progress=progress(8, 8, 412_000_000, 412_000_000),
            failures=[{"fileId": 10_038, "error": "not-found", "message": "There is no such file."}],
        ),
        job(
            0xA174_466B, "failed", totalFileIds=64, createdAt=moment(-1_500), startedAt=moment(-1_497),
            finishedAt=moment(-1_380), updatedAt=moment(-1_380), attempt=3,
            error={"code": "storage-unavailable", "message": "The storage cannot be reached."},
        ),
        job(
            0x4D0C_51E8, "completed", totalFileIds=1_000, resultBytes=27_400_000_000,
            createdAt=moment(-5_400),
            startedAt=moment(-5_390), finishedAt=moment(-5_190), updatedAt=moment(-5_190),
            expiresAt=moment(86_400 - 5_190),
        ),
    )  # fmt: skip
    begin = -190.0

    def item(name: str, at: float, end: float, status: str = "ok", **attributes: object) -> dict[str, object]:
        return {
            "name": name, "at": moment(begin + at), "endAt": moment(begin + end), "attempt": 1,
            "status": status, "attributes": attributes,
        }  # fmt: skip

    files = [
        (2.7, 5.9),
        (2.7, 7.2),
        (5.9, 8.4),
        (7.2, 10.6),
        (8.4, 8.6),
        (8.6, 12.5),
        (10.6, 13.7),
        (12.5, 14.6),
    ]
    api.timelines[job_id(0x1F2F_879B)] = {
        "jobId": job_id(0x1F2F_879B),
        "traceId": "4bf92f3577b34da6a3ce929d0e0e479b",
        "traceUrl": "https://traces.example.com/trace/4bf92f3577b34da6a3ce929d0e0e479b",
        "omitted": 0,
        "items": [
            item("queued", 0, 2.4),
            item("attempt", 2.4, 15.8, "completed", worker="worker-7f9c4-x2x8v"),
            *(
                item("file", *span, fileId=10_010 + 7 * index)
                if index != 4
                else item("file", *span, "error", fileId=10_038, error="not-found")
                for index, span in enumerate(files)
            ),
            item("upload", 3.4, 15.6, bytes=412_600_000),
            item("finish", 15.8, 15.8, "completed_with_errors"),
        ],
    }  # fmt: skip


def shown(page: Page, *, details: bool) -> None:
    """Everything that the picture shows is there."""
    expect(page.locator("#connection .pill-text")).to_have_text("Live")
    if details:
        page.locator("[data-state=completed_with_errors]").get_by_role("button", name="Details").click()
        expect(page.locator("figure.timeline")).to_be_visible()
    expect(page.locator("#health-label")).to_have_text("Healthy")
    page.get_by_label("File ids").fill("10003, 10010-10240\n20400-20406")
    expect(page.locator("#file-ids-summary")).to_have_text("239 files")
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    page.mouse.move(0, 0)


@pytest.mark.parametrize(
    ("name", "size", "dark", "scale"),
    [("desktop", WIDE, False, 1), ("dark", WIDE, True, 1), ("phone", NARROW, False, 2)],
)
def test_pictures_of_the_page(
    api: FakeApi, opener: Opener, name: str, size: dict[str, int], scale: int, *, dark: bool
) -> None:
    """docs/ has each picture, as wide as it is taken; and what it shows can be shown."""
    stage(api)
    page = opener.open(api.url, size=size, dark=dark, device_scale_factor=scale)
    shown(page, details=name != "phone")
    path = DOCS / f"dashboard-{name}.png"
    if TAKE:
        page.screenshot(path=path, full_page=name != "phone", animations="disabled", caret="hide")
    width, _height = struct.unpack(">II", path.read_bytes()[16:24])
    assert width == size["width"] * scale
