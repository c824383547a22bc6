"""The REST contract, request by request: API processes with several settings, on real servers."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from downloadjobs_api.bodies import MAX_BODY_BYTES
from downloadjobs_api.problems import CONTENT_TYPE, TYPE_PREFIX
from downloadjobs_api.security_headers import SECURITY_HEADERS
from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer, free_ports
from downloadjobs_cli.stack import without_addresses
from downloadjobs_core.job import Job, job_key
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.objectstore import mock_files
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.states import JobState
from support_processes import System, running
from support_servers import killed_after
from support_worker import content, eventually, members, put_files

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

SHARED, STRICT, MOCK, OWN = 7, 8, 9, 10
"""Databases of the session's Valkey: one for each installation here."""

INITIATE = "/v1/download/initiate"
CHECK = "/v1/download/check"
START = "/v1/download/start"


def database(valkey: ValkeyServer, number: int) -> str:
    """The URL of one of a Valkey's databases."""
    return f"redis://127.0.0.1:{valkey.port}/{number}"


@contextmanager
def installed(
    valkey: ValkeyServer, s3: SeaweedServer, folder: Path, number: int, **settings: str
) -> Iterator[System]:
    """An API that answers, with a database of its own."""
    system = System(valkey, s3, folder, settings={"REDIS_URL": database(valkey, number), **settings})
    with running(system):
        system.start_api()
        yield system


@contextmanager
def queue_of(system: System) -> Iterator[LeaseStore]:
    """The worker's side of a system's queue."""
    redis = connect(RedisConfig(system.environment()["REDIS_URL"]))
    try:
        yield LeaseStore(redis, QueuePolicy())
    finally:
        redis.close()


def emptied(system: System) -> System:
    """A system without any job."""
    with queue_of(system) as queue:
        queue.redis.flushdb()
    return system


@pytest.fixture(scope="module")
def shared(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """The module's API process."""
    with installed(valkey_server, seaweedfs, tmp_path_factory.mktemp("shared"), SHARED) as system:
        yield system


@pytest.fixture
def system(shared: System) -> System:
    """The module's installation, without jobs and without workers."""
    return emptied(shared)


@pytest.fixture
def client(system: System) -> Iterator[httpx.Client]:
    """A client of the user `ada`."""
    with system.client() as client:
        yield client


@pytest.fixture
def nobody(client: httpx.Client) -> httpx.Client:
    """A client that does not say who asks."""
    del client.headers["x-user-id"]
    return client


@pytest.fixture(scope="module")
def strict_api(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """An API process with limits."""
    limits = {
        "PRIORITY_CEILINGS": '{"*": "normal", "vip": "high", "batch": "low"}',
        "USER_MAX_QUEUED": "2",
        "ALLOW_ANONYMOUS_START": "false",
        "ROOT_MESSAGE": "hello",
    }
    folder = tmp_path_factory.mktemp("strict")
    with installed(valkey_server, seaweedfs, folder, STRICT, **limits) as system:
        yield system


@pytest.fixture
def strict(strict_api: System) -> System:
    """An installation with limits, without jobs."""
    return emptied(strict_api)


@pytest.fixture(scope="module")
def mock(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """An installation without a bucket, with a worker."""
    folder = tmp_path_factory.mktemp("mock")
    unset = dict.fromkeys(["S3_ENDPOINT", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY", "S3_BUCKET_NAME"], "")
    storage = {"MOCK_STORAGE_DIR": str(folder / "storage"), **unset}
    with installed(valkey_server, seaweedfs, folder, MOCK, **storage) as system:
        emptied(system).start_worker()
        yield system


@pytest.fixture(scope="module")
def mock_link(mock: System) -> str:
    """The link to the result of a job of two generated files."""
    job_id = mock.submit([10_003, 10_010])
    assert mock.wait(job_id)["status"] == "completed"
    with mock.client() as client:
        return str(client.get(f"/v1/download/result/{job_id}").json()["downloadUrl"])


def asked(system: System, user: str, **body: Any) -> httpx.Response:  # noqa: ANN401 - JSON
    """What a user is answered who asks for a file."""
    with system.client(user) as client:
        return client.post(INITIATE, json={"file_ids": [10_003], **body})


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Compare an answer with the problem that it must be; its document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == CONTENT_TYPE
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == TYPE_PREFIX + code
    assert (problem["status"], problem["error"]) == (status, code)
    assert problem["title"]
    assert problem["detail"] == problem["message"] != ""
    assert problem["requestId"] == answer.headers["x-request-id"]
    return problem


@pytest.mark.contract("root")
def test_the_root_says_who_answers(nobody: httpx.Client, strict: System) -> None:
    """`/` answers with the message of the setting, for anybody."""
    assert nobody.get("/").json() == {"message": "downloadjobs"}
    with strict.client() as client:
        assert client.get("/").json() == {"message": "hello"}


@pytest.mark.contract("probes")
def test_a_live_process_says_so(nobody: httpx.Client) -> None:
    """`/livez` answers 200 for anybody."""
    answer = nobody.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.contract("probes")
def test_readiness_follows_the_queue(seaweedfs: SeaweedServer, tmp_path: Path) -> None:
    """`/readyz` is 200, 503 while Redis is down, when `/livez` stays 200, and 200 again after."""
    with (
        killed_after(ValkeyServer(tmp_path / "valkey")) as valkey,
        installed(valkey, seaweedfs, tmp_path, 0) as system,
        system.client() as client,
    ):
        assert client.get("/readyz").json() == {"status": "ok"}
        valkey.kill()
        answer = client.get("/readyz")
        check_problem(answer, 503, "queue-unavailable")
        assert answer.headers["retry-after"] == "5"
        assert client.get("/livez").status_code == 200
        health = client.get("/health")
        assert (health.status_code, health.json()) == (
            503, {"status": "unhealthy", "checks": {"storage": "ok", "queue": "error"}},
        )  # fmt: skip
        valkey.start()
        assert client.get("/readyz").status_code == 200


@pytest.mark.contract("health")
def test_health_tells_of_storage_and_queue(nobody: httpx.Client) -> None:
    """`/health` answers for both servers, for anybody."""
    answer = nobody.get("/health")
    assert (answer.status_code, answer.json()) == (
        200, {"status": "healthy", "checks": {"storage": "ok", "queue": "ok"}},
    )  # fmt: skip


@pytest.mark.contract("health")
def test_health_without_storage(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path
) -> None:
    """`/health` is 503 and names storage while S3 is down; the process is ready all the same."""
    away = f"http://127.0.0.1:{free_ports(1)[0]}"
    with (
        installed(valkey_server, seaweedfs, tmp_path, OWN, S3_ENDPOINT=away) as system,
        system.client() as client,
    ):
        answer = client.get("/health")
        assert (answer.status_code, answer.json()) == (
            503, {"status": "unhealthy", "checks": {"storage": "error", "queue": "ok"}},
        )  # fmt: skip
        assert client.get("/readyz").status_code == 200


@pytest.mark.contract("health")
def test_health_of_servers_that_do_not_answer(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path
) -> None:
    """`/health` names each server that is silent, all of them at once, before the request's time is over."""
    with socket.create_server(("127.0.0.1", 0)) as redis, socket.create_server(("127.0.0.1", 0)) as s3:
        silent = {
            "REDIS_URL": f"redis://127.0.0.1:{redis.getsockname()[1]}",
            "S3_ENDPOINT": f"http://127.0.0.1:{s3.getsockname()[1]}",
            "REQUEST_TIMEOUT_MS": "3000",
        }
        with (
            installed(valkey_server, seaweedfs, tmp_path, OWN, **silent) as system,
            system.client() as client,
        ):
            answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (
        503, {"status": "unhealthy", "checks": {"storage": "error", "queue": "error"}},
    )  # fmt: skip


@pytest.mark.contract("probes")
@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_monitors_may_ask_by_head(nobody: httpx.Client, path: str) -> None:
    """HEAD is answered as GET is, but for the body."""
    answer = nobody.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == nobody.get(path).headers["content-length"]


@pytest.mark.contract("initiate")
def test_initiate_accepts_a_job(client: httpx.Client) -> None:
    """The answer is 202 with the job's id and where to look, and when; duplicates count as asked for."""
    answer = client.post(INITIATE, json={"file_ids": [10_003, 10_004, 10_003]})
    assert answer.status_code == 202
    body = answer.json()
    assert set(body) == {"jobId", "status", "totalFileIds", "estimatedTime"}
    assert UUID.fullmatch(body["jobId"])
    assert (body["status"], body["totalFileIds"]) == ("queued", 3)
    assert re.fullmatch(r"\d+-\d+ seconds", body["estimatedTime"])
    assert answer.headers["location"] == f"/v1/download/status/{body['jobId']}"
    assert answer.headers["retry-after"] == "1"
    status = client.get(answer.headers["location"]).json()
    assert status["progress"] == {"processed": 0, "total": 2}


@pytest.mark.contract("initiate")
@pytest.mark.parametrize("ids", [[10_000], [100_000_000], range(10_000, 11_000)], ids=["1", "last", "1000"])
def test_initiate_takes_one_to_a_thousand_ids(client: httpx.Client, ids: range | list[int]) -> None:
    """As many ids as the contract allows are accepted, the smallest and the largest among them."""
    answer = client.post(INITIATE, json={"file_ids": list(ids)})
    assert (answer.status_code, answer.json()["totalFileIds"]) == (202, len(ids))


@pytest.mark.parametrize("count", [0, 1_001])
def test_initiate_refuses_no_id_and_too_many(client: httpx.Client, count: int) -> None:
    """None, or one more than a thousand, is a fault of the list."""
    problem = check_problem(client.post(INITIATE, json={"file_ids": [10_003] * count}), 400, "invalid-body")
    assert [fault["field"] for fault in problem["errors"]] == ["file_ids"]


@pytest.mark.contract("initiate")
@pytest.mark.parametrize("wrong", ["10003", 10_003.5, 1e300, True, None, [10_003], {}, 9_999, 100_000_001])
def test_initiate_refuses_what_is_no_id(client: httpx.Client, wrong: object) -> None:
    """An id is a whole number from 10,000 to 100,000,000, and nothing that could be taken for one."""
    problem = check_problem(client.post(INITIATE, json={"file_ids": [10_003, wrong]}), 400, "invalid-body")
    assert [fault["field"] for fault in problem["errors"]] == ["file_ids.1"]


@pytest.mark.contract("errors")
def test_every_fault_of_a_body_is_listed(client: httpx.Client) -> None:
    """All fields at fault are named at once, each with what is wrong, and the first stands in the message."""
    body = {"file_ids": [1, 10_003, "x", 2.5], "priority": "urgent"}
    problem = check_problem(client.post(INITIATE, json=body), 400, "invalid-body")
    fields = [fault["field"] for fault in problem["errors"]]
    assert fields == ["file_ids.0", "file_ids.2", "file_ids.3", "priority"]
    assert all(fault["message"] for fault in problem["errors"])
    assert problem["message"].startswith("file_ids.0: ")
    assert "3 more" in problem["message"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b'"text"', b"1", b"null"])
def test_a_body_without_ids_is_refused(client: httpx.Client, body: bytes) -> None:
    """JSON that is no object with ids is an invalid body, not a fault of the service."""
    answer = client.post(INITIATE, content=body, headers={"content-type": "application/json"})
    problem = check_problem(answer, 400, "invalid-body")
    assert len(problem["errors"]) == 1


@pytest.mark.contract("errors")
@pytest.mark.parametrize("path", [INITIATE, CHECK, START])
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(client: httpx.Client, path: str, content_type: str | None) -> None:
    """A body that does not say that it is JSON is 415."""
    headers = {} if content_type is None else {"content-type": content_type}
    answer = client.post(path, content=b'{"file_ids": [10003], "file_id": 10003}', headers=headers)
    check_problem(answer, 415, "unsupported-media-type")


def test_a_charset_may_stand_beside_the_content_type(client: httpx.Client) -> None:
    """Parameters of the content type, and its case, do not matter."""
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post(INITIATE, content=b'{"file_ids": [10003]}', headers=headers).status_code == 202


@pytest.mark.contract("server")
def test_an_encoded_body_is_refused(client: httpx.Client) -> None:
    """A Content-Encoding is 415: a small body could become a huge one."""
    answer = client.post(INITIATE, json={"file_ids": [10_003]}, headers={"content-encoding": "gzip"})
    check_problem(answer, 415, "unsupported-media-type")


@pytest.mark.contract("errors")
@pytest.mark.parametrize("body", [b"", b"{", b'{"file_ids": [10003],}', b"\xff\xfe"])
def test_bad_json_is_refused(client: httpx.Client, body: bytes) -> None:
    """A body that is not JSON is 400, and says where it breaks."""
    answer = client.post(INITIATE, content=body, headers={"content-type": "application/json"})
    problem = check_problem(answer, 400, "invalid-json")
    assert problem["message"].startswith("The body is not JSON: ")


@pytest.mark.contract("errors", "server")
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(client: httpx.Client, *, chunked: bool) -> None:
    """More than the limit is 413, whether the length was announced or not, and the connection ends."""
    large = b" " * (MAX_BODY_BYTES + 1)
    body = iter([large[:MAX_BODY_BYTES], large[MAX_BODY_BYTES:]]) if chunked else large
    answer = client.post(INITIATE, content=body, headers={"content-type": "application/json"})
    check_problem(answer, 413, "body-too-large")
    assert answer.headers["connection"] == "close"
    assert client.get("/livez").status_code == 200


def test_a_body_of_the_largest_size_is_read(client: httpx.Client) -> None:
    """The limit itself is allowed."""
    body = b'{"file_ids": [10003]}'
    padded = body + b" " * (MAX_BODY_BYTES - len(body))
    answer = client.post(INITIATE, content=padded, headers={"content-type": "application/json"})
    assert answer.status_code == 202


@pytest.mark.contract("errors")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", INITIATE, {"POST"}),
        ("PUT", CHECK, {"POST"}),
        ("DELETE", START, {"POST"}),
        ("POST", "/v1/download/status/x", {"GET"}),
        ("POST", "/v1/jobs/x", {"GET", "DELETE"}),
        ("POST", "/livez", {"GET"}),
    ],
)
def test_a_wrong_method_is_refused(client: httpx.Client, method: str, path: str, allowed: set[str]) -> None:
    """A method that a path does not know is 405, and `Allow` says which it knows."""
    answer = client.request(method, path)
    check_problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) - {"HEAD", "OPTIONS"} == allowed


def test_an_unknown_path_is_not_found(client: httpx.Client) -> None:
    """A path that nothing answers at is 404."""
    check_problem(client.get("/v1/nothing"), 404, "not-found")


OWN_PATHS = [
    ("POST", INITIATE),
    ("GET", "/v1/download/status/{}"),
    ("GET", "/v1/download/result/{}"),
    ("GET", "/v1/jobs/{}"),
    ("DELETE", "/v1/jobs/{}"),
]


@pytest.mark.contract("errors")
@pytest.mark.parametrize(("method", "path"), OWN_PATHS)
@pytest.mark.parametrize(
    ("user", "status", "code"),
    [
        (None, 401, "unauthenticated"),
        ("", 401, "unauthenticated"),
        ("u" * 129, 401, "unauthenticated"),
        ("two words", 401, "unauthenticated"),
        ("k8s:default", 403, "reserved-user"),
    ],
    ids=["missing", "empty", "too long", "with a blank", "reserved"],
)
def test_a_job_needs_a_user(
    system: System, nobody: httpx.Client, *, method: str, path: str, user: str | None, status: int, code: str
) -> None:
    """Whatever is about a job wants to know who asks; a namespace is nobody's user id."""
    path = path.format(system.submit([10_003], "somebody"))
    headers = {} if user is None else {"x-user-id": user}
    body = {"file_ids": [10_003]} if method == "POST" else None
    answer = nobody.request(method, path, headers=headers, json=body)
    check_problem(answer, status, code)
    assert ("www-authenticate" in answer.headers) is (status == 401)


def test_a_user_id_has_at_most_128_characters(system: System) -> None:
    """The longest user id is accepted."""
    assert asked(system, "u" * 128).status_code == 202


@pytest.mark.parametrize(("method", "path"), OWN_PATHS[1:])
def test_a_job_is_its_owners_alone(system: System, client: httpx.Client, method: str, path: str) -> None:
    """Another user's job is 403, by whichever route, and stays as it is; its owner is not refused."""
    job_id = system.submit([10_003], "bob")
    problem = check_problem(client.request(method, path.format(job_id)), 403, "forbidden")
    assert "bob" not in problem["message"]
    assert system.status(job_id, "bob")["status"] == "queued"


@pytest.mark.parametrize(("method", "path"), OWN_PATHS[1:])
@pytest.mark.parametrize("job_id", [str(uuid.UUID(int=0)), "x", "%00", "..%2f..", "j" * 1_000])
def test_an_unknown_job_is_not_found(client: httpx.Client, method: str, path: str, job_id: str) -> None:
    """An id that no job has is 404, whatever it looks like."""
    answer = client.request(method, path.format(job_id))
    code = "not-found" if "%2f" in job_id else "job-not-found"  # a slash, encoded or not, is another path
    check_problem(answer, 404, code)


@pytest.mark.contract("status")
def test_a_status_has_its_shape(system: System, client: httpx.Client) -> None:
    """The status of a new job: its state, no progress yet, when it changed last, and when to ask again."""
    job_id = system.submit([10_003, 10_004])
    answer = client.get(f"/v1/download/status/{job_id}")
    body = answer.json()
    assert MOMENT.fullmatch(body.pop("updatedAt"))
    assert body == {"jobId": job_id, "status": "queued", "progress": {"processed": 0, "total": 2}}
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["cache-control"] == "private, no-cache"


def test_a_status_is_always_fresh(system: System) -> None:
    """A change in Redis is in the very next answer."""
    job_id = system.submit([10_003, 10_004, 10_005])
    with queue_of(system) as queue:
        job = queue.lease("w")
        assert job is not None
        for done in (1, 2, 3):
            queue.progress(job, files_done=done, bytes_done=done * 10, bytes_total=30)
            status = system.status(job_id)
            assert (status["status"], status["progress"]) == (
                "processing", {"processed": done, "total": 3, "bytes": done * 10, "bytesTotal": 30},
            )  # fmt: skip


def finished(system: System, outcome: Outcome) -> Job:
    """A job that was ended so."""
    job_id = system.submit([10_003])
    with queue_of(system) as queue:
        job = queue.lease("w")
        assert job is not None
        assert job.job_id == job_id
        queue.finish(job, outcome)
    return job


IN_PART = Outcome(JobState.COMPLETED_WITH_ERRORS, result_key="results/rest-test.zip", files_failed=1)
WHOLE = Outcome(JobState.COMPLETED, result_key="results/rest-test.zip", result_bytes=9)


@pytest.mark.contract("status")
def test_a_result_in_part_is_completed_on_the_first_routes(system: System, client: httpx.Client) -> None:
    """`completed_with_errors` is told as `completed`, so that old pollers end, with how many failed."""
    job = finished(system, IN_PART)
    status = client.get(f"/v1/download/status/{job.job_id}")
    assert (status.json()["status"], status.json()["failedFiles"]) == ("completed", 1)
    assert "retry-after" not in status.headers
    result = client.get(f"/v1/download/result/{job.job_id}").json()
    assert (result["status"], result["failedFiles"]) == ("completed", 1)
    assert client.get(f"/v1/jobs/{job.job_id}").json()["state"] == "completed_with_errors"


@pytest.mark.contract("result")
def test_a_result_has_its_shape(system: System, client: httpx.Client) -> None:
    """The result is a presigned URL, good for ten minutes, that names the file; nothing may keep it."""
    job = finished(system, WHOLE)
    system.store.put(WHOLE.result_key, b"PK result")
    answer = client.get(f"/v1/download/result/{job.job_id}")
    body = answer.json()
    url = body.pop("downloadUrl")
    assert body == {"jobId": job.job_id, "status": "completed", "expiresIn": 600}
    assert answer.headers["cache-control"] == "no-store"
    fetched = httpx.get(url, trust_env=False)
    assert fetched.content == b"PK result"
    assert f"download-{job.job_id}.zip" in fetched.headers["content-disposition"]


@pytest.mark.contract("result")
def test_a_result_is_refused_while_the_job_waits(system: System, client: httpx.Client) -> None:
    """Before the job has ended its result is 409, with a hint when to ask again."""
    answer = client.get(f"/v1/download/result/{system.submit([10_003])}")
    check_problem(answer, 409, "result-not-ready")
    assert answer.headers["retry-after"] == "1"


def test_a_failed_job_says_why_it_has_no_result(system: System, client: httpx.Client) -> None:
    """A job that failed never has a result: 409 with the reason, and nothing to wait for."""
    job = finished(system, Outcome(JobState.FAILED, error_code="x", error_message="It was too hot."))
    answer = client.get(f"/v1/download/result/{job.job_id}")
    assert "It was too hot." in check_problem(answer, 409, "no-result")["message"]
    assert "retry-after" not in answer.headers


@pytest.mark.contract("result")
def test_a_result_past_its_time_is_gone(system: System, client: httpx.Client) -> None:
    """From the moment its time is over a result is 410, though its object may still be there."""
    job = finished(system, WHOLE)
    with queue_of(system) as queue:
        queue.redis.hset(job_key(job.job_id), "expires_us", "1")
    check_problem(client.get(f"/v1/download/result/{job.job_id}"), 410, "result-expired")


@pytest.mark.contract("check")
def test_check_finds_a_file(system: System, nobody: httpx.Client) -> None:
    """A file that is there has its key and size; nobody need sign in to ask."""
    put_files(system.store, {61_003: 321})
    answer = nobody.post(CHECK, json={"file_id": 61_003})
    assert (answer.status_code, answer.json()) == (
        200, {"file_id": 61_003, "available": True, "s3Key": "downloads/61003.zip", "size": 321},
    )  # fmt: skip


@pytest.mark.contract("check")
def test_check_misses_a_file(nobody: httpx.Client) -> None:
    """A file that is not there is no error."""
    answer = nobody.post(CHECK, json={"file_id": 99_999_999})
    assert (answer.status_code, answer.json()) == (
        200, {"file_id": 99_999_999, "available": False, "s3Key": None, "size": None},
    )  # fmt: skip


@pytest.mark.parametrize("path", [CHECK, START])
@pytest.mark.parametrize("wrong", ["10003", 9_999, True, None])
def test_check_and_start_refuse_what_is_no_id(client: httpx.Client, path: str, wrong: object) -> None:
    """Their one id has the rules of those of a job."""
    problem = check_problem(client.post(path, json={"file_id": wrong}), 400, "invalid-body")
    assert [fault["field"] for fault in problem["errors"]] == ["file_id"]


def test_sentry_test_is_an_error_of_the_service(nobody: httpx.Client) -> None:
    """`?sentry_test=true` is 500, and what happened inside is not told."""
    answer = nobody.post(CHECK, params={"sentry_test": "true"}, json={"file_id": 10_003})
    check_problem(answer, 500, "internal-error")
    assert "sentry_test" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.contract("start")
def test_start_gives_one_file(system: System, nobody: httpx.Client) -> None:
    """A file that is there comes with a URL that anybody can fetch, and nothing may keep the answer."""
    put_files(system.store, {61_010: 456})
    answer = nobody.post(START, json={"file_id": 61_010})
    body = answer.json()
    url, took = body.pop("downloadUrl"), body.pop("processingTimeMs")
    assert body == {"file_id": 61_010, "status": "completed", "size": 456, "message": "The file is ready."}
    assert took >= 0
    assert answer.headers["cache-control"] == "no-store"
    assert httpx.get(url, trust_env=False).content == content(61_010, 456)


@pytest.mark.contract("start")
def test_start_of_a_missing_file_failed(nobody: httpx.Client) -> None:
    """A file that is not there is told in the body: the call itself succeeded."""
    answer = nobody.post(START, json={"file_id": 99_999_999})
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("processingTimeMs") >= 0
    assert body == {
        "file_id": 99_999_999, "status": "failed", "downloadUrl": None, "size": None,
        "message": "There is no such file.",
    }  # fmt: skip


@pytest.mark.contract("start")
def test_start_may_want_a_user(strict: System) -> None:
    """With ALLOW_ANONYMOUS_START=false `start` is 401 for nobody, and answers a user."""
    with strict.client() as client:
        assert client.post(START, json={"file_id": 99_999_999}).status_code == 200
        del client.headers["x-user-id"]
        check_problem(client.post(START, json={"file_id": 99_999_999}), 401, "unauthenticated")
        assert client.post(CHECK, json={"file_id": 99_999_999}).status_code == 200


@pytest.mark.parametrize(
    ("user", "priority", "allowed"),
    [
        ("ada", "high", False),
        ("ada", "normal", True),
        ("ada", "low", True),
        ("vip", "high", True),
        ("batch", "normal", False),
        ("batch", "low", True),
    ],
)
def test_a_priority_has_a_ceiling(strict: System, user: str, priority: str, *, allowed: bool) -> None:
    """A user may ask for a class up to their own ceiling, or everybody's; above it is 403."""
    answer = asked(strict, user, priority=priority)
    if not allowed:
        check_problem(answer, 403, "priority-too-high")
        return
    assert answer.status_code == 202
    with strict.client(user) as client:
        assert client.get(f"/v1/jobs/{answer.json()['jobId']}").json()["priority"] == priority


@pytest.mark.parametrize(("user", "priority"), [("ada", "normal"), ("vip", "normal"), ("batch", "low")])
def test_a_priority_that_is_not_asked_for(strict: System, user: str, priority: str) -> None:
    """Without a priority a job is normal, or of the highest class that its user may have."""
    job_id = asked(strict, user).json()["jobId"]
    with strict.client(user) as client:
        assert client.get(f"/v1/jobs/{job_id}").json()["priority"] == priority


def test_a_user_may_queue_so_many_jobs(strict: System) -> None:
    """One job too many of a user is 429 with a hint when to try again; another user is not held up."""
    for _ in range(2):
        assert asked(strict, "ada").status_code == 202
    answer = asked(strict, "ada")
    check_problem(answer, 429, "too-many-queued")
    assert answer.headers["retry-after"] == "5"
    assert asked(strict, "bob").status_code == 202


def test_whole_numbers_are_ids_however_they_are_written(client: httpx.Client) -> None:
    """`10003.0` is an integer of JSON Schema, and 1e4 too; an id asked for in two ways is one file."""
    body = b'{"file_ids": [10003.0, 1e4, 10003]}'
    answer = client.post(INITIATE, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == httpx.codes.ACCEPTED
    detail = client.get(f"/v1/jobs/{answer.json()['jobId']}").json()
    assert (detail["fileIds"], detail["totalFileIds"]) == ([10_003, 10_000], 3)


@pytest.mark.contract("job")
def test_a_detail_tells_the_place_in_the_queue(system: System, client: httpx.Client) -> None:
    """The second of two waiting jobs has one before it, and starts when that one is probably done."""
    first, second = system.submit([10_003]), system.submit([10_004, 10_004])
    answer = client.get(f"/v1/jobs/{second}")
    assert answer.headers["cache-control"] == "private, no-cache"
    body = answer.json()
    for moment in ("createdAt", "updatedAt"):
        assert MOMENT.fullmatch(body.pop(moment))
    assert UUID.fullmatch(body.pop("requestId"))
    assert re.fullmatch(r"[0-9a-f]{32}", body.pop("traceId"))
    nothing_yet = dict.fromkeys(
        [
            "startedAt",
            "finishedAt",
            "expiresAt",
            "retryAt",
            "worker",
            "resultBytes",
            "error",
            "callback",
            "retryOf",
            "retriedBy",
        ]
    )
    assert body == nothing_yet | {
        "jobId": second,
        "state": "queued",
        "priority": "normal",
        "suspended": False,
        "totalFileIds": 2,
        "failedFiles": 0,
        "progress": {"processed": 0, "total": 1, "bytes": 0, "bytesTotal": 0},
        "attempt": 0,
        "maxAttempts": 3,
        "deliveries": 0,
        "queue": {"place": "ready", "ahead": 1, "startsInSeconds": 10.0, "estimateErrorPercent": 0},
        "etaSeconds": 20.0,
        "deduplicated": False,
        "workerSeconds": 0,
        "workerBytes": 0,
        "fileIds": [10_004],
        "failures": [],
    }
    ahead = client.get(f"/v1/jobs/{first}").json()["queue"]
    assert (ahead["ahead"], ahead["startsInSeconds"]) == (0, 0.0)


def test_a_running_job_has_no_place(system: System, client: httpx.Client) -> None:
    """A job that runs names its worker, and waits nowhere."""
    job_id = system.submit([10_003])
    with queue_of(system) as queue:
        assert queue.lease("worker-7") is not None
    body = client.get(f"/v1/jobs/{job_id}").json()
    assert (body["state"], body["worker"], body["queue"], body["attempt"]) == (
        "processing",
        "worker-7",
        None,
        1,
    )
    assert MOMENT.fullmatch(body["startedAt"])


@pytest.mark.contract("cancel")
def test_a_waiting_job_is_cancelled_at_once(system: System, client: httpx.Client) -> None:
    """DELETE ends a waiting job; it is never started, has no result, and cannot be cancelled again."""
    job_id = system.submit([10_003])
    answer = client.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()) == (200, {"jobId": job_id, "state": "cancelled"})
    assert system.status(job_id)["status"] == "cancelled"
    detail = client.get(f"/v1/jobs/{job_id}").json()
    assert (detail["state"], detail["queue"], detail["error"]["code"]) == ("cancelled", None, "cancelled")
    with queue_of(system) as queue:
        assert queue.lease("w") is None
    check_problem(client.get(f"/v1/download/result/{job_id}"), 409, "no-result")
    check_problem(client.delete(f"/v1/jobs/{job_id}"), 409, "already-finished")


@pytest.mark.contract("cancel")
def test_a_finished_job_stays_finished(system: System, client: httpx.Client) -> None:
    """Cancelling a job that has ended is 409, and its result stays."""
    job = finished(system, WHOLE)
    problem = check_problem(client.delete(f"/v1/jobs/{job.job_id}"), 409, "already-finished")
    assert "completed" in problem["message"]
    assert client.get(f"/v1/download/result/{job.job_id}").status_code == 200


@pytest.mark.contract("headers")
@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 200),
        ("GET", "/livez", None, 200),
        ("GET", "/health", None, 200),
        ("POST", INITIATE, b'{"file_ids": [10003]}', 202),
        ("POST", INITIATE, b"{", 400),
        ("POST", INITIATE, b"{}", 400),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/jobs/x", None, 404),
        ("PUT", "/", None, 405),
        ("OPTIONS", "/", None, 200),
        ("POST", INITIATE, b" " * (MAX_BODY_BYTES + 1), 413),
        ("GET", "/" + "x" * 20_000, None, 414),
        ("POST", f"{CHECK}?sentry_test=true", b"{}", 500),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)
def test_every_answer_carries_the_same_headers(
    client: httpx.Client, method: str, path: str, body: bytes | None, status: int
) -> None:
    """A request id, security headers, who may read it and the rate limit, each once; an error is a problem.

    A probe is not limited, and what is refused before it is a request is not counted.
    """
    answer = client.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert UUID.fullmatch(answer.headers["x-request-id"])
    for name, value in SECURITY_HEADERS:
        assert answer.headers.get_list(name) == [value]
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    uncounted = path == "/livez" or status in {413, 414}
    for name in ("limit", "remaining", "reset", "policy"):
        assert len(answer.headers.get_list(f"ratelimit-{name}", split_commas=False)) == (not uncounted)
    assert len(answer.headers.get_list("ratelimit")) == (not uncounted)
    if status >= 400:
        check_problem(answer, status, answer.json()["error"])


@pytest.mark.contract("errors")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("PUT", "/", 405), ("GET", "/" + "x" * 20_000, 414)],
    ids=["404", "405", "414"],
)
def test_a_problem_is_kept_nowhere(client: httpx.Client, method: str, path: str, status: int) -> None:
    """A cache may keep these without being told (RFC 9110, 15.1), so it is told not to, whoever answers."""
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")


@pytest.mark.contract("headers")
@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v1/jobs/x"])
@pytest.mark.parametrize("given", ["checkout-7f3a", "A.b_c~d:e/f+g=h@i-9", "r" * 128])
def test_a_sane_request_id_is_kept(client: httpx.Client, path: str, given: str) -> None:
    """A client's id comes back, so that its logs and ours name one request alike."""
    assert client.get(path, headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.contract("headers")
@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v1/jobs/x"])
@pytest.mark.parametrize("given", ["", "two words", "r" * 129, '"quoted"', "a,b", "<script>"])
def test_another_request_id_is_replaced(client: httpx.Client, path: str, given: str) -> None:
    """What is no sane token goes into no log: a new id stands in for it."""
    found = client.get(path, headers={"x-request-id": given}).headers["x-request-id"]
    assert UUID.fullmatch(found)


def test_request_ids_differ(client: httpx.Client) -> None:
    """Every request without an id gets one of its own."""
    assert len({client.get("/").headers["x-request-id"] for _ in range(20)}) == 20


@pytest.mark.contract("mock-storage")
def test_mock_storage_has_every_seventh_file(mock: System) -> None:
    """Without a bucket `check` says available if and only if the id is divisible by 7."""
    with mock.client() as client:
        for file_id in range(10_000, 10_015):
            body = client.post(CHECK, json={"file_id": file_id}).json()
            there = file_id % 7 == 0
            assert body == {
                "file_id": file_id,
                "available": there,
                "s3Key": f"downloads/{file_id}.zip" if there else None,
                "size": mock_files.size_of(file_id) if there else None,
            }


@pytest.mark.contract("mock-storage")
def test_mock_storage_is_healthy_and_says_what_it_is(mock: System) -> None:
    """`/health` and the log of each process tell that storage is a mock."""
    with mock.client() as client:
        assert client.get("/health").json() == {
            "status": "healthy", "checks": {"storage": "ok", "queue": "ok"}, "mockStorage": True,
        }  # fmt: skip

    def said() -> bool:
        logs = [child.log_path.read_text(encoding="utf-8") for child in mock.children]
        return all("mock storage: files are generated" in log for log in logs)

    eventually(said, 20, "the warning in each log")


@pytest.mark.contract("mock-storage")
def test_a_job_of_generated_files(mock_link: str) -> None:
    """A job makes a real zip of generated bytes, which anybody with the link can fetch."""
    answer = httpx.get(mock_link, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["accept-ranges"] == "bytes"
    assert "attachment" in answer.headers["content-disposition"]
    found = members(answer.content)
    assert set(found) == {"10003.zip", "10010.zip", "manifest.json"}
    for file_id in (10_003, 10_010):
        size = mock_files.size_of(file_id)
        assert found[f"{file_id}.zip"] == mock_files.read_at(file_id, 0, size)


@pytest.mark.parametrize(
    ("asked_for", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=5-", 5, -1), ("bytes=-7", -7, -1), ("bytes=0-999999999", 0, -1)],
)
def test_a_mock_link_serves_ranges(mock_link: str, asked_for: str, first: int, last: int) -> None:
    """A part of the result, as a broken download asks for it, is 206 with just those bytes."""
    whole = httpx.get(mock_link, trust_env=False).content
    first, last = first % len(whole), last % len(whole)
    answer = httpx.get(mock_link, headers={"range": asked_for}, trust_env=False)
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
    assert answer.content == whole[first : last + 1]


def test_a_range_beyond_the_end_is_refused(mock_link: str) -> None:
    """A range that begins after the last byte is 416, with the size that there is."""
    size = len(httpx.get(mock_link, trust_env=False).content)
    answer = httpx.get(mock_link, headers={"range": f"bytes={size}-"}, trust_env=False)
    check_problem(answer, 416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-match": "{tag}"}, 206),
        ({"if-match": '"other", {tag}'}, 206),
        ({"if-match": '"other"'}, 412),
        ({"if-match": "W/{tag}"}, 412),
        ({"if-none-match": "{tag}"}, 304),
        ({"if-none-match": '"other"'}, 206),
        ({"if-range": "{tag}"}, 206),
        ({"if-range": '"other"'}, 200),
        ({"if-range": "W/{tag}"}, 200),
        ({"if-range": "Wed, 25 Nov 2026 00:00:00 GMT"}, 200),
        ({"range": "items=0-3"}, 200),
        ({"range": "Bytes=0-3"}, 206),
    ],
)
def test_a_mock_link_heeds_conditions(mock_link: str, headers: dict[str, str], status: int) -> None:
    """A range is of the file that the client means, and in bytes, or there is the whole file, or 412."""
    whole = httpx.get(mock_link, trust_env=False)
    given = {name: value.format(tag=whole.headers["etag"]) for name, value in headers.items()}
    answer = httpx.get(mock_link, headers={"range": "bytes=0-3", **given}, trust_env=False)
    assert answer.status_code == status
    assert ("content-range" in answer.headers) == (status == 206)
    if status == 412:
        check_problem(answer, 412, "precondition-failed")
    else:
        assert answer.headers["etag"] == whole.headers["etag"]
        assert answer.content == {200: whole.content, 206: whole.content[:4], 304: b""}[status]


def test_a_mock_link_is_never_logged(mock: System, mock_link: str) -> None:
    """Whatever is answered to a link, or to one that is written a little wrong, the log has no token."""
    beyond = {"range": "bytes=99999999999-"}
    statuses = [
        httpx.get(mock_link, headers=beyond, trust_env=False).status_code,
        httpx.post(mock_link, trust_env=False).status_code,
        httpx.get(f"{mock_link}/", trust_env=False).status_code,
    ]
    assert statuses == [416, 405, 404]

    def logged() -> list[str]:
        lines = mock.children[0].log_path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "/v1/mock/" in line]

    eventually(lambda: len(logged()) >= len(statuses), 10, "a line for each answer")
    payload, _, signature = mock_link.rpartition("/")[2].partition(".")
    assert not [line for line in logged() if payload in line or signature in line]
    assert {json.loads(line)["path"] for line in logged()} == {"/v1/mock/{token}"}


def test_a_changed_mock_link_is_refused(mock_link: str) -> None:
    """A link that was not signed by the installation is 403."""
    start, _, token = mock_link.rpartition("/")
    payload, _, signature = token.partition(".")
    swapped = str.maketrans({"A": "B", "B": "A", "x": "y", "y": "x"})
    for wrong in (f"{payload}.{signature.translate(swapped)}0", payload, "nonsense", f".{signature}"):
        check_problem(httpx.get(f"{start}/{wrong}", trust_env=False), 403, "forbidden")


@pytest.mark.parametrize("module", ["downloadjobs_api", "downloadjobs_worker"])
def test_production_needs_a_bucket(module: str, tmp_path: Path) -> None:
    """In production no process stands in for storage: without a bucket it ends with 2, and says why."""
    ended = subprocess.run(
        [sys.executable, "-m", module],
        env={**without_addresses(os.environ), "ENVIRONMENT": "production", "MOCK_STORAGE_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "S3_BUCKET_NAME: is not set, and mock storage is refused in production" in ended.stderr
    assert "Traceback" not in ended.stderr
