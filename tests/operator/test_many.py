"""Many DownloadJobs at once: all finish, and what that costs the operator and the API server is told."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, cast

import pytest

from downloadjobs_cli.children import dying_with_parent
from downloadjobs_cli.embedded import LOOPBACK
from support_operator_process import Site, manifest
from support_worker import eventually

pytestmark = pytest.mark.cluster

TINY: Final = 60_003

REQUEST: Final = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) /([^ ?]*)[^ ]* HTTP/1\.1\r\n")
LONGEST_LINE: Final = 4096

MOST_MEMORY_MB: Final = 400
MOST_REQUESTS: Final = 9
"""To the API server for each object from creation to end: its finalizer, a patch for each phase, and three
Events; and two to spare."""


class CountingPipe:
    """Passes connections on to a port, and counts the HTTP/1.1 requests that go through."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self.requests: Counter[str] = Counter()
        self._links: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections, and wait for the end of those that are open."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for thread in self._links:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                link = threading.Thread(target=self._link, args=(client,), daemon=True)
                link.start()
                self._links.append(link)

    def _link(self, client: socket.socket) -> None:
        with client, socket.create_connection((LOOPBACK, self._target_port)) as server:
            answers = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            answers.start()
            self._pump(client, server, count=True)
            answers.join()

    def _pump(self, source: socket.socket, target: socket.socket, *, count: bool = False) -> None:
        before = b""
        with suppress(OSError):
            while data := source.recv(65536):
                if count:
                    before = self._count(before + data)
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _count(self, seen: bytes) -> bytes:
        """Count whole request lines; what may be the beginning of one is kept for the next time."""
        end = 0
        for found in REQUEST.finditer(seen):
            self.requests[f"{found[1].decode()} {_kind(found[2].decode())}"] += 1
            end = found.end()
        return seen[max(end, len(seen) - LONGEST_LINE) :]


def _kind(path: str) -> str:
    """A path without its names."""
    parts = path.split("/")
    resource = next((part for part in ("downloadjobs", "events", "leases") if part in parts), parts[0])
    return f"{resource}/status" if parts[-1] == "status" else resource


@contextmanager
def counted(site: Site) -> Iterator[CountingPipe]:
    """Have the operator speak plain HTTP, by a pipe that counts, with a `kubectl proxy` of its rights."""
    command = [str(site.cluster.kubectl_path), f"--kubeconfig={site.kubeconfig}", "proxy", "--port=0"]
    proxy = subprocess.Popen(
        dying_with_parent(command, signal.SIGKILL),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out = cast("IO[str]", proxy.stdout)
    pipe = CountingPipe(int(out.readline().rsplit(":", 1)[1]))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "counted",
        "clusters": [{"name": "counted", "cluster": {"server": f"http://{LOOPBACK}:{pipe.port}"}}],
        "users": [{"name": "counted", "user": {}}],
        "contexts": [{"name": "counted", "context": {"cluster": "counted", "user": "counted"}}],
    }
    path = site.system.folder / "counted-kubeconfig"
    path.write_text(str(config).replace("'", '"'))
    site.settings["KUBECONFIG"] = str(path)
    try:
        yield pipe
    finally:
        for operator in site.operators:
            operator.kill()
        proxy.kill()
        pipe.close()
        proxy.wait()
        out.close()


def peak_mb(site: Site) -> float:
    """The most memory that the operator ever had, in MB (Linux; 0 elsewhere)."""
    process = site.operators[0]._process
    assert process is not None
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(found[1]) / 1024 if found else 0.0


def phases(site: Site) -> Counter[str]:
    """How many objects are in each phase."""
    return Counter(one.get("status", {}).get("phase", "none") for one in site.all())


def events(site: Site) -> int:
    """How many Events there are."""
    found = site.kube.ask("GET", f"/api/v1/namespaces/{site.namespace}/events?limit=1")
    assert found is not None
    return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))


def run_many(site: Site, count: int, seconds: float) -> str:
    """Create so many at once, and wait for the end of all; what it cost, in words."""
    site.settings["LEADER_LEASE_SECONDS"] = "15"  # as installed: a busy API server must not end the leader
    with counted(site) as pipe:
        operator = site.start_operator()
        for _ in range(2):
            site.system.start_worker(USER_MAX_RUNNING="100", WORKER_CONCURRENCY="8")
        before = pipe.requests.copy()
        began = time.monotonic()

        def create(number: int) -> None:
            made = site.kube.client.post(site.path(), json=manifest(f"film-{number}", [TINY]))
            assert made.is_success, made.text

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(create, range(count)))
        created = time.monotonic() - began

        def all_done() -> bool:
            assert operator.exit_code is None, "the operator has ended"
            time.sleep(0.5)  # a list of all is no light question
            return phases(site) == {"Completed": count}

        try:
            eventually(all_done, seconds, f"the end of {count} jobs")
        except AssertionError as error:
            raise AssertionError(f"{error}: {phases(site)}\n{operator.log_tail()}") from None
        took = time.monotonic() - began
        eventually(lambda: events(site) >= 3 * count, seconds, "an Event for each transition")
        requests = pipe.requests - before
        each = sum(requests.values()) / count
        memory = peak_mb(site)
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(requests.items()))
        told = (
            f"{count} DownloadJobs: created in {created:.1f} s, all finished after {took:.1f} s; the operator"
            f" had at most {memory:.0f} MB, and made {each:.1f} requests for each ({kinds})"
        )
        assert memory < MOST_MEMORY_MB, told
        assert each <= MOST_REQUESTS, told
        assert {site.record(one["metadata"]["uid"])["attempt"] for one in site.all()[:50]} == {"1"}
        assert events(site) == 3 * count
        began = time.monotonic()
        site.kube.client.request("DELETE", site.path(), timeout=seconds)
        eventually(lambda: not site.all(), seconds, "the end of all objects")
        return f"{told}; deleted in {time.monotonic() - began:.1f} s"


@pytest.mark.timeout(180)
def test_hundreds_at_once(site: Site) -> None:
    """300 created at once all finish, by one attempt each; requests and memory are bounded."""
    told = run_many(site, 300, 90)
    print(told)  # noqa: T201 - for who runs it with -s


@pytest.mark.load
@pytest.mark.timeout(1800)
def test_thousands_at_once(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """LOAD_OBJECTS (2,000) created at once all finish; what it cost is printed."""
    told = run_many(site, int(os.environ.get("LOAD_OBJECTS", "2000")), 1200)
    with capsys.disabled():
        print(f"\n{told}")  # noqa: T201
