"""dev/kind, with stand-ins for kind, Docker, kubectl, Helm and make that note how they are called."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from support_tools import require_tool

ROOT: Final = Path(__file__).parents[2]
SCRIPT: Final = ROOT / "dev" / "kind"

STAND_IN: Final = """#!/bin/sh
name=$(basename "$0")
echo "$name $*" >> "$CALLS"
case "$name $*" in
    "kind get clusters") cat "$CLUSTERS" ;;
    "docker info") exit "${DOCKER_EXIT:-0}" ;;
    "kubectl --context "*" version") exit "${CLUSTER_EXIT:-0}" ;;
    # As kubectl does: a stand-in that ends without having read would leave sed a broken pipe.
    *"--filename -") cat > /dev/null ;;
    *port-forward*) echo "Forwarding from 127.0.0.1:8333 -> 8333"; exec sleep 60 ;;
esac
"""


class Kind:
    """dev/kind in a checkout that has nothing else of its own."""

    def __init__(self, folder: Path) -> None:
        self._calls = folder / "calls"
        self._clusters = folder / "clusters"
        self._programs = folder / "programs"
        self._root = folder / "checkout"
        self._programs.mkdir()
        for name in ("docker", "downloadjobs", "helm", "kind", "kubectl", "make"):
            (self._programs / name).write_text(STAND_IN, encoding="utf-8")
            (self._programs / name).chmod(0o755)
        for name in ("dev", ".venv/bin", "manifests"):
            (self._root / name).mkdir(parents=True)
        shutil.copy(SCRIPT, self._root / "dev")
        (self._root / ".venv" / "bin" / "downloadjobs").symlink_to(self._programs / "downloadjobs")
        (self._root / "manifests" / "samples").symlink_to(ROOT / "manifests" / "samples")
        self._calls.touch()
        self.has()

    def has(self, *clusters: str) -> None:
        """These clusters are there."""
        self._clusters.write_text("\n".join(clusters), encoding="utf-8")

    def lacks(self, program: str) -> None:
        """A program is not there."""
        (self._programs / program).unlink()

    def run(self, verb: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it."""
        known = {
            "PATH": f"{self._programs}:/usr/bin:/bin",
            "CALLS": str(self._calls),
            "CLUSTERS": str(self._clusters),
            **environment,
        }
        return subprocess.run(
            [require_tool("bash"), self._root / "dev" / "kind", verb],
            env=known,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def called(self) -> list[str]:
        """How programs were called so far."""
        return self._calls.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def kind(tmp_path: Path) -> Kind:
    """The script, where there is no cluster yet."""
    return Kind(tmp_path)


def test_up(kind: Kind) -> None:
    """`up` makes the cluster with the pinned node, builds and loads the images, and says what comes next."""
    done = kind.run("up", TAG="try")
    assert done.returncode == 0, done.stderr
    (create,) = (call for call in kind.called if call.startswith("kind create"))
    node = r"kindest/node:v[\d.]+@sha256:[0-9a-f]{64}"
    assert re.fullmatch(rf"kind create cluster --name downloadjobs --image {node} --wait 180s", create)
    images = " ".join(f"downloadjobs/{name}:try" for name in ("api", "worker", "operator"))
    assert kind.called[-2:] == [
        "make --no-print-directory images TAG=try DOCKER=docker",
        f"kind load docker-image --name downloadjobs {images}",
    ]
    assert done.stdout.endswith("Next:\n\n  make kind-demo\n")


def test_up_again(kind: Kind) -> None:
    """A cluster that is there is taken; one whose name only begins the same is not."""
    kind.has("downloadjobs-test")
    kind.run("cluster")
    assert any(call.startswith("kind create") for call in kind.called)
    again = len(kind.called)
    kind.has("downloadjobs-test", "downloadjobs")
    assert kind.run("cluster").stdout == "The cluster downloadjobs is there.\n"
    assert not any(call.startswith("kind create") for call in kind.called[again:])


def test_demo_touches_its_own_cluster_alone(kind: Kind) -> None:
    """Each command of the demo names kind's cluster: the current context, perhaps production, is not used."""
    done = kind.run("demo", KIND_CLUSTER="mine")
    assert done.returncode == 0, done.stderr
    for call in kind.called:
        if call.startswith("kubectl"):
            assert call.startswith("kubectl --context kind-mine "), call
        if call.startswith("helm"):
            assert " --kube-context kind-mine " in call, call
        if call.startswith("downloadjobs get"):
            assert " --context kind-mine " in call, call
    assert "make kind-down" in done.stdout


def test_demo_goes_from_the_chart_to_the_zip(kind: Kind) -> None:
    """The demo installs, waits, tests, applies a DownloadJob of a new name, and fetches its zip."""
    done = kind.run("demo", TAG="try", KIND_S3_PORT="9333")
    assert done.returncode == 0, done.stderr
    calls = [
        re.sub(r"--context kind-downloadjobs --namespace downloadjobs ", "", call) for call in kind.called
    ]
    wanted = [
        r"helm upgrade --install .*--set image\.tag=try",
        r"kubectl rollout status deployment/downloadjobs-api ",
        r"helm test downloadjobs ",
        r"kubectl apply --filename -",
        r"kubectl wait --for=condition=Finished downloadjob/demo-\d+ ",
        r"kubectl port-forward service/downloadjobs-s3 9333:8333 ",
        r"downloadjobs get dj/demo-\d+ .*--store http://localhost:9333",
        r"kubectl exec deployment/downloadjobs-operator -- downloadjobs autoscaler explain",
    ]
    at = -1
    for pattern in wanted:
        at = next((place for place in range(at + 1, len(calls)) if re.match(pattern, calls[place])), -1)
        assert at >= 0, f"{pattern} is not called, or too early: {calls}"


@pytest.mark.parametrize(
    ("verb", "environment", "message"),
    [
        ("up", {"DOCKER_EXIT": "1"}, "does the daemon run"),
        ("demo", {"CLUSTER_EXIT": "1"}, "first: make kind-up"),
        ("install", {}, "give one of"),
    ],
)
def test_what_is_missing_is_told(kind: Kind, verb: str, environment: dict[str, str], message: str) -> None:
    """Without Docker, a cluster or a verb it fails, says what to do, and has changed nothing."""
    done = kind.run(verb, **environment)
    assert done.returncode == 1
    assert message in done.stderr
    assert not any(call.startswith(("kind create", "helm", "make")) for call in kind.called)


def test_a_missing_program_is_named(kind: Kind) -> None:
    """A program that is not there is named."""
    kind.lacks("kind")
    done = kind.run("down")
    assert (done.returncode, done.stderr) == (1, "dev/kind: needs kind, which is not on PATH\n")


def test_down(kind: Kind) -> None:
    """`down` removes this cluster and no other."""
    assert kind.run("down", KIND_CLUSTER="mine").returncode == 0
    assert kind.called == ["kind delete cluster --name mine"]
