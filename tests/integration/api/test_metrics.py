"""Metrics of several API processes: one scrape tells of all, those that have ended included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from downloadjobs_cli.children import Child
from support_metrics import scrape, side_port
from support_processes import System
from support_worker import eventually

COUNT = "http_request_duration_seconds_count"
LIVEZ = {"method": "GET", "route": "/livez", "status_class": "2xx"}


def workers_of(api: Child) -> list[int]:
    """The process ids of gunicorn's workers."""
    found = subprocess.run(["pgrep", "-P", str(api.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def ask(system: System, times: int) -> None:
    """Ask for `/livez`, each time on a new connection, so that every process gets some."""
    for _ in range(times):
        with system.client() as client:
            assert client.get("/livez").status_code == httpx.codes.OK


def asked(api: Child) -> float:
    """How often `/livez` was answered, as one scrape tells."""
    return scrape(api).value(COUNT, **LIVEZ) or 0


def wait_until_asked(api: Child, times: float) -> None:
    """Wait until a scrape tells exactly so many."""
    eventually(lambda: asked(api) == times, 10, f"the sum {times:.0f}")


def replace_a_worker(api: Child) -> None:
    """Kill one of the worker processes, and wait for its successor."""
    before = workers_of(api)
    os.kill(before[0], signal.SIGKILL)

    def replaced() -> bool:
        now = workers_of(api)
        return len(now) == len(before) and before[0] not in now

    eventually(replaced, 20, "a new worker")


def folder_of(api: Child) -> Path:
    """The folder of metrics that an API's master holds as in use; others of this machine have theirs."""
    held = (fd.readlink() for fd in Path(f"/proc/{api.pid}/fd").iterdir())
    (found,) = {path.parent for path in held if path.name == "in-use"}
    return found


@pytest.mark.contract("probes")
def test_one_scrape_tells_of_all_processes(system: System) -> None:
    """Whichever process answers it, it has the requests of each; and so it is after one was killed."""
    system.settings["API_WORKERS"] = "2"
    api = system.start_api()
    eventually(lambda: len(workers_of(api)) == 2, 10, "two workers")
    before = asked(api)
    ask(system, 30)
    eventually(lambda: asked(api) >= before + 30, 10, "the sum")
    total = asked(api)
    assert {asked(api) for _ in range(10)} == {total}
    for _ in range(3):
        replace_a_worker(api)
        wait_until_asked(api, total)
        ask(system, 5)
        total += 5
        wait_until_asked(api, total)


def test_files_of_ended_processes_do_not_pile_up(system: System) -> None:
    """However many workers end, there is one file of each kind for all of them."""
    api = system.start_api()
    ask(system, 3)
    time.sleep(1.2)
    folder = folder_of(api)
    for _ in range(3):
        replace_a_worker(api)
    ask(system, 1)
    time.sleep(1.2)
    assert {path.name for path in folder.glob("*_gone.db")} == {"counter_gone.db", "histogram_gone.db"}
    assert len(list(folder.glob("*.db"))) == 5  # and three of the worker that lives


def test_the_folder_goes_with_the_master(system: System) -> None:
    """A master that ends in order removes its folder."""
    api = system.start_api()
    folder = folder_of(api)
    assert folder.exists()
    api.ask_to_end()
    assert api.wait(10)
    assert not folder.exists()


def test_the_folder_of_a_killed_master_goes_at_the_next_start(system: System) -> None:
    """What a killed master left is removed by the next one that starts; a living one's folder stays."""
    killed = system.start_api()
    left = folder_of(killed)
    killed.kill()
    assert left.exists()
    api = system.start_api()
    assert not left.exists()
    other = System(system.valkey, system.s3, system.folder / "other")
    other.folder.mkdir()
    try:
        other.start_api()
        eventually(lambda: asked(api) > 0, 10, "the first numbers")
    finally:
        for child in other.children:
            child.kill()


def test_a_taken_port_of_metrics_is_told(system: System) -> None:
    """It ends the process with 2, and says which setting to change."""
    port = side_port(system.start_api().log_path).rpartition(":")[2]
    ran = subprocess.run(
        [sys.executable, "-m", "downloadjobs_api"],
        env=system.environment() | {"PORT": "0", "METRICS_PORT": port},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.endswith(
        f"cannot listen on 127.0.0.1, port {port}: Address already in use; set HOST or METRICS_PORT.\n"
    )
