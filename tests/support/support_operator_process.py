"""Operators as processes over a real API server, with no more rights than their ServiceAccount has.

A `Site` is one namespace with an installation of its own: a Valkey, a bucket, and as many operators, APIs and
workers as a test starts. What a test asks the API server itself, it asks as its administrator (`Kube`).
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, cast

import httpx
import pytest
import yaml

from downloadjobs_cli.children import Child, dying_with_parent
from downloadjobs_cli.embedded import S3Server, SeaweedServer, ValkeyServer, free_ports
from downloadjobs_core.job import job_key
from downloadjobs_core.leases import LeaseStore, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from support_cluster import Cluster
from support_processes import System, running
from support_servers import killed_after
from support_worker import eventually, put_files

ROOT: Final = Path(__file__).parents[2]
CRD: Final = ROOT / "charts" / "downloadjobs" / "files" / "crd.yaml"
INSTALLED: Final = ROOT / "manifests" / "downloadjobs.yaml"
OPERATOR: Final = "downloadjobs-operator"
JOBS: Final = "/apis/downloadjobs.dev/v1/namespaces/{}/downloadjobs"

FILES: Final = {60_001: 200_000, 60_002: 0, 60_003: 1_234}
"""Files that every site's bucket has: sizes in bytes by id."""

MISSING: Final = 69_999
"""A file that no bucket has."""

RUNS_ON: Final = {
    "DOWNLOAD_DELAY_ENABLED": "true",
    "DOWNLOAD_DELAY_MIN_MS": "600000",
    "DOWNLOAD_DELAY_MAX_MS": "600000",
}
"""A worker's settings with which a job does not end by itself during a test."""

Object = dict[str, Any]


class Kube:
    """The API server, asked as its administrator by `kubectl proxy`, quicker than by many a kubectl."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        command = [str(cluster.kubectl_path), f"--kubeconfig={cluster.kubeconfig}", "proxy", "--port=0"]
        self._proxy = subprocess.Popen(
            dying_with_parent(command, signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        words = cast("IO[str]", self._proxy.stdout).readline().split()
        self.client = httpx.Client(base_url=f"http://{words[-1]}", trust_env=False, timeout=30)

    def close(self) -> None:
        """End the proxy."""
        self.client.close()
        self._proxy.kill()
        self._proxy.wait()
        cast("IO[str]", self._proxy.stdout).close()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Object | None:
        """One request; None if what it is about is not there."""
        answer = self.client.request(method, path, json=body, headers=headers)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        assert answer.is_success, answer.text
        found: Object = answer.json()
        return found


@dataclass
class Site:
    """A namespace whose DownloadJobs are served by an installation of its own."""

    kube: Kube
    namespace: str
    system: System
    settings: dict[str, str] = field(default_factory=dict)
    """The operators', beside quick ones."""
    operators: list[Child] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)
    """Of the objects that were created last, by name."""

    @property
    def cluster(self) -> Cluster:
        """Where the namespace is."""
        return self.kube.cluster

    @cached_property
    def kubeconfig(self) -> Path:
        """With the rights of the operator's ServiceAccount."""
        return self.cluster.kubeconfig_of(self.namespace, OPERATOR)

    @cached_property
    def leases(self) -> LeaseStore:
        """The queue as a worker sees it, for tests that take a worker's part."""
        return LeaseStore(connect(RedisConfig(self.system.valkey.url)), QueuePolicy(lease_seconds=60))

    @cached_property
    def redis(self) -> Any:  # noqa: ANN401 - redis-py's own types do not tell answers from coroutines
        """The queue's Redis."""
        return self.leases.redis

    def record(self, job_id: str) -> dict[str, str]:
        """A job's hash; empty if there is none."""
        found: dict[str, str] = self.redis.hgetall(job_key(job_id))
        return found

    # The operator.

    def environment(self, name: str = "operator", **settings: str) -> dict[str, str]:
        """An operator's environment."""
        return {
            **self.system.environment(),
            "KUBECONFIG": str(self.kubeconfig),
            "PORT": str(self.ports.setdefault(name, free_ports(1)[0])),
            "POD_NAME": name,
            "OPERATOR_NAMESPACE": self.namespace,
            "LEADER_LEASE_SECONDS": "5",
            **self.settings,
            **settings,
        }

    def start_operator(self, name: str = "operator", *, wait: bool = True, **settings: str) -> Child:
        """Start an operator, or one that has ended again; wait until it works."""
        operator = next((child for child in self.operators if child.name == name), None)
        if operator is None:
            operator = Child(name, "downloadjobs_operator", self.system.folder)
            self.operators.append(operator)
        operator.start(self.environment(name, **settings))
        if wait:
            started = operator

            def works() -> bool:
                assert started.exit_code is None, started.log_tail()
                return self.health("readyz", name).get("leading", False) and self.watches(name)

            eventually(works, 30, f"the start of {name}")
        return operator

    def health(self, page: str, name: str = "operator") -> dict[str, Any]:
        """What a health page says, with its HTTP status under `code`; that is 0 without an answer."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.ports[name]}/{page}", trust_env=False, timeout=5)
        except httpx.TransportError:
            return {"code": 0}
        return {**answer.json(), "code": answer.status_code}

    def watches(self, name: str = "operator") -> bool:
        """Whether an operator has a watch of DownloadJobs open."""
        return self.health("readyz", name).get("watching", False) is True

    def told(self, event: str, name: str = "operator") -> list[dict[str, Any]]:
        """The lines of an operator's log with this event."""
        found = []
        for line in (self.system.folder / f"{name}.log").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                entry = json.loads(line)
                if event in str(entry.get("event", entry.get("message", ""))):
                    found.append(entry)
        return found

    # DownloadJobs.

    def path(self, name: str = "", namespace: str = "") -> str:
        """Where the API server has one, or all."""
        return JOBS.format(namespace or self.namespace) + (f"/{name}" if name else "")

    def create(self, name: str, file_ids: Sequence[int] = tuple(FILES), **spec: Any) -> str:  # noqa: ANN401 - JSON
        """Create one; its uid."""
        made = self.kube.ask("POST", self.path(), manifest(name, file_ids, **spec))
        assert made is not None
        self.uids[name] = str(made["metadata"]["uid"])
        return self.uids[name]

    def patch(self, name: str, body: Object, namespace: str = "") -> Object:
        """Merge into one."""
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = self.kube.client.patch(self.path(name, namespace), content=json.dumps(body), headers=headers)
        assert answer.is_success, answer.text
        changed: Object = answer.json()
        return changed

    def change(self, name: str, **spec: Any) -> Object:  # noqa: ANN401 - JSON
        """Change its spec."""
        return self.patch(name, {"spec": spec})

    def delete(self, name: str, namespace: str = "") -> None:
        """Ask for its end."""
        self.kube.ask("DELETE", self.path(name, namespace))

    def get(self, name: str, namespace: str = "") -> Object | None:
        """The object, or None."""
        return self.kube.ask("GET", self.path(name, namespace))

    def all(self) -> list[Object]:
        """All objects."""
        found = self.kube.ask("GET", self.path())
        assert found is not None
        items: list[Object] = found["items"]
        return items

    def status(self, name: str, namespace: str = "") -> Object:
        """Its status; empty while there is none."""
        found = self.get(name, namespace)
        assert found is not None, f"{name} is gone"
        return cast("Object", found.get("status", {}))

    def until(
        self,
        name: str,
        condition: Callable[[Object], bool],
        what: str,
        seconds: float = 30,
        namespace: str = "",
    ) -> Object:
        """Wait until its status is as wanted; the status."""
        until = time.monotonic() + seconds
        while not condition(status := self.status(name, namespace)):
            if time.monotonic() > until:
                logs = "\n".join(child.log_tail() for child in (*self.operators, *self.system.children))
                raise AssertionError(f"{name}: not {what} within {seconds} s: {json.dumps(status)}\n{logs}")
            time.sleep(0.05)
        return status

    def until_phase(self, name: str, phase: str, seconds: float = 30, namespace: str = "") -> Object:
        """Wait for a phase; the status."""
        return self.until(name, lambda status: status.get("phase") == phase, phase, seconds, namespace)

    def until_condition(  # noqa: PLR0917 - reads like kubectl wait
        self, name: str, kind: str, said: str, reason: str, seconds: float = 30, namespace: str = ""
    ) -> Object:
        """Wait for a condition with a reason; the status."""
        wanted = (said, reason)
        return self.until(
            name,
            lambda status: condition_of(status, kind) == wanted,
            f"{kind}={said} ({reason})",
            seconds,
            namespace,
        )

    def until_gone(self, name: str, seconds: float = 30, namespace: str = "") -> None:
        """Wait until the object is gone."""
        eventually(lambda: self.get(name, namespace) is None, seconds, f"the end of {name}")

    def reasons(self, name: str, namespace: str = "") -> list[str]:
        """The reasons of its Events, sorted; each as often as there are Events."""
        place = namespace or self.namespace
        uid = self.uids.get(name)
        about = f"involvedObject.uid={uid}" if uid else f"involvedObject.name={name}"
        found = self.kube.ask("GET", f"/api/v1/namespaces/{place}/events?fieldSelector={about}")
        assert found is not None
        assert all(one.get("count") in {None, 1} for one in found["items"])
        return sorted(one["reason"] for one in found["items"])

    def until_told(self, name: str, *reasons: str, namespace: str = "") -> None:
        """Wait until its Events are these: they are written after its status."""
        wanted = sorted(reasons)
        with suppress(AssertionError):
            eventually(lambda: self.reasons(name, namespace) == wanted, 10)
        told = self.reasons(name, namespace)
        assert told == wanted, f"{told}, not {wanted}"

    def clear(self) -> None:
        """Delete all DownloadJobs, and wait for their end."""
        self.kube.ask("DELETE", self.path())
        eventually(lambda: not self.all(), 30, "the end of all DownloadJobs")


def manifest(name: str, file_ids: Sequence[int] = tuple(FILES), **spec: Any) -> Object:  # noqa: ANN401 - JSON
    """A DownloadJob."""
    return {
        "apiVersion": "downloadjobs.dev/v1",
        "kind": "DownloadJob",
        "metadata": {"name": name},
        "spec": {"fileIds": list(file_ids), **spec},
    }


def condition_of(status: Object, kind: str) -> tuple[str, str] | None:
    """A condition's status and reason, or None if it is not there."""
    for one in status.get("conditions", []):
        if one["type"] == kind:
            return one["status"], one["reason"]
    return None


def rights(namespace: str, *, mirrors_of: str = "") -> str:
    """The operator's ServiceAccount and rules as they are installed, in another namespace.

    Args:
        namespace: where.
        mirrors_of: the namespace of the operator that shows jobs of REST here: it may create DownloadJobs.
    """
    moved = []
    for one in yaml.safe_load_all(INSTALLED.read_text(encoding="utf-8")):
        if one is None or not one["metadata"]["name"].startswith(OPERATOR):
            continue
        if mirrors_of and one["metadata"]["name"] != OPERATOR:
            continue  # its Lease is in its own namespace
        one["metadata"]["namespace"] = namespace
        for subject in one.get("subjects", []):
            subject["namespace"] = mirrors_of or namespace
        if mirrors_of and one["kind"] == "Role":
            create = {"apiGroups": ["downloadjobs.dev"], "resources": ["downloadjobs"], "verbs": ["create"]}
            one["rules"].append(create)
        if not (mirrors_of and one["kind"] == "ServiceAccount"):
            moved.append(one)
    return yaml.safe_dump_all(moved)


@contextmanager
def team(site: Site, *, cluster_wide: bool = False) -> Iterator[str]:
    """A second namespace that a site's operator shall serve, and may work in.

    Args:
        site: whose operators are started later.
        cluster_wide: by a ClusterRoleBinding, as with the chart's `operator.clusterWide`; else by a
            RoleBinding in the namespace itself.
    """
    with site.cluster.namespace("operator-team") as namespace:
        role = rights(namespace, mirrors_of=site.namespace)
        if cluster_wide:
            objects = [one for one in yaml.safe_load_all(role) if one]
            for one in objects:
                one["kind"] = f"Cluster{one['kind']}"
                one["metadata"] = {"name": namespace}
                if "roleRef" in one:
                    one["roleRef"] |= {"kind": "ClusterRole", "name": namespace}
            role = yaml.safe_dump_all(objects)
        site.cluster.apply(role)
        site.settings["WATCH_NAMESPACES"] = f"{site.namespace},{namespace}"
        try:
            yield namespace
        finally:
            for operator in site.operators:
                operator.kill()
            free(site.kube, namespace)
            if cluster_wide:
                site.cluster.kubectl("delete", "clusterrole,clusterrolebinding", namespace)


@contextmanager
def installed(kube: Kube, s3: S3Server, folder: Path, **settings: str) -> Iterator[Site]:
    """A site in a new namespace, in which nothing runs but an empty Valkey.

    Args:
        kube: the API server.
        s3: holds `FILES`.
        folder: for logs.
        settings: the operators'.
    """
    with (
        kube.cluster.namespace("operator") as namespace,
        tempfile.TemporaryDirectory(dir=folder) as data,
        killed_after(ValkeyServer(Path(data), append_only=True)) as valkey,
        running(System(valkey, s3, folder)) as system,
    ):
        kube.cluster.apply(rights(namespace))
        site = Site(kube, namespace, system, {"WATCH_NAMESPACES": namespace, **settings})
        put_files(system.store, FILES)
        try:
            yield site
        finally:
            for operator in site.operators:
                operator.kill()
            if "leases" in site.__dict__:
                site.redis.close()
            free(kube, namespace)


def free(kube: Kube, namespace: str) -> None:
    """Take the finalizers of a namespace's DownloadJobs away, which no operator will, so that it can end."""
    kube.ask("DELETE", JOBS.format(namespace))
    found = kube.ask("GET", JOBS.format(namespace)) or {"items": []}
    for one in found["items"]:
        path = f"{JOBS.format(namespace)}/{one['metadata']['name']}"
        kube.client.patch(
            path,
            content='{"metadata":{"finalizers":null}}',
            headers={"Content-Type": "application/merge-patch+json"},
        )


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Iterator[Kube]:
    """The session's API server, which knows DownloadJobs."""
    cluster.kubectl("apply", "--server-side", f"--filename={CRD}")
    cluster.kubectl(
        "wait", "--for=condition=Established", "--timeout=30s", "crd/downloadjobs.downloadjobs.dev"
    )
    asked = Kube(cluster)
    yield asked
    asked.close()


@pytest.fixture
def site(kube: Kube, seaweedfs: SeaweedServer, tmp_path: Path) -> Iterator[Site]:
    """A namespace of the test's own, and an installation in which nothing runs yet."""
    with installed(kube, seaweedfs, tmp_path) as site:
        yield site


@pytest.fixture(scope="session")
def _working(
    kube: Kube, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with installed(kube, seaweedfs, tmp_path_factory.mktemp("working")) as site:
        site.start_operator()
        site.system.start_worker()
        yield site


@pytest.fixture
def working(_working: Site) -> Iterator[Site]:
    """The session's site with an operator and a worker, without DownloadJobs. Nobody stops or wipes it."""
    yield _working
    _working.clear()


@pytest.fixture(scope="session")
def _waiting(
    kube: Kube, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with installed(kube, seaweedfs, tmp_path_factory.mktemp("waiting"), MAX_DELIVERIES="1") as site:
        site.start_operator()
        yield site


@pytest.fixture
def waiting(_waiting: Site) -> Iterator[Site]:
    """The session's site with an operator, without a worker: jobs wait, or a test leases them itself."""
    yield _waiting
    _waiting.clear()
