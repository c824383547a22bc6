"""The Kubernetes cluster of a test session, wherever it comes from.

1. The kubeconfig in TEST_KUBECONFIG. Never the one in KUBECONFIG, which may be somebody's production.
2. kind, where Docker's daemon answers: the cluster `downloadjobs-test`, which is kept for the next time.
3. The control plane of `tests/support/controlplane`, where Go is: it has no nodes, so its pods stay pending.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import support_controlplane as controlplane
from support_controlplane import ControlPlane, Tell

VARIABLE: Final = "TEST_KUBECONFIG"
KIND_NAME: Final = "downloadjobs-test"
LOOPBACK: Final = "127.0.0.1"

HOW: Final = (
    "needs a Kubernetes cluster: install Go, and a control plane is built, once; "
    f"or install kind and kubectl beside Docker; or name a kubeconfig in {VARIABLE}"
)

PROBE_SECONDS: Final = 20.0
"""For programs that should answer at once, on a busy machine."""


class NoClusterError(Exception):
    """There is none, and no way to make one; the message says how to get one."""


class ClusterError(Exception):
    """What was asked of a cluster failed; the message holds what the program said."""


class Cluster:
    """A cluster, by its administrator's kubeconfig.

    Args:
        kubeconfig: its current context is used.
        kubectl_path: the program.
        folder: for kubeconfigs that tests ask for, and for what kubectl keeps.
    """

    def __init__(self, kubeconfig: Path, kubectl_path: Path, folder: Path) -> None:
        self.kubeconfig = kubeconfig
        self.kubectl_path = kubectl_path
        self.folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "KUBECONFIG"},
            # A control plane may have the port of an earlier one, whose resources a shared cache still lists.
            "KUBECACHEDIR": str(folder / "kubectl-cache"),
            "KUBERC": "off",
        }

    def kubectl(
        self,
        *args: str,
        stdin: str | None = None,
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl.

        Args:
            args: its arguments.
            stdin: what it reads.
            check: raise `ClusterError` if it fails.
            kubeconfig: in place of the administrator's.
            timeout: seconds, after which `ClusterError` is raised.
        """
        command = [str(self.kubectl_path), f"--kubeconfig={kubeconfig or self.kubeconfig}", *args]
        try:
            done = subprocess.run(
                command,
                input="" if stdin is None else stdin,
                capture_output=True,
                text=True,
                env=self._environment,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise ClusterError(f"kubectl {' '.join(args)}: no end after {timeout:.0f} s") from late
        if check and done.returncode:
            raise ClusterError(
                f"kubectl {' '.join(args)}: exit code {done.returncode}\n{done.stderr.strip()}"
            )
        return done

    def apply(self, manifests: str, namespace: str | None = None) -> None:
        """Apply YAML or JSON. Raises `ClusterError`."""
        place = [] if namespace is None else [f"--namespace={namespace}"]
        self.kubectl("apply", "--filename=-", *place, stdin=manifests)

    def get_json(self, *args: str) -> dict[str, Any]:
        """`kubectl get`: an object, or a list of them under `items`. Raises `ClusterError`."""
        answer: dict[str, Any] = json.loads(self.kubectl("get", *args, "--output=json").stdout)
        return answer

    @contextmanager
    def namespace(self, prefix: str = "test") -> Iterator[str]:
        """A new namespace's name. It is deleted at the end, but its end is not waited for."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.kubectl("create", "namespace", name)
        try:
            yield name
        finally:
            with suppress(ClusterError):  # the test's own failure says more
                self.kubectl("delete", "namespace", name, "--wait=false")

    def kubeconfig_of(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig with the rights of a ServiceAccount, for an hour."""
        token = self.kubectl("create", "token", service_account, f"--namespace={namespace}").stdout.strip()
        config = self._config(self.kubeconfig)
        config["users"] = [{"name": service_account, "user": {"token": token}}]
        config["contexts"][0]["context"].update(user=service_account, namespace=namespace)
        return self._write(config)

    @cached_property
    def server(self) -> tuple[str, int]:
        """The API server's host and port."""
        return _address(self._config(self.kubeconfig))

    def kubeconfig_through(self, port: int, base: Path | None = None) -> Path:
        """A kubeconfig by which the API server is reached through a proxy on 127.0.0.1.

        Args:
            port: the proxy's.
            base: the kubeconfig with the credentials, in place of the administrator's.
        """
        config = self._config(base or self.kubeconfig)
        cluster = config["clusters"][0]["cluster"]
        host, _ = _address(config)
        cluster["server"] = urlsplit(cluster["server"])._replace(netloc=f"{LOOPBACK}:{port}").geturl()
        if host != LOOPBACK:  # the certificate is for the host, which is not where the client connects
            cluster.setdefault("tls-server-name", host)
        return self._write(config)

    def _config(self, kubeconfig: Path) -> dict[str, Any]:
        """A kubeconfig's current context alone, with the files inlined that it names."""
        shown = self.kubectl(
            "config", "view", "--raw", "--minify", "--flatten", "--output=json", kubeconfig=kubeconfig
        )
        config: dict[str, Any] = json.loads(shown.stdout)
        return config

    def _write(self, config: dict[str, Any]) -> Path:
        descriptor, path = tempfile.mkstemp(dir=self.folder, prefix="kubeconfig-")  # for this user only
        with os.fdopen(descriptor, "w") as file:
            json.dump(config, file)
        return Path(path)


def _address(config: dict[str, Any]) -> tuple[str, int]:
    url = urlsplit(config["clusters"][0]["cluster"]["server"])
    assert url.hostname is not None
    return url.hostname, url.port or 443


@dataclass(frozen=True)
class Source:
    """Where a session's cluster comes from."""

    name: str
    prepare: Callable[[Tell], None]
    """What takes minutes the first time, and is kept; raises `ClusterError`."""

    running: Callable[[Path], AbstractContextManager[Cluster]]
    """The cluster, for a session; the folder is for whatever it writes."""


def find_source() -> Source:
    """Where the cluster comes from on this machine. Raises `NoClusterError`."""
    if os.environ.get(VARIABLE):
        return Source(VARIABLE, _prepare_given, _given)
    if find_kubectl() and shutil.which("kind") and shutil.which("docker") and _runs("docker", "info"):
        return Source("kind", _prepare_kind, _kind)
    if controlplane.go() or controlplane.built():
        return Source("control plane", _prepare_control_plane, _control_plane)
    raise NoClusterError(HOW)


def find_kubectl() -> Path | None:
    """The kubectl that is there: that of KUBECTL, on PATH, or built with the control plane."""
    found = shutil.which(os.environ.get("KUBECTL") or "kubectl")
    if found:
        return Path(found)
    programs = controlplane.built()
    return programs / controlplane.KUBECTL if programs else None


def _kubectl() -> Path:
    found = find_kubectl()
    if found is None:
        raise NoClusterError("needs kubectl on PATH, or its path in KUBECTL, or Go to build it")
    return found


def _prepare_given(tell: Tell) -> None:
    path = Path(os.environ[VARIABLE])
    if not path.is_file():
        raise ClusterError(f"{VARIABLE} names {path}, and there is no such file")
    if find_kubectl() is None and controlplane.go():
        _prepare_control_plane(tell)


@contextmanager
def _given(folder: Path) -> Iterator[Cluster]:
    yield Cluster(Path(os.environ[VARIABLE]).absolute(), _kubectl(), folder)


def _prepare_kind(tell: Tell) -> None:
    if KIND_NAME not in _run("kind", "get", "clusters").split():
        tell(f"Making the cluster {KIND_NAME} with kind, once: a minute or two.")
        with tempfile.TemporaryDirectory() as folder:
            # Not into ~/.kube/config, whose current context it would change.
            config = f"--kubeconfig={folder}/config"
            _run("kind", "create", "cluster", f"--name={KIND_NAME}", "--wait=120s", config, timeout=900)


@contextmanager
def _kind(folder: Path) -> Iterator[Cluster]:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(_run("kind", "get", "kubeconfig", f"--name={KIND_NAME}"), encoding="utf-8")
    yield Cluster(kubeconfig, _kubectl(), folder)


def _prepare_control_plane(tell: Tell) -> None:
    try:
        controlplane.build(tell)
    except controlplane.ControlPlaneError as error:
        raise ClusterError(str(error)) from None


@contextmanager
def _control_plane(folder: Path) -> Iterator[Cluster]:
    programs = controlplane.build()
    with ControlPlane(programs, folder) as running:
        yield Cluster(running.kubeconfig, find_kubectl() or programs / controlplane.KUBECTL, folder)


def _runs(*command: str) -> bool:
    try:
        return (
            subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False


def _run(*command: str, timeout: float = PROBE_SECONDS) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{' '.join(command)}: no end after {timeout:.0f} s") from None
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout
