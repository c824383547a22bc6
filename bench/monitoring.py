"""Draws the dashboard with what real processes told while they worked, and were disturbed.

    .venv/bin/python bench/monitoring.py --recorded FOLDER [--minutes 24] [--shown 0.81] [--picture FILE.svg]

Recorded are an operator on a real API server, the API, and workers, by a real Prometheus. The control plane
has no nodes: for each pod of the workers' Deployment a worker runs as a process, so the autoscaler is the
operator's own. Jobs come one by one and in bursts, by REST and as DownloadJobs; some ask for files that are
not there. On the way a worker is killed, and storage is away for half a minute. A job takes 2 to 12 s, by the
workers' own DOWNLOAD_DELAY. Drawn is the time up to `--shown`, when not all is quiet again.

Where FOLDER has a recording already, nothing is run, and it is drawn again. The picture has each panel of the
chart's dashboard: its queries, asked of that Prometheus. Needs `prometheus` on PATH, and a control plane as
the tests do (CONTRIBUTING.md).
"""

from __future__ import annotations

import os
import sys

# This folder has files named like modules of the standard library; what they share is in `support`.
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib may import them
sys.path[0] = os.path.join(HERE, "support")  # noqa: PTH118
sys.path.insert(1, os.path.join(HERE, "..", "tests", "support"))  # noqa: PTH118

import argparse
import json
import random
import signal
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from support_dashboard import draw
from support_pods import CONCURRENCY, WORKER, Pods
from support_prometheus import Prometheus

from downloadjobs_cli.embedded import LOOPBACK, SeaweedServer, free_ports
from support_chaos_proxy import Mode, Proxy
from support_cluster import Cluster, find_source
from support_operator_process import CRD, FILES, MISSING, Kube, Site, installed
from support_worker import put_files

ROOT: Final = Path(HERE).parent
DASHBOARD: Final = ROOT / "charts" / "downloadjobs" / "files" / "dashboards" / "downloadjobs.json"
RELEASE: Final = "downloadjobs"

MEGABYTE: Final = 1_000_000
LARGE: Final = {70_000 + number: number * MEGABYTE for number in range(1, 8)}
USERS: Final = 40
LIMITS: Final = {"max": 5, "concurrency": CONCURRENCY, "targetWaitSeconds": 20, "cooldownSeconds": 60}

OLD_BOOKMARK: Final = 0.02
"""The share of looks at a job that is long gone."""

ALL_MISSING: Final = 0.03
ONE_MISSING: Final = 0.12
"""The shares of jobs for files that are not there; the second includes the first."""

SETTINGS: Final = {
    "LEASE_SECONDS": "15",
    "RETRY_BASE_SECONDS": "5",
    "DRAIN_SECONDS": "30",
    "DOWNLOAD_DELAY_ENABLED": "true",
    "DOWNLOAD_DELAY_MIN_MS": "2000",
    "DOWNLOAD_DELAY_MAX_MS": "12000",
}

BURSTS: Final = {0.08: 30, 0.25: 120, 0.42: 450, 0.72: 200}
"""When bursts come, as a share of the time, and of how many jobs."""

QUIET: Final = ((0.14, 0.22), (0.88, 1.0))
"""When no jobs come at all."""

KILL_AT: Final = 0.47
OUTAGE: Final = (0.75, 0.775)
OBJECT_SECONDS: Final = 6.0
JOB_SECONDS: Final = 1.2
POLL_SECONDS: Final = 0.3
STEP_SECONDS: Final = 0.1


@dataclass
class Traffic:
    """Users who ask for files, look after their jobs, and fetch results."""

    site: Site
    source: random.Random = field(default_factory=lambda: random.Random(11))  # noqa: S311 - the same each time
    recent: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=60))
    objects: int = 0

    def submit(self) -> None:
        """A job by REST."""
        user = f"user-{self.source.randrange(USERS)}"
        with self.site.system.client(user) as client:
            answer = client.post("/v1/download/initiate", json={"file_ids": self._files()})
        if answer.status_code == httpx.codes.ACCEPTED:
            self.recent.append((str(answer.json()["jobId"]), user))

    def apply(self) -> None:
        """A DownloadJob."""
        self.objects += 1
        self.site.create(f"films-{self.objects}", self._files())

    def look(self) -> None:
        """Ask for a job's status, and for its result where there is one."""
        if not self.recent:
            return
        job_id, user = self.source.choice(self.recent)
        with self.site.system.client(user) as client:
            told = client.get(f"/v1/download/status/{job_id}").json()
            if told.get("status") == "completed":
                client.get(f"/v1/download/result/{job_id}")
            if self.source.random() < OLD_BOOKMARK:
                client.get("/v1/download/status/00000000-0000-0000-0000-000000000000")

    def _files(self) -> list[int]:
        chance = self.source.random()
        if chance < ALL_MISSING:
            return [MISSING]
        chosen = self.source.sample([*FILES, *LARGE], self.source.randint(1, 4))
        return [*chosen, MISSING] if chance < ONE_MISSING else chosen


def work(site: Site, pods: Pods, prometheus: Prometheus, proxy: Proxy, seconds: float) -> None:
    """The whole time: traffic, what disturbs it, and pods."""
    traffic = Traffic(site)
    (api_port,) = free_ports(1)
    site.system.settings |= {**SETTINGS, "S3_ENDPOINT": f"http://{LOOPBACK}:{proxy.port}"}
    site.system.settings["METRICS_PORT"] = str(api_port)
    site.system.start_api()
    site.start_operator(LEADER_LEASE_SECONDS="15")
    began = time.monotonic()
    bursts = sorted(BURSTS.items())
    next_job = next_object = next_look = 0.0
    killed = False
    while (now := time.monotonic() - began) < seconds:
        share = now / seconds
        quiet = any(begin <= share < end for begin, end in QUIET)
        if bursts and share >= bursts[0][0]:
            for _ in range(bursts.pop(0)[1]):
                traffic.submit()
        if not quiet and now >= next_job:
            traffic.submit()
            next_job = now + traffic.source.expovariate(1 / JOB_SECONDS)
        if not quiet and now >= next_object:
            traffic.apply()
            next_object = now + OBJECT_SECONDS
        if now >= next_look:
            traffic.look()
            next_look = now + POLL_SECONDS
        if not killed and share >= KILL_AT and pods.pods:
            next(iter(pods.pods.values())).child.send(signal.SIGKILL)
            killed = True
        proxy.set_mode(Mode.CUT if OUTAGE[0] <= share < OUTAGE[1] else Mode.OPEN)
        pods.step()
        prometheus.scrape(targets(site, pods, api_port))
        time.sleep(STEP_SECONDS)


def targets(site: Site, pods: Pods, api_port: int) -> dict[int, dict[str, str]]:
    """What to scrape, with the labels that the chart's PodMonitors give."""
    found = {api_port: ("api", "downloadjobs-api-0"), site.ports["operator"]: ("operator", "operator")}
    found |= {pod.port: ("worker", name) for name, pod in pods.pods.items()}
    return {
        port: {"job": RELEASE, "namespace": RELEASE, "container": container, "pod": pod}
        for port, (container, pod) in found.items()
    }


def record(cluster: Cluster, folder: Path, seconds: float) -> None:
    """Run everything, and leave a recording in the folder."""
    cluster.kubectl("apply", "--server-side", f"--filename={CRD}")
    cluster.kubectl("wait", "--for=condition=Established", "crd/downloadjobs.downloadjobs.dev")
    kube = Kube(cluster)
    limits = folder / "limits.json"
    limits.write_text(json.dumps(LIMITS), encoding="utf-8")
    with (
        tempfile.TemporaryDirectory() as scratch,
        SeaweedServer(Path(scratch) / "s3") as s3,
        Proxy(s3.port) as proxy,
        Prometheus(folder) as prometheus,
        installed(kube, s3, folder, WORKER_DEPLOYMENT=WORKER, AUTOSCALER_FILE=str(limits)) as site,
    ):
        put_files(site.system.store, LARGE)
        pods = Pods(site)
        pods.deploy()
        began = time.time()
        try:
            work(site, pods, prometheus, proxy, seconds)
        finally:
            pods.close()
        times = {"begin": began, "end": time.time()}
        (folder / "times.json").write_text(json.dumps(times), encoding="utf-8")
    kube.close()


def main() -> None:
    """Record, where there is nothing yet, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recorded", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=24)
    parser.add_argument("--shown", type=float, default=0.81, help="the share of the time that is drawn")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "monitoring-dashboard.svg")
    options = parser.parse_args()
    folder: Path = options.recorded
    if not (folder / "times.json").exists():
        if folder.exists() and any(folder.iterdir()):
            raise SystemExit(f"{folder} is not empty, and has no whole recording.")
        folder.mkdir(parents=True, exist_ok=True)
        source = find_source()
        source.prepare(print)
        with source.running(folder) as cluster:
            record(cluster, folder, options.minutes * 60)
    times = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    end = times["begin"] + options.shown * (times["end"] - times["begin"])
    with Prometheus(folder) as prometheus:
        board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
        picture = draw(board, prometheus, times["begin"], end, RELEASE)
    options.picture.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
