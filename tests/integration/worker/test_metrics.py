"""The worker's pages: probes that an outage does not change, and what interruptions are counted as."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer, free_ports
from support_metrics import scrape, side_port
from support_processes import System, running
from support_servers import killed_after
from support_worker import eventually, put_files

SLOW = {
    "DOWNLOAD_DELAY_ENABLED": "true", "DOWNLOAD_DELAY_MIN_MS": "60000", "DOWNLOAD_DELAY_MAX_MS": "60000",
}  # fmt: skip
"""Jobs that run until somebody ends them."""


def status(address: str, page: str) -> int:
    """A page's HTTP status; 0 without an answer."""
    try:
        return httpx.get(f"{address}/{page}", trust_env=False, timeout=5).status_code
    except httpx.TransportError:
        return 0


def test_probes_do_not_depend_on_servers(
    valkey: ValkeyServer, seaweedfs: SeaweedServer, tmp_path: Path
) -> None:
    """A worker that reaches neither Redis nor storage is alive and ready, and tells its metrics."""
    nobody = free_ports(2)
    settings = {
        "REDIS_URL": f"redis://127.0.0.1:{nobody[0]}/0", "S3_ENDPOINT": f"http://127.0.0.1:{nobody[1]}",
    }  # fmt: skip
    with running(System(valkey, seaweedfs, tmp_path, settings=settings)) as system:
        worker = system.start_worker()
        address = side_port(worker.log_path)
        eventually(lambda: status(address, "readyz") == 200, 20, "readiness")
        assert status(address, "livez") == 200
        assert scrape(worker).value("worker_slots") == 4
        check = {"operation": "check", "result": "unavailable"}
        eventually(
            lambda: (scrape(worker).value("storage_operation_duration_seconds_count", **check) or 0) >= 1,
            30, "a failed check of storage",
        )  # fmt: skip


def test_probes_outlive_redis(seaweedfs: SeaweedServer, tmp_path: Path) -> None:
    """A worker whose Redis goes, or hangs, in the middle of its work stays alive and ready."""
    with (
        killed_after(ValkeyServer(tmp_path / "valkey")) as valkey,
        running(System(valkey, seaweedfs, tmp_path)) as system,
    ):
        worker = system.start_worker()
        address = side_port(worker.log_path)
        eventually(lambda: status(address, "readyz") == 200, 20, "readiness")
        valkey.pause()
        eventually(lambda: "leases cannot be renewed" in worker.log_tail(), 60, "the outage")
        assert (status(address, "livez"), status(address, "readyz")) == (200, 200)
        valkey.resume()
        valkey.kill()
        assert (status(address, "livez"), status(address, "readyz")) == (200, 200)


def test_a_drain_is_told(system: System) -> None:
    """While it drains it is alive, not ready, and without slots; a job that is handed back is interrupted."""
    system.settings["DRAIN_SECONDS"] = "4"
    put_files(system.store, {10_003: 10})
    system.start_api()
    worker = system.start_worker(**SLOW)
    address = side_port(worker.log_path)
    job = system.submit([10_003])
    eventually(lambda: system.status(job)["status"] == "processing", 20, "the job's start")
    assert scrape(worker).value("worker_busy_slots") == 1
    worker.ask_to_end()
    eventually(lambda: status(address, "readyz") == 503, 3, "the drain")
    assert status(address, "livez") == 200
    assert (scrape(worker).value("worker_slots"), scrape(worker).value("worker_busy_slots")) == (0, 1)
    assert worker.wait(20)
    assert worker.exit_code == 0


def test_interruptions_have_causes(system: System) -> None:
    """A cancelled job, and one whose lease is another's, are told apart; the refused write counts."""
    put_files(system.store, {10_003: 10})
    system.start_api()
    worker = system.start_worker(**SLOW)
    job = system.submit([10_003])
    eventually(lambda: system.status(job)["status"] == "processing", 20, "the job's start")
    with system.client() as client:
        assert client.delete(f"/v1/jobs/{job}").status_code == httpx.codes.OK
    eventually(
        lambda: scrape(worker).value("interrupted_jobs_total", cause="cancelled") == 1, 10, "the cancellation"
    )
    assert scrape(worker).value("interrupted_jobs_total", cause="lease_lost") == 0
    assert scrape(worker).value("worker_busy_slots") == 0


def test_a_lost_workers_lease_is_counted(system: System) -> None:
    """A worker that takes back the lease of one that was killed tells so."""
    put_files(system.store, {10_003: 10})
    system.start_api()
    first = system.start_worker(**SLOW)
    job = system.submit([10_003])
    eventually(lambda: system.status(job)["status"] == "processing", 20, "the job's start")
    first.kill()
    second = system.start_worker()
    assert system.wait(job)["status"] == "completed"
    assert scrape(second).value("leases_expired_total") == 1
    assert scrape(second).value("job_queue_wait_seconds_count") == 0


def test_a_taken_port_of_metrics_ends_the_worker(system: System) -> None:
    """It ends with 2, and says which setting to change."""
    port = side_port(system.start_worker().log_path).rpartition(":")[2]
    ran = subprocess.run(
        [sys.executable, "-m", "downloadjobs_worker"],
        env=system.environment() | {"METRICS_PORT": port},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "downloadjobs-worker: cannot listen on 127.0.0.1, port" in ran.stderr
    assert ran.stderr.endswith("set HOST or METRICS_PORT.\n")
