"""An installation, as `helm install` makes it, does its work: both kinds of jobs, to their verified zips."""

from __future__ import annotations

import json
import re
import secrets
from typing import Final

import pytest

from downloadjobs_cli.verifying import verify
from support_e2e import PROJECT, RELEASE, ROOT, Installation, Installer, until

FILES: Final = {10_003: 40_000, 10_010: 3_000_000, 10_039: 20_000_000}
"""Sizes in bytes: the last result is uploaded in parts."""


@pytest.fixture(scope="module")
def seeded(installation: Installation) -> Installation:
    """The installation, with files in its bucket."""
    installation.seed(FILES)
    return installation


def test_a_download_job(seeded: Installation) -> None:
    """`kubectl apply` of a DownloadJob ends in a zip that its namespace's people can fetch and verify."""
    name = f"films-{secrets.token_hex(3)}"
    seeded.apply_job(name, list(FILES))
    status = seeded.wait_finished(name)
    assert status["phase"] == "Completed", status
    assert status["progress"]["percent"] == "100%"
    assert status["result"]["files"] == len(FILES)
    seeded.cli("get", f"dj/{name}", "--output", "films.zip", "--force")
    report = verify(seeded.folder / "films.zip", job_id=status["jobId"], files=len(FILES))
    assert report.whole, report
    assert report.members["10039.zip"].size == FILES[10_039]


def test_a_job_by_rest(seeded: Installation) -> None:
    """A job by the REST API does, too."""
    done = seeded.cli("submit", "--json", *map(str, FILES), "--get", "rest.zip", "--force")
    job_id = json.loads(done.stdout.splitlines()[0])["jobId"]
    report = verify(seeded.folder / "rest.zip", job_id=job_id, files=len(FILES))
    assert report.whole, report
    assert seeded.job(job_id)["state"] == "completed"


def test_a_missing_file(seeded: Installation) -> None:
    """A file that is not there is told, and the others come."""
    job_id = seeded.initiate([10_003, 99_999_999])
    assert seeded.wait_job(job_id, "completed_with_errors")["failedFiles"] == 1


def test_results_cannot_be_written_by_the_api(seeded: Installation) -> None:
    """The API's keys of the bundled object store only read."""
    keys = {seeded.get(f"secret/{RELEASE}-s3-{name}")["data"]["accessKeyId"] for name in ("api", "worker")}
    assert len(keys) == 2
    said = seeded.write_as_the_api(10_003)
    assert said.stdout.strip() == str(FILES[10_003])
    assert "AccessDenied" in said.stderr


@pytest.mark.parametrize("component", PROJECT)
def test_pods_write_nowhere(seeded: Installation, component: str) -> None:
    """Each process runs as a user without name or rights, and can write to nothing but /tmp."""
    script = (
        "import os\n"
        "from pathlib import Path\n"
        "Path('/tmp/here').write_text('')\n"
        "print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])\n"
        "for path in ('/there', '/app/there'):\n"
        "    try: Path(path).write_text('')\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    said = seeded.exec(component, "python", "-c", script)
    assert said.splitlines() == ["65532 0000000000000000", "Read-only file system", "Read-only file system"]


@pytest.mark.parametrize("component", ["api", "worker"])
def test_only_the_operator_has_a_token(seeded: Installation, component: str) -> None:
    """API and worker cannot even ask the Kubernetes API: no token is mounted."""
    said = seeded.exec(
        component, "python", "-c", "import os; print(os.path.exists('/var/run/secrets/kubernetes.io'))"
    )
    assert said.strip() == "False"


def test_the_command_line_in_the_operators_pod(seeded: Installation) -> None:
    """`kubectl exec deploy/…-operator -- downloadjobs dead list` works, with no more settings."""
    assert seeded.exec("operator", "downloadjobs", "dead", "list", "--json").strip().startswith("{")


def test_nothing_restarted(seeded: Installation) -> None:
    """No container ended by itself while it waited for the servers that start beside it."""
    assert seeded.restarts_at_start == {}


def test_helm_owns_no_replicas_of_workers(seeded: Installation) -> None:
    """How many workers there are is nothing that Helm has a say in, and an upgrade has none either."""
    seeded.upgrade()
    found = seeded.get(f"deploy/{RELEASE}-worker", "--show-managed-fields")
    owners = {
        entry["manager"]: entry["fieldsV1"].get("f:spec", {}) for entry in found["metadata"]["managedFields"]
    }
    helms = [fields for name, fields in owners.items() if name.startswith("helm")]
    assert helms
    assert not any("f:replicas" in fields for fields in helms)


def test_the_autoscalers_settings_arrive(seeded: Installation) -> None:
    """A change of the autoscaler's settings reaches the operator's pod, which goes on as it is."""

    def most() -> str:
        settings = seeded.exec("operator", "cat", "/etc/downloadjobs/autoscaler.yaml")
        return next(line for line in settings.splitlines() if line.startswith("max:"))

    pods = seeded.pod_names("operator")
    before = most()
    seeded.upgrade({"worker": {"autoscaling": {"max": 7}}})
    try:
        until(lambda: most() == "max: 7", 150, "the setting in the operator's pod", every=2)
        assert seeded.pod_names("operator") == pods
    finally:
        seeded.upgrade({"worker": {"autoscaling": {"max": int(before.split()[1])}}})


def test_secrets_are_kept(seeded: Installation) -> None:
    """An upgrade makes no new passwords, and so replaces no pod of the servers."""

    def made() -> dict[str, object]:
        items = seeded.get("secrets", f"--selector=app.kubernetes.io/instance={RELEASE}")["items"]
        return {one["metadata"]["name"]: one["data"] for one in items}

    secrets_before, pods = made(), seeded.pod_names("redis")
    assert set(secrets_before) == {f"{RELEASE}-{name}" for name in ("redis", "s3-api", "s3-worker")}
    seeded.upgrade()
    assert made() == secrets_before
    assert seeded.pod_names("redis") == pods


def test_redis_comes_back(seeded: Installation) -> None:
    """What waits while nobody reaches Redis is done when it is back: no process ends for it."""
    with seeded.redis_unreachable():
        answer = seeded.request("POST", "/v1/download/initiate", body={"file_ids": [10_003]})
        assert answer.status_code == 503, answer.text
        name = f"meanwhile-{secrets.token_hex(3)}"
        seeded.apply_job(name, [10_003])
    assert seeded.wait_finished(name)["phase"] == "Completed"
    assert seeded.restarts() == {}


def test_uninstalling(installer: Installer) -> None:
    """`helm uninstall` takes all but the definition, the DownloadJobs and the volumes' claims."""
    with installer.installed() as own:
        own.seed({10_003: 1_000})
        own.apply_job("stays", [10_003])
        assert own.wait_finished("stays")["phase"] == "Completed"
        own.uninstall()
        left = own.kubectl(
            "get", "deploy,services,configmaps,secrets,roles,rolebindings,serviceaccounts", "--output=name"
        )
        # What a namespace has by itself.
        assert left.split() == ["configmap/kube-root-ca.crt", "serviceaccount/default"]
        assert own.get("dj/stays")["status"]["phase"] == "Completed"


@pytest.mark.parametrize("server", ["redis", "s3"])
def test_what_servers_hold_outlives_their_pods(seeded: Installation, server: str) -> None:
    """With volumes, jobs and files are there again when a bundled server's pod was replaced."""
    if not seeded.persistent:
        pytest.skip("takes volumes: E2E_PERSISTENCE=1")
    job_id = seeded.initiate([10_003])
    seeded.wait_job(job_id)
    before = seeded.pod_names(server)
    seeded.kubectl("delete", "pod", *before, timeout=90)
    seeded.wait_ready([server])
    assert seeded.pod_names(server) != before
    until(lambda: seeded.request("GET", "/readyz").is_success, 60, "the API's servers")
    assert seeded.job(job_id)["state"] == "completed"
    seeded.cli("get", job_id, "--output", f"{server}.zip", "--force")
    assert verify(seeded.folder / f"{server}.zip", job_id=job_id, files=1).whole


EVERYBODY: Final = {"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"}
"""What every account may create: questions about itself."""


def rights_told(account: str) -> set[tuple[str, str, str]]:
    """What docs/security.md says that an account may: resource, names, verbs."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    part = text.split(f"**`{RELEASE}-{account}`**", 1)[1].split("**`", 1)[0].split("\n\nRBAC", 1)[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| `")]
    found = [[cell.strip().strip("`") for cell in row] for row in rows]
    return {(resource, name, verbs) for resource, name, verbs, _ in found}


@pytest.mark.parametrize("account", PROJECT)
def test_rights_are_those_that_are_told(seeded: Installation, account: str) -> None:
    """What `kubectl auth can-i --list` tells of each ServiceAccount is what docs/security.md says."""
    who = f"system:serviceaccount:{seeded.namespace}:{RELEASE}-{account}"
    rights = set()
    for line in seeded.kubectl("auth", "can-i", "--list", f"--as={who}").splitlines()[1:]:
        resource, _, names, verbs = re.fullmatch(
            r"(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]\s*", line
        ).groups()  # type: ignore[union-attr]
        if resource and resource.split(".")[0] not in EVERYBODY:
            rights.add((resource, names, verbs))
    assert rights == rights_told(account)
    assert not any("secrets" in resource or "*" in resource + verbs for resource, _, verbs in rights)
