"""The chart as platform teams use it: its test, other servers, upgrades under load, and no Helm at all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from downloadjobs_cli.verifying import verify
from support_cluster import ClusterError
from support_e2e import PROJECT, RELEASE, ROOT, Installation, Installer, until

FILES: Final = {10_003: 40_000, 10_010: 3_000_000}

SLOW: Final[dict[str, Any]] = {
    "worker": {
        "concurrency": 2,
        "settings": {
            "DOWNLOAD_DELAY_ENABLED": "true",
            "DOWNLOAD_DELAY_MIN_MS": "8000",
            "DOWNLOAD_DELAY_MAX_MS": "12000",
        },
        "autoscaling": {"max": 3, "cooldownSeconds": 300, "targetWaitSeconds": 5},
    }
}
"""Jobs take some ten seconds, and workers stay."""


@pytest.fixture(scope="module")
def slow(installer: Installer) -> Iterator[Installation]:
    """An installation in which there is time to do something to running jobs."""
    with installer.installed(SLOW) as found:
        found.seed(FILES)
        yield found


def helm_test(installation: Installation) -> str:
    """Run the release's own test; what Helm printed."""
    return installation.installer.helm(
        "test", RELEASE, f"--namespace={installation.namespace}", "--timeout=180s", timeout=200
    )


def submit(installation: Installation, count: int) -> dict[str, str]:
    """So many jobs, each of a user of its own; the users by the jobs' ids."""
    users = [f"user-{secrets.token_hex(4)}" for _ in range(count)]
    return {installation.initiate(list(FILES), user=user): user for user in users}


def completed(installation: Installation, jobs: dict[str, str]) -> bool:
    """Whether all are done."""
    return all(installation.job(job_id, user=user)["state"] == "completed" for job_id, user in jobs.items())


def test_the_releases_own_test(installation: Installation) -> None:
    """`helm test` runs a job to its verified zip, in a namespace that enforces `restricted`."""
    said = helm_test(installation)
    assert "Succeeded" in said
    assert "verified" in installation.kubectl("logs", f"{RELEASE}-test").lower()


def test_minio_is_as_good(installer: Installer) -> None:
    """With MinIO as the bundled store a job runs to its zip, and the API's key cannot write."""
    with installer.installed({"bundled": {"objectStore": {"kind": "minio"}}}) as own:
        helm_test(own)
        own.seed(FILES)
        job_id = own.initiate(list(FILES))
        own.wait_job(job_id)
        own.cli("get", job_id, "--output", "minio.zip", "--force")
        assert verify(own.folder / "minio.zip", job_id=job_id, files=len(FILES)).whole
        said = own.write_as_the_api(10_003)
        assert said.stdout.strip() == str(FILES[10_003])
        assert "AccessDenied" in said.stderr


def test_an_upgrade_with_jobs_under_way(slow: Installation) -> None:
    """`helm upgrade` keeps the number of workers, and each running job ends by its first attempt."""
    jobs = submit(slow, 6)
    until(lambda: slow.scale().ready == 3, 60, "three workers at work")
    slow.upgrade({"worker": {"podAnnotations": {"turn": secrets.token_hex(4)}}}, wait=False)
    assert slow.scale().wanted == 3
    until(lambda: completed(slow, jobs), 120, "all jobs completed", every=1)
    assert {slow.job(job_id, user=user)["attempt"] for job_id, user in jobs.items()} == {1}
    slow.wait_ready(["worker"])
    assert slow.scale().wanted == 3


@pytest.mark.parametrize("component", [*PROJECT, "redis", "s3"])
def test_killed_pods(slow: Installation, component: str) -> None:
    """Pods of every kind that are killed in the middle cost no job: REST's and DownloadJobs end well."""
    if component in {"redis", "s3"} and not slow.persistent:
        pytest.skip("takes volumes: E2E_PERSISTENCE=1")
    jobs = submit(slow, 4)
    name = f"killed-{component}-{secrets.token_hex(3)}"
    slow.apply_job(name, list(FILES))
    until(
        lambda: any(slow.job(job_id, user=user)["state"] == "processing" for job_id, user in jobs.items()),
        60,
        "jobs at work",
    )
    for pod in slow.pod_names(component):
        slow.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
    slow.wait_ready()
    until(lambda: completed(slow, jobs), 240, "all jobs completed", every=1)
    assert slow.wait_finished(name, 240)["phase"] == "Completed"


def test_the_documented_order_removes_all(installer: Installer) -> None:
    """DownloadJobs first, then the release, volumes and namespace: nothing hangs, and nothing is left."""
    with installer.installed() as own:
        own.seed({10_003: 1_000})
        own.apply_job("one", [10_003])
        own.wait_finished("one")
        own.kubectl("delete", "downloadjobs", "--all", "--timeout=60s", timeout=70)
        own.uninstall()
        own.kubectl("delete", "pvc", "--all", "--wait=false")
        own.cluster.kubectl("delete", "namespace", own.namespace, "--timeout=90s")
        left = own.cluster.kubectl(
            "get", "clusterroles,clusterrolebindings,validatingadmissionpolicies", "--output=name"
        )
        assert own.namespace not in left.stdout


NAMESPACE: Final = "downloadjobs"
"""The manifests' own."""


@contextmanager
def applied(installer: Installer, folder: Path) -> Iterator[None]:
    """The manifests, with the tests' images, until they are no longer needed. The definition stays."""
    base = folder / "base"
    base.mkdir()
    for path in (ROOT / "manifests").glob("*.yaml"):
        (base / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["base"],
        "images": [{"name": f"downloadjobs/{name}", "newTag": installer.tag} for name in PROJECT],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(overlay), encoding="utf-8")
    installer.cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--kustomize={folder}")
    try:
        yield
    finally:
        for kind in ("downloadjobs", "deployments", "pvc"):
            installer.cluster.kubectl(
                "delete", kind, "--all", f"--namespace={NAMESPACE}", "--timeout=60s", check=False
            )
        installer.cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=90s", check=False)
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            found = installer.cluster.kubectl("get", kind, "--output=name").stdout.split()
            for name in (one for one in found if f"/{NAMESPACE}-" in one):
                installer.cluster.kubectl("delete", name)


def test_without_helm(installer: Installer, tmp_path: Path) -> None:
    """`kubectl apply -k manifests/` and three Secrets are an installation; a DownloadJob ends well in it."""
    existing = installer.cluster.kubectl("get", "namespace", NAMESPACE, check=False)
    if not existing.returncode:
        pytest.skip(f"the namespace {NAMESPACE} is in use")
    at = f"--namespace={NAMESPACE}"
    with applied(installer, tmp_path):
        kubectl = installer.cluster.kubectl
        for name, keys in {
            f"{RELEASE}-redis": ["password"],
            f"{RELEASE}-s3-worker": ["accessKeyId", "secretAccessKey"],
            f"{RELEASE}-s3-api": ["accessKeyId", "secretAccessKey"],
        }.items():
            values = [f"--from-literal={key}={secrets.token_hex(12)}" for key in keys]
            kubectl("create", "secret", "generic", name, at, *values)
        try:
            for component in ("api", "operator", "redis", "s3"):
                kubectl(
                    "rollout", "status", f"deploy/{RELEASE}-{component}", at, "--timeout=180s", timeout=190
                )
            found = json.loads(kubectl("get", f"deploy/{RELEASE}-worker", at, "--output=json").stdout)
            # A worker's pod, in which the command line puts files.
            spec = found["spec"]["template"]["spec"] | {"restartPolicy": "Never"}
            (container,) = spec["containers"]
            container["image"] = f"downloadjobs/operator:{installer.tag}"
            container["command"] = ["downloadjobs", "seed", "--count=3", "--size=100k"]
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                del container[probe]
            labels = {"app.kubernetes.io/component": "worker", "app.kubernetes.io/name": RELEASE}
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "seed", "labels": labels},
                "spec": spec,
            }
            kubectl("apply", at, "--filename=-", stdin=json.dumps(pod))
            kubectl("wait", "pod/seed", at, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
            job = {
                "apiVersion": "downloadjobs.dev/v1",
                "kind": "DownloadJob",
                "metadata": {"name": "films"},
                "spec": {"fileIds": [10_000, 10_001, 10_002]},
            }
            kubectl("apply", at, "--filename=-", stdin=json.dumps(job))
            kubectl("wait", "dj/films", at, "--for=condition=Complete", "--timeout=120s", timeout=130)
        except ClusterError as error:
            seen = kubectl("get", "pods,dj,events", at, check=False).stdout
            raise AssertionError(f"{error}\n{seen}") from None
