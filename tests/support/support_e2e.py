"""Installations of the chart on a cluster with nodes: the same images, pods and servers that a user gets.

`Installer` is what a session finds on its machine; `Installer.installed` is one installation, in a namespace
of its own that enforces the Pod Security profile `restricted`. Results are fetched as users fetch them: the
API is forwarded to loopback, and so is the bundled object store, at the address that presigned URLs name.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

import httpx

from downloadjobs_cli.children import dying_with_parent
from downloadjobs_cli.embedded import free_ports
from downloadjobs_cli.sample_files import SampleFile
from downloadjobs_cli.seeding import seed
from downloadjobs_cli.stack import without_addresses
from downloadjobs_core.objectstore.s3 import S3Config, S3ObjectStore, connect
from support_cluster import Cluster, ClusterError, NoClusterError, Source, find_source
from support_tools import require_tool

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "downloadjobs"
CRD: Final = CHART / "files" / "crd.yaml"

RELEASE: Final = "downloadjobs"
"""Of every installation: its objects are `downloadjobs-api`, `downloadjobs-worker` and so on."""

PREFIX: Final = "downloads/"
COMPONENTS: Final = ("api", "worker", "operator", "redis", "s3")
PROJECT: Final = ("api", "worker", "operator")
USER: Final = "ada"

READY_SECONDS: Final = 180.0
"""Within which pods are ready on a slow and busy machine, images being there."""

PATIENCE_SECONDS: Final = 90.0
"""For how long reading a job's record goes on without an answer."""

HELM_SECONDS: Final = 60.0

_FORWARDING: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")

Object = dict[str, Any]

LITTLE: Final = {"requests": {"cpu": "10m", "memory": "64Mi"}}
"""Tests share their machine with much else."""

SMALL: Final[Mapping[str, Any]] = {
    "crd": {"enabled": False},
    "api": {"replicas": 1, "resources": LITTLE, "drainSeconds": 5},
    "worker": {"resources": LITTLE},
    "operator": {"resources": LITTLE},
    "bundled": {
        "redis": {"resources": LITTLE, "persistence": {"enabled": False}},
        "objectStore": {"resources": LITTLE, "persistence": {"enabled": False}},
    },
}
"""Values of every installation; a test's own win."""


class InstallError(Exception):
    """Helm failed, or pods do not become ready; the message says what was seen."""


class Scale(NamedTuple):
    """How many workers are wanted, are there, and are ready."""

    wanted: int
    there: int
    ready: int


def merged(base: Mapping[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """Values of Helm, later ones over earlier ones, maps by their keys."""
    result = dict(base)
    for values in more:
        for name, value in values.items():
            before = result.get(name)
            both = isinstance(before, Mapping) and isinstance(value, Mapping)
            result[name] = merged(cast("Mapping[str, Any]", before), value) if both else value
    return result


def until(so: Callable[[], bool], seconds: float, what: str, *, every: float = 0.5) -> None:
    """Wait until something is so. Raises `AssertionError` if it is not in time."""
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(every)


class Forward:
    """One `kubectl port-forward` to a Service that speaks HTTP, opened anew when its pod is gone.

    Args:
        installation: where the Service is.
        service: its name.
        port: the Service's port.
        local: the port on loopback; 0 takes any, which changes when it is opened anew.
    """

    def __init__(self, installation: Installation, service: str, port: int, local: int = 0) -> None:
        self._installation = installation
        self._service = service
        self._port = port
        self._local = local
        self._process: subprocess.Popen[str] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where it listens. Opens it if need be; raises `InstallError`."""
        if not self._leads_somewhere():
            self._open()
        return self._url

    def _leads_somewhere(self) -> bool:
        """Whether anything answers. kubectl may go on listening when its pod is gone."""
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            httpx.get(self._url, timeout=10, trust_env=False)
        except httpx.TransportError:
            return False
        return True

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            cast("IO[str]", self._process.stdout).close()
            self._process = None

    def _open(self) -> None:
        self.close()
        cluster = self._installation.cluster
        command = [
            str(cluster.kubectl_path),
            f"--kubeconfig={cluster.kubeconfig}",
            f"--namespace={self._installation.namespace}",
            "port-forward",
            "--address=127.0.0.1",
            "--pod-running-timeout=30s",
            f"service/{self._service}",
            f"{self._local or ''}:{self._port}",
        ]
        self._process = subprocess.Popen(
            dying_with_parent(command, signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # It says "Handling connection" on its output, and complains of each broken one here.
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        found = _FORWARDING.match(cast("IO[str]", self._process.stdout).readline())
        if found is None:
            self.close()
            raise InstallError(f"no port can be forwarded to the Service {self._service}")
        self._url = f"http://127.0.0.1:{found[1]}"


@dataclass
class Installation:
    """One release in a namespace of its own."""

    installer: Installer
    namespace: str
    values: dict[str, Any]
    folder: Path
    """For what is fetched."""
    restarts_at_start: dict[str, int] = field(default_factory=dict)
    """Of containers, until all was ready."""
    s3_port: int = field(default_factory=lambda: free_ports(1)[0])
    _forwards: dict[str, Forward] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        """Where it is."""
        return self.installer.cluster

    @property
    def persistent(self) -> bool:
        """Whether the bundled Redis has a volume, so that its pods can go."""
        return bool(self._all_values()["bundled"]["redis"]["persistence"]["enabled"])

    # Helm.

    def install(self) -> None:
        """Install, and wait until all is ready. Raises `InstallError`."""
        self._helm("install", self._all_values())
        self.wait_ready()
        self.restarts_at_start = self.restarts()

    def upgrade(self, *values: Mapping[str, Any], wait: bool = True) -> None:
        """Change some values, on top of those that were given before.

        Args:
            values: parts of values.yaml, nested.
            wait: until every pod is of the new kind and ready; without it, only until Helm has ended.
        """
        self.values = merged(self.values, *values)
        self._helm("upgrade", self._all_values())
        if wait:
            self.wait_ready()

    def uninstall(self) -> None:
        """Remove the release, whose pods may still be ending; definition, volumes and namespace stay."""
        self.installer.helm("uninstall", RELEASE, f"--namespace={self.namespace}", "--wait", timeout=180)

    def _all_values(self) -> dict[str, Any]:
        public = {"bundled": {"objectStore": {"publicEndpoint": f"http://127.0.0.1:{self.s3_port}"}}}
        return merged(SMALL, {"image": {"tag": self.installer.tag}}, public, self.values)

    def _helm(self, verb: str, values: Mapping[str, Any]) -> None:
        # JSON is YAML.
        self.installer.helm(
            verb, RELEASE, str(CHART), f"--namespace={self.namespace}", "--values=-", stdin=json.dumps(values)
        )

    # The cluster.

    def kubectl(self, *args: str, check: bool = True, stdin: str | None = None, timeout: float = 60) -> str:
        """Run kubectl in the namespace, as an administrator; what it printed. Raises `ClusterError`."""
        place = f"--namespace={self.namespace}"
        return self.cluster.kubectl(place, *args, check=check, stdin=stdin, timeout=timeout).stdout

    def get(self, *args: str) -> Object:
        """`kubectl get`: an object, or a list of them under `items`."""
        return self.cluster.get_json(f"--namespace={self.namespace}", *args)

    def pods(self, component: str) -> list[Object]:
        """The pods of api, worker, operator, redis or s3, terminating ones too."""
        selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"
        items: list[Object] = self.get("pods", f"--selector={selector}")["items"]
        return items

    def pod_names(self, component: str, *, terminating: bool = False) -> list[str]:
        """The names of a component's pods."""
        return [
            pod["metadata"]["name"]
            for pod in self.pods(component)
            if terminating or "deletionTimestamp" not in pod["metadata"]
        ]

    def restarts(self) -> dict[str, int]:
        """How often containers of the project's own pods ended by themselves, where they did."""
        return {
            pod["metadata"]["name"]: one["restartCount"]
            for component in PROJECT
            for pod in self.pods(component)
            for one in pod["status"].get("containerStatuses", [])
            if one["restartCount"]
        }

    def exec(self, component: str, *command: str, timeout: float = 60) -> str:
        """What a command in a component's pod prints."""
        return self.kubectl("exec", f"deploy/{RELEASE}-{component}", "--", *command, timeout=timeout)

    def logs(self, component: str, lines: int = 200) -> str:
        """The last lines of all pods of a component, each with its pod's name."""
        selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"
        return self.kubectl(
            "logs", f"--selector={selector}", f"--tail={lines}", "--prefix", "--max-log-requests=50"
        )

    def wait_ready(self, components: Sequence[str] = COMPONENTS, seconds: float = READY_SECONDS) -> None:
        """Wait until rollouts have ended. Raises `InstallError`, with what is to be seen of the pods."""
        end = time.monotonic() + seconds
        for component in components:
            left = max(1.0, end - time.monotonic())
            try:
                self.kubectl(
                    "rollout",
                    "status",
                    f"deploy/{RELEASE}-{component}",
                    f"--timeout={left:.0f}s",
                    timeout=left + 10,
                )
            except ClusterError as error:
                raise InstallError(f"{error}\n{self.report()}") from None

    # The workers.

    def scale(self) -> Scale:
        """How many workers there are."""
        found = self.get(f"deploy/{RELEASE}-worker")
        status = found["status"]
        return Scale(found["spec"]["replicas"], status.get("replicas", 0), status.get("readyReplicas", 0))

    def set_scale(self, workers: int) -> None:
        """Want so many workers, as the autoscaler does."""
        self.kubectl("scale", f"deploy/{RELEASE}-worker", f"--replicas={workers}")

    def events(self, name: str, kind: str = "Deployment") -> list[Object]:
        """The Events about an object, oldest first."""
        about = f"involvedObject.kind={kind},involvedObject.name={name}"
        items: list[Object] = self.get("events", f"--field-selector={about}")["items"]
        return sorted(items, key=lambda event: str(event["metadata"]["creationTimestamp"]))

    # Ways in.

    def forward(self, component: str, port: int, local: int = 0) -> Forward:
        """A port on loopback that leads to a component's Service."""
        key = f"{component}:{port}"
        if key not in self._forwards:
            self._forwards[key] = Forward(self, f"{RELEASE}-{component}", port, local)
        return self._forwards[key]

    @property
    def api_url(self) -> str:
        """The REST API."""
        return self.forward("api", 80).url

    @property
    def operator_url(self) -> str:
        """The operator's port: /readyz and what it tells."""
        return self.forward("operator", 8080).url

    @property
    def s3_url(self) -> str:
        """The bundled object store, where presigned URLs lead."""
        return self.forward("s3", 8333, self.s3_port).url

    def request(self, method: str, path: str, *, user: str = USER, body: object = None) -> httpx.Response:
        """Ask the REST API."""
        return httpx.request(
            method, self.api_url + path, json=body, headers={"x-user-id": user}, timeout=30, trust_env=False
        )

    def metrics(self, pod: str, port: int = 9090) -> str:
        """A pod's /metrics, by the API server's proxy."""
        return self.kubectl(
            "get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy/metrics"
        )

    def redis(self, *command: str) -> str:
        """What valkey-cli in the bundled Redis answers."""
        return self.exec("redis", "valkey-cli", *command).strip()

    @contextmanager
    def redis_unreachable(self) -> Iterator[None]:
        """Nobody reaches Redis meanwhile, and it keeps what it holds.

        Its Service leads nowhere, and connections are cut.
        """
        service = self.get(f"service/{RELEASE}-redis")
        patch = {"spec": {"selector": {"app.kubernetes.io/component": "nobody"}}}
        self.kubectl("patch", f"service/{RELEASE}-redis", "--type=merge", f"--patch={json.dumps(patch)}")
        try:
            for kind in ("normal", "pubsub"):
                self.redis("CLIENT", "KILL", "TYPE", kind)
            yield
        finally:
            back = {"spec": {"selector": service["spec"]["selector"]}}
            self.kubectl("patch", f"service/{RELEASE}-redis", "--type=merge", f"--patch={json.dumps(back)}")

    # Files.

    @cached_property
    def store(self) -> S3ObjectStore:
        """The bucket, as workers may use it."""
        data = self.get(f"secret/{RELEASE}-s3-worker")["data"]
        key, secret = (base64.b64decode(data[name]).decode() for name in ("accessKeyId", "secretAccessKey"))
        return connect(S3Config(endpoint=self.s3_url, access_key=key, secret_key=secret), "downloadjobs")

    def seed(self, sizes: Mapping[int, int]) -> None:
        """Put sample files, if they are not there yet.

        Args:
            sizes: in bytes (512 or more), by the files' ids.
        """
        assert self.s3_url  # open
        seed(self.store, PREFIX, [SampleFile(file_id, size) for file_id, size in sizes.items()])

    def write_as_the_api(self, file_id: int) -> subprocess.CompletedProcess[str]:
        """Let the API's pod print a file's size, and then try to write, both with its own key."""
        script = (
            "import os, io; from minio import Minio; e = os.environ; b = e['S3_BUCKET_NAME'];"
            " c = Minio(endpoint=e['S3_ENDPOINT'].split('//')[1], access_key=e['S3_ACCESS_KEY_ID'],"
            " secret_key=e['S3_SECRET_ACCESS_KEY'], secure=False, region='us-east-1');"
            f" print(c.stat_object(bucket_name=b, object_name='{PREFIX}{file_id}.zip').size);"
            " c.put_object(bucket_name=b, object_name='downloads/x', data=io.BytesIO(b'x'), length=1)"
        )
        command = ("exec", f"deploy/{RELEASE}-api", "--", "python", "-c", script)
        return self.cluster.kubectl(f"--namespace={self.namespace}", *command, check=False)

    # Jobs.

    def cli(self, *args: str, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run this checkout's `downloadjobs` as a user, in `folder`; API and object store are reached."""
        assert self.s3_url  # open, since the URLs of results lead there
        environment = {
            **without_addresses(os.environ),
            "DOWNLOADJOBS_API": self.api_url,
            "DOWNLOADJOBS_USER": USER,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "KUBECTL": str(self.cluster.kubectl_path),
        }
        if args[:1] == ("get",) and any(arg.startswith("dj/") for arg in args):
            del environment["DOWNLOADJOBS_API"]  # then it forwards a port of its own, as it does for users
            args = (*args, "--namespace", self.namespace)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "downloadjobs_cli", *args],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"downloadjobs {' '.join(args)}:\n{done.stdout}{done.stderr}"
        )
        return done

    def initiate(self, file_ids: Sequence[int], *, user: str = USER) -> str:
        """Ask the REST API for a job; its id."""
        answer = self.request("POST", "/v1/download/initiate", user=user, body={"file_ids": list(file_ids)})
        assert answer.is_success, answer.text
        return str(answer.json()["jobId"])

    def job(self, job_id: str, *, user: str = USER) -> Object:
        """The whole record of a job that came by REST."""
        answer = self._patient(f"/v1/jobs/{job_id}", user)
        assert answer.is_success, answer.text
        found: Object = answer.json()
        return found

    def _patient(self, path: str, user: str) -> httpx.Response:
        """Read, also while a server behind the API comes back, or the forwarded port has lost its pod."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.request("GET", path, user=user)
            except httpx.TransportError:
                if time.monotonic() > end:
                    raise
            else:
                if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    time.sleep(int(answer.headers["retry-after"]))  # limits are for tests, too
                    continue
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > end:
                    return answer
            time.sleep(1)

    def wait_job(
        self, job_id: str, state: str = "completed", seconds: float = 120, *, user: str = USER
    ) -> Object:
        """Wait until a job that came by REST is in a state; its record."""
        until(
            lambda: self.job(job_id, user=user)["state"] == state,
            seconds,
            f"job {job_id} {state}",
            every=1,
        )
        return self.job(job_id, user=user)

    def apply_job(self, name: str, file_ids: Sequence[int], **spec: object) -> None:
        """Apply a DownloadJob."""
        self.kubectl(
            "apply",
            "--filename=-",
            stdin=json.dumps(
                {
                    "apiVersion": "downloadjobs.dev/v1",
                    "kind": "DownloadJob",
                    "metadata": {"name": name},
                    "spec": {"fileIds": list(file_ids), **spec},
                }
            ),
        )

    def wait_finished(self, name: str, seconds: float = 120) -> Object:
        """Wait until a DownloadJob has ended in any way; its status."""
        self.kubectl(
            "wait",
            "--for=condition=Finished",
            f"dj/{name}",
            f"--timeout={seconds:.0f}s",
            timeout=seconds + 10,
        )
        status: Object = self.get(f"dj/{name}")["status"]
        return status

    # The end.

    def report(self) -> str:
        """What is to be seen of it, for whoever reads why a test failed."""
        parts = []
        with suppress(ClusterError):
            parts.append(self.kubectl("get", "pods,downloadjobs", "--output=wide", check=False))
            parts.append(
                self.kubectl(
                    "get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp", check=False
                )
            )
            parts += [f"-- {component}\n{self._tail(component)}" for component in PROJECT]
        return "\n".join(parts)

    def _tail(self, component: str) -> str:
        try:
            return self.logs(component, 15)
        except ClusterError as error:
            return str(error)

    def close(self) -> None:
        """Remove all of it. DownloadJobs go first: their finalizers need the operator."""
        for forward in self._forwards.values():
            forward.close()
        with suppress(ClusterError):
            wait = "--timeout=30s" if self.pod_names("operator") else "--wait=false"
            self.kubectl("delete", "downloadjobs", "--all", wait, check=False)
            for name in self.kubectl("get", "downloadjobs", "--output=name").split():
                self.kubectl(
                    "patch", name, "--type=merge", '--patch={"metadata":{"finalizers":null}}', check=False
                )
        with suppress(InstallError):
            # Its objects in no namespace go by this alone.
            self.installer.helm("uninstall", RELEASE, f"--namespace={self.namespace}", "--ignore-not-found")
        # A worker's grace period is no matter any more.
        with suppress(ClusterError):
            self.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=false", check=False)


@dataclass(frozen=True)
class Installer:
    """A cluster with nodes, Helm, and the images' tag."""

    cluster: Cluster
    helm_path: str
    tag: str
    folder: Path

    @contextmanager
    def installed(
        self, *values: Mapping[str, Any], persistence: bool | None = None
    ) -> Iterator[Installation]:
        """An installation, until it is no longer needed.

        Args:
            values: parts of values.yaml, nested, over `SMALL`.
            persistence: whether the bundled servers have volumes; by default if E2E_PERSISTENCE is 1. Without
                them, whoever deletes their pods deletes what they hold.
        """
        if persistence is None:
            persistence = os.environ.get("E2E_PERSISTENCE") == "1"
        volumes = {"persistence": {"enabled": persistence, "size": "1Gi"}}
        with_volumes = {"bundled": {"redis": volumes, "objectStore": volumes}}
        with self.namespace() as namespace:
            folder = self.folder / namespace
            folder.mkdir()
            installation = Installation(self, namespace, merged(with_volumes, *values), folder)
            try:
                installation.install()
                yield installation
            finally:
                installation.close()

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A new namespace that lets in only pods of the profile `restricted`."""
        with self.cluster.namespace("e2e") as namespace:
            self.cluster.kubectl(
                "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"
            )
            yield namespace

    def prepare(self) -> None:
        """Bring the definition of DownloadJob up to date: it is the cluster's, not an installation's."""
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRD}")
        self.cluster.kubectl(
            "wait", "--for=condition=Established", "--timeout=30s", "crd/downloadjobs.downloadjobs.dev"
        )

    def helm(self, *args: str, stdin: str | None = None, timeout: float = HELM_SECONDS) -> str:
        """Run Helm; what it printed. Raises `InstallError`."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))},
            # Nothing of the user's: neither plugins nor repositories.
            **{
                f"HELM_{kind}_HOME": str(self.folder / f"helm-{kind}") for kind in ("CONFIG", "CACHE", "DATA")
            },
        }
        command = [self.helm_path, *args, f"--kubeconfig={self.cluster.kubeconfig}"]
        try:
            done = subprocess.run(
                command,
                input=stdin or "",
                capture_output=True,
                text=True,
                env=environment,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise InstallError(f"helm {' '.join(args)}: no end after {timeout:.0f} s") from late
        if done.returncode:
            raise InstallError(f"helm {' '.join(args)}: exit code {done.returncode}\n{done.stderr.strip()}")
        return done.stdout


@contextmanager
def installer_in(folder: Path) -> Iterator[Installer]:
    """What the session finds on its machine. Helm is `HELM`, the images' tag `E2E_TAG`.

    Raises:
        NoClusterError: there is no cluster with nodes and the images.
        ClusterError, InstallError: it does not work.
    """
    helm = require_tool(os.environ.get("HELM") or "helm")
    tag = os.environ.get("E2E_TAG") or "dev"
    source = source_with_nodes()
    source.prepare(lambda _text: None)
    with source.running(folder) as cluster:
        require_nodes(cluster, tag)
        found = Installer(cluster, helm, tag, folder)
        found.prepare()
        yield found


def source_with_nodes() -> Source:
    """Where the session's cluster comes from. Raises `NoClusterError`."""
    source = find_source()
    if source.name == "control plane":
        raise NoClusterError(
            "needs a Kubernetes cluster with nodes: install kind, or name a kubeconfig in TEST_KUBECONFIG"
        )
    return source


def require_nodes(cluster: Cluster, tag: str) -> None:
    """Raise `NoClusterError` unless a node is ready and has the project's images."""
    images = {f"downloadjobs/{name}:{tag}" for name in PROJECT}
    end = time.monotonic() + 30  # a node tells of new images every ten seconds
    while True:
        nodes = [node for node in cluster.get_json("nodes")["items"] if _ready(node)]
        if not nodes:
            raise NoClusterError(
                "needs a cluster with a node that is ready: install kind, or name a kubeconfig"
            )
        names = {
            name
            for node in nodes
            for image in node["status"].get("images", [])
            for name in image.get("names") or ()
        }
        missing = {image for image in images if not any(name.endswith(image) for name in names)}
        if not missing:
            return
        if time.monotonic() > end:
            raise NoClusterError(
                f"needs the images {', '.join(sorted(missing))} on the nodes: `make images`, and load them"
            )
        time.sleep(2)


def _ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
