"""docs/metrics.md and what processes tell are the same, in both directions; and names keep to the rules.

What alerts and panels of the chart ask for is among it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.metrics_core import Metric

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.leases import QueuePolicy
from downloadjobs_core.metrics import PREFIX, new_registry
from downloadjobs_core.redis_client import RedisConfig, connect_async
from downloadjobs_operator.metrics import OperatorMetrics
from downloadjobs_operator.queue_metrics import QueueExporter
from support_metrics import Metrics, metrics_of, scrape, side_port
from support_monitoring import FROM_PROMETHEUS, Query, queries
from support_processes import System, running
from support_worker import eventually, put_files

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
USER = "ada-of-the-contract"

FORBIDDEN = {
    "id", "job", "job_id", "user", "user_id", "tenant", "file", "file_id", "url", "path", "key", "bucket",
    "request_id", "trace_id", "namespace", "pod", "name", "worker", "instance", "container", "host", "pid",
}  # fmt: skip
"""Labels that would have a value for each job, user or object, or that Prometheus itself adds."""

UNITS = ("seconds", "bytes", "timestamp_seconds")
OTHER_UNITS = re.compile(
    r"_(milliseconds|ms|micros\w*|minutes|hours|days|kb|mb|gb|kib|mib|gib|kilobytes|megabytes)(_|$)"
)


@dataclass(frozen=True)
class Told:
    """A metric as the page tells of it."""

    kind: str
    labels: tuple[str, ...]
    unit: str
    processes: tuple[str, ...]


def told() -> dict[str, Told]:
    """Every metric of the page."""
    found: dict[str, Told] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not cells[0].startswith(f"`{PREFIX}"):
            continue
        name = cells[0].strip("`")
        assert name not in found, f"{name} stands twice"
        assert len(cells) == 6, name
        found[name] = Told(
            cells[1], tuple(re.findall(r"`(\w+)`", cells[2])), cells[3], tuple(cells[4].split(", "))
        )
    return found


@pytest.fixture(scope="module")
def ran(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Metrics]]:
    """What each process tells after everything that it counts has happened at least once."""
    folder = tmp_path_factory.mktemp("contract")
    own = {"REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/9", "BUILD_COMMIT": "abc1234"}
    with running(System(valkey_server, seaweedfs, folder, settings=own)) as system:
        put_files(system.store, {10_003: 1_000_000, 10_004: 10})
        api = system.start_api()
        worker = system.start_worker()
        job = system.submit([10_003, 10_004], user=USER)
        eventually(lambda: system.status(job, user=USER)["status"] == "completed", 60, "the job's end")
        assert system.fetch(job, user=USER)
        with system.client(USER) as client:
            assert client.get("/nowhere/at/all").status_code == httpx.codes.NOT_FOUND
        time.sleep(1.2)  # the API adds requests up once a second
        yield {
            "API": scrape(api),
            "worker": scrape(worker),
            "operator": metrics_of(operator_metrics().registry),
            "queue": asyncio.run(queue_metrics(own["REDIS_URL"])),
            "job": Metrics(job),
        }


def operator_metrics() -> OperatorMetrics:
    """The operator's metrics, each of them counted once."""
    metrics = OperatorMetrics(new_registry("abc1234"), now=time.time)
    metrics.watch(lambda: 1_700_000_000.0)
    metrics.lead(lambda: True)
    metrics.status_written(time.time())
    metrics.gave_up()
    with metrics.reconciling("submit"):
        pass
    autoscaler = metrics.autoscaler
    autoscaler.replicas(current=0, raw=1, desired=1, minimum=0, maximum=10)
    autoscaler.decided("up", "Demand")
    autoscaler.held("stale")
    autoscaler.took("patch", 0.1)
    autoscaler.victim(busy=False)
    autoscaler.signal(lambda: 0.5)
    return metrics


async def queue_metrics(url: str) -> Metrics:
    """What the exporter tells of a real queue."""
    redis = connect_async(RedisConfig(url), max_connections=2)
    try:
        registry = new_registry("abc1234")
        exporter = QueueExporter(JobStore(redis, QueuePolicy()).counts)
        registry.register(exporter)
        exporter.update(await JobStore(redis, QueuePolicy()).counts())
        return metrics_of(registry)
    finally:
        await redis.aclose()


PROCESSES = ["API", "worker", "operator", "queue"]


@pytest.mark.parametrize("process", PROCESSES)
def test_the_page_lists_what_is_told(ran: dict[str, Metrics], process: str) -> None:
    """Each process tells exactly the metrics that the page says it does, of that type."""
    expected = {name: metric.kind for name, metric in told().items() if process in metric.processes}
    assert {name: family.type for name, family in ran[process].families.items()} == expected


@pytest.mark.parametrize("process", PROCESSES)
def test_the_page_lists_each_label(ran: dict[str, Metrics], process: str) -> None:
    """Every sample has the labels that the page says, and each metric has a sample to look at."""
    for name, family in ran[process].families.items():
        labels = {tuple(label for label in sample.labels if label != "le") for sample in family.samples}
        assert {frozenset(found) for found in labels} == {frozenset(told()[name].labels)}, name


def test_every_metric_has_a_process() -> None:
    """The page names no process that there is not."""
    assert {process for metric in told().values() for process in metric.processes} == set(PROCESSES)


def every_family(ran: dict[str, Metrics]) -> Iterator[tuple[str, Metric]]:
    """All metrics of all processes."""
    for process in PROCESSES:
        yield from ran[process].families.items()


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
def test_alerts_and_panels_ask_for_what_is_told(ran: dict[str, Metrics], query: Query) -> None:
    """Each metric that an alert or a panel names is told by a process, with each label that it asks for."""
    told_labels = {
        sample.name: set(sample.labels) for _, family in every_family(ran) for sample in family.samples
    }
    had = set(FROM_PROMETHEUS)
    for name, labels in query.metrics:
        assert name in told_labels, f"{name} is told by no process"
        assert set(labels) <= told_labels[name] | FROM_PROMETHEUS, name
        had |= told_labels[name]
    assert query.metrics
    assert query.grouped_by <= had


def test_names_keep_to_prometheus_rules(ran: dict[str, Metrics]) -> None:
    """Prefix, snake case, base units at the end, `_total` for counters only, and a help text."""
    for name, family in every_family(ran):
        assert re.fullmatch(rf"{PREFIX}[a-z][a-z0-9]*(_[a-z0-9]+)*", name), name
        assert name.endswith("_total") == (family.type == "counter"), name
        assert not name.endswith(("_count", "_sum", "_bucket", "_gauge", "_histogram")), name
        assert not OTHER_UNITS.search(name), f"{name} is not in seconds or bytes"
        if family.type == "histogram":
            assert name.endswith(tuple(f"_{unit}" for unit in UNITS)), f"{name} has no unit"
        assert family.documentation.endswith("."), f"{name} has no help"


def test_units_are_those_of_names(ran: dict[str, Metrics]) -> None:
    """What the page says of a unit is what the name ends with, where that is a unit."""
    for name, _ in every_family(ran):
        unit = told()[name].unit
        bare = name.removesuffix("_total")
        assert unit.startswith("seconds") == bare.endswith("_seconds"), name
        assert (unit == "bytes") == bare.endswith("_bytes"), name


def test_labels_are_few_and_harmless(ran: dict[str, Metrics]) -> None:
    """No label is named for a job, a user or an object, and no value is one, or a URL."""
    job = ran["job"].text
    for name, family in every_family(ran):
        for sample in family.samples:
            assert not FORBIDDEN & set(sample.labels), name
            for value in sample.labels.values():
                assert job not in value, name
                assert USER not in value, name
                assert "://" not in value, name
                assert "10003" not in value, name


def test_routes_are_templates(ran: dict[str, Metrics]) -> None:
    """A request counts for its route, whatever id is in its path; paths that are none are one."""
    seconds = "http_request_duration_seconds_count"
    api = ran["API"]
    for route in ("/v1/download/status/{job_id}", "/v1/download/result/{job_id}"):
        assert (api.value(seconds, method="GET", route=route, status_class="2xx") or 0) >= 1
    assert api.value(seconds, method="GET", route="none", status_class="4xx") == 1
    assert api.value("jobs_submitted_total", source="rest", result="accepted") == 1
    assert api.value("presigned_urls_total", result="ok") == 1


def test_a_job_leaves_its_traces(ran: dict[str, Metrics]) -> None:
    """The worker of a job tells of its outcome, its wait, its bytes, and its calls to storage."""
    worker = ran["worker"]
    assert worker.value("jobs_finished_total", outcome="completed", reason="none") == 1
    assert worker.value("bundled_bytes_total", method="stream") == 1_000_010
    for name in ("job_queue_wait_seconds", "job_run_seconds", "job_end_to_end_seconds", "result_bytes"):
        assert worker.value(f"{name}_count") == 1
    assert (worker.value("worker_slots"), worker.value("worker_busy_slots")) == (4, 0)
    storage = "storage_operation_duration_seconds_count"
    assert (worker.value(storage, operation="put", result="ok") or 0) == 1
    assert (worker.value("job_end_to_end_seconds_sum") or 0) >= (worker.value("job_run_seconds_sum") or 9)


def test_the_build_is_told(ran: dict[str, Metrics]) -> None:
    """Each process tells the commit that its environment says."""
    for process in PROCESSES:
        (sample,) = ran[process].families[f"{PREFIX}build_info"].samples
        assert (sample.labels["commit"], sample.value) == ("abc1234", 1)


def test_metrics_are_not_on_the_public_port(system: System) -> None:
    """Clients of the API find no metrics, and the port of metrics has nothing but them."""
    api = system.start_api()
    with system.client() as client:
        assert client.get("/metrics").status_code == httpx.codes.NOT_FOUND
    with httpx.Client(base_url=side_port(api.log_path), trust_env=False) as side:
        assert side.get("/metrics").status_code == httpx.codes.OK
        assert side.head("/metrics").content == b""
        assert side.get("/v1/download/status/x").status_code == httpx.codes.NOT_FOUND
        assert side.post("/metrics").status_code == httpx.codes.NOT_IMPLEMENTED
        openmetrics = side.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert openmetrics.text.endswith("# EOF\n")


def test_a_failed_attempt_is_a_retry_and_then_a_failure(system: System) -> None:
    """An attempt that storage fails is a retry, and the last is the job's end."""
    system.settings |= {
        "MAX_ATTEMPTS": "2", "S3_BUCKET_NAME": "not-there-at-all", "STORAGE_PATIENCE_SECONDS": "0",
    }  # fmt: skip
    system.start_api()
    worker = system.start_worker()
    job = system.submit([10_003])
    eventually(lambda: system.status(job)["status"] == "failed", 60, "the failure")
    told_now = scrape(worker)
    assert told_now.value("job_retries_total") == 1
    finished = told_now.families[f"{PREFIX}jobs_finished_total"].samples
    ended = [sample for sample in finished if sample.name.endswith("_total")]
    assert [(sample.labels["outcome"], sample.value) for sample in ended] == [("failed", 1)]
    assert told_now.value("job_run_seconds_count") == 2
