"""Unexpected faults in Sentry: what is told, and what is never."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import cast

import httpx
import pytest

from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import free_ports
from downloadjobs_core import __version__
from downloadjobs_core.job import job_key
from downloadjobs_core.redis_client import RedisConfig, connect
from support_processes import System
from support_telemetry import FakeSentry, closed_after
from support_worker import eventually, put_files

CHECK_FAULT = "/v1/download/check?sentry_test=true&token=hunter2"


@pytest.fixture
def sentry() -> Iterator[FakeSentry]:
    """A Sentry of the test's own."""
    with closed_after(FakeSentry()) as sentry:
        yield sentry


def end(child: Child) -> None:
    """Drain a process, in the time that it has."""
    child.ask_to_end()
    assert child.wait(15), child.log_tail()


def ask_for_a_fault(system: System, **headers: str) -> httpx.Response:
    """The test error of the contract, with things in the request that are nobody's business."""
    with system.client("ada-lovelace") as client:
        return client.post(
            CHECK_FAULT,
            json={"file_id": 31_415_926},
            headers={"authorization": "Bearer hunter3", "cookie": "session=hunter4", **headers},
        )


@pytest.mark.contract("check")
def test_the_test_error_is_answered_and_reported(system: System, sentry: FakeSentry) -> None:
    """`?sentry_test=true` is a 500, and an event with request and trace as tags, environment and release."""
    system.settings |= {"SENTRY_DSN": sentry.dsn, "ENVIRONMENT": "test"}
    system.start_api()
    trace = secrets.token_hex(16)
    answer = ask_for_a_fault(
        system, **{"x-request-id": "r-77", "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    )
    assert (answer.status_code, answer.json()["error"]) == (500, "internal-error")
    assert (answer.json()["requestId"], answer.json()["traceId"]) == ("r-77", trace)
    (event,) = sentry.wait_for()
    assert event["tags"] == {
        "process": "downloadjobs-api",
        "event": "an unexpected fault",
        "request_id": "r-77",
        "trace_id": trace,
    }
    assert event["environment"] == "test"
    assert event["release"] == f"downloadjobs@{__version__}"
    (fault,) = event["exception"]["values"]
    assert (fault["type"], fault["value"]) == ("RuntimeError", "a test error, asked for by sentry_test")
    assert fault["stacktrace"]["frames"][-1]["function"] == "on_post"


@pytest.mark.contract("trace")
def test_nothing_of_the_user_is_reported(system: System, sentry: FakeSentry) -> None:
    """No user, header, cookie, query, body or local variable stands anywhere in what is sent."""
    system.settings |= {"SENTRY_DSN": sentry.dsn}
    system.start_api()
    ask_for_a_fault(system)
    (event,) = sentry.wait_for()
    assert not {"user", "request", "breadcrumbs", "extra"} & {name for name, value in event.items() if value}
    sent = b"".join(request.body for request in sentry.received).decode()
    for secret in ("lovelace", "hunter", "31415926", "31_415_926", system.s3.config.secret_key or "?"):
        assert secret not in sent
    assert '"vars"' not in sent


def damaged(system: System) -> str:
    """A job that makes the worker meet a fault: it was submitted in a year that no zip can have."""
    put_files(system.store, {31_101: 10})
    job_id = system.submit([31_101])
    redis = connect(RedisConfig(system.valkey.url))
    redis.hset(job_key(job_id), mapping={"created_us": 10**20, "max_attempts": 1})
    redis.close()
    return job_id


def test_a_workers_fault_names_its_job(system: System, sentry: FakeSentry) -> None:
    """A fault in an attempt is reported with the job's id, and the request and trace that asked for it."""
    system.settings |= {"SENTRY_DSN": sentry.dsn}
    system.start_api()
    job_id = damaged(system)
    redis = connect(RedisConfig(system.valkey.url))
    asked = cast("dict[str, str]", redis.hgetall(job_key(job_id)))
    redis.close()
    worker = system.start_worker()
    assert system.wait(job_id)["status"] == "failed"
    (event,) = sentry.wait_for()
    assert event["tags"] == {
        "process": "downloadjobs-worker",
        "event": "attempt failed",
        "job_id": job_id,
        "request_id": asked["request_id"],
        "trace_id": asked["traceparent"].split("-")[1],
    }
    end(worker)
    assert len(sentry.events()) == 1


def test_expected_failures_are_not_reported(system: System, sentry: FakeSentry) -> None:
    """A missing job, a bad body and a job without files are everyday: only faults of ours are events."""
    system.settings |= {"SENTRY_DSN": sentry.dsn}
    api, worker = system.start_api(), system.start_worker()
    with system.client() as client:
        client.get("/v1/jobs/none")
        client.post("/v1/download/check", content=b"{")
    assert system.wait(system.submit([99_999_999]))["status"] == "failed"
    end(api)
    end(worker)
    assert not sentry.events()


def test_the_last_fault_is_sent_at_the_end(system: System, sentry: FakeSentry) -> None:
    """A fault just before a process' end is reported before it has drained."""
    system.settings |= {"SENTRY_DSN": sentry.dsn}
    api = system.start_api()
    ask_for_a_fault(system)
    end(api)
    assert len(sentry.events()) == 1


def test_a_dead_sentry_changes_nothing(system: System) -> None:
    """Where nobody listens, faults are answered as quickly, the log is quiet, and the end comes in time."""
    system.settings |= {"SENTRY_DSN": f"http://public@127.0.0.1:{free_ports(1)[0]}/1"}
    api = system.start_api()
    began = time.monotonic()
    for _ in range(20):
        assert ask_for_a_fault(system).status_code == 500
    assert time.monotonic() - began < 5
    began = time.monotonic()
    end(api)
    assert time.monotonic() - began < 8
    lines = [json.loads(line) for line in api.log_path.read_text().splitlines()]
    assert not [line for line in lines if line["logger"].startswith(("sentry_sdk", "urllib3"))]


def test_without_a_dsn_nobody_is_told(system: System, sentry: FakeSentry) -> None:
    """Without SENTRY_DSN the test error is a plain 500, in the log."""
    api = system.start_api()
    assert ask_for_a_fault(system).status_code == 500
    eventually(lambda: "an unexpected fault" in api.log_path.read_text())
    assert not sentry.received
