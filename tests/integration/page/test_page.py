from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Dialog, Locator, Page, expect

from support_browser import DESKTOP, PHONE, SMALLEST, Opener, small_targets, violations
from support_page import FakeApi, Refusal, job, job_id, moment
from support_worker import eventually

INITIATE = "/v1/download/initiate"
EVENTS = "/v1/events"
JOBS = "/v1/jobs"


def card(page: Page, number: int = 1) -> Locator:
    """The card of a job."""
    return page.locator(f"[data-job='{job_id(number)}']")


def says(page: Page, connection: str) -> None:
    """Wait until the page says so of its connection."""
    expect(page.locator("#connection .pill-text")).to_have_text(connection)


MISSING = {"fileId": 10_003, "error": "not-found", "message": "There is no such file."}


def everything(api: FakeApi) -> None:
    """One job in each state, and the timeline of one."""
    api.add(
        job(1, "queued"),
        job(2, "processing"),
        job(3, "retrying", retryAt=moment(8), error={"code": "storage-timeout", "message": "Too slow."}),
        job(4, "completed_with_errors", failures=[MISSING]),
        job(5, "completed"),
        job(6, "failed", priority="low"),
        job(7, "cancelled"),
        job(8, "expired"),
    )  # fmt: skip
    api.timelines[job_id(4)] = timeline(4)


def timeline(number: int, files: int = 6) -> dict[str, Any]:
    """The timeline of a job whose third file failed."""
    begin = -60 * number

    def item(name: str, at: float, end: float, status: str = "ok", **attributes: object) -> dict[str, Any]:
        return {
            "name": name, "at": moment(begin + at), "endAt": moment(begin + end), "attempt": 1,
            "status": status, "attributes": attributes,
        }  # fmt: skip

    bundled = [
        item("file", 2 + index * 4, 8 + index * 5, "ok", fileId=10_010 + index * 7)
        if index != 2
        else item("file", 10, 10.2, "error", fileId=10_003, message="There is no such file.")
        for index in range(files)
    ]
    return {
        "jobId": job_id(number),
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4704",
        "traceUrl": "https://traces.example.com/trace/4bf92f3577b34da6a3ce929d0e0e4704",
        "items": [
            item("queued", 0, 2),
            item("leased", 2, 40, worker="worker-7f9c4-x2x8v"),
            *bundled,
            item("upload", 4, 39, bytes=4_510_240_000),
            item("finish", 40, 40, "ok"),
        ],
    }  # fmt: skip


# What it shows, and how it does.


def shows_all(page: Page, api: FakeApi) -> None:
    """One job of each state, one with its details open."""
    everything(api)
    page.reload()
    expect(page.locator("article")).to_have_count(8)
    card(page, 4).get_by_role("button", name="Details").click()
    expect(page.locator("figure.timeline")).to_be_visible()


def shows_nothing(page: Page, _api: FakeApi) -> None:
    """No job yet."""
    expect(page.locator("#jobs-empty")).to_be_visible()


def shows_faults(page: Page, _api: FakeApi) -> None:
    """A form that cannot be sent."""
    page.get_by_label("File ids").fill("5, abc\n20010-20000")
    page.get_by_label("Callback URL").fill("http://example.com")
    page.get_by_role("button", name="Start download").click()
    expect(page.locator("#file-ids-faults li")).to_have_count(3)


def shows_a_problem(page: Page, api: FakeApi) -> None:
    """A start that is refused, servers that are down, and a rate limit that is reached."""
    api.refusals[f"POST {INITIATE}"] = Refusal(429, "rate-limited", "Too many.", {"retry-after": "30"})
    api.refusals[f"GET {EVENTS}"] = Refusal(503, "draining", "It ends.")
    api.health = {"status": "unhealthy", "checks": {"storage": "error", "queue": "ok"}, "mockStorage": True}
    page.reload()
    page.get_by_label("File ids").fill("10003")
    page.get_by_role("button", name="Start download").click()
    expect(page.locator("#start-outcome .problem")).to_be_visible()
    says(page, "Polling")


def shows_who_asks(page: Page, api: FakeApi) -> None:
    """Nobody is signed in, and what was typed is no user id."""
    api.users = {"ada"}
    page.reload()
    page.get_by_label("User id").fill("two words")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#identity-fault")).not_to_be_empty()


STATES: list[Callable[[Page, FakeApi], None]] = [
    shows_all,
    shows_nothing,
    shows_faults,
    shows_a_problem,
    shows_who_asks,
]


@pytest.mark.parametrize("size", [DESKTOP, PHONE, SMALLEST], ids=["desktop", "phone", "smallest"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_everybody_can_use_it(
    api: FakeApi, opener: Opener, state: Callable[[Page, FakeApi], None], size: dict[str, int], *, dark: bool
) -> None:
    """In every state axe finds nothing, no control is too small, and nothing is wider than the window."""
    page = opener.open(api.url, size=size, dark=dark)
    state(page, api)
    assert violations(page) == []
    assert small_targets(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    wide = """(width) => [...document.querySelectorAll("body *")].filter((element) =>
        element.checkVisibility() && !element.closest(".sr-only, .sprite, textarea") &&
        element.getBoundingClientRect().right > width + 1).map((element) => element.outerHTML)"""
    assert page.evaluate(wide, size["width"]) == []


def test_the_theme_can_be_chosen_and_is_kept(api: FakeApi, opener: Opener) -> None:
    """The system's colours, or those that one chooses, also after a reload; before anything is painted."""
    page = opener.open(api.url)

    def canvas() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = canvas()
    page.emulate_media(color_scheme="dark")
    dark = canvas()
    assert dark != light
    page.get_by_role("radio", name="Light").check()
    assert canvas() == light
    page.reload()
    assert canvas() == light
    expect(page.get_by_role("radio", name="Light")).to_be_checked()
    page.get_by_role("radio", name="Auto").check()
    assert canvas() == dark


def test_motion_can_be_reduced(api: FakeApi, opener: Opener) -> None:
    """Something moves by default, and nothing where the system says that nothing shall."""
    moving = """() => [...document.querySelectorAll("*")].filter((element) =>
        getComputedStyle(element).animationName !== "none" ||
        getComputedStyle(element).transitionDuration.split(", ").some((time) => time !== "0s")).length"""
    api.add(job(2, "processing"))
    page = opener.open(api.url)
    expect(card(page, 2)).to_be_visible()
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


# Starting a job.


def test_a_job_is_started(api: FakeApi, opener: Opener) -> None:
    """Ids and ranges, a priority and a callback go to the API once, with a key; the job appears."""
    page = opener.open(api.url)
    page.get_by_label("File ids").fill("10003, 10010-10012\n10011 10020–10021;")
    expect(page.locator("#file-ids-summary")).to_have_text("6 files, 1 repeated id left out")
    page.get_by_role("radio", name="Low").check()
    page.get_by_label("Callback URL").fill("https://example.com/hook")
    page.get_by_role("button", name="Start download").click()
    expect(page.locator("article")).to_have_count(1)
    expect(page.locator("article")).to_contain_text("6 files")
    (asked,) = api.requests("POST", INITIATE)
    assert asked.body == {
        "file_ids": [10_003, 10_010, 10_011, 10_012, 10_020, 10_021],
        "priority": "low",
        "callbackUrl": "https://example.com/hook",
    }
    assert re.fullmatch(r"[0-9a-f]{32}", asked.headers["idempotency-key"])
    expect(page.get_by_label("File ids")).to_have_value("")
    expect(page.locator("#announcements")).to_contain_text("is queued, with 6 files")


def test_every_fault_of_the_form_is_shown(api: FakeApi, opener: Opener) -> None:
    """Nothing is sent, all faults stand there with their lines until they are mended."""
    page = opener.open(api.url)
    ids = page.get_by_label("File ids")
    ids.fill("9999, abc\n100000001\n20010-20000 10000-99999999")
    page.get_by_role("button", name="Start download").click()
    expect(page.locator("#file-ids-faults li")).to_have_text([
        "Line 1: “9999” is below 10,000, the smallest file id.",
        "Line 1: “abc” is neither a file id nor a range.",
        "Line 2: “100000001” is above 100,000,000, the largest file id.",
        "Line 3: “20010-20000” is a range that runs backwards.",
        "Line 3: “10000-99999999” has 99,990,000 ids, and a job may have 1,000.",
    ])  # fmt: skip
    expect(ids).to_be_focused()
    expect(ids).to_have_attribute("aria-invalid", "true")
    ids.fill("10003")
    expect(page.locator("#file-ids-faults")).to_be_hidden()
    assert api.requests("POST", INITIATE) == []


def test_every_fault_that_the_api_finds_is_shown(api: FakeApi, opener: Opener) -> None:
    """A refusal shows its sentence, each field at fault, and the ids to ask its operator by."""
    errors = ({"field": "file_ids.0", "message": "is locked"}, {"field": "priority", "message": "is odd"})
    api.refusals[f"POST {INITIATE}"] = Refusal(400, "invalid-body", "The body breaks a rule.", errors=errors)
    page = opener.open(api.url)
    page.get_by_label("File ids").fill("10003")
    page.get_by_role("button", name="Start download").click()
    problem = page.locator("#start-outcome").get_by_role("alert")
    expect(problem.locator("li")).to_have_text(["file_ids.0 is locked", "priority is odd"])
    for text in ("The body breaks a rule.", "page-request-1", "4bf92f3577b34da6a3ce929d0e0e4736"):
        expect(problem).to_contain_text(text)
    expect(page.get_by_label("File ids")).to_have_value("10003")


def test_a_start_without_an_answer_is_the_same_job_again(api: FakeApi, opener: Opener) -> None:
    """If the connection breaks, pressing again sends the same key, so that no second job is made."""
    page = opener.open(api.url)
    page.get_by_label("File ids").fill("10003")
    keys: list[str] = []

    def broken(route: Any) -> None:  # noqa: ANN401 - Playwright's Route
        keys.append(route.request.headers["idempotency-key"])
        route.abort("connectionreset")

    page.route(f"**{INITIATE}", broken, times=1)
    page.get_by_role("button", name="Start download").click()
    expect(page.locator("#start-outcome")).to_contain_text("cannot be reached")
    page.get_by_role("button", name="Start download").click()
    expect(page.locator("article")).to_have_count(1)
    assert [asked.headers["idempotency-key"] for asked in api.requests("POST", INITIATE)] == keys


def test_too_many_requests_are_told(api: FakeApi, opener: Opener) -> None:
    """429 on a start says when to try again; what is left of the limit stands in the numbers."""
    api.rate = (100, 3)
    api.refusals[f"POST {INITIATE}"] = Refusal(
        429, "rate-limited", "Too many requests.", {"retry-after": "30"}
    )
    page = opener.open(api.url)
    expect(page.locator("#stat-rate")).to_contain_text("3 of 100")
    page.get_by_label("File ids").fill("10003")
    page.get_by_role("button", name="Start download").click()
    expect(page.locator("#start-outcome")).to_contain_text("Try again in 30 s.")


# Watching jobs.


def test_progress_is_live(api: FakeApi, opener: Opener) -> None:
    """Events move the bar by bytes, and give speed and time left; no request is made for them."""
    api.add(job(1, "processing", updatedAt=moment(0)))
    page = opener.open(api.url)
    says(page, "Live")
    bar = card(page).get_by_role("progressbar")
    expect(bar).to_have_js_property("value", 1_894_000_000 / 4_510_000_000)
    progress = {"processed": 60, "total": 120, "bytes": 2_255_000_000, "bytesTotal": 4_510_000_000}
    api.change("progress", progress=progress, updatedAt=moment(2))
    expect(bar).to_have_js_property("value", 0.5)
    expect(card(page)).to_contain_text("60 of 120 files · 2.3 GB of 4.5 GB · 181 MB/s · about 10 s left")
    expect(card(page).locator(".percent")).to_have_text("50 %")
    assert api.requests("GET", f"{JOBS}/{job_id(1)}") == []


def test_the_queue_is_told(api: FakeApi, opener: Opener) -> None:
    """A waiting job says its place and when it starts, and both change though no event of it comes."""
    api.add(job(1))
    page = opener.open(api.url)
    expect(card(page)).to_contain_text("3rd in the queue · starts in about 10 s")
    queue = {"place": "ready", "ahead": 0, "startsInSeconds": 0.2, "estimateErrorPercent": 9}
    api.jobs[job_id(1)]["queue"] = queue
    expect(card(page)).to_contain_text("Next in the queue · starts as soon as a worker is free")


def test_an_end_is_shown_and_said_once(api: FakeApi, opener: Opener) -> None:
    """When a job ends its whole record is asked for; screen readers hear of the end, and of no progress."""
    api.add(job(1, "processing", updatedAt=moment(0)))
    page = opener.open(api.url)
    says(page, "Live")
    page.evaluate("""() => {
        window.said = [];
        const node = document.getElementById("announcements");
        new MutationObserver(() => window.said.push(node.textContent)).observe(node, {childList: true});
    }""")
    for step in range(1, 21):
        progress = {"processed": step, "total": 120, "bytes": step * 10**8, "bytesTotal": 4_510_000_000}
        api.change("progress", progress=progress, updatedAt=moment(step / 2))
    expect(card(page)).to_contain_text("20 of 120 files")
    api.change(
        "finished",
        **{name: value for name, value in job(1, "completed").items() if name not in {"jobId", "updatedAt"}},
        updatedAt=moment(11),
    )
    expect(card(page).locator(".badge")).to_have_text("Completed")
    expect(card(page).get_by_role("button", name="Download 4.5 GB")).to_be_visible()
    expect(page.locator("#announcements")).to_have_text("Job 00000001 is completed. The result is ready.")
    assert page.evaluate("window.said") == ["Job 00000001 is completed. The result is ready."]


def test_a_job_of_elsewhere_appears(api: FakeApi, opener: Opener) -> None:
    """A job that the user starts by another client comes by its first event."""
    page = opener.open(api.url)
    says(page, "Live")
    api.add(job(7))
    api.change("queued", 7)
    expect(card(page, 7)).to_be_visible()


def test_a_stream_that_breaks_is_taken_up(api: FakeApi, opener: Opener) -> None:
    """After the stream's end the page asks for what came after the last event it had, and shows it."""
    api.add(job(1, "processing", updatedAt=moment(0)))
    page = opener.open(api.url)
    says(page, "Live")
    api.change("progress", updatedAt=moment(1))
    eventually(lambda: api.streams == 1, 10, "the stream")
    api.end_streams()
    progress = {"processed": 90, "total": 120, "bytes": 4_000_000_000, "bytesTotal": 4_510_000_000}
    api.change("progress", tell=False, progress=progress, updatedAt=moment(2))
    expect(card(page)).to_contain_text("90 of 120 files")
    assert [asked.headers.get("last-event-id") for asked in api.requests("GET", EVENTS)][:2] == [None, "1"]
    says(page, "Live")


@pytest.mark.parametrize(
    "refusal",
    [Refusal(503, "draining", "It ends.", {"retry-after": "1"}), Refusal(404, "not-found")],
    ids=["drain", "absent"],
)
def test_without_a_stream_it_polls(api: FakeApi, opener: Opener, refusal: Refusal) -> None:
    """While the stream is refused the page asks for the list, and says so; then it streams."""
    api.add(job(1, "processing", updatedAt=moment(0)))
    api.refusals[f"GET {EVENTS}"] = refusal
    page = opener.open(api.url)
    says(page, "Polling")
    progress = {"processed": 90, "total": 120, "bytes": 4_000_000_000, "bytesTotal": 4_510_000_000}
    api.jobs[job_id(1)].update(progress=progress, updatedAt=moment(2))
    expect(card(page)).to_contain_text("90 of 120 files")
    if refusal.status == 503:
        api.refusals.clear()
        says(page, "Live")
        eventually(lambda: api.streams == 1, 10, "the stream")


def test_an_api_that_is_away_comes_back(api: FakeApi, opener: Opener) -> None:
    """Without any network the page says so, keeps what it shows, and goes on by itself."""
    api.add(job(1, "processing"))
    page = opener.open(api.url)
    says(page, "Live")
    page.context.set_offline(True)
    api.end_streams()
    says(page, "Offline")
    expect(card(page)).to_be_visible()
    page.context.set_offline(False)
    says(page, "Live")


def test_a_page_that_nobody_sees_gives_its_connection_back(api: FakeApi, opener: Opener) -> None:
    """A minute after the tab was hidden its stream ends; it begins again when the tab is looked at."""
    page = opener.open(api.url, fixed=False)
    page.clock.install()
    page.reload()
    says(page, "Live")
    eventually(lambda: api.streams == 1, 10, "the stream")
    hidden = """(hidden) => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hidden, arg=True)
    page.clock.run_for(61_000)
    says(page, "Paused")
    eventually(lambda: api.streams == 0, 10, "the stream's end")
    page.evaluate(hidden, arg=False)
    says(page, "Live")


# What can be done with a job.


def test_a_result_is_fetched(api: FakeApi, opener: Opener) -> None:
    """The button asks for the URL when it is pressed, and follows it; the page keeps it nowhere."""
    api.add(job(1, "completed"))
    api.result_url = "https://s3.example.com/result.zip?X-Amz-Signature=secret"
    page = opener.open(api.url)
    path = f"/v1/download/result/{job_id(1)}"
    expect(card(page)).to_be_visible()
    assert api.requests("GET", path) == []
    with page.expect_download() as download:
        card(page).get_by_role("button", name="Download 4.5 GB").click()
    assert download.value.url == api.result_url
    assert len(api.requests("GET", path)) == 1
    kept = page.evaluate(
        "document.documentElement.outerHTML + JSON.stringify([{...localStorage}, {...sessionStorage}])"
    )
    assert "secret" not in kept
    assert opener.elsewhere == [api.result_url]
    opener.elsewhere.clear()


def test_a_result_that_is_gone_is_told(api: FakeApi, opener: Opener) -> None:
    """What the API says instead of a URL stands at the job."""
    api.add(job(1, "completed"))
    api.refusals[f"GET /v1/download/result/{job_id(1)}"] = Refusal(
        410, "result-expired", "The result has expired."
    )
    page = opener.open(api.url)
    card(page).get_by_role("button", name="Download").click()
    expect(card(page).get_by_role("alert")).to_contain_text("The result has expired.")


def test_a_job_is_cancelled_after_a_second_thought(api: FakeApi, opener: Opener) -> None:
    """Cancelling asks once more, with the focus at the answer; keeping it changes nothing."""
    api.add(job(1, "processing"))
    page = opener.open(api.url)
    path = f"{JOBS}/{job_id(1)}"
    card(page).get_by_role("button", name="Cancel").click()
    expect(card(page).get_by_role("button", name="Yes, cancel it")).to_be_focused()
    card(page).get_by_role("button", name="Keep it").click()
    expect(card(page).get_by_role("button", name="Cancel")).to_be_focused()
    assert api.requests("DELETE", path) == []
    card(page).get_by_role("button", name="Cancel").click()
    card(page).get_by_role("button", name="Yes, cancel it").click()
    expect(card(page).locator(".badge")).to_have_text("Cancelled")
    assert len(api.requests("DELETE", path)) == 1
    expect(card(page).get_by_role("button", name="Details")).to_be_focused()


@pytest.mark.parametrize(
    ("state", "label"), [("failed", "Retry"), ("completed_with_errors", "Retry 3 missing files")]
)
def test_a_job_is_retried(api: FakeApi, opener: Opener, state: str, label: str) -> None:
    """A retry is a new job, which is shown and has the focus; the old one stays as it is."""
    api.add(job(1, state))
    page = opener.open(api.url)
    card(page).get_by_role("button", name=label, exact=True).click()
    expect(page.locator("article")).to_have_count(2)
    new = page.locator("article").first
    expect(new.get_by_role("heading")).to_be_focused()
    expect(new.locator(".tag")).to_have_text("Retry")
    assert len(api.requests("POST", f"{JOBS}/{job_id(1)}/retry")) == 1


def test_errors_have_their_ids(api: FakeApi, opener: Opener) -> None:
    """A failed job tells why, and its request and trace ids can be copied."""
    api.add(job(1, "failed"))
    page = opener.open(api.url, permissions=["clipboard-read", "clipboard-write"])
    problem = card(page).locator(".problem")
    expect(problem).to_contain_text("The storage cannot be reached.")
    expect(problem).to_contain_text("storage-unavailable")
    problem.get_by_role("button", name="Copy trace id").click()
    expect(problem.get_by_role("button", name="Copied trace id")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == api.jobs[job_id(1)]["traceId"]
    problem.get_by_role("button", name="Copy request id").click()
    expect(problem.get_by_role("button", name="Copied request id")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "checkout-0001"


def test_a_timeline_is_drawn(api: FakeApi, opener: Opener) -> None:
    """The details show each step with its time, in text and as a bar, and lead to the trace viewer."""
    everything(api)
    page = opener.open(api.url)
    details = card(page, 4).get_by_role("button", name="Details")
    details.click()
    expect(details).to_have_attribute("aria-expanded", "true")
    rows = card(page, 4).locator(".timeline-row")
    expect(rows).to_have_count(10)
    expect(rows.locator(".timeline-label")).to_have_text([
        "Queued", "Leased", "File 10010", "File 10017", "File 10003 failed: There is no such file.",
        "File 10031", "File 10038", "File 10045", "Upload", "Finish",
    ])  # fmt: skip
    expect(rows.nth(1)).to_contain_text("38 s")
    leased = rows.nth(1).locator("rect.span")
    assert leased.get_attribute("x") == "50"
    assert leased.get_attribute("width") == "950"
    link = card(page, 4).get_by_role("link", name="Open the trace")
    expect(link).to_have_attribute("href", str(api.timelines[job_id(4)]["traceUrl"]))
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(card(page, 4).locator(".missing li")).to_have_text(["10003 There is no such file."])


def test_a_timeline_of_many_files_shows_those_that_matter(api: FakeApi, opener: Opener) -> None:
    """Of 300 files the failed and the slowest are shown, and all when they are asked for."""
    api.add(job(4, "completed_with_errors"))
    api.timelines[job_id(4)] = timeline(4, files=300)
    page = opener.open(api.url)
    card(page, 4).get_by_role("button", name="Details").click()
    rows = card(page, 4).locator(".timeline-row")
    expect(rows).to_have_count(14)
    expect(card(page, 4).locator(".timeline-row.failed")).to_have_count(1)
    card(page, 4).get_by_role("button", name="Show 290 more files").click()
    expect(rows).to_have_count(304)


# The list.


def test_pages_of_the_list(api: FakeApi, opener: Opener) -> None:
    """Older jobs come when they are asked for, newest first, none twice; the first new one has the focus."""
    api.add(*(job(number, "completed") for number in range(1, 46)))
    page = opener.open(api.url)
    expect(page.locator("article")).to_have_count(20)
    page.get_by_role("button", name="Load more").click()
    expect(page.locator("article")).to_have_count(40)
    page.get_by_role("button", name="Load more").click()
    expect(page.locator("article")).to_have_count(45)
    expect(page.get_by_role("button", name="Load more")).to_be_hidden()
    expect(card(page, 41).get_by_role("heading")).to_be_focused()
    ids = page.locator("article").evaluate_all("cards => cards.map((card) => card.dataset.job)")
    assert ids == [job_id(number) for number in range(1, 46)]


def test_the_list_is_filtered_by_state(api: FakeApi, opener: Opener) -> None:
    """Each filter shows its states only, of all jobs, not just of those loaded before."""
    api.add(*(job(number, "completed") for number in range(1, 31)), job(31, "failed"), job(32, "processing"))
    page = opener.open(api.url)
    expect(page.locator("article")).to_have_count(20)
    page.get_by_role("radio", name="Ended").check()
    expect(page.locator("article")).to_have_count(1)
    expect(card(page, 31)).to_be_visible()
    page.get_by_role("radio", name="Active").check()
    expect(card(page, 32)).to_be_visible()
    expect(page.locator("article")).to_have_count(1)
    page.get_by_role("radio", name="Done").check()
    expect(page.locator("article")).to_have_count(20)


def test_cards_stay_where_the_focus_is(api: FakeApi, opener: Opener) -> None:
    """A change of a job takes neither the focus from its card nor closes its details."""
    api.add(job(1, "processing", updatedAt=moment(0)), job(2, "processing"))
    page = opener.open(api.url)
    details = card(page).get_by_role("button", name="Details")
    details.click()
    progress = {"processed": 90, "total": 120, "bytes": 4_000_000_000, "bytesTotal": 4_510_000_000}
    api.change("progress", progress=progress, updatedAt=moment(2))
    expect(card(page)).to_contain_text("90 of 120 files")
    expect(details).to_be_focused()
    expect(details).to_have_attribute("aria-expanded", "true")


# Health and numbers.


def test_health_and_numbers_are_shown(api: FakeApi, opener: Opener) -> None:
    """Each check of /health, also when it answers 503, and the numbers of /v1/stats."""
    api.health = {"status": "unhealthy", "checks": {"storage": "error", "queue": "ok"}}
    page = opener.open(api.url)
    expect(page.locator("#health-label")).to_have_text("Unhealthy")
    expect(page.locator("#health li")).to_have_text(["storageerror", "queueok"])
    shown = {
        "running": "7 of 8 slots", "waiting": "12 longest 48 s", "finished": "14 jobs a minute",
        "service": "21 s a job", "rate": "88 of 100",
    }  # fmt: skip
    for name, text in shown.items():
        expect(page.locator(f"#stat-{name}")).to_contain_text(text)


# Who asks.


def test_behind_an_ingress_nobody_is_asked(api: FakeApi, opener: Opener) -> None:
    """Where something in front of the API says who asks, the page sends no user and has no field."""
    page = opener.open(api.url)
    says(page, "Live")
    expect(page.locator("#identity")).to_be_hidden()
    assert all("x-user-id" not in asked.headers for asked in api.asked)


def test_without_a_user_one_can_be_given(api: FakeApi, opener: Opener) -> None:
    """After a 401 the page asks for a user id, sends it, keeps it for the tab, and forgets it on sign-out."""
    api.users = {"ada"}
    api.add(job(1, "completed"))
    page = opener.open(api.url)
    field = page.get_by_label("User id")
    expect(field).to_be_focused()
    says(page, "Signed out")
    field.fill("ada")
    field.press("Enter")
    expect(card(page)).to_be_visible()
    says(page, "Live")
    expect(page.locator("#identity")).to_be_hidden()
    page.reload()
    expect(card(page)).to_be_visible()
    expect(page.locator("#who-name")).to_have_text("ada")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("article")).to_have_count(0)
    expect(field).to_be_visible()
    assert page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])") == "[{},{}]"


def test_another_users_jobs_never_mix(api: FakeApi, opener: Opener) -> None:
    """Who signs in after another sees nothing of theirs, and their stream has ended."""
    api.users = {"ada"}
    api.add(job(1, "completed"))
    page = opener.open(api.url)
    page.get_by_label("User id").fill("ada")
    page.get_by_role("button", name="Sign in").click()
    expect(card(page)).to_be_visible()
    eventually(lambda: api.streams == 1, 10, "the stream")
    page.get_by_role("button", name="Sign out").click()
    eventually(lambda: api.streams == 0, 10, "the stream's end")
    api.users = {"bob"}
    api.jobs.clear()
    page.get_by_label("User id").fill("bob")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#jobs-empty")).to_be_visible()
    expect(page.locator("article")).to_have_count(0)


def test_a_token_is_sent_and_not_shown(api: FakeApi, opener: Opener) -> None:
    """With AUTH_MODE=jwt the field takes a bearer token, hidden as one types; its subject is shown."""
    token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
    api.config["authMode"] = "jwt"
    api.users = {token}
    api.add(job(1, "completed"))
    page = opener.open(api.url)
    field = page.get_by_label("Bearer token")
    expect(field).to_have_attribute("type", "password")
    field.fill(f"Bearer {token}")
    field.press("Enter")
    expect(card(page)).to_be_visible()
    expect(page.locator("#who-name")).to_have_text("ada")
    assert api.requests("GET", EVENTS)[-1].headers["authorization"] == f"Bearer {token}"
    api.users = set()
    page.reload()
    expect(page.locator("#identity-why")).to_have_text("The API did not accept it. Try again.")
    assert page.evaluate("JSON.stringify({...sessionStorage})") == "{}"


# Hostile content.

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'--></style>"


def test_text_of_others_is_text(api: FakeApi, opener: Opener) -> None:
    """Markup in anything that the API tells is shown as it is, and never becomes an element or runs."""
    api.users = {"<script>alert(3)</script>"}
    hostile = job(
        1, "failed", error={"code": HOSTILE, "message": HOSTILE}, requestId=HOSTILE, traceId=HOSTILE,
        worker=HOSTILE, retryOf=HOSTILE, priority=HOSTILE, failedFiles=1,
        failures=[{"fileId": HOSTILE, "message": HOSTILE}],
    )  # fmt: skip
    api.add(hostile, job(2, "completed"))
    item = {
        "name": HOSTILE,
        "at": moment(0),
        "endAt": moment(1),
        "attempt": 1,
        "status": "error",
        "attributes": {"message": HOSTILE},
    }
    api.timelines[job_id(1)] = {
        "jobId": HOSTILE,
        "traceId": HOSTILE,
        "traceUrl": "javascript:alert(4)",
        "items": [item],
    }
    api.health = {"status": "unhealthy", "checks": {HOSTILE: HOSTILE}}
    api.result_url = "javascript:alert(5)"
    page = opener.open(api.url)
    dialogs: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", on_dialog)
    page.get_by_label("User id").fill("<script>alert(3)</script>")
    page.get_by_role("button", name="Sign in").click()
    card(page).get_by_role("button", name="Details").click()
    expect(card(page).locator(".timeline-label")).to_contain_text(HOSTILE)
    expect(card(page).locator(".problem").first).to_contain_text(HOSTILE)
    expect(card(page).locator(".trace-link")).to_have_count(0)
    expect(page.locator("#who-name")).to_have_text("<script>alert(3)</script>")
    card(page, 2).get_by_role("button", name="Download").click()
    expect(card(page, 2).get_by_role("alert")).to_contain_text("none of the web")
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("body script").count() == 0
    assert dialogs == []


def test_nothing_inline_could_run(api: FakeApi, opener: Opener) -> None:
    """The policy stops markup, inline scripts and handlers, should a fault of the page ever let them in."""
    page = opener.open(api.url)
    says(page, "Live")
    tried = page.evaluate("""() => {
        const found = [];
        document.addEventListener("securitypolicyviolation", (event) => found.push(event.effectiveDirective));
        const attempt = (name, action) => {
            try {
                action();
                found.push(name);
            } catch (error) {
                found.push(error.name);
            }
        };
        attempt("innerHTML", () => (document.body.innerHTML += "<b>x</b>"));
        const script = document.createElement("script");
        attempt("script", () => {
            script.textContent = "window.ran = true";
            document.body.append(script);
        });
        return new Promise((resolve) => setTimeout(() => resolve([window.ran ?? false, found]), 100));
    }""")
    ran, found = tried
    assert ran is False
    assert "TypeError" in found
    assert "innerHTML" not in found
    assert opener.faults
    opener.faults.clear()  # the browser's own lines of what was tried


# By keyboard alone.


def test_all_of_it_works_by_keyboard(api: FakeApi, opener: Opener) -> None:
    """Start a job, open its details, cancel it, filter: by keys alone; the focus is always seen."""
    page = opener.open(api.url)
    says(page, "Live")
    seen: list[str] = []

    def focused() -> str:
        found = page.evaluate("""() => {
            const element = document.activeElement;
            const box = element.getBoundingClientRect();
            const marked = element.matches("input[type=radio]") ? element.nextElementSibling : element;
            const at = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return {
                name: element.labels?.[0]?.textContent ?? element.textContent,
                outlined: getComputedStyle(marked).outlineStyle !== "none",
                inside: box.bottom > 0 && box.top < innerHeight,
                free: at !== null && (element.contains(at) || at.contains(element)),
            };
        }""")
        name = str(found["name"]).strip()
        assert found["outlined"], f"no outline at {name!r}"
        assert found["inside"], f"{name!r} is not in the window"
        assert found["free"], f"{name!r} is covered"
        return name

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            seen.append(focused())
            if seen[-1] == name:
                return
        raise AssertionError(f"Tab never comes to {name!r}: {seen}")

    page.keyboard.press("Tab")
    assert focused() == "Skip to the jobs"
    tab_to("File ids")
    page.keyboard.type("10003 10010-10012")
    tab_to("Normal")
    page.keyboard.press("ArrowLeft")
    tab_to("Start download")
    page.keyboard.press("Enter")
    expect(page.locator("article")).to_have_count(1)
    assert api.requests("POST", INITIATE)[0].body == {
        "file_ids": [10_003, 10_010, 10_011, 10_012],
        "priority": "low",
    }
    tab_to("All")
    tab_to("Details")
    page.keyboard.press("Space")
    expect(page.locator(".details")).to_be_visible()
    tab_to("Cancel")
    page.keyboard.press("Enter")
    assert focused() == "Yes, cancel it"
    page.keyboard.press("Enter")
    expect(page.locator("article .badge")).to_have_text("Cancelled")
    assert focused() == "Details"
    page.keyboard.press("Shift+Tab")
    assert focused() == "All"
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Active")).to_be_checked()
    expect(page.locator("article")).to_have_count(0)


def test_the_page_says_when_it_cannot_start(api: FakeApi, opener: Opener) -> None:
    """Without its configuration the page tells so, instead of standing still."""
    page = opener.open(api.url)
    page.route("**/dashboard/config.json", lambda route: route.fulfill(status=503))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The page could not start")
    assert len(opener.faults) == 1
    opener.faults.clear()
