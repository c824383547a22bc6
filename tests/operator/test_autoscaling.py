"""The autoscaler, with its ServiceAccount's rights on a real API server, watches and patches one Deployment.

The Deployment's pods never start (nobody has their image): whether pods work is tested where they do, in e2e.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from downloadjobs_core.job import Job, NewJob
from downloadjobs_core.leases import Outcome
from downloadjobs_core.states import JobState
from support_chaos_proxy import Mode, Proxy
from support_cluster import LOOPBACK
from support_operator_process import OPERATOR, Site
from support_worker import eventually

pytestmark = pytest.mark.cluster

WORKER: Final = "downloadjobs-worker"

DONE: Final = Outcome(JobState.COMPLETED, result_key="results/x/1.zip", result_bytes=10, files_done=1)

LIMITS: Final = {"max": 4, "concurrency": 2, "targetWaitSeconds": 1, "cooldownSeconds": 0}


def deployment(replicas: int = 0) -> dict[str, Any]:
    """Workers that never start."""
    labels = {"app": WORKER}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": WORKER},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [
                        {"name": "worker", "image": "registry.invalid/worker", "imagePullPolicy": "Never"}
                    ],
                },
            },
        },
    }


@pytest.fixture
def limits(site: Site, tmp_path: Path) -> Iterator[Path]:
    """The autoscaler's settings, and a site with a Deployment for its operators to scale."""
    path = tmp_path / "autoscaler.json"
    path.write_text(json.dumps(LIMITS), encoding="utf-8")
    site.settings |= {"WORKER_DEPLOYMENT": WORKER, "AUTOSCALER_FILE": str(path)}
    site.redis.flushall()
    collection = f"/apis/apps/v1/namespaces/{site.namespace}/deployments"
    site.kube.ask("POST", collection, deployment())
    yield path
    for operator in site.operators:
        operator.kill()
    site.kube.ask("DELETE", f"{collection}/{WORKER}")
    del site.settings["WORKER_DEPLOYMENT"], site.settings["AUTOSCALER_FILE"]
    eventually(lambda: replicas(site) is None, 20, "the Deployment's end")


def replicas(site: Site) -> int | None:
    """How many workers are wanted; None without the Deployment."""
    found = site.kube.ask("GET", f"/apis/apps/v1/namespaces/{site.namespace}/deployments/{WORKER}")
    return None if found is None else int(found["spec"]["replicas"])


def until_replicas(site: Site, wanted: int, seconds: float = 15) -> None:
    """Wait until so many are wanted."""
    eventually(lambda: replicas(site) == wanted, seconds, f"{wanted} workers wanted")


def submit(site: Site, count: int) -> None:
    """So many jobs by REST, each of another user."""
    for _ in range(count):
        name = f"job-{site.redis.incr('number')}"
        site.leases.submit(
            NewJob(job_id=name, user=name, file_ids=(10_000,), total_file_ids=1, max_attempts=3)
        )


def work(site: Site) -> None:
    """Do all that waits."""
    while (values := site.leases.pop("by hand")) is not None:
        site.leases.finish(Job.from_hash(values), DONE)


def events(site: Site) -> list[str]:
    """The reasons of the Events about the Deployment."""
    about = f"involvedObject.name={WORKER},reportingComponent={OPERATOR}"
    found = site.kube.ask("GET", f"/api/v1/namespaces/{site.namespace}/events?fieldSelector={about}")
    assert found is not None
    return [one["reason"] for one in found["items"]]


def page(site: Site, path: str) -> httpx.Response:
    """A page of the operator's port."""
    return httpx.get(f"http://127.0.0.1:{site.ports['operator']}/{path}", trust_env=False, timeout=10)


@pytest.mark.usefixtures("limits")
def test_workers_follow_the_queue(site: Site) -> None:
    """Jobs bring workers by one patch, and they go when nothing is left; Events and `/autoscaler` tell it."""
    site.start_operator()
    eventually(lambda: page(site, "autoscaler").json()["items"], 10, "a first decision")
    submit(site, 6)
    until_replicas(site, 3)
    eventually(lambda: "ScaledUp" in events(site), 10, "the Event")
    work(site)
    until_replicas(site, 0, 30)
    eventually(lambda: "ScaledDown" in events(site), 10, "the Event")
    told = page(site, "autoscaler").json()["items"]
    assert {"Scaled", "Unchanged"} <= {item["outcome"] for item in told}
    assert 'downloadjobs_autoscaler_victims_total{state="busy"} 0.0' in page(site, "metrics").text
    assert not site.told("failed")


def test_settings_are_read_again(site: Site, limits: Path) -> None:
    """A file that changed holds without a restart; a wrong one changes nothing, and an Event tells it."""
    site.start_operator()
    submit(site, 20)
    until_replicas(site, LIMITS["max"])
    limits.write_text(json.dumps(LIMITS | {"max": 6}), encoding="utf-8")
    until_replicas(site, 6)
    limits.write_text("max: many", encoding="utf-8")
    eventually(lambda: "SettingsRefused" in events(site), 15, "the Event")
    assert replicas(site) == 6


@pytest.mark.usefixtures("limits")
def test_somebody_elses_number_is_seen(site: Site) -> None:
    """Workers that are added by hand are seen, and removed again when nothing asks for them."""
    site.start_operator()
    eventually(lambda: page(site, "autoscaler").json()["items"], 10, "a first decision")
    path = f"/apis/apps/v1/namespaces/{site.namespace}/deployments/{WORKER}"
    site.kube.client.patch(
        path,
        content=json.dumps({"spec": {"replicas": 2}}),
        headers={"Content-Type": "application/merge-patch+json"},
    )
    until_replicas(site, 0, 30)


@pytest.mark.usefixtures("limits")
def test_the_way_to_the_api_server_is_cut(site: Site) -> None:
    """What could not be asked for while the API server was away is asked for when it is back."""
    host, port = site.cluster.server
    if host != LOOPBACK:
        pytest.skip("needs a cluster on 127.0.0.1, where the proxy connects")
    with Proxy(port) as proxy:
        kubeconfig = site.cluster.kubeconfig_through(proxy.port, site.kubeconfig)
        site.start_operator(KUBECONFIG=str(kubeconfig))
        eventually(lambda: page(site, "autoscaler").json()["items"], 10, "a first decision")
        proxy.set_mode(Mode.CUT)
        submit(site, 2)
        eventually(
            lambda: any(item["outcome"] == "Failed" for item in page(site, "autoscaler").json()["items"]),
            10,
            "a failure that is told",
        )
        proxy.set_mode(Mode.OPEN)
        until_replicas(site, 1, 30)
        site.operators[0].kill()


def test_a_deployment_that_is_not_there(site: Site) -> None:
    """Without the Deployment nothing is decided, a metric says so, and DownloadJobs are served."""
    site.start_operator(WORKER_DEPLOYMENT="nobody")
    held = 'downloadjobs_autoscaler_held{reason="missing"} 1.0'
    # It may watch one Deployment by its name, and no other: so it cannot tell that this one is not there.
    blind = 'downloadjobs_autoscaler_held{reason="unreachable"} 1.0'
    eventually(lambda: held in (text := page(site, "metrics").text) or blind in text, 10, "the metric")
    assert page(site, "autoscaler").json()["items"] == []
    site.create("served")
    site.until_phase("served", "Queued")


@pytest.mark.parametrize("page_name", ["autoscaler"])
def test_without_an_autoscaler_the_page_says_so(site: Site, page_name: str) -> None:
    """An operator that scales nothing has no such page."""
    site.start_operator()
    assert page(site, page_name).status_code == httpx.codes.NOT_FOUND
