"""What the operator's ServiceAccount and the roles for people may do, and may not, on a real API server."""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from support_cluster import Cluster
from support_tools import require_tool
from support_worker import eventually

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "downloadjobs"
CRD: Final = CHART / "files" / "crd.yaml"
INSTALLED: Final = ROOT / "manifests" / "downloadjobs.yaml"
TEAM_ROLES: Final = ROOT / "manifests" / "rbac" / "team-role.yaml"
OPERATOR: Final = "downloadjobs-operator"
WORKER: Final = "downloadjobs-worker"

JOBS: Final = "downloadjobs.downloadjobs.dev"
LEASES: Final = "leases.coordination.k8s.io"


class Access(NamedTuple):
    """A verb, and what it is about: a resource, perhaps one object's name, perhaps a subresource."""

    verb: str
    resource: str
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f" {self.subresource}" if self.subresource else "")


EVENTS: Final = [Access("create", "events"), Access("patch", "events")]

WATCHED: Final = [
    *(Access(verb, JOBS) for verb in ("get", "list", "watch", "patch", "delete")),
    Access("patch", JOBS, "status"),
    *EVENTS,
]
"""What the operator may in each namespace whose DownloadJobs it serves."""

HOME: Final = [
    Access("create", LEASES),
    *(Access(verb, f"{LEASES}/{OPERATOR}") for verb in ("get", "update", "patch")),
    # The autoscaler: one Deployment's scale, the pods beside it, and Events about it.
    *(Access(verb, f"deployments.apps/{WORKER}") for verb in ("get", "list", "watch")),
    Access("patch", f"deployments.apps/{WORKER}", "scale"),
    *(Access(verb, "pods") for verb in ("list", "watch", "patch")),
    *EVENTS,
]
"""What it may in its own namespace, beside that."""

OPERATOR_MAY: Final = list(dict.fromkeys([*WATCHED, *HOME]))

OPERATOR_MAY_NOT: Final = [
    # Only mirrors are created, and in their own namespace.
    *(Access(verb, JOBS) for verb in ("create", "update", "deletecollection")),
    Access("update", JOBS, "status"),
    Access("get", "events"),
    Access("list", "events"),
    Access("delete", "events"),
    *(Access(verb, f"{LEASES}/another") for verb in ("get", "update", "patch", "delete")),
    *(Access(verb, LEASES) for verb in ("list", "watch", "delete")),
    Access("delete", f"{LEASES}/{OPERATOR}"),
    *(Access(verb, "secrets") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *(Access(verb, "configmaps") for verb in ("get", "list", "create", "patch")),
    *(Access(verb, "pods") for verb in ("get", "create", "update", "delete")),
    Access("create", "pods", "exec"),
    Access("get", "pods", "log"),
    Access("create", "pods", "eviction"),
    *(Access(verb, "deployments.apps") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    Access("patch", "deployments.apps", "scale"),
    *(Access(verb, f"deployments.apps/{WORKER}") for verb in ("update", "patch", "delete")),
    Access("patch", "deployments.apps/downloadjobs-api", "scale"),
    *(Access(verb, "replicasets.apps") for verb in ("get", "list", "patch")),
    *(Access(verb, "jobs.batch") for verb in ("create", "delete")),
    *(Access(verb, "services") for verb in ("get", "create")),
    *(Access(verb, "serviceaccounts") for verb in ("get", "create", "impersonate")),
    Access("create", "serviceaccounts", "token"),
    *(Access(verb, "roles.rbac.authorization.k8s.io") for verb in ("create", "patch", "escalate", "bind")),
    Access("create", "rolebindings.rbac.authorization.k8s.io"),
    Access("patch", "kopfpeerings.kopf.dev"),
    Access("*", "*"),
]

NOWHERE: Final = [
    *(Access(verb, "namespaces") for verb in ("get", "list", "watch", "create", "delete")),
    *(Access(verb, "nodes") for verb in ("get", "list")),
    *(Access(verb, "persistentvolumes") for verb in ("get", "list")),
    *(
        Access(verb, "customresourcedefinitions.apiextensions.k8s.io")
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    ),
    *(
        Access(verb, "clusterroles.rbac.authorization.k8s.io")
        for verb in ("create", "patch", "escalate", "bind")
    ),
    Access("create", "clusterrolebindings.rbac.authorization.k8s.io"),
    Access("create", "validatingwebhookconfigurations.admissionregistration.k8s.io"),
    Access("create", "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
    Access("delete", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    Access("patch", "clusterkopfpeerings.kopf.dev"),
    *(Access("impersonate", what) for what in ("users", "groups")),
]
"""What has no namespace, or is asked for in all of them."""

TEAM_MAY: Final = [
    *(Access(verb, JOBS) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    Access("get", JOBS, "status"),
    *(Access(verb, "events") for verb in ("get", "list", "watch")),
]
TEAM_MAY_NOT: Final = [
    Access("patch", JOBS, "status"),
    Access("update", JOBS, "status"),
    Access("deletecollection", JOBS),
    Access("create", "events"),
    Access("get", "secrets"),
    Access("get", "pods"),
]
VIEWERS_MAY: Final = [access for access in TEAM_MAY if access.verb in {"get", "list", "watch"}]
VIEWERS_MAY_NOT: Final = [
    *TEAM_MAY_NOT,
    *(Access(verb, JOBS) for verb in ("create", "update", "patch", "delete")),
]


@dataclass(frozen=True)
class Account:
    """A ServiceAccount's view of a cluster."""

    cluster: Cluster
    namespace: str
    kubeconfig: Path

    def may(self, access: Access, *where: str) -> bool:
        """Whether the API server would let it, in its namespace or elsewhere."""
        place = where or ("-n", self.namespace)
        subresource = [f"--subresource={access.subresource}"] if access.subresource else []
        question = ("auth", "can-i", access.verb, access.resource, *subresource, *place)
        answer = self.cluster.kubectl(*question, kubeconfig=self.kubeconfig, check=False)
        said = answer.stdout.split()
        assert said[:1] in (["yes"], ["no"]), answer
        assert (said[0] == "yes") == (answer.returncode == 0)
        return said[0] == "yes"

    def rules(self, namespace: str) -> set[Access]:
        """All that it may do in a namespace, as the API server knows it."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        answer = self("create", "-f-", "--validate=false", "-o", "json", stdin=json.dumps(review))
        status = json.loads(answer.stdout)["status"]
        assert not status["incomplete"]
        return {
            Access(verb, f"{resource}.{group}".rstrip(".") + (f"/{name}" if name else ""), subresource)
            for rule in status["resourceRules"]
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for resource, _, subresource in (entry.partition("/") for entry in rule["resources"])
            for name in rule.get("resourceNames") or [""]
        }

    def __call__(
        self, *args: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as this account."""
        return self.cluster.kubectl(*args, stdin=stdin, check=check, kubeconfig=self.kubeconfig)

    def request(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Ask the API server without kubectl, which reads an object before it patches it.

        Raises `urllib.error.HTTPError`.
        """
        config = json.loads(self.kubeconfig.read_text(encoding="utf-8"))
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(server["certificate-authority-data"]).decode()
        headers = {"Authorization": f"Bearer {user['token']}", "Content-Type": "application/merge-patch+json"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(server["server"] + path, data, headers, method=method)  # noqa: S310 - the cluster's address
        with urlopen(request, timeout=30, context=ssl.create_default_context(cadata=authority)) as answer:  # noqa: S310
            text: dict[str, Any] = json.load(answer)
        return text

    def refused(self, *args: str, stdin: str | None = None) -> bool:
        """Whether the API server forbids a real request."""
        done = self(*args, stdin=stdin, check=False)
        return bool(done.returncode) and "orbidden" in done.stderr


def moved(documents: str, namespace: str) -> str:
    """Objects of another namespace, and what they refer to, in this one."""
    objects = [one for one in yaml.safe_load_all(documents) if one]
    for one in objects:
        one["metadata"]["namespace"] = namespace
        for subject in one.get("subjects", []):
            subject["namespace"] = namespace
    return yaml.safe_dump_all(objects)


def job(name: str) -> str:
    """A DownloadJob's manifest."""
    head = {"apiVersion": "downloadjobs.dev/v1", "kind": "DownloadJob", "metadata": {"name": name}}
    return json.dumps({**head, "spec": {"fileIds": [10000]}})


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Cluster:
    """A server that knows DownloadJobs."""
    cluster.kubectl("apply", "--server-side", f"--filename={CRD}")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{JOBS}")
    return cluster


@pytest.fixture(scope="module")
def elsewhere(server: Cluster) -> Iterator[str]:
    """A namespace in which nobody was given anything."""
    with server.namespace("rbac-other") as namespace:
        yield namespace


@pytest.fixture(scope="module")
def operator(server: Cluster) -> Iterator[Account]:
    """The operator's ServiceAccount in a namespace with exactly the rules of manifests/."""
    with server.namespace("rbac") as namespace:
        server.apply(moved(INSTALLED.read_text(encoding="utf-8"), namespace))
        yield Account(server, namespace, server.kubeconfig_of(namespace, OPERATOR))


def people(server: Cluster, namespace: str, role: str) -> Account:
    """Somebody who was given a role of team-role.yaml."""
    server.kubectl("create", "serviceaccount", role, "-n", namespace)
    bound = (f"--role={role}", f"--serviceaccount={namespace}:{role}")
    server.kubectl("create", "rolebinding", role, "-n", namespace, *bound)
    return Account(server, namespace, server.kubeconfig_of(namespace, role))


@pytest.fixture(scope="module")
def team(server: Cluster) -> Iterator[tuple[Account, Account]]:
    """One of a team, and somebody who may only look on."""
    with server.namespace("rbac-team") as namespace:
        server.apply(TEAM_ROLES.read_text(encoding="utf-8"), namespace)
        yield people(server, namespace, "downloadjobs-team"), people(server, namespace, "downloadjobs-view")


@pytest.fixture
def a_job(operator: Account) -> str:
    """A DownloadJob in the operator's namespace."""
    name = f"dj-{secrets.token_hex(4)}"
    operator.cluster.apply(job(name), operator.namespace)
    return name


@pytest.mark.parametrize("access", OPERATOR_MAY, ids=str)
def test_operator_may(operator: Account, access: Access) -> None:
    """The operator has what it needs, in its namespace."""
    assert operator.may(access)


@pytest.mark.parametrize("access", OPERATOR_MAY_NOT, ids=str)
def test_operator_may_not(operator: Account, access: Access) -> None:
    """The operator has nothing else: no secrets, no new DownloadJobs or pods, no way to more rights."""
    assert not operator.may(access)


@pytest.mark.parametrize("access", NOWHERE, ids=str)
def test_operator_has_nothing_cluster_wide(operator: Account, access: Access) -> None:
    """The operator may do nothing to what has no namespace."""
    assert not operator.may(access, "--all-namespaces")


@pytest.mark.parametrize("access", OPERATOR_MAY, ids=str)
def test_operator_may_not_elsewhere(operator: Account, elsewhere: str, access: Access) -> None:
    """What the operator may do it may do in its namespace only: in no other, and not in all of them."""
    assert not operator.may(access, "-n", elsewhere)
    assert not operator.may(access, "--all-namespaces")


def test_operator_may_exactly_this(operator: Account, elsewhere: str) -> None:
    """The API server's own list of the operator's rights is the table, beside what every account has."""
    everybodys = operator.rules(elsewhere)
    assert operator.rules(operator.namespace) - everybodys == set(OPERATOR_MAY)


def test_operator_works_on_jobs(operator: Account, a_job: str) -> None:
    """Real requests: get, list, watch, a patch, a patch of the status, and the deletion at a job's time."""
    here = ("-n", operator.namespace)
    operator("get", "dj", a_job, *here)
    assert f"/{a_job}\n" in operator("get", "dj", *here, "-oname").stdout
    # The list, and then a watch that ends at once.
    operator("wait", "--for=create", f"dj/{a_job}", *here, "--timeout=5s")
    path = f"/apis/downloadjobs.dev/v1/namespaces/{operator.namespace}/downloadjobs/{a_job}"
    for finalizers in (["downloadjobs.dev/job"], None):
        operator.request("PATCH", path, {"metadata": {"finalizers": finalizers}})
    operator.request("PATCH", f"{path}/status", {"status": {"phase": "Queued"}})
    assert operator.cluster.get_json("dj", a_job, *here)["status"] == {"phase": "Queued"}
    operator("delete", "dj", a_job, *here, "--wait=false")


def test_operator_watches_jobs(operator: Account, elsewhere: str) -> None:
    """A watch of its own namespace is let in, one of another or of all is not."""
    watch = "?watch=true&timeoutSeconds=1"
    path = "/apis/downloadjobs.dev/v1/namespaces/{}/downloadjobs" + watch
    operator("get", "--raw", path.format(operator.namespace))
    assert operator.refused("get", "--raw", path.format(elsewhere))
    assert operator.refused("get", "--raw", f"/apis/downloadjobs.dev/v1/downloadjobs{watch}")


def test_operator_writes_events(operator: Account, a_job: str) -> None:
    """An Event is created, and counted up by a patch; no Event can be read."""
    here = ("-n", operator.namespace)
    about = {
        "apiVersion": "downloadjobs.dev/v1",
        "kind": "DownloadJob",
        "name": a_job,
        "namespace": operator.namespace,
    }
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{a_job}.1"},
        "involvedObject": about,
        "reason": "Queued",
        "type": "Normal",
    }
    operator("create", "-f-", *here, stdin=json.dumps(event))
    path = f"/api/v1/namespaces/{operator.namespace}/events/{a_job}.1"
    assert operator.request("PATCH", path, {"count": 2})["count"] == 2
    assert operator.refused("get", "--raw", path)


def test_operator_holds_its_lease(operator: Account) -> None:
    """The operator creates, reads, updates and patches its own Lease, and reads no other."""
    here = ("-n", operator.namespace)
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": OPERATOR}}
    operator("create", "-f-", *here, stdin=json.dumps({**lease, "spec": {"holderIdentity": "a"}}))
    held: dict[str, Any] = json.loads(operator("get", "lease", OPERATOR, *here, "-ojson").stdout)
    held["spec"]["holderIdentity"] = "b"
    operator("replace", "-f-", *here, stdin=json.dumps(held))
    operator("patch", "lease", OPERATOR, *here, "--type=merge", '-p={"spec":{"holderIdentity":"c"}}')
    assert operator.cluster.get_json("lease", OPERATOR, *here)["spec"]["holderIdentity"] == "c"
    other = {**lease, "metadata": {"name": "another"}}
    operator.cluster.kubectl("create", "-f-", *here, stdin=json.dumps(other))
    assert operator.refused("get", "lease", "another", *here)
    assert operator.refused("patch", "lease", "another", *here, "--type=merge", '-p={"spec":{}}')
    assert operator.refused("delete", "lease", OPERATOR, *here)


def test_operator_is_refused(operator: Account, elsewhere: str) -> None:
    """Real requests for what it may not: create DownloadJobs, read Secrets, look elsewhere, gain rights."""
    here = ("-n", operator.namespace)
    assert operator.refused("create", "-f-", *here, stdin=job("no"))
    assert operator.refused("get", "secrets", *here)
    assert operator.refused("get", "dj", "-n", elsewhere)
    assert operator.refused("get", "dj", "--all-namespaces")
    more = ("--clusterrole=cluster-admin", f"--serviceaccount={operator.namespace}:{OPERATOR}")
    assert operator.refused("create", "rolebinding", "more", *here, *more)
    assert operator.refused("create", "clusterrolebinding", "more", *more)
    assert operator.refused("create", "token", OPERATOR, *here)


@pytest.mark.parametrize("component", ["api", "worker"])
def test_api_and_worker_may_nothing(operator: Account, elsewhere: str, component: str) -> None:
    """The other ServiceAccounts have no rights, and their pods get no token unless they ask for one."""
    name = f"downloadjobs-{component}"
    cluster, namespace = operator.cluster, operator.namespace
    assert cluster.get_json("serviceaccount", name, "-n", namespace)["automountServiceAccountToken"] is False
    account = Account(cluster, namespace, cluster.kubeconfig_of(namespace, name))
    assert account.rules(namespace) == account.rules(elsewhere)


@pytest.mark.parametrize("access", TEAM_MAY, ids=str)
def test_team_may(team: tuple[Account, Account], access: Access) -> None:
    """Who has the role of a team may do all that DownloadJobs need."""
    assert team[0].may(access)


@pytest.mark.parametrize("access", TEAM_MAY_NOT, ids=str)
def test_team_may_not(team: tuple[Account, Account], access: Access) -> None:
    """The role of a team lets nobody write what became of a job, nor touch anything else."""
    assert not team[0].may(access)


@pytest.mark.parametrize("access", VIEWERS_MAY, ids=str)
def test_viewers_may(team: tuple[Account, Account], access: Access) -> None:
    """Who has the role of a viewer sees jobs, their states and their events."""
    assert team[1].may(access)


@pytest.mark.parametrize("access", VIEWERS_MAY_NOT, ids=str)
def test_viewers_may_not(team: tuple[Account, Account], access: Access) -> None:
    """The role of a viewer changes nothing; without patch it can claim no result either."""
    assert not team[1].may(access)


def test_team_works_with_jobs(team: tuple[Account, Account]) -> None:
    """Real requests of a team: apply, wait, describe, suspend, claim a result, cancel, delete."""
    member, viewer = team
    here = ("-n", member.namespace)
    for _ in range(2):
        member("apply", "-f-", *here, stdin=job("team"))
    member("apply", "--server-side", "-f-", *here, stdin=job("team-too"))
    member("wait", "--for=create", "dj/team", *here, "--timeout=5s")
    assert "Events:" in member("describe", "dj/team", *here).stdout
    claim = ("dj/team", *here, f"downloadjobs.dev/claim-sha256={'0' * 64}")
    assert viewer.refused("annotate", *claim)
    member("annotate", *claim)
    viewer("get", "dj/team", *here)
    for change in ('{"spec":{"suspend":true}}', '{"spec":{"cancel":true}}'):
        assert viewer.refused("patch", "dj/team", *here, "--type=merge", f"-p={change}")
        member("patch", "dj/team", *here, "--type=merge", f"-p={change}")
    assert viewer.refused("delete", "dj/team", *here)
    member("delete", "dj", "--all", *here)


SERVERS: Final = (
    "bundled.redis.enabled=false",
    "bundled.objectStore.enabled=false",
    "external.redis.host=redis",
    "external.s3.bucket=files",
)
"""Values without which the chart is refused: no servers are started."""

RIGHTS: Final = ("ServiceAccount", "Role", "ClusterRole", "ValidatingAdmissionPolicy")


def rendered(namespace: str, *values: str) -> str:
    """The chart's accounts, rights and policies, for a release `downloadjobs` in a namespace."""
    helm = require_tool(os.environ.get("HELM") or "helm")
    settings = [f"--set={value}" for value in ("crd.enabled=false", *SERVERS, *values)]
    command = [
        helm,
        "template",
        "downloadjobs",
        str(CHART),
        f"--namespace={namespace}",
        "--kube-version=1.31.0",
        *settings,
    ]
    objects = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return yaml.safe_dump_all(
        one for one in yaml.safe_load_all(objects) if one and one["kind"].startswith(RIGHTS)
    )


def test_watched_namespaces_are_those_named(server: Cluster, elsewhere: str) -> None:
    """With operator.watchNamespaces the operator serves each of them, and not its own."""
    with (
        server.namespace("rbac-own") as own,
        server.namespace("rbac-a") as a,
        server.namespace("rbac-b") as b,
    ):
        server.apply(rendered(own, f"operator.watchNamespaces={{{a},{b}}}"))
        account = Account(server, own, server.kubeconfig_of(own, OPERATOR))
        everybodys = account.rules(elsewhere)
        assert account.rules(a) - everybodys == account.rules(b) - everybodys == set(WATCHED)
        assert account.rules(own) - everybodys == set(HOME)


def test_cluster_wide_is_all_namespaces(server: Cluster, elsewhere: str) -> None:
    """With operator.clusterWide the operator serves all namespaces, and still has nothing else there."""
    with server.namespace("rbac-wide") as own:
        objects = rendered(own, "operator.clusterWide=true")
        server.apply(objects)
        try:
            account = Account(server, own, server.kubeconfig_of(own, OPERATOR))
            for access in OPERATOR_MAY:
                anywhere = access in WATCHED
                assert (
                    account.may(access, "--all-namespaces")
                    == account.may(access, "-n", elsewhere)
                    == anywhere
                )
            for access in OPERATOR_MAY_NOT:
                assert not account.may(access, "-n", elsewhere), access
        finally:
            server.kubectl("delete", "-f-", "--ignore-not-found", stdin=objects)


def test_mirrors_are_created_by_the_operator_only(server: Cluster) -> None:
    """The operator may create DownloadJobs where mirrors stand; the admission policy keeps others out."""
    with server.namespace("rbac-own") as own, server.namespace("rbac-mirror") as mirrors:
        values = (
            "operator.mirrorApiJobs=all",
            f"operator.mirrorNamespace={mirrors}",
            "admissionPolicy.enabled=true",
        )
        objects = rendered(own, *values)
        server.apply(objects)
        try:
            account = Account(server, own, server.kubeconfig_of(own, OPERATOR))
            account("create", "-f-", "-n", mirrors, stdin=job("mirror"))
            assert not account.may(Access("create", JOBS))
            server.kubectl("create", "-f-", "-n", own, stdin=job("own"))
            # A policy counts some moments after it is made.
            create = ("create", "-f-", "-n", mirrors, "--dry-run=server")
            deadline = time.monotonic() + 30
            while not (said := server.kubectl(*create, stdin=job("foreign"), check=False).stderr):
                assert time.monotonic() < deadline
            assert "create yours in another namespace" in said
            server.kubectl("patch", "dj/mirror", "-n", mirrors, "--type=merge", '-p={"spec":{"cancel":true}}')
            account("create", "-f-", "-n", mirrors, stdin=job("mirror-too"))
        finally:
            server.kubectl("delete", "-f-", "--ignore-not-found", stdin=objects)


def pod(name: str, component: str) -> str:
    """A pod of a release `downloadjobs`, which no node ever takes."""
    labels = {
        "app.kubernetes.io/name": "downloadjobs",
        "app.kubernetes.io/instance": "downloadjobs",
        "app.kubernetes.io/component": component,
    }
    spec = {
        "containers": [{"name": "one", "image": "none"}],
        "schedulerName": "nobody",
        "automountServiceAccountToken": False,
    }
    metadata = {"name": name, "labels": labels}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def test_the_operator_changes_workers_costs_alone(server: Cluster) -> None:
    """The admission policy lets the operator annotate workers, and neither other pods nor anything else."""
    cost = {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "7"}}}
    label = {"metadata": {"labels": {"mine": "yes"}}}
    with server.namespace("rbac-pods") as own:
        objects = rendered(own, "admissionPolicy.enabled=true")
        server.apply(objects)
        try:
            account = Account(server, own, server.kubeconfig_of(own, OPERATOR))
            for name in ("worker", "redis"):
                server.kubectl("create", "-f-", "-n", own, stdin=pod(name, name))

            def patch(name: str, change: object) -> str:
                try:
                    account.request("PATCH", f"/api/v1/namespaces/{own}/pods/{name}", change)
                except HTTPError as error:
                    return error.read().decode()
                return ""

            # A policy counts some moments after it is made.
            eventually(lambda: "may change no pods but" in patch("redis", cost), 30, "the policy")
            assert patch("worker", cost) == ""
            assert "may not change a pod's labels" in patch("worker", label)
        finally:
            server.kubectl("delete", "-f-", "--ignore-not-found", stdin=objects)
            server.kubectl("delete", "pods", "--all", "-n", own, "--force", "--grace-period=0")
