"""What pods of other namespaces reach of an installation, and what its own pods reach.

It takes a network that enforces NetworkPolicies, as kind's does, or Calico's: `make test-network`. Where
policies are ignored, everything is reached, and these tests fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pytest

from support_e2e import COMPONENTS, Installation, Installer, installer_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LISTENING: Final = "0A"
"""The state of a socket in /proc/net/tcp."""

LOOPBACK: Final = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}

SERVER_PORT: Final = 8000

SCAN: Final = """
import concurrent.futures, json, socket, sys

def reached(address):
    try:
        socket.create_connection(address, timeout=3).close()
    except OSError:
        return False
    return True

addresses = [tuple(one) for one in json.load(sys.stdin)]
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    print(json.dumps([one for one, open in zip(addresses, pool.map(reached, addresses)) if open]))
"""

Ports = dict[str, set[int]]
"""Of a component's pods."""


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installer]:
    """The cluster of this file."""
    with installer_in(tmp_path_factory.mktemp("network")) as found:
        yield found


class Outsider:
    """A pod in a namespace of its own, that knows Python and serves a page."""

    def __init__(self, installer: Installer, namespace: str) -> None:
        self._installer = installer
        self.namespace = namespace
        secure = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "outsider", "labels": {"app": "outsider"}},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "python",
                        "image": f"downloadjobs/worker:{installer.tag}",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "-m", "http.server", str(SERVER_PORT)],
                        "securityContext": secure,
                    }
                ],
            },
        }
        installer.cluster.apply(json.dumps(pod), namespace)
        installer.cluster.kubectl(
            f"--namespace={namespace}",
            "wait",
            "--for=condition=Ready",
            "pod/outsider",
            "--timeout=90s",
            timeout=100,
        )

    @property
    def address(self) -> str:
        """Its IP address."""
        found = self._installer.cluster.get_json(f"--namespace={self.namespace}", "pod/outsider")
        return str(found["status"]["podIP"])

    def reached(self, addresses: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those of some addresses that it can connect to."""
        done = self._installer.cluster.kubectl(
            f"--namespace={self.namespace}",
            "exec",
            "--stdin",
            "pod/outsider",
            "--",
            "python",
            "-c",
            SCAN,
            stdin=json.dumps(addresses),
            timeout=120,
        )
        return [(host, port) for host, port in json.loads(done.stdout)]


@contextmanager
def outsider(installer: Installer) -> Iterator[Outsider]:
    """A namespace with a pod to look from."""
    with installer.cluster.namespace("outside") as namespace:
        yield Outsider(installer, namespace)


def listening(sockets: str) -> set[int]:
    """The ports that /proc/net/tcp and tcp6 show, but for those on loopback."""
    found = re.findall(r"^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) ", sockets, re.MULTILINE)
    return {int(port, 16) for host, port, state in found if state == LISTENING and host not in LOOPBACK}


def ports_of(installation: Installation) -> dict[tuple[str, int], str]:
    """Every address that a pod of the release listens on, with its component."""
    found = {}
    for component in COMPONENTS:
        sockets = installation.exec(component, "cat", "/proc/net/tcp", "/proc/net/tcp6")
        for pod in installation.pods(component):
            for port in listening(sockets):
                found[pod["status"]["podIP"], port] = component
    return found


def by_component(addresses: list[tuple[str, int]], components: Mapping[tuple[str, int], str]) -> Ports:
    """Ports, by the component that they are of."""
    found: Ports = {}
    for address in addresses:
        found.setdefault(components[address], set()).add(address[1])
    return found


@contextmanager
def installed(installer: Installer, values: Mapping[str, Any]) -> Iterator[Installation]:
    """An installation that has a worker, whose ports can be looked at."""
    with installer.installed({"worker": {"autoscaling": {"min": 1}}}, values) as found:
        yield found


@pytest.fixture(scope="module")
def default(installer: Installer) -> Iterator[Installation]:
    """An installation with the chart's own policies."""
    with installed(installer, {}) as found:
        yield found


def test_another_namespace_reaches_only_what_is_meant_for_it(default: Installation) -> None:
    """Of all ports that pods listen on, others reach metrics and the store's S3; not the API, nor Redis."""
    there = ports_of(default)
    assert {6379, 3000} <= {port for _, port in there}, "the scan must have something to be refused"
    with outsider(default.installer) as other:
        found = by_component(other.reached(list(there)), there)
    assert found == {"api": {9090}, "worker": {9090}, "operator": {8080}, "s3": {8333}}


def test_pods_reach_nothing_else(default: Installation) -> None:
    """API, worker and operator reach no other namespace's pods, which one of that namespace does."""
    script = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()\n"
        "except OSError: print('refused')\n"
        "else: print('reached')\n"
    )
    with outsider(default.installer) as other, outsider(default.installer) as third:
        server = other.address
        assert third.reached([(server, SERVER_PORT)]) == [(server, SERVER_PORT)]
        for component in ("api", "worker", "operator"):
            said = default.exec(component, "python", "-c", script, server, str(SERVER_PORT))
            assert (component, said.strip()) == (component, "refused")


def test_only_those_that_values_name(installer: Installer) -> None:
    """With apiFrom, metricsFrom and objectStoreFrom, each namespace reaches just what it is named for."""
    with outsider(installer) as ingress, outsider(installer) as monitoring, outsider(installer) as other:

        def only(who: Outsider) -> list[dict[str, Any]]:
            labels = {"kubernetes.io/metadata.name": who.namespace}
            return [{"namespaceSelector": {"matchLabels": labels}}]

        policy = {
            "apiFrom": only(ingress),
            "metricsFrom": only(monitoring),
            "objectStoreFrom": only(ingress),
        }
        with installed(installer, {"networkPolicy": policy}) as found:
            there = ports_of(found)
            assert by_component(ingress.reached(list(there)), there) == {"api": {3000}, "s3": {8333}}
            assert by_component(monitoring.reached(list(there)), there) == {
                "api": {9090}, "worker": {9090}, "operator": {8080},
            }  # fmt: skip
            assert other.reached(list(there)) == []
