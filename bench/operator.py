"""What the operator costs: how late a status is, how fast objects become jobs, memory and patches.

    TEST_KUBECONFIG=… .venv/bin/python bench/operator.py [--objects 2000] [--running 200] [--seconds 30]

Without TEST_KUBECONFIG it takes a cluster as the tests do. The operator is a process of its own, with
its own ServiceAccount. There are no workers: this script leases jobs and ends them, so that it knows when.

Submission: the objects are created as fast as the API server takes them; the time until all are in Redis
counts from the first. Lag: of so many running jobs, all with progress twice a second, one after the other
is ended; the time from that change in Redis to the object's status as a watch shows it. Patches: every
change that the watch shows of an object was one, but for its creation.
"""

from __future__ import annotations

import os
import sys

# This folder has files named like modules of the standard library; what they share is in `support`.
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib may import them
sys.path[0] = os.path.join(HERE, "support")  # noqa: PTH118
sys.path.insert(1, os.path.join(HERE, "..", "tests", "support"))  # noqa: PTH118

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from support_bench import result, table

from downloadjobs_cli.children import Child
from downloadjobs_cli.embedded import ValkeyServer, free_ports
from downloadjobs_cli.stack import without_addresses
from downloadjobs_core.job import Job
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState
from downloadjobs_operator.downloadjob import API_VERSION, GROUP, KIND, PLURAL, VERSION
from support_cluster import Cluster, find_source

ROOT_FOLDER: Final = Path(HERE).parent
CREATE_AT_ONCE: Final = 16
PROGRESS_SECONDS: Final = 0.5
UNLIMITED: Final = 10**9
TOTAL_BYTES: Final = 1_000_000_000


@dataclass(slots=True)
class Watched:
    """What a watch of the objects has shown."""

    changes: Counter[str] = field(default_factory=Counter)
    """How often each object changed, by uid, after its creation."""
    queued: set[str] = field(default_factory=set)
    finished_at: dict[str, float] = field(default_factory=dict)
    created: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)


async def kubernetes(kubeconfig: Path) -> ApiClient:
    """A client with an administrator's rights."""
    configuration = Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    return ApiClient(configuration)


async def watch(api: ApiClient, url: str, seen: Watched) -> None:
    """Note each change as it comes, until cancelled. A watch that breaks leaves changes out: it ends all.

    But the API server ends watches of a definition that is only just established; while there is no object
    yet, a new one is as good.
    """
    session: aiohttp.ClientSession = api.rest_client._create_pool_manager()  # noqa: SLF001 - with its TLS
    address = f"{api.configuration.host}{url}?watch=true"
    async with session:
        while not seen.created:
            response = await session.get(address, timeout=aiohttp.ClientTimeout(total=None))
            if response.ok:
                seen.ready.set()
                await note(response, seen)
            response.close()
            await asyncio.sleep(0.5)  # a definition that was just applied is served a moment later
    raise SystemExit("The watch ended before the measurement did: try again.")


async def note(response: aiohttp.ClientResponse, seen: Watched) -> None:
    """Note the changes that one watch shows, until it ends."""
    async for line in response.content:
        now = time.time()
        event = json.loads(line)
        if event["type"] == "ERROR":
            print(f"The watch was ended: {event['object'].get('message')}", file=sys.stderr)
            break
        uid, status = event["object"]["metadata"]["uid"], event["object"].get("status", {})
        seen.created = True
        if event["type"] == "MODIFIED":
            seen.changes[uid] += 1
        if status.get("jobId"):
            seen.queued.add(uid)
        if status.get("phase") == "Completed":
            seen.finished_at.setdefault(uid, now)


async def create(api: ApiClient, url: str, names: Sequence[str], ids: int) -> None:
    """Create the objects, a few at a time."""
    left = list(names)

    async def some() -> None:
        while left:
            body = {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {"name": left.pop()},
                "spec": {"fileIds": list(range(10_000, 10_000 + ids))},
            }
            headers = {"Content-Type": "application/json"}
            prepared = await api.param_serialize("POST", url, header_params=headers, body=body)
            answer = await api.call_api(*prepared)
            text = await answer.read()  # type: ignore[no-untyped-call]
            if answer.status >= 300:  # noqa: PLR2004 - HTTP's success ends there
                raise SystemExit(f"The API server refused an object: {text.decode()}")

    await asyncio.gather(*(some() for _ in range(CREATE_AT_ONCE)))


def peak_mib(pid: int) -> float:
    """The most memory that a process ever had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run_jobs(store: LeaseStore, jobs: list[Job], seconds: float) -> dict[str, float]:
    """Give all jobs progress, and end one after the other; when each was ended, by its id."""
    ended: dict[str, float] = {}
    began = time.monotonic()
    share = 0
    while len(ended) < len(jobs):
        turn = time.monotonic()
        share += 1
        running = jobs[len(ended) :]
        store.renew([(job.job_id, job.token) for job in running])
        for job in running:
            done = min(TOTAL_BYTES, share * TOTAL_BYTES // 100)
            store.progress(job, files_done=0, bytes_done=done, bytes_total=TOTAL_BYTES)
        due = int(len(jobs) * min(1.0, (turn - began) / seconds)) if seconds else len(jobs)
        for job in running[: max(0, due - len(ended))]:
            ended[job.job_id] = time.time()
            store.finish(
                job, Outcome(JobState.COMPLETED, result_key=f"results/{job.job_id}/1.zip", result_bytes=1)
            )
        time.sleep(max(0.0, PROGRESS_SECONDS - (time.monotonic() - turn)))
    return ended


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share lies below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def measure(cluster: Cluster, arguments: argparse.Namespace, folder: Path) -> None:
    """Everything, in one namespace."""
    cluster.kubectl("apply", "--server-side", "--filename", str(ROOT_FOLDER / "manifests" / "crd.yaml"))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}.{GROUP}")
    with ValkeyServer(folder / "valkey") as valkey, cluster.namespace("bench") as namespace:
        rights(cluster, namespace)
        store = LeaseStore(connect(RedisConfig(valkey.url)), QueuePolicy(user_max_running=UNLIMITED))
        raw = redis.Redis.from_url(valkey.url, decode_responses=True)
        api = await kubernetes(cluster.kubeconfig)
        url = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"
        seen = Watched()
        operator = Child("operator", "downloadjobs_operator", folder)
        operator.start(
            {
                **without_addresses(os.environ),
                "REDIS_URL": valkey.url,
                "KUBECONFIG": str(cluster.kubeconfig_of(namespace, "downloadjobs-operator")),
                "OPERATOR_NAMESPACE": namespace,
                "USER_MAX_QUEUED": str(UNLIMITED),
                "PORT": str(free_ports(1)[0]),
            }
        )
        watching = asyncio.create_task(watch(api, url, seen))
        try:
            await asyncio.wait_for(seen.ready.wait(), 20)
            await until(lambda: cluster_has_leader(cluster, namespace), 30)
            bench = Bench(store, raw, api, url, seen)
            figures = await submission(bench, arguments.objects, arguments.ids)
            figures |= await lag(bench, arguments.running, arguments.seconds)
            figures["peak_memory_mib"] = round(peak_mib(operator.pid), 1)
        finally:
            watching.cancel()
            # On a busy machine kubectl takes minutes for thousands of objects.
            cluster.kubectl("delete", PLURAL, "--all", "--namespace", namespace, "--wait=false", timeout=300)
            await until(lambda: not names_left(cluster, namespace), 120)
            operator.kill()
            await api.close()  # type: ignore[no-untyped-call]
    told = [[name, f"{value:,}"] for name, value in figures.items()]
    table("Operator", ["figure", "value"], told)
    result(**figures)


@dataclass(frozen=True, slots=True)
class Bench:
    """What the phases work with."""

    store: LeaseStore
    raw: redis.Redis
    api: ApiClient
    url: str
    seen: Watched


async def submission(bench: Bench, objects: int, ids: int) -> dict[str, Any]:
    """Create the objects, and wait until all are jobs; then until all of that stands in their statuses."""
    began = time.monotonic()
    await create(bench.api, bench.url, [f"job-{number}" for number in range(objects)], ids)
    created = time.monotonic() - began
    await until(lambda: bench.raw.zcard(f"{ROOT}:waiting") >= objects, 300)
    submitted = time.monotonic() - began
    await until(lambda: len(bench.seen.queued) >= objects, 300)
    told = time.monotonic() - began
    name = str(objects)
    return {
        f"create_{name}_s": round(created, 2),
        f"submit_{name}_s": round(submitted, 2),
        f"status_{name}_s": round(told, 2),
    }


async def lag(bench: Bench, running: int, seconds: float) -> dict[str, Any]:
    """Run jobs and end them, one after the other."""
    jobs = [job for _ in range(running) if (job := bench.store.lease("bench")) is not None]
    ended: dict[str, float] = {}
    thread = threading.Thread(target=lambda: ended.update(run_jobs(bench.store, jobs, seconds)))
    thread.start()
    await until(lambda: len(bench.seen.finished_at) >= len(jobs), seconds + 120)
    thread.join()
    lags = [bench.seen.finished_at[job.job_id] - ended[job.job_id] for job in jobs]
    changes = sum(bench.seen.changes[job.job_id] for job in jobs)
    return {
        "status_lag_p50_s": round(percentile(lags, 0.5), 3),
        "status_lag_p99_s": round(percentile(lags, 0.99), 3),
        "patches_per_job": round(changes / len(jobs), 1),
    }


def rights(cluster: Cluster, namespace: str) -> None:
    """The operator's ServiceAccount, with the rules of the manifests."""
    text = (ROOT_FOLDER / "manifests" / "downloadjobs.yaml").read_text(encoding="utf-8")
    cluster.apply(text.replace("namespace: downloadjobs", f"namespace: {namespace}"), namespace)


def cluster_has_leader(cluster: Cluster, namespace: str) -> bool:
    """Whether the operator holds its Lease."""
    leases = cluster.get_json("leases", "--namespace", namespace)["items"]
    return any(lease["spec"].get("holderIdentity") for lease in leases)


def names_left(cluster: Cluster, namespace: str) -> bool:
    """Whether there are objects still."""
    return bool(cluster.kubectl("get", PLURAL, "--namespace", namespace, "--output=name").stdout)


async def until(true: Any, seconds: float) -> None:  # noqa: ANN401 - a callable; its truth counts
    """Wait until a condition holds, without holding up the event loop's other tasks."""
    ends = time.monotonic() + seconds
    while not await asyncio.to_thread(true):
        if time.monotonic() > ends:
            raise SystemExit(f"It did not come to that within {seconds:.0f} s.")
        await asyncio.sleep(0.05)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=2_000)
    parser.add_argument("--running", type=int, default=200)
    parser.add_argument("--ids", type=int, default=10, help="files of each job")
    parser.add_argument("--seconds", type=float, default=30, help="in which the running jobs are ended")
    arguments = parser.parse_args()
    source = find_source()
    source.prepare(print)
    with (
        tempfile.TemporaryDirectory(prefix="downloadjobs-bench-") as folder,
        source.running(Path(folder)) as cluster,
    ):
        asyncio.run(measure(cluster, arguments, Path(folder)))


if __name__ == "__main__":
    main()
