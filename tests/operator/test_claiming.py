"""Claims on a real API server: who may patch a DownloadJob gets its result, and nobody else does."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from downloadjobs_cli.embedded import SeaweedServer
from downloadjobs_cli.stack import without_addresses
from downloadjobs_cli.verifying import verify
from downloadjobs_core.claims import CLAIM_ANNOTATION, digest_of
from support_cluster import ClusterError
from support_operator_process import FILES, ROOT, Kube, Site, installed
from support_worker import eventually, members

pytestmark = pytest.mark.cluster

TEAM_ROLES = ROOT / "manifests" / "rbac" / "team-role.yaml"


@pytest.fixture(scope="module")
def claimed(kube: Kube, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with an API, a worker, and a DownloadJob `films` that has finished."""
    with installed(kube, seaweedfs, tmp_path_factory.mktemp("claimed")) as site:
        site.start_operator()
        site.system.start_api()
        site.system.start_worker()
        site.create("films")
        site.until_phase("films", "Completed")
        yield site


def annotate(site: Site, name: str, digest: str) -> None:
    """Write a claim into a DownloadJob, and wait until the operator has taken it in."""
    site.patch(name, {"metadata": {"annotations": {CLAIM_ANNOTATION: digest}}})

    def taken_in() -> bool:
        body = site.get(name)
        return body is not None and CLAIM_ANNOTATION not in body["metadata"].get("annotations", {})

    eventually(taken_in, 10, "the annotation's removal")


def ask(site: Site, job_id: str, nonce: str) -> httpx.Response:
    """What the API says to a nonce."""
    with site.system.client("eve") as client:
        return client.post("/v1/claims", json={"jobId": job_id, "nonce": nonce})


def test_a_claim_gives_a_url(claimed: Site) -> None:
    """A nonce whose hash was annotated is answered with a presigned URL, by which the zip comes."""
    nonce = secrets.token_hex(32)
    annotate(claimed, "films", digest_of(nonce))
    answer = ask(claimed, claimed.uids["films"], nonce)
    assert answer.status_code == httpx.codes.OK, answer.text
    with httpx.Client(trust_env=False) as anyone:
        zipped = anyone.get(answer.json()["downloadUrl"])
    assert set(members(zipped.content)) == {f"{file_id}.zip" for file_id in FILES} | {"manifest.json"}


def test_two_people_may_claim(claimed: Site) -> None:
    """A later claim does not end an earlier one."""
    nonces = [secrets.token_hex(32) for _ in range(2)]
    for nonce in nonces:
        annotate(claimed, "films", digest_of(nonce))
    for nonce in nonces:
        assert ask(claimed, claimed.uids["films"], nonce).status_code == httpx.codes.OK


def test_a_claim_is_for_its_job_alone(claimed: Site) -> None:
    """A nonce claimed on one DownloadJob opens no other's result."""
    claimed.create("other")
    claimed.until_phase("other", "Completed")
    nonce = secrets.token_hex(32)
    annotate(claimed, "other", digest_of(nonce))
    assert ask(claimed, claimed.uids["films"], nonce).status_code == httpx.codes.FORBIDDEN
    assert ask(claimed, claimed.uids["other"], nonce).status_code == httpx.codes.OK


def test_without_a_claim_there_is_nothing(claimed: Site) -> None:
    """A nonce that nobody claimed, and the hash itself in the nonce's place, are refused."""
    nonce = secrets.token_hex(32)
    annotate(claimed, "films", digest_of(nonce))
    for guess in (secrets.token_hex(32), digest_of(nonce)):
        assert ask(claimed, claimed.uids["films"], guess).status_code == httpx.codes.FORBIDDEN


@pytest.mark.parametrize("text", ["", "x", "A" * 64, "a" * 63, "a" * 65, f"{'a' * 64}\n"])
def test_what_is_no_digest_is_just_removed(claimed: Site, text: str) -> None:
    """An annotation that is no digest is removed, and nothing is claimed by it."""
    before = set(claimed.redis.scan_iter("{downloadjobs}:claim:*"))
    if text:
        annotate(claimed, "films", text)
    assert set(claimed.redis.scan_iter("{downloadjobs}:claim:*")) == before


def test_a_claim_changes_nothing_else(claimed: Site) -> None:
    """Taking in a claim leaves status and spec, and other annotations."""
    claimed.patch("films", {"metadata": {"annotations": {"example.com/mine": "yes"}}})
    before = claimed.get("films")
    annotate(claimed, "films", digest_of("x"))
    after = claimed.get("films")
    assert before is not None
    assert after is not None
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])
    assert after["metadata"]["annotations"]["example.com/mine"] == "yes"


def test_a_claim_while_the_operator_is_down(claimed: Site) -> None:
    """A claim made while no operator runs is taken in by the next one."""
    nonce = secrets.token_hex(32)
    claimed.operators[0].kill()
    claimed.patch("films", {"metadata": {"annotations": {CLAIM_ANNOTATION: digest_of(nonce)}}})
    assert ask(claimed, claimed.uids["films"], nonce).status_code == httpx.codes.FORBIDDEN
    claimed.start_operator()
    eventually(lambda: ask(claimed, claimed.uids["films"], nonce).is_success, 10, "the claim")


def person(site: Site, role: str) -> Path:
    """The kubeconfig of somebody who has a role of team-role.yaml."""
    site.cluster.apply(TEAM_ROLES.read_text(encoding="utf-8"), site.namespace)
    here = f"--namespace={site.namespace}"
    site.cluster.kubectl("create", "serviceaccount", role, here)
    account = f"--serviceaccount={site.namespace}:{role}"
    site.cluster.kubectl("create", "rolebinding", role, f"--role={role}", account, here)
    return site.cluster.kubeconfig_of(site.namespace, role)


def run_get(site: Site, kubeconfig: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`downloadjobs get` as that person."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DOWNLOADJOBS_")}
    command = [
        sys.executable, "-m", "downloadjobs_cli", "get", *words,
        "--api", f"http://127.0.0.1:{site.system.port}", "--namespace", site.namespace,
        "--kubeconfig", str(kubeconfig), "--kubectl", str(site.cluster.kubectl_path),
    ]  # fmt: skip
    return subprocess.run(
        command,
        env=without_addresses(kept),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_whole_way_by_the_command_line(claimed: Site, tmp_path: Path) -> None:
    """`downloadjobs get dj/NAME` by one of the team: a verified zip of a job that no user of the API owns."""
    kubeconfig = person(claimed, "downloadjobs-team")
    zipped = tmp_path / "films.zip"
    done = run_get(claimed, kubeconfig, "dj/films", "--output", str(zipped))
    assert done.returncode == 0, done.stderr
    assert verify(zipped, job_id=claimed.uids["films"], files=len(FILES)).whole
    body = claimed.get("films")
    assert body is not None
    assert CLAIM_ANNOTATION not in body["metadata"].get("annotations", {})


def test_who_may_only_look_gets_nothing(claimed: Site, tmp_path: Path) -> None:
    """Who may read a DownloadJob but not patch it cannot claim: no zip, and the reason."""
    kubeconfig = person(claimed, "downloadjobs-view")
    claimed.cluster.kubectl("get", "dj", "films", kubeconfig=kubeconfig)
    by_hand = ("annotate", "dj", "films", f"{CLAIM_ANNOTATION}=x")
    with pytest.raises(ClusterError, match="orbidden"):
        claimed.cluster.kubectl(*by_hand, kubeconfig=kubeconfig)
    zipped = tmp_path / "films.zip"
    done = run_get(claimed, kubeconfig, "dj/films", "--output", str(zipped))
    assert done.returncode != 0
    assert "orbidden" in done.stderr or "not allowed" in done.stderr or "may not" in done.stderr, done.stderr
    assert not zipped.exists()
