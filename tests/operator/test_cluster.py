"""The harness of the cluster tests: the session's cluster, and the control plane that can be one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from support_chaos_proxy import Proxy
from support_cluster import KIND_NAME, Cluster, ClusterError, find_source
from support_controlplane import ControlPlane, ControlPlaneError
from support_worker import eventually

pytestmark = pytest.mark.cluster

SUPPORT = Path(__file__).parents[1] / "support"

PARENT = """
import sys, time
from pathlib import Path
from support_controlplane import ControlPlane

with ControlPlane(Path(sys.argv[1]), Path(sys.argv[2])) as running:
    print(running.pid, flush=True)
    time.sleep(600)
"""

READER = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: %s}]
"""

OWNED = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: %s}]
"""

# Says what it was told, and answers for one cluster.
KIND = """
echo "$*" >>"$TOLD"
case "$*" in
    "get clusters") echo "$THERE" ;;
    "get kubeconfig"*) echo "the kubeconfig" ;;
esac
"""


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def data_folders(folder: Path) -> list[Path]:
    """What a control plane keeps while it runs."""
    return list(folder.glob("controlplane-*"))


def test_kubectl_tells_what_failed(cluster: Cluster) -> None:
    """An error holds what kubectl said; without `check` it is an exit code."""
    with pytest.raises(ClusterError, match=r'namespaces "not-there" not found'):
        cluster.get_json("namespace", "not-there")
    assert cluster.kubectl("get", "namespace", "not-there", check=False).returncode == 1


def test_a_namespace_ends_with_its_test(cluster: Cluster) -> None:
    """Two namespaces with one prefix are two, and each is deleted with what is in it."""
    with cluster.namespace("harness") as one, cluster.namespace("harness") as other:
        assert one != other
        cluster.kubectl("create", "configmap", "left", f"--namespace={one}")

    def gone() -> bool:
        return cluster.kubectl("get", "namespace", one, check=False).returncode == 1

    eventually(gone, 60, "the namespace's end")


def test_kubeconfig_of_has_only_the_service_accounts_rights(cluster: Cluster) -> None:
    """A ServiceAccount's kubeconfig may do what its roles say, in its namespace, and nothing else."""
    with cluster.namespace("harness") as namespace:
        cluster.apply(READER % namespace, namespace)
        kubeconfig = cluster.kubeconfig_of(namespace, "reader")
        assert kubeconfig.stat().st_mode & 0o077 == 0
        who = cluster.kubectl(
            "auth", "whoami", "--output=jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig
        )
        assert who.stdout == f"system:serviceaccount:{namespace}:reader"
        cluster.kubectl("get", "configmaps", kubeconfig=kubeconfig)  # its own namespace is the default
        for denied in ("secrets", "configmaps --namespace=default", "namespaces"):
            with pytest.raises(ClusterError, match="Forbidden"):
                cluster.kubectl("get", *denied.split(), kubeconfig=kubeconfig)


def test_garbage_is_collected(cluster: Cluster) -> None:
    """What belongs to a deleted object is deleted."""
    with cluster.namespace("harness") as namespace:
        cluster.kubectl("create", "configmap", "owner", f"--namespace={namespace}")
        owner = cluster.get_json("configmap", "owner", f"--namespace={namespace}")
        cluster.apply(OWNED % owner["metadata"]["uid"], namespace)
        cluster.kubectl("delete", "configmap", "owner", f"--namespace={namespace}")

        def gone() -> bool:
            found = cluster.kubectl("get", "configmap", "owned", f"--namespace={namespace}", check=False)
            return found.returncode == 1

        eventually(gone, 60, "the end of what was owned")


def test_the_api_can_be_reached_through_a_proxy(cluster: Cluster) -> None:
    """A kubeconfig through a proxy has the same credentials, and its traffic passes there alone."""
    host, port = cluster.server
    if host != "127.0.0.1":
        pytest.skip("needs a cluster on 127.0.0.1, where the proxy connects")
    with cluster.namespace("harness") as namespace:
        cluster.kubectl("create", "serviceaccount", "someone", f"--namespace={namespace}")
        base = cluster.kubeconfig_of(namespace, "someone")
        with Proxy(port) as proxy:
            through = cluster.kubeconfig_through(proxy.port, base)
            who = cluster.kubectl("auth", "whoami", kubeconfig=through)
            assert f"system:serviceaccount:{namespace}:someone" in who.stdout
        assert cluster.kubectl("auth", "whoami", kubeconfig=through, check=False).returncode == 1
        cluster.kubectl("auth", "whoami", kubeconfig=base)


def test_the_control_plane_ends_with_its_test_run(control_plane_programs: Path, tmp_path: Path) -> None:
    """When the process that started it is killed, the control plane ends, and its data is gone."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, control_plane_programs, tmp_path],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        assert data_folders(tmp_path)
        parent.kill()
    eventually(lambda: not alive(pid) and not data_folders(tmp_path), what="the control plane's end")


def test_two_control_planes_run_side_by_side(control_plane_programs: Path, tmp_path: Path) -> None:
    """Each has a port and objects of its own; one that is told to end leaves its kubeconfig and its log."""
    clusters = []
    with (
        ControlPlane(control_plane_programs, new(tmp_path, "one")) as one,
        ControlPlane(control_plane_programs, new(tmp_path, "other")) as other,
    ):
        for running in (one, other):
            folder = running.kubeconfig.parent
            clusters.append(Cluster(running.kubeconfig, control_plane_programs / "kubectl", folder))
        assert clusters[0].server != clusters[1].server
        clusters[0].kubectl("create", "namespace", "mine")
        assert clusters[1].kubectl("get", "namespace", "mine", check=False).returncode == 1
        os.kill(one.pid, signal.SIGTERM)
        assert one.stop() == 0
        assert not data_folders(one.kubeconfig.parent)
        clusters[1].kubectl("get", "namespace", "default")


def test_a_control_plane_says_why_it_does_not_start(control_plane_programs: Path, tmp_path: Path) -> None:
    """A port that is taken is an error that says so."""
    with ControlPlane(control_plane_programs, new(tmp_path, "one")) as running:
        _, port = Cluster(running.kubeconfig, control_plane_programs / "kubectl", tmp_path).server
        late = ControlPlane(control_plane_programs, new(tmp_path, "late"), port)
        with pytest.raises(ControlPlaneError, match=r"the API's port: .*address already in use"):
            late.start()
        assert not data_folders(late.kubeconfig.parent)


@pytest.mark.parametrize(
    ("there", "calls"), [("other", ["get", "create", "get"]), (KIND_NAME, ["get", "get"])]
)
def test_kind_makes_its_cluster_once(
    there: str, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With kind and Docker there, its cluster is made, or taken as it is; ~/.kube stays as it is."""
    programs = new(tmp_path, "programs")
    for name, script in {"docker": "", "kubectl": "", "kind": KIND}.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}")
        (programs / name).chmod(0o700)
    told = tmp_path / "told"
    for name, value in {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "THERE": there,
        "TOLD": str(told),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("KUBECTL", "TEST_KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    source = find_source()
    assert source.name == "kind"
    source.prepare(print)
    with source.running(tmp_path) as found:
        assert found.kubeconfig.read_text() == "the kubeconfig\n"
        assert found.kubeconfig.stat().st_mode & 0o077 == 0
    lines = told.read_text().splitlines()
    assert [line.split()[0] for line in lines] == calls
    assert all("--kubeconfig=" in line for line in lines if line.startswith("create"))


def new(folder: Path, name: str) -> Path:
    """Make a folder in another."""
    path = folder / name
    path.mkdir()
    return path
