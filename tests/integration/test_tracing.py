"""One trace from the client's request to the worker's storage calls, over real processes."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import free_ports
from downloadjobs_core.job import job_key
from downloadjobs_core.redis_client import RedisConfig, connect
from support_processes import System
from support_telemetry import Collector, SeenSpan, closed_after
from support_worker import eventually, put_files

MIB = 1024 * 1024
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
"""Kinds of spans on the wire."""

SECRETS = re.compile(r"x-amz|signature|credential|password|x-user-id", re.IGNORECASE)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of the test's own."""
    with closed_after(Collector()) as collector:
        yield collector


def traced(system: System, collector: Collector, **settings: str) -> System:
    """A system that sends its spans at once."""
    system.settings |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **settings,
    }
    return system


def end(child: Child) -> None:
    """Drain a process, in the time that it has."""
    child.ask_to_end()
    assert child.wait(15), child.log_tail()


def initiate(system: System, *file_ids: int, traceparent: str | None = None) -> str:
    """Ask for files within a client's trace; the job's id."""
    headers = {"traceparent": traceparent} if traceparent else {}
    with system.client() as client:
        answer = client.post("/v1/download/initiate", json={"file_ids": file_ids}, headers=headers)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return str(answer.json()["jobId"])


def detail(system: System, job_id: str) -> dict[str, object]:
    """A job's record."""
    with system.client() as client:
        found: dict[str, object] = client.get(f"/v1/jobs/{job_id}").json()
    return found


@pytest.mark.contract("trace")
def test_a_job_is_one_connected_trace(system: System, collector: Collector) -> None:
    """From the client's span: the API's, the queue's, the worker's, and every call to storage, by parents."""
    put_files(system.store, {31_001: 12 * MIB, 31_002: 5})
    traced(system, collector)
    system.start_api()
    system.start_worker()
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    job_id = initiate(system, 31_001, 31_002, 99_999_997, traceparent=f"00-{trace}-{parent}-01")
    assert system.wait(job_id)["status"] == "completed"
    collector.wait_for("process downloadjobs")

    spans = [span for span in collector.spans() if span.trace_id == trace]
    server, producer, consumer = (
        next(span for span in spans if span.name == name)
        for name in ("POST /v1/download/initiate", "send downloadjobs", "process downloadjobs")
    )
    assert [span.kind for span in (server, producer, consumer)] == [SERVER, PRODUCER, CONSUMER]
    assert [span.parent_id for span in (server, producer, consumer)] == [
        parent, server.span_id, producer.span_id,
    ]  # fmt: skip
    assert consumer.links == [producer.span_id]
    assert [span.service for span in (server, consumer)] == ["downloadjobs-api", "downloadjobs-worker"]
    assert server.attributes["http.route"] == "/v1/download/initiate"
    assert consumer.attributes["downloadjobs.job.id"] == producer.attributes["messaging.message.id"] == job_id
    assert consumer.attributes["downloadjobs.outcome"] == "completed_with_errors"

    storage = [span for span in spans if span.name.startswith("S3/")]
    assert {span.parent_id for span in storage} == {consumer.span_id}
    assert {span.kind for span in storage} == {CLIENT}
    calls = sorted(span.name.removeprefix("S3/") for span in storage)
    assert calls == [
        "CompleteMultipartUpload", "CreateMultipartUpload", "GetObject", "GetObject",
        "HeadObject", "HeadObject", "HeadObject", "UploadPart", "UploadPart",
    ]  # fmt: skip
    assert len(spans) == len(storage) + 3
    missing = next(span for span in storage if span.attributes.get("error.type"))
    assert (missing.attributes["error.type"], missing.error) == ("not_found", False)
    assert detail(system, job_id)["traceId"] == trace


def test_attributes_hold_no_secret(system: System, collector: Collector) -> None:
    """No user, no presigned URL and no credential is sent to a collector, whatever route is used."""
    put_files(system.store, {31_011: 10})
    traced(system, collector)
    system.start_api()
    system.start_worker()
    job_id = initiate(system, 31_011)
    system.wait(job_id)
    system.fetch(job_id)
    with system.client() as client:
        client.get("/v1/nowhere?token=hunter2")
        client.request("HUNTER2", "/")
    collector.wait_for("GET /v1/download/result/{job_id}")
    collector.wait_for("process downloadjobs")
    collector.wait_for("GET")
    sent = b"".join(request.body for request in collector.received).decode("latin-1")
    assert not SECRETS.search(sent)
    for secret in ("ada", "hunter2", "HUNTER2", system.s3.config.secret_key or ""):
        assert not re.search(rf"\b{re.escape(secret)}\b", sent)


def test_a_request_without_a_trace_begins_one(system: System, collector: Collector) -> None:
    """The trace that the API began is in the job's detail and in a problem, and is the one that is sent."""
    traced(system, collector)
    system.start_api()
    with system.client() as client:
        refused = client.get("/v1/jobs/none").json()
    (span,) = collector.wait_for("GET /v1/jobs/{job_id}")
    assert (span.trace_id, span.parent_id) == (refused["traceId"], "")
    assert not span.error


def test_the_sampler_is_heeded_by_all(system: System, collector: Collector) -> None:
    """A client that does not record its trace gets none recorded, through the queue to the worker."""
    put_files(system.store, {31_021: 10})
    traced(system, collector)
    system.start_api()
    system.start_worker()
    unsampled = secrets.token_hex(16)
    system.wait(initiate(system, 31_021, traceparent=f"00-{unsampled}-{secrets.token_hex(8)}-00"))
    sampled = secrets.token_hex(16)
    system.wait(initiate(system, 31_021, traceparent=f"00-{sampled}-{secrets.token_hex(8)}-01"))
    eventually(
        lambda: any(
            span.trace_id == sampled and span.name == "process downloadjobs" for span in collector.spans()
        )
    )
    assert not [span for span in collector.spans() if span.trace_id == unsampled]


@pytest.mark.parametrize("ratio", ["0", "1"])
def test_a_downloadjobs_trace_is_sampled_by_the_worker(
    system: System, collector: Collector, ratio: str
) -> None:
    """The operator gives a job a trace that nobody has decided on: the worker's sampler does, by ratio."""
    put_files(system.store, {31_031: 10})
    traced(
        system,
        collector,
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG=ratio,
    )
    system.start_api()
    job_id = initiate(system, 31_031)
    trace = secrets.token_hex(16)
    redis = connect(RedisConfig(system.valkey.url))
    redis.hset(
        job_key(job_id),
        mapping={"source": "kubernetes", "traceparent": f"00-{trace}-{secrets.token_hex(8)}-00"},
    )
    redis.close()
    worker = system.start_worker()
    system.wait(job_id)
    end(worker)
    found = [span for span in collector.spans() if span.trace_id == trace]
    assert bool(found) == (ratio == "1")


def test_the_last_spans_are_sent_at_the_end(system: System, collector: Collector) -> None:
    """Spans that wait for their batch are sent before a process has drained."""
    put_files(system.store, {31_041: 10})
    traced(system, collector, OTEL_BSP_SCHEDULE_DELAY="600000")
    api, worker = system.start_api(), system.start_worker()
    system.wait(initiate(system, 31_041))
    assert not collector.received
    end(api)
    end(worker)
    assert {"downloadjobs-api", "downloadjobs-worker"} == {span.service for span in collector.spans()}


def test_a_dead_collector_changes_nothing(system: System) -> None:
    """Where nobody listens, jobs complete, processes end in time, and the log says it once."""
    put_files(system.store, {31_051: 10})
    system.settings |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_ports(1)[0]}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    api, worker = system.start_api(), system.start_worker()
    for _ in range(3):
        system.wait(initiate(system, 31_051))
    eventually(lambda: "traces cannot be sent" in worker.log_path.read_text())
    for _ in range(3):
        system.wait(initiate(system, 31_051))
    for child in (api, worker):
        began = time.monotonic()
        end(child)
        assert time.monotonic() - began < 8
        lines = [json.loads(line) for line in child.log_path.read_text().splitlines()]
        assert sum("traces cannot be sent" in line["event"] for line in lines) <= 1
        assert not [line for line in lines if line["logger"].startswith("opentelemetry")]


def test_a_slow_collector_makes_spans_drop_not_wait(
    system: System, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a queue of 16 spans and a collector that hangs, a job of 300 files takes no longer for it."""
    held = threading.Event()
    monkeypatch.setattr(collector, "answer", lambda: b"" if held.wait(60) else b"late")
    put_files(system.store, dict.fromkeys(range(32000, 32300), 1))
    traced(system, collector, OTEL_BSP_MAX_QUEUE_SIZE="16", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8")
    system.start_api()
    worker = system.start_worker()
    try:
        assert system.wait(initiate(system, *range(32_000, 32_300)), 30)["status"] == "completed"
        began = time.monotonic()
        end(worker)
        assert time.monotonic() - began < 8
    finally:
        held.set()


def test_off_by_default_nothing_is_sent_or_imported(system: System, collector: Collector) -> None:
    """Without an endpoint, or with OTEL_SDK_DISABLED, no request is made, and no SDK is in the process."""
    put_files(system.store, {31_061: 10})
    traced(system, collector, OTEL_SDK_DISABLED="true")
    api, worker = system.start_api(), system.start_worker()
    system.wait(initiate(system, 31_061))
    end(api)
    end(worker)
    assert not collector.received


@pytest.mark.parametrize("module", ["downloadjobs_api.app", "downloadjobs_worker.__main__"])
def test_no_sdk_is_imported_where_nothing_is_set(module: str) -> None:
    """A process that reports to nobody loads neither OpenTelemetry's tracing SDK nor Sentry's."""
    program = f"""if True:
        import sys, {module}
        from downloadjobs_core import fault_reports, trace_export
        from downloadjobs_core.telemetry_settings import TelemetrySettings
        assert trace_export.start(TelemetrySettings(), "p") is None
        fault_reports.start(TelemetrySettings(), "p")()
        # redis-py looks for the SDK's metrics by itself where it is installed.
        parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "sentry_sdk", "requests")
        loaded = [name for name in sys.modules if name.startswith(parts)]
        sys.exit(", ".join(loaded) or 0)
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SENTRY_"))}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=clean, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_each_attempt_is_a_span_of_the_same_trace(system: System, collector: Collector) -> None:
    """An attempt whose worker was killed leaves no span; the next one is beside it, with its delivery."""
    put_files(system.store, {31_071: 10})
    traced(system, collector, DOWNLOAD_DELAY_ENABLED="true", DOWNLOAD_DELAY_MIN_MS="60000",
           DOWNLOAD_DELAY_MAX_MS="60000")  # fmt: skip
    system.start_api()
    first = system.start_worker()
    trace = secrets.token_hex(16)
    job_id = initiate(system, 31_071, traceparent=f"00-{trace}-{secrets.token_hex(8)}-01")
    eventually(lambda: detail(system, job_id)["state"] == "processing")
    os.kill(first.pid, signal.SIGKILL)
    system.start_worker(DOWNLOAD_DELAY_ENABLED="false")
    system.wait(job_id)
    spans: list[SeenSpan] = collector.wait_for("process downloadjobs")
    assert [(span.trace_id, span.attributes["downloadjobs.delivery"]) for span in spans] == [(trace, 2)]
