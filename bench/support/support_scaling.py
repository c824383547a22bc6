"""The live half of `bench/autoscaler.py`: a real API server, and real pods where there are nodes."""

from __future__ import annotations

import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx

from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import ValkeyServer, free_ports
from downloadjobs_cli.stack import without_addresses
from downloadjobs_core.job import NewJob
from downloadjobs_core.leases import LeaseStore, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from support_cluster import Cluster
from support_e2e import RELEASE, Installation, Installer
from support_operator_process import OPERATOR, Kube, rights

WORKER: Final = "downloadjobs-worker"
DEPLOYMENTS: Final = "/apis/apps/v1/namespaces/{}/deployments"

MOST_PODS: Final = 200
PAUSE_SECONDS: Final = 0.3
"""Between two bursts: they shall be two."""


@dataclass
class Watched:
    """The replicas of a Deployment, each change with the time it was seen at."""

    changes: queue.SimpleQueue[tuple[float, int]] = field(default_factory=queue.SimpleQueue)

    def next_change(self, seconds: float = 30) -> tuple[float, int]:
        """The next change. Raises `SystemExit` if there is none."""
        try:
            return self.changes.get(timeout=seconds)
        except queue.Empty:
            raise SystemExit(f"The Deployment was not scaled within {seconds:.0f} s.") from None


@contextmanager
def watching(kube: Kube, namespace: str, name: str) -> Iterator[Watched]:
    """Watch a Deployment's replicas by a thread."""
    seen = Watched()
    path = f"{DEPLOYMENTS.format(namespace)}?watch=true&fieldSelector=metadata.name={name}"
    ended = threading.Event()

    def follow() -> None:
        before = 0
        with kube.client.stream("GET", path, timeout=None) as answer:
            for line in answer.iter_lines():
                if ended.is_set():
                    return
                replicas = int(json.loads(line)["object"]["spec"]["replicas"])
                if replicas != before:
                    seen.changes.put((time.monotonic(), replicas))
                before = replicas

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()


def patches(cluster: Cluster, rounds: int, folder: Path) -> dict[str, Any]:
    """From the first job of a burst to the patched Deployment, `rounds` times.

    The operator is a process with its ServiceAccount's rights. One job is one pod here, and no node takes
    these pods; so nothing but the patch is measured. A burst is one to five jobs, and should be one patch.
    """
    kube = Kube(cluster)
    with ValkeyServer(folder / "valkey") as valkey, cluster.namespace("bench") as namespace:
        cluster.kubectl("apply", "--namespace", namespace, "--filename=-", stdin=rights(namespace))
        kube.ask("POST", DEPLOYMENTS.format(namespace), _nobodys_workers())
        limits = folder / "limits.json"
        limits.write_text(json.dumps({"max": MOST_PODS, "concurrency": 1, "targetWaitSeconds": 0.001}))
        store = LeaseStore(connect(RedisConfig(valkey.url)), QueuePolicy())
        operator = Child("operator", "downloadjobs_operator", folder)
        port = free_ports(1)[0]
        operator.start(
            {
                **without_addresses(os.environ),
                "REDIS_URL": valkey.url,
                "KUBECONFIG": str(cluster.kubeconfig_of(namespace, OPERATOR)),
                "OPERATOR_NAMESPACE": namespace,
                "WORKER_DEPLOYMENT": WORKER,
                "AUTOSCALER_FILE": str(limits),
                "PORT": str(port),
            }
        )
        try:
            _until_it_decides(port)
            with watching(kube, namespace, WORKER) as seen:
                return _bursts(store, seen, rounds)
        finally:
            operator.kill()
            kube.ask("DELETE", f"{DEPLOYMENTS.format(namespace)}/{WORKER}")
            kube.close()


def _bursts(store: LeaseStore, seen: Watched, rounds: int) -> dict[str, Any]:
    sizes, total, lags, at_once = random.Random(1), 0, [], 0  # noqa: S311 - the same sizes each time
    for _ in range(rounds):
        size = sizes.randint(1, 5)
        began = time.monotonic()
        for _ in range(size):
            total += 1
            name = f"job-{total}"
            store.submit(NewJob(job_id=name, user=name, file_ids=(1,), total_file_ids=1, max_attempts=1))
        at, replicas = seen.next_change()
        lags.append(at - began)
        at_once += replicas == total
        while replicas < total:
            _, replicas = seen.next_change()
        time.sleep(PAUSE_SECONDS)
    return {"lags": lags, "one_step": at_once / rounds}


def _nobodys_workers() -> dict[str, Any]:
    labels = {"app": WORKER}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": WORKER},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"no-node": "has-this"},
                    "containers": [{"name": "worker", "image": "registry.invalid/worker"}],
                },
            },
        },
    }


def _until_it_decides(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/autoscaler", trust_env=False)
            if answer.is_success and answer.json()["items"]:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("The operator decided nothing within 30 s.")


def pods(installer: Installer, rounds: int) -> dict[str, Any]:
    """From a job's submission while there is no worker to its begin, and beside it what a worker's pod takes.

    An installation of the chart; each round begins with no worker, and its burst asks for three. Between the
    rounds these are removed, the idle ones while others work.
    """
    autoscaling = {"max": 3, "cooldownSeconds": 0, "targetWaitSeconds": 1}
    delays = {
        "DOWNLOAD_DELAY_ENABLED": "true",
        "DOWNLOAD_DELAY_MIN_MS": "500",
        "DOWNLOAD_DELAY_MAX_MS": "8000",
    }
    worker = {"concurrency": 1, "autoscaling": autoscaling, "settings": delays}
    with installer.installed({"worker": worker}) as installation:
        installation.seed({10_003: 1_000})
        first, bare = [], []
        for turn in range(rounds):
            _until(lambda: installation.scale() == (0, 0, 0), 90)
            bare.append(_bare_pod(installation, turn))
            began = time.time()
            jobs = [installation.initiate([10_003], user=f"user-{turn}-{number}") for number in range(3)]
            for number, job_id in enumerate(jobs):
                installation.wait_job(job_id, user=f"user-{turn}-{number}")
            starts = [
                _seconds(installation.job(job_id, user=f"user-{turn}-{number}")["startedAt"])
                for number, job_id in enumerate(jobs)
            ]
            first.append(min(starts) - began)
        _until(lambda: installation.scale() == (0, 0, 0), 90)
        (operator,) = installation.pod_names("operator")
        text = installation.metrics(operator, 8080)
        prefix = 'downloadjobs_autoscaler_victims_total{state="'
        victims = {
            state: int(float(line.rsplit(" ", 1)[1]))
            for state in ("idle", "busy")
            for line in text.splitlines()
            if line.startswith(f'{prefix}{state}"')
        }
        return {"first_job": first, "bare_pod": bare, "victims": victims}


def _bare_pod(installation: Installation, turn: int) -> float:
    """How long a pod like the workers' takes from its creation to its readiness, in seconds."""
    template = installation.get(f"deploy/{RELEASE}-worker")["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        # Without the labels: it is none of the Deployment's.
        "metadata": {"name": f"bare-{turn}"},
        "spec": template["spec"],
    }
    began = time.monotonic()
    installation.kubectl("apply", "--filename=-", stdin=json.dumps(pod))
    installation.kubectl("wait", "--for=condition=Ready", f"pod/bare-{turn}", "--timeout=60s", timeout=70)
    took = time.monotonic() - began
    installation.kubectl("delete", f"pod/bare-{turn}", "--grace-period=1", timeout=60)
    return took


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _until(true: Any, seconds: float) -> None:  # noqa: ANN401 - a callable; its truth counts
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"It did not come to that within {seconds:.0f} s.")
        time.sleep(0.2)
