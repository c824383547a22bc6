"""What users do with their jobs by REST: ask once, list, look at one, try again; on a real Valkey."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.jobstore import MOST_LOOKS
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.states import JobState, Priority
from support_processes import System, running

SETTINGS = {"USER_MAX_QUEUED": "3", "PRIORITY_CEILINGS": '{"*": "normal", "vip": "high", "batch": "low"}'}
INITIATE = "/v1/download/initiate"
KEY = "5f0c1c7e-9a1d-4e0b-8a53-2f4a9f0c0d4a"
IN_PART = Outcome(
    JobState.COMPLETED_WITH_ERRORS, result_key="results/own-jobs.zip", result_bytes=9, files_done=3,
    files_failed=2, bytes_done=40, bytes_total=40, failed=[(10_005, "denied"), (10_003, "not-found")],
)  # fmt: skip
WHOLE = Outcome(JobState.COMPLETED, result_key="results/own-jobs.zip", result_bytes=9, files_done=3)


@pytest.fixture(scope="module")
def apis(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[System]]:
    """Two API processes over one queue, as two replicas are."""
    settings = {"REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/11", **SETTINGS}
    with ExitStack() as stack:
        systems = [
            System(valkey_server, seaweedfs, tmp_path_factory.mktemp("api"), settings=settings)
            for _ in range(2)
        ]
        for system in systems:
            stack.enter_context(running(system))
            system.start_api()
        yield systems


@pytest.fixture
def queue(apis: list[System]) -> Iterator[LeaseStore]:
    """The worker's side of the queue, which is empty."""
    redis = connect(RedisConfig(apis[0].environment()["REDIS_URL"]))
    redis.flushdb()
    yield LeaseStore(redis, QueuePolicy(user_max_queued=1_000_000))
    redis.close()


@pytest.fixture
def system(apis: list[System], queue: LeaseStore) -> System:
    """The first of the APIs, over an empty queue."""
    del queue
    return apis[0]


@pytest.fixture
def client(system: System) -> Iterator[httpx.Client]:
    """A client of the user `ada`."""
    with system.client() as client:
        yield client


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is this problem; its document."""
    assert answer.status_code == status, answer.text
    body = cast("dict[str, Any]", answer.json())
    assert body["error"] == code
    return body


def keyed(
    client: httpx.Client, key: str = KEY, *, ids: tuple[int, ...] = (10_003, 10_004), **body: object
) -> httpx.Response:
    """Ask for files with a key."""
    return client.post(INITIATE, json={"file_ids": ids, **body}, headers={"idempotency-key": key})


def submit(queue: LeaseStore, job_id: str, user: str = "ada", **given: Any) -> None:  # noqa: ANN401 - a job's fields
    """Accept a job past the API."""
    fields: dict[str, Any] = {"file_ids": (10_003, 10_004, 10_005), "total_file_ids": 3, "max_attempts": 3}
    assert queue.submit(NewJob(job_id=job_id, user=user, **fields | given))


def ended(queue: LeaseStore, outcome: Outcome, job_id: str = "first", **given: Any) -> Job:  # noqa: ANN401 - a job's fields
    """A job that ended so."""
    submit(queue, job_id, **given)
    job = queue.lease("w")
    assert job is not None
    queue.finish(job, outcome)
    return job


def jobs_in(queue: LeaseStore) -> int:
    """How many records there are."""
    return sum(1 for _ in queue.redis.scan_iter(f"{ROOT}:job:*", count=1_000))


# Asking once


@pytest.mark.contract("idempotency-key")
def test_a_repetition_gets_the_first_answer(client: httpx.Client, queue: LeaseStore) -> None:
    """The same key and body is the same job, in another form of the key too, and makes no second one."""
    first = keyed(client)
    assert first.status_code == 202
    again = keyed(client, f'"{KEY}"')
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert jobs_in(queue) == 1


def test_a_repetition_gets_the_first_answer_to_the_end(client: httpx.Client, queue: LeaseStore) -> None:
    """While the job runs, when it has ended, and when its record is gone, the answer is the first one."""
    first = keyed(client)
    job = queue.lease("w")
    assert job is not None
    assert keyed(client).content == first.content
    queue.finish(job, WHOLE)
    assert keyed(client).content == first.content
    queue.redis.delete(job_key(job.job_id))
    assert keyed(client).content == first.content
    assert jobs_in(queue) == 0


@pytest.mark.contract("idempotency-key")
@pytest.mark.parametrize(
    "other",
    [{"ids": (10_004, 10_003)}, {"ids": (10_003,)}, {"ids": (10_003, 10_004, 10_004)}, {"priority": "low"}],
)
def test_a_key_stands_for_one_request(client: httpx.Client, queue: LeaseStore, other: dict[str, Any]) -> None:
    """Other files, another order, another priority: the key is refused, and nothing is done."""
    keyed(client)
    refused(keyed(client, **other), 422, "idempotency-key-reused")
    assert jobs_in(queue) == 1


def test_a_key_is_one_users(system: System, client: httpx.Client, queue: LeaseStore) -> None:
    """Another user's same key is another key."""
    with system.client("bob") as bob:
        assert keyed(client).json()["jobId"] != keyed(bob).json()["jobId"]
    assert jobs_in(queue) == 2


def test_a_refusal_uses_no_key_up(client: httpx.Client, queue: LeaseStore) -> None:
    """A refused request leaves its key as it was, and a repetition is not held up by a full queue."""
    first = keyed(client, "first")
    for _ in range(2):
        client.post(INITIATE, json={"file_ids": [10_003]}).raise_for_status()
    refused(keyed(client), 429, "too-many-queued")
    assert keyed(client, "first").content == first.content
    assert queue.lease("w") is not None
    assert keyed(client, ids=(10_007,)).status_code == 202


@pytest.mark.parametrize("key", ["", "a b", "a,b", '"a', "x" * 256])
def test_what_is_no_key_is_refused(client: httpx.Client, queue: LeaseStore, key: str) -> None:
    """A header without a key in it is 400, and nothing is done."""
    refused(keyed(client, key), 400, "invalid-idempotency-key")
    assert jobs_in(queue) == 0


def test_two_keys_are_none(client: httpx.Client, queue: LeaseStore) -> None:
    """Two headers are refused: which of them counts would be a guess."""
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    refused(
        client.post(INITIATE, json={"file_ids": [10_003]}, headers=headers), 400, "invalid-idempotency-key"
    )
    assert jobs_in(queue) == 0


@pytest.mark.contract("idempotency-key")
def test_requests_at_one_moment_are_one_job(apis: list[System], queue: LeaseStore) -> None:
    """Sixteen requests at once, to two API processes, make one job for each key, and all learn its id."""
    crowd = 16
    with ExitStack() as stack, ThreadPoolExecutor(crowd) as pool:
        clients = [stack.enter_context(apis[n % 2].client("crowd")) for n in range(crowd)]
        for client in clients:
            client.get("/livez").raise_for_status()
        for turn in range(3):
            gate = threading.Barrier(crowd)

            def ask(client: httpx.Client, gate: threading.Barrier = gate, key: str = f"k{turn}") -> bytes:
                gate.wait(10)
                return keyed(client, key).raise_for_status().content

            assert len(set(pool.map(ask, clients))) == 1
            assert jobs_in(queue) == turn + 1


def test_a_key_is_kept_for_its_time(client: httpx.Client, queue: LeaseStore) -> None:
    """The key goes a day after the first request; then it makes a new job."""
    first = keyed(client)
    (name,) = cast("list[str]", queue.redis.keys(f"{ROOT}:idempotency:*"))
    assert 86_000 < queue.redis.ttl(name) <= 86_400
    queue.redis.delete(name)
    assert keyed(client).json()["jobId"] != first.json()["jobId"]


def test_a_key_says_nothing_of_its_user(client: httpx.Client, queue: LeaseStore) -> None:
    """Keys and users of requests stand in Redis as a digest: of one size, whatever a client sends."""
    keyed(client, "secret-order-4711")
    (name,) = cast("list[str]", queue.redis.keys(f"{ROOT}:idempotency:*"))
    assert re.fullmatch(re.escape(f"{ROOT}:idempotency:") + "[0-9a-f]{32}", name)


# The list


def listed(client: httpx.Client, **parameters: object) -> tuple[list[str], str | None]:
    """The ids on a page, and where it goes on."""
    answer = client.get("/v1/jobs", params=cast("dict[str, str]", parameters))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"items", "nextCursor"}
    return [item["jobId"] for item in body["items"]], body["nextCursor"]


def walked(client: httpx.Client, **parameters: object) -> list[str]:
    """The ids on all pages."""
    found, cursor = listed(client, **parameters)
    while cursor:
        page, cursor = listed(client, cursor=cursor, **parameters)
        found += page
    return found


@pytest.mark.contract("jobs")
def test_the_list_is_newest_first(client: httpx.Client, queue: LeaseStore) -> None:
    """All jobs of the user, and those that they may read, newest first; nobody else's."""
    submit(queue, "one")
    submit(queue, "bobs", user="bob")
    submit(queue, "shared", user="k8s:team", reader="ada")
    submit(queue, "two")
    assert listed(client) == (["two", "shared", "one"], None)


def test_nobody_has_a_list(client: httpx.Client) -> None:
    """Without a user it is 401."""
    del client.headers["x-user-id"]
    refused(client.get("/v1/jobs"), 401, "unauthenticated")


def test_an_item_is_the_detail_without_files(client: httpx.Client, queue: LeaseStore) -> None:
    """An item says what the detail says, with the place in the queue, but for the files."""
    ended(queue, IN_PART)
    submit(queue, "waits")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    asked = {"x-request-id": "asked-for", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    client.post("/v1/download/initiate", json={"file_ids": [10_003]}, headers=asked).raise_for_status()
    items = client.get("/v1/jobs").json()["items"]
    assert (items[0]["requestId"], items[0]["traceId"]) == ("asked-for", trace)
    for item in items:
        detail = client.get(f"/v1/jobs/{item['jobId']}").json()
        del detail["fileIds"], detail["failures"]
        assert item == detail


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_are_the_whole_list(client: httpx.Client, queue: LeaseStore, limit: int) -> None:
    """Page by page, of any size, each job comes once, in order."""
    names = [f"job{n}" for n in range(7)]
    for name in names:
        submit(queue, name)
    assert walked(client, limit=limit) == names[::-1]


@pytest.mark.contract("jobs")
def test_pages_are_stable_while_jobs_come(client: httpx.Client, queue: LeaseStore) -> None:
    """Jobs that are submitted between two pages shift nothing."""
    for n in range(6):
        submit(queue, f"old{n}")
    found, cursor = listed(client, limit=2)
    while cursor:
        submit(queue, f"new{len(found)}")
        page, cursor = listed(client, limit=2, cursor=cursor)
        found += page
    assert found == [f"old{n}" for n in (5, 4, 3, 2, 1, 0)]


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_equal_times_are_told_apart(client: httpx.Client, queue: LeaseStore, *, gone: bool) -> None:
    """Jobs of one microsecond are each on one page, also when the job that a cursor names is gone."""
    names = sorted(f"{letter}-{n}" for n in range(3) for letter in "aZ_é")
    for name in names:
        submit(queue, name)
    queue.redis.zadd(f"{ROOT}:user:ada:jobs", dict.fromkeys(names, 1_700_000_000_000_000))
    found, cursor = listed(client, limit=2)
    while cursor:
        if gone:
            queue.redis.zrem(f"{ROOT}:user:ada:jobs", found[-1])
        page, cursor = listed(client, limit=2, cursor=cursor)
        found += page
    assert found == sorted(names, key=str.encode, reverse=True)


def test_vanished_jobs_are_left_out_and_forgotten(client: httpx.Client, queue: LeaseStore) -> None:
    """A job whose record is gone is not listed, and its entry goes; so is one that became another's."""
    for name in ("a", "b", "c", "d"):
        submit(queue, name)
    queue.redis.delete(job_key("c"))
    queue.redis.hset(job_key("b"), "user", "bob")
    assert walked(client, limit=1) == ["d", "a"]
    assert queue.redis.zrange(f"{ROOT}:user:ada:jobs", 0, -1) == ["a", "d"]


@pytest.mark.contract("jobs")
def test_the_list_is_filtered_by_state(client: httpx.Client, queue: LeaseStore) -> None:
    """`state` takes one or several, with commas or repeated."""
    ended(queue, WHOLE, "whole")
    ended(queue, IN_PART, "part")
    submit(queue, "runs")
    assert queue.lease("w") is not None
    submit(queue, "waits")
    assert walked(client, state="completed") == ["whole"]
    assert walked(client, state="queued,processing", limit=1) == ["waits", "runs"]
    answer = client.get("/v1/jobs?state=completed&state=completed_with_errors,queued")
    assert [item["jobId"] for item in answer.json()["items"]] == ["waits", "part", "whole"]
    assert walked(client, state="cancelled") == []


def test_a_filter_looks_at_so_many_jobs(client: httpx.Client, queue: LeaseStore) -> None:
    """Of 10,000 jobs with two that match, each request looks at a bounded number, and all are found."""
    pipeline = queue.redis.pipeline(transaction=False)
    for n in range(10_000):
        state = "failed" if n in {17, 9_990} else "completed"
        values: dict[Any, Any] = {"id": f"j{n}", "user": "ada", "state": state, "created_us": n + 1}
        pipeline.hset(job_key(f"j{n}"), mapping=values)
        pipeline.zadd(f"{ROOT}:user:ada:jobs", {f"j{n}": n + 1})
    pipeline.execute()
    found, cursor = listed(client, state="failed")
    requests = 1
    assert found == ["j9990"]
    while cursor:
        page, cursor = listed(client, state="failed", cursor=cursor)
        found += page
        requests += 1
    assert found == ["j9990", "j17"]
    assert requests == 10_000 // MOST_LOOKS
    assert len(walked(client, limit=100)) == 10_000


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("state=done", ["state"]),
        ("state=", ["state"]),
        ("state=completed,", ["state"]),
        ("state=Completed", ["state"]),
        ("limit=0", ["limit"]),
        ("limit=101", ["limit"]),
        ("limit=-1", ["limit"]),
        ("limit=1.0", ["limit"]),
        ("limit=%2B5", ["limit"]),
        ("limit=", ["limit"]),
        ("limit=٣", ["limit"]),
        ("limit=5&limit=6", ["limit"]),
        ("limit=99999999999999999999", ["limit"]),
        ("cursor=", ["cursor"]),
        ("cursor=nonsense", ["cursor"]),
        ("cursor=%00%FF", ["cursor"]),
        ("state=x&limit=x&cursor=x", ["state", "limit", "cursor"]),
    ],
)
def test_a_wrong_parameter_is_named(client: httpx.Client, query: str, fields: list[str]) -> None:
    """What is none of a parameter's values is 400, with every parameter at fault."""
    problem = refused(client.get(f"/v1/jobs?{query}"), 400, "invalid-parameter")
    assert [fault["field"] for fault in problem["errors"]] == fields
    if fields == ["state"]:
        assert all(state.value in problem["message"] for state in JobState)


def test_a_cursor_is_one_users(system: System, client: httpx.Client, queue: LeaseStore) -> None:
    """Another user's cursor, or a changed one, is refused."""
    for n in range(3):
        submit(queue, f"job{n}")
    _, cursor = listed(client, limit=1)
    assert cursor is not None
    with system.client("bob") as bob:
        refused(bob.get("/v1/jobs", params={"cursor": cursor}), 400, "invalid-parameter")
    changed = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    refused(client.get("/v1/jobs", params={"cursor": changed}), 400, "invalid-parameter")


def test_unknown_parameters_are_left_alone(client: httpx.Client, queue: LeaseStore) -> None:
    """A parameter that this release does not know changes nothing."""
    submit(queue, "one")
    assert listed(client, verbose="1")[0] == ["one"]


# The detail


@pytest.mark.contract("job")
def test_a_detail_names_files_and_failures(client: httpx.Client, queue: LeaseStore) -> None:
    """The files in their order, and those that are not in the result, in the same order, each with why."""
    ended(queue, IN_PART)
    body = client.get("/v1/jobs/first").json()
    assert body["fileIds"] == [10_003, 10_004, 10_005]
    assert body["failures"] == [
        {"fileId": 10_003, "error": "not-found", "message": "There is no such file."},
        {"fileId": 10_005, "error": "denied", "message": "The storage refuses access to this file."},
    ]


def test_what_an_older_worker_did_not_tell_is_null(client: httpx.Client, queue: LeaseStore) -> None:
    """Where it is not known which files failed, `failures` is null, and a retry asks for all."""
    ended(queue, IN_PART)
    queue.redis.hdel(job_key("first"), "failed_files")
    assert client.get("/v1/jobs/first").json()["failures"] is None
    assert client.post("/v1/jobs/first/retry").json()["totalFileIds"] == 3


@pytest.mark.contract("job")
def test_the_end_is_estimated_by_the_pace(client: httpx.Client, queue: LeaseStore) -> None:
    """A job that runs ends when the rest is done at the pace so far; before the first bytes nobody knows."""
    submit(queue, "runs")
    job = queue.lease("w")
    assert job is not None
    assert client.get("/v1/jobs/runs").json()["etaSeconds"] is None
    queue.progress(job, files_done=1, bytes_done=25, bytes_total=100)
    times: dict[Any, Any] = {"leased_us": 1_700_000_000_000_000, "updated_us": 1_700_000_010_000_000}
    queue.redis.hset(job_key("runs"), mapping=times)
    body = client.get("/v1/jobs/runs").json()
    assert body["etaSeconds"] == 30
    assert (body["workerSeconds"], body["workerBytes"]) == (10, 25)
    queue.finish(job, WHOLE)
    assert client.get("/v1/jobs/runs").json()["etaSeconds"] is None


# Trying again


@pytest.mark.contract("retry")
def test_a_retry_asks_for_what_failed(client: httpx.Client, queue: LeaseStore) -> None:
    """Only files that are not in the result, in their order, as a new job that names the first."""
    ended(queue, IN_PART)
    answer = client.post("/v1/jobs/first/retry")
    body = answer.json()
    assert answer.status_code == 202
    new = body["jobId"]
    assert set(body) == {"jobId", "status", "totalFileIds", "estimatedTime", "retryOf"}
    assert (body["status"], body["totalFileIds"], body["retryOf"]) == ("queued", 2, "first")
    assert answer.headers["location"] == f"/v1/download/status/{new}"
    assert answer.headers["retry-after"] == "1"
    detail = client.get(f"/v1/jobs/{new}").json()
    assert (detail["fileIds"], detail["retryOf"], detail["retriedBy"]) == ([10_003, 10_005], "first", None)
    first = client.get("/v1/jobs/first").json()
    assert (first["state"], first["retryOf"], first["retriedBy"]) == ("completed_with_errors", None, new)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_without_a_result_all_files_are_tried(client: httpx.Client, queue: LeaseStore, end: str) -> None:
    """A job that failed or was cancelled has no result, so all of its files are asked for."""
    if end == "failed":
        ended(queue, Outcome(JobState.FAILED, error_code="storage-unavailable"))
    else:
        submit(queue, "first")
        client.delete("/v1/jobs/first").raise_for_status()
    answer = client.post("/v1/jobs/first/retry", json={})
    assert (answer.status_code, answer.json()["totalFileIds"]) == (202, 3)


@pytest.mark.parametrize("outcome", [WHOLE, IN_PART], ids=["whole", "part"])
def test_an_expired_result_counts(client: httpx.Client, queue: LeaseStore, outcome: Outcome) -> None:
    """Also when the result has expired, only what failed is tried again."""
    ended(queue, outcome)
    queue.redis.hset(job_key("first"), "state", "expired")
    answer = client.post("/v1/jobs/first/retry")
    if outcome is WHOLE:
        refused(answer, 409, "nothing-to-retry")
    else:
        assert answer.json()["totalFileIds"] == 2


@pytest.mark.contract("retry")
def test_what_goes_on_is_not_retried(client: httpx.Client, queue: LeaseStore) -> None:
    """A job that waits, runs, or will try again by itself is 409."""
    submit(queue, "first")
    refused(client.post("/v1/jobs/first/retry"), 409, "job-unfinished")
    job = queue.lease("w")
    assert job is not None
    refused(client.post("/v1/jobs/first/retry"), 409, "job-unfinished")
    queue.retry_later(job, delay_seconds=60, code="x", message="x")
    refused(client.post("/v1/jobs/first/retry"), 409, "job-unfinished")
    assert jobs_in(queue) == 1


def test_a_whole_result_is_not_retried(client: httpx.Client, queue: LeaseStore) -> None:
    """If no file failed there is nothing to try again."""
    ended(queue, WHOLE)
    refused(client.post("/v1/jobs/first/retry"), 409, "nothing-to-retry")
    assert jobs_in(queue) == 1


def test_a_retry_has_the_limits_of_a_job(client: httpx.Client, queue: LeaseStore) -> None:
    """It counts as any job of the user's: one too many is 429."""
    ended(queue, IN_PART)
    for _ in range(3):
        assert client.post("/v1/jobs/first/retry").status_code == 202
    refused(client.post("/v1/jobs/first/retry"), 429, "too-many-queued")


@pytest.mark.parametrize(
    ("user", "before", "now"),
    [
        ("ada", Priority.LOW, "low"),
        ("ada", Priority.HIGH, "normal"),
        ("vip", Priority.HIGH, "high"),
        ("batch", Priority.NORMAL, "low"),
    ],
)
def test_a_retry_keeps_its_class(
    system: System, queue: LeaseStore, user: str, before: Priority, now: str
) -> None:
    """Its priority is the first job's, or the highest that its user may have."""
    ended(queue, IN_PART, user=user, priority=before)
    with system.client(user) as client:
        new = client.post("/v1/jobs/first/retry").json()["jobId"]
        assert client.get(f"/v1/jobs/{new}").json()["priority"] == now


def test_a_retry_takes_a_key(client: httpx.Client, queue: LeaseStore) -> None:
    """With a key it happens once; the same key for another job, or for files, is refused."""
    ended(queue, IN_PART)
    ended(queue, IN_PART, "second")
    headers = {"idempotency-key": KEY}
    first = client.post("/v1/jobs/first/retry", headers=headers)
    assert client.post("/v1/jobs/first/retry", headers=headers).content == first.content
    refused(client.post("/v1/jobs/second/retry", headers=headers), 422, "idempotency-key-reused")
    refused(keyed(client), 422, "idempotency-key-reused")
    refused(
        client.post("/v1/jobs/first/retry", headers={"idempotency-key": "a b"}),
        400,
        "invalid-idempotency-key",
    )
    assert jobs_in(queue) == 3


def test_a_retry_takes_no_body(client: httpx.Client, queue: LeaseStore) -> None:
    """Which files are wanted is not for the body to say: one is refused rather than left unread."""
    ended(queue, IN_PART)
    refused(client.post("/v1/jobs/first/retry", json={"file_ids": [10_004]}), 400, "bad-request")
    assert jobs_in(queue) == 1


@pytest.mark.contract("server")
def test_the_body_of_a_retry_is_read_as_every_other(client: httpx.Client, queue: LeaseStore) -> None:
    """Although it must be empty, an encoded one is 415, and one beyond the limit is 413."""
    ended(queue, IN_PART)
    encoded = client.post("/v1/jobs/first/retry", content=b"{}", headers={"content-encoding": "gzip"})
    refused(encoded, 415, "unsupported-media-type")
    in_chunks = (b" " * 65_536 for _ in range(17))
    refused(client.post("/v1/jobs/first/retry", content=in_chunks), 413, "body-too-large")
    assert jobs_in(queue) == 1


def test_a_retry_does_not_bring_a_record_back(client: httpx.Client, queue: LeaseStore) -> None:
    """If the first job's record goes in the same moment, nothing of it is written again."""
    fields: dict[str, Any] = {"file_ids": (10_003,), "total_file_ids": 1, "max_attempts": 3}
    assert queue.submit(NewJob(job_id="new", user="ada", retry_of="gone", **fields))
    assert queue.redis.exists(job_key("gone")) == 0
    assert client.get("/v1/jobs/new").json()["retryOf"] == "gone"


# Ownership


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/first"),
        ("HEAD", "/v1/jobs/first"),
        ("DELETE", "/v1/jobs/first"),
        ("POST", "/v1/jobs/first/retry"),
        ("GET", "/v1/download/status/first"),
        ("HEAD", "/v1/download/status/first"),
        ("GET", "/v1/download/result/first"),
    ],
)
def test_a_job_is_its_owners(system: System, queue: LeaseStore, method: str, path: str) -> None:
    """Another's job is 403 on every route, one that is not there 404, and nobody is 401."""
    ended(queue, IN_PART)
    for user, at, status in (("bob", path, 403), ("ada", path.replace("first", "none"), 404)):
        with system.client(user) as client:
            answer = client.request(method, at, headers={"if-none-match": "*"})
            assert answer.status_code == status
            assert "etag" not in answer.headers
    with system.client() as client:
        del client.headers["x-user-id"]
        assert client.request(method, path).status_code == 401


def test_a_reader_retries_as_themselves(client: httpx.Client, queue: LeaseStore) -> None:
    """Who may read a DownloadJob's job may ask for its failed files, as a job of their own."""
    ended(queue, IN_PART, user="k8s:team", reader="ada")
    new = client.post("/v1/jobs/first/retry").json()["jobId"]
    assert queue.redis.hget(job_key(new), "user") == "ada"
    assert queue.redis.hget(job_key(new), "reader") is None


# Asking again


@pytest.mark.contract("etag")
@pytest.mark.parametrize("path", ["/v1/download/status/first", "/v1/jobs/first", "/v1/jobs"])
def test_an_answer_is_known_until_it_changes(client: httpx.Client, queue: LeaseStore, path: str) -> None:
    """With its ETag an answer is 304 without a body, until anything in it changes; HEAD says the same."""
    submit(queue, "first")
    seen = set()

    def look() -> None:
        answer = client.get(path)
        tag = answer.headers["etag"]
        assert answer.headers["cache-control"] == "private, no-cache"
        assert tag not in seen
        seen.add(tag)
        head = client.head(path)
        assert (head.status_code, head.headers["etag"], head.content) == (200, tag, b"")
        assert head.headers["content-length"] == answer.headers["content-length"]
        for method in ("GET", "HEAD"):
            for condition in (tag, "*", f'"x", {tag.removeprefix("W/")}'):
                known = client.request(method, path, headers={"if-none-match": condition})
                assert (known.status_code, known.content) == (304, b"")
                assert known.headers["etag"] == tag
                assert known.headers["cache-control"] == "private, no-cache"
                assert known.headers.get("retry-after") == answer.headers.get("retry-after")
                assert "content-type" not in known.headers
                assert "x-request-id" in known.headers
        for other in (seen - {tag}) | {'"x"', tag + "x", ""}:
            assert client.get(path, headers={"if-none-match": other}).status_code == 200

    look()
    job = queue.lease("w")
    assert job is not None
    look()
    queue.progress(job, files_done=1, bytes_done=1, bytes_total=40)
    look()
    queue.progress(job, files_done=1, bytes_done=2, bytes_total=40)
    look()
    queue.finish(job, IN_PART)
    look()
    if path != "/v1/download/status/first":
        client.post("/v1/jobs/first/retry").raise_for_status()
        look()


def test_what_fails_is_not_kept(client: httpx.Client) -> None:
    """An error has no tag, whatever the client says that it has."""
    answer = client.get("/v1/download/status/none", headers={"if-none-match": "*"})
    assert (answer.status_code, answer.headers.get("etag")) == (404, None)


def test_a_dead_letter_that_is_queued_again_has_another_tag(client: httpx.Client, queue: LeaseStore) -> None:
    """The tags of a job's first life are none in its second."""
    submit(queue, "first")
    tags = [client.get("/v1/download/status/first").headers["etag"]]
    queue.redis.hset(job_key("first"), "deliveries", QueuePolicy().max_deliveries - 1)
    assert queue.lease("w") is not None
    queue.redis.zadd(f"{ROOT}:leased", {"first": 1})
    assert queue.reap() == (0, 1)
    tags.append(client.get("/v1/download/status/first").headers["etag"])
    Scripts(queue.redis).run("dead_retry", "first")
    tags.append(client.get("/v1/download/status/first").headers["etag"])
    assert len(set(tags)) == 3
