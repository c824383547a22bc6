"""The timeline of real jobs, by the API."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from typing import Any

import httpx

from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.timeline import timeline_key
from support_processes import System
from support_worker import eventually, put_files

MIB = 1024 * 1024


def timeline(system: System, job_id: str, user: str = "ada") -> dict[str, Any]:
    """A job's timeline."""
    with system.client(user) as client:
        answer = client.get(f"/v1/jobs/{job_id}/timeline")
    assert answer.status_code == httpx.codes.OK, answer.text
    found: dict[str, Any] = answer.json()
    return found


def named(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Its items with this name."""
    return [item for item in found["items"] if item["name"] == name]


def test_a_finished_job_is_told_whole(system: System) -> None:
    """Queued, the attempt, planning, each file with bytes or error, upload and finish, in order of time."""
    put_files(system.store, {34_001: 6 * MIB, 34_002: 5})
    system.settings["TRACE_URL_TEMPLATE"] = "https://jaeger.example.com/trace/{trace_id}?x=1"
    system.start_api()
    system.start_worker()
    job_id = system.submit([34_001, 34_002, 34_003])
    system.wait(job_id)
    found = timeline(system, job_id)
    assert found["jobId"] == job_id
    assert found["traceUrl"] == f"https://jaeger.example.com/trace/{found['traceId']}?x=1"
    assert found["omitted"] == 0
    assert sorted(item["name"] for item in found["items"]) == [
        "attempt", "file", "file", "file", "finish", "planning", "queued", "upload",
    ]  # fmt: skip
    assert all(first["at"] <= second["at"] for first, second in pairwise(found["items"]))
    assert all(item["endAt"] >= item["at"] for item in found["items"])
    assert [item["attributes"] for item in named(found, "file")] == [
        {"fileId": 34_001, "bytes": 6 * MIB, "error": None},
        {"fileId": 34_002, "bytes": 5, "error": None},
        {"fileId": 34_003, "bytes": 0, "error": "not-found"},
    ]
    (attempt,), (queued,), (finish,) = (named(found, name) for name in ("attempt", "queued", "finish"))
    assert (attempt["attempt"], attempt["status"]) == (1, "completed_with_errors")
    assert attempt["attributes"] == {"worker": "worker-1", "errorCode": None}
    assert queued["endAt"] == attempt["at"]
    assert finish["at"] == attempt["endAt"]


def test_a_killed_worker_leaves_its_attempt(system: System) -> None:
    """An attempt whose worker was killed shows as lease_expired, with files that it was done with."""
    put_files(system.store, dict.fromkeys(range(34_010, 34_018), 8 * MIB))
    system.start_api()
    worker = system.start_worker(READ_AHEAD_FILES="1", UPLOAD_THREADS="1")
    job_id = system.submit(range(34_010, 34_018))
    eventually(lambda: bool(named(timeline(system, job_id), "file")), what="a file of the running attempt")
    os.kill(worker.pid, signal.SIGKILL)
    running = timeline(system, job_id)
    assert [item["status"] for item in named(running, "attempt")] == ["running"]
    assert named(running, "attempt")[0]["endAt"] is None
    assert not named(running, "finish")
    system.start_worker()
    assert system.wait(job_id)["status"] == "completed"
    found = timeline(system, job_id)
    assert [item["status"] for item in named(found, "attempt")] == ["lease_expired", "completed"]
    assert [item["attributes"]["worker"] for item in named(found, "attempt")] == ["worker-1", "worker-2"]
    assert len(named(found, "queued")) == 2
    lost = named(found, "attempt")[0]
    assert any(item["at"] < lost["endAt"] for item in named(found, "file"))
    assert len(named(found, "file")) > 8


def test_a_waiting_job_and_its_cancellation(system: System) -> None:
    """A job that waits has one item without an end; cancelled, it has two with one."""
    system.start_api()
    job_id = system.submit([34_030])
    (queued,) = timeline(system, job_id)["items"]
    assert (queued["name"], queued["endAt"], queued["status"]) == ("queued", None, "waiting")
    with system.client() as client:
        client.delete(f"/v1/jobs/{job_id}")
    assert [(item["name"], item["status"]) for item in timeline(system, job_id)["items"]] == [
        ("queued", "ok"),
        ("finish", "cancelled"),
    ]


def test_only_its_owner_sees_it(system: System) -> None:
    """401 without a user, 403 for another's job, 404 for none; and no trace link without a setting."""
    system.start_api()
    job_id = system.submit([34_040])
    assert timeline(system, job_id)["traceUrl"] is None
    with system.client("mallory") as client:
        assert client.get(f"/v1/jobs/{job_id}/timeline").status_code == httpx.codes.FORBIDDEN
        assert client.get("/v1/jobs/none/timeline").status_code == httpx.codes.NOT_FOUND
        del client.headers["x-user-id"]
        assert client.get(f"/v1/jobs/{job_id}/timeline").status_code == httpx.codes.UNAUTHORIZED


def test_the_largest_job_takes_little_and_goes_with_its_record(system: System) -> None:
    """A thousand files are told in full, take under 30 kB in Redis, and expire with the record."""
    ids = range(35_000, 36_000)
    put_files(system.store, dict.fromkeys(ids, 1))
    system.start_api()
    system.start_worker()
    job_id = system.submit(ids)
    system.wait(job_id)
    assert [item["attributes"]["fileId"] for item in named(timeline(system, job_id), "file")] == list(ids)
    redis = connect(RedisConfig(system.valkey.url))
    try:
        assert (redis.memory_usage(timeline_key(job_id), samples=0) or 0) < 30_000
        record = f"{{downloadjobs}}:job:{job_id}"
        assert 0 < redis.ttl(timeline_key(job_id)) <= redis.ttl(record)
    finally:
        redis.close()
