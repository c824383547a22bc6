"""The form of a timeline's notes, and what is made of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from downloadjobs_core.job import MAX_FILES, Job
from downloadjobs_core.states import JobState
from downloadjobs_core.timeline import (
    MOST_ITEMS,
    FileRow,
    Item,
    Stage,
    encode_files,
    encode_stage,
    timeline,
)

SECOND = 1_000_000
BEGAN = 1_700_000_000 * SECOND
FIRST, SECOND_TOKEN = "1700000002000000", "1700000009000000"


def job(state: JobState = JobState.COMPLETED, **more: object) -> Job:
    """A job of two files, submitted at `BEGAN` and done after ten seconds."""
    fields: dict[str, object] = {
        "file_ids": (10_003, 10_010), "files_total": 2, "attempt": 1, "created_us": BEGAN,
        "updated_us": BEGAN + 10 * SECOND, "finished_us": BEGAN + 10 * SECOND, **more,
    }  # fmt: skip
    return Job(job_id="j", user="u", state=state, **fields)  # type: ignore[arg-type]


def attempt(token: str, number: int, start: int, end: int, how: str = "completed", *, code: str = "-") -> str:
    """An attempt's entry, with its seconds since `BEGAN`."""
    return f"attempt {token} {number} {BEGAN + start * SECOND} {BEGAN + end * SECOND} {how} {code} w 1"


def shown(found: Job, *entries: str) -> list[tuple[str, float, float | None, str]]:
    """The items: name, begin and end in seconds since `BEGAN`, and status."""
    items, _ = timeline(found, entries)
    return [
        (
            item.name,
            (item.at_us - BEGAN) / SECOND,
            None if item.end_us is None else (item.end_us - BEGAN) / SECOND,
            item.status,
        )
        for item in items
    ]


ROWS = st.lists(
    st.builds(
        lambda gap, took, size, error: (gap, took, size, error),
        st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**13),
        st.sampled_from(["", "not-found", "denied"]),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


@given(ROWS, st.integers(0, 10**6), st.integers(0, 900))
def test_files_are_read_as_they_were_written(
    rows: list[tuple[int, int, int, str]], start: int, first: int
) -> None:
    """Times, bytes and errors of files survive their short form, from any index on."""
    files, at = [], start
    for gap, took, size, error in rows:
        files.append(FileRow(at + gap, at + gap + took, size, error))
        at += gap + took
    file_ids = tuple(range(10_000, 10_000 + MAX_FILES))
    late = job(file_ids=file_ids, finished_us=0, state=JobState.PROCESSING, token=FIRST, leased_us=BEGAN)
    items, _ = timeline(late, [f"stages {FIRST}\n{encode_files(first, files)}"])
    assert [item for item in items if item.name == "file"] == [
        Item(
            "file", BEGAN + row.from_ms * 1000, BEGAN + row.to_ms * 1000, 1, "error" if row.error else "ok",
            {"fileId": file_ids[first + index], "bytes": row.size, "error": row.error or None},
        )
        for index, row in sorted(enumerate(files), key=lambda pair: pair[1].from_ms)
    ]  # fmt: skip


def test_a_job_from_its_submission_to_its_end() -> None:
    """Queued, an attempt with its planning, files and upload, and the end, in order."""
    stages = "\n".join(
        [
            f"stages {FIRST}",
            encode_stage(Stage("planning", 0, 500, 2)),
            encode_files(0, [FileRow(500, 2500, 7), FileRow(2500, 2500, 0, "not-found")]),
            encode_stage(Stage("upload", 2500, 7000, 99)),
        ]
    )
    assert shown(job(JobState.COMPLETED_WITH_ERRORS), stages, attempt(FIRST, 1, 2, 10)) == [
        ("queued", 0, 2, "ok"),
        ("attempt", 2, 10, "completed"),
        ("planning", 2, 2.5, "ok"),
        ("file", 2.5, 4.5, "ok"),
        ("upload", 4.5, 9, "ok"),
        ("file", 4.5, 4.5, "error"),
        ("finish", 10, 10, "completed_with_errors"),
    ]


def test_a_lost_attempt_stands_beside_the_next() -> None:
    """An attempt whose lease ran out has its end and the files it told of, and the job is queued again."""
    stages = f"stages {FIRST}\n{encode_files(0, [FileRow(0, 1000, 7)])}"
    lost = attempt(FIRST, 1, 2, 7, "lease_expired")
    assert shown(job(), stages, lost, attempt(SECOND_TOKEN, 1, 9, 10)) == [
        ("queued", 0, 2, "ok"),
        ("attempt", 2, 7, "lease_expired"),
        ("file", 2, 3, "ok"),
        ("queued", 7, 9, "ok"),
        ("attempt", 9, 10, "completed"),
        ("finish", 10, 10, "completed"),
    ]


def test_a_failed_attempt_is_followed_by_the_wait_for_the_next() -> None:
    """The wait after a failure is `retrying`, and the attempt says why it failed."""
    waiting = job(JobState.RETRYING, finished_us=0)
    failed = attempt(FIRST, 1, 2, 4, "failed", code="storage-unavailable")
    assert shown(waiting, failed) == [
        ("queued", 0, 2, "ok"),
        ("attempt", 2, 4, "failed"),
        ("retrying", 4, None, "waiting"),
    ]
    items, _ = timeline(waiting, [failed])
    assert items[1].attributes == {"worker": "w 1", "errorCode": "storage-unavailable"}


def test_a_running_attempt_has_no_end() -> None:
    """What runs is known from the record, with the stages told so far."""
    running = job(JobState.PROCESSING, finished_us=0, token=FIRST, leased_us=BEGAN + 2 * SECOND, worker="w")
    stages = f"stages {FIRST}\n{encode_stage(Stage('planning', 0, 500, 2))}"
    assert shown(running, stages) == [
        ("queued", 0, 2, "ok"),
        ("attempt", 2, None, "running"),
        ("planning", 2, 2.5, "ok"),
    ]


def test_what_is_told_twice_counts_once() -> None:
    """A call whose answer was lost is made again, with what came since: nothing is shown twice."""
    rows = [FileRow(0, 1000, 7), FileRow(1000, 2000, 8)]
    first = f"stages {FIRST}\n{encode_files(0, rows[:1])}"
    again = f"stages {FIRST}\n{encode_files(0, rows)}"
    names = [name for name, *_ in shown(job(), first, again, attempt(FIRST, 1, 2, 10))]
    assert names.count("file") == 2


def test_no_stage_ends_after_its_attempt() -> None:
    """A worker's clock may run fast; what it tells is cut off at the end that Redis saw."""
    stages = f"stages {FIRST}\n{encode_stage(Stage('upload', 7000, 9000, 1))}"
    found = {name: end for name, _, end, _ in shown(job(), stages, attempt(FIRST, 1, 2, 10))}
    assert found["upload"] == 10


def test_a_job_cancelled_before_it_began() -> None:
    """Its wait ends with the cancellation."""
    assert shown(job(JobState.CANCELLED, attempt=0)) == [
        ("queued", 0, 10, "ok"),
        ("finish", 10, 10, "cancelled"),
    ]


def test_a_job_held_from_its_submission_on() -> None:
    """A suspension lasts until the job goes on, or still."""
    assert ("suspended", 0, 3, "ok") in shown(job(), f"resumed {BEGAN + 3 * SECOND}")
    held = job(JobState.QUEUED, finished_us=0, suspended=True)
    assert ("suspended", 0, None, "waiting") in shown(held)
    again = shown(held, f"resumed {BEGAN + 3 * SECOND}", f"suspended {BEGAN + 5 * SECOND}")
    assert [row for row in again if row[0] == "suspended"] == [
        ("suspended", 0, 3, "ok"),
        ("suspended", 5, None, "waiting"),
    ]


def test_an_expired_result_is_the_last_item() -> None:
    """The end keeps its place, and the expiry follows."""
    expired = job(JobState.EXPIRED, updated_us=BEGAN + 99 * SECOND)
    assert [name for name, *_ in shown(expired, attempt(FIRST, 1, 2, 10))][-2:] == ["finish", "expired"]


def test_foreign_notes_are_left_alone() -> None:
    """Notes of a newer release, or damaged ones, take nothing else with them."""
    names = [name for name, *_ in shown(job(), "novel x y", "attempt x", "", f"stages {FIRST}\nnew 1",
                                        attempt(FIRST, 1, 2, 10))]  # fmt: skip
    assert names == ["queued", "attempt", "finish"]


def test_what_is_left_out_is_counted() -> None:
    """At most so many items, the newest, and how many others there were, with those that Redis dropped."""
    entries = []
    for number in range(6):
        token = str(1_700_000_001_000_000 + number)
        rows = [FileRow(index, index + 1, 1) for index in range(MAX_FILES)]
        entries += [f"stages {token}\n{encode_files(0, rows)}", attempt(token, 1, 2 + number, 3 + number)]
    many = job(file_ids=tuple(range(10_000, 10_000 + MAX_FILES)), timeline_omitted=7)
    items, omitted = timeline(many, entries)
    assert len(items) == MOST_ITEMS
    assert items[-1].name == "finish"
    waits, end = 1 + 6, 1
    assert omitted == 7 + 6 * (MAX_FILES + 1) + waits + end - MOST_ITEMS


def test_a_dead_letter_that_was_queued_again() -> None:
    """Between the last lost attempt and the decision to try again, the job was dead."""
    lost = attempt(FIRST, 1, 2, 4, "lease_expired")
    assert shown(job(), lost, f"requeued {BEGAN + 7 * SECOND}", attempt(SECOND_TOKEN, 1, 9, 10)) == [
        ("queued", 0, 2, "ok"),
        ("attempt", 2, 4, "lease_expired"),
        ("dead", 4, 7, "ok"),
        ("queued", 7, 9, "ok"),
        ("attempt", 9, 10, "completed"),
        ("finish", 10, 10, "completed"),
    ]


def test_a_job_of_the_previous_release_has_its_ends() -> None:
    """Without any notes there are the submission and the end."""
    assert [name for name, *_ in shown(job())] == ["queued", "finish"]
