"""Claiming a DownloadJob: what is written, when it is asked for, and what is said when it does not come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import msgspec
import pytest

from downloadjobs_cli.answers import Reply, Result
from downloadjobs_cli.claiming import TAKEN_IN_SECONDS, Awaited, ClaimedJob, refuse_without_result
from downloadjobs_cli.cluster_jobs import ClusterJobs, DownloadJob
from downloadjobs_cli.errors import CliError, RefusedError, TimedOutError, TransientError
from downloadjobs_cli.patience import Patience
from downloadjobs_core.claims import digest_of


def download_job(
    phase: str = "Completed", *, version: int = 1, claim: str | None = None, uid: str = "u1", **status: object
) -> DownloadJob:
    """An object as kubectl gives it."""
    return msgspec.convert(
        {
            "metadata": {
                "name": "films", "namespace": "team-a", "uid": uid, "resourceVersion": str(version),
                "annotations": {"downloadjobs.dev/claim-sha256": claim} if claim else {},
            },
            "spec": {"fileIds": [10003, 10010, 10003]},
            "status": {"phase": phase, **status},
        },
        DownloadJob,
    )  # fmt: skip


@dataclass
class Cluster:
    """A cluster of one object, its operator and the API, in a time that passes only by waiting."""

    now: float = 0.0
    version: int = 1
    uid: str = "u1"
    annotation: str | None = None
    annotation_set: float = 0.0
    operator_takes: float | None = 0.1
    """Seconds until the operator has seen an annotation; None if it does not run."""
    claims: set[str] = field(default_factory=set)
    writes: list[str] = field(default_factory=list)
    nonces: list[str] = field(default_factory=list)
    answers: list[Callable[[], Reply[Result]]] = field(default_factory=list)
    changes: int = 0
    """How often somebody else changes the object before a write."""

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.annotation is None or self.operator_takes is None:
            return
        if self.now >= self.annotation_set + self.operator_takes:
            self.claims.add(self.annotation)
            self.annotation = None
            self.version += 1

    def get(self, _name: str, _seconds: float | None = None) -> DownloadJob:
        return download_job(version=self.version, claim=self.annotation, uid=self.uid)

    def write_claim(self, found: DownloadJob, digest: str) -> bool:
        if self.changes:
            self.changes -= 1
            self.version += 1
        if found.metadata.resource_version != str(self.version):
            return False
        self.writes.append(digest)
        self.annotate(digest)
        return True

    def annotate(self, digest: str) -> None:
        self.annotation, self.annotation_set, self.version = digest, self.now, self.version + 1

    def claim(self, job_id: str, nonce: str) -> Reply[Result]:
        self.nonces.append(nonce)
        if self.answers:
            return self.answers.pop(0)()
        if digest_of(nonce) not in self.claims:
            raise RefusedError("No such claim stands.", status=403, code="claim-unknown")
        return Reply(Result(job_id, "completed", f"http://s3.test/{len(self.nonces)}", 600, 1), {})

    def job(self, found: DownloadJob | None = None) -> ClaimedJob:
        jobs = cast("ClusterJobs", self)
        return ClaimedJob(jobs, found or self.get(""), self, clock=lambda: self.now, sleep=self.sleep)


def no_patience() -> Patience:
    """Ends at the first fault."""
    return Patience(0, lambda _text: None)


def test_a_claim_is_written_and_answered() -> None:
    """The digest of the nonce is written once, and the nonce asked for until the operator has seen it."""
    cluster = Cluster()
    status = cluster.job().ready(no_patience())
    assert (status.status, status.progress.total, status.failed_files) == ("completed", 2, 1)
    assert cluster.writes == [digest_of(cluster.nonces[0])]
    assert len(set(cluster.nonces)) == 1
    assert len(cluster.nonces[0]) >= 43
    assert cluster.now < 1


def test_a_claim_is_used_again_while_it_holds() -> None:
    """Fresh URLs need no new claim; when its time is over, another nonce is claimed."""
    cluster = Cluster()
    job = cluster.job()
    first = job.result().value.download_url
    assert job.result().value.download_url != first
    assert len(cluster.writes) == 1
    cluster.claims.clear()
    job.result()
    assert len(set(cluster.writes)) == 2


def test_no_two_claims_share_a_nonce() -> None:
    """Each claim has a nonce of its own."""
    first, second = Cluster(), Cluster()
    first.job().result()
    second.job().result()
    assert first.writes != second.writes


def test_without_an_operator_it_says_so() -> None:
    """Half a minute without an answer is exit code 5, and asks whether the operator runs."""
    cluster = Cluster(operator_takes=None)
    with pytest.raises(TimedOutError, match=r"The operator did not take the claim in; does it run") as caught:
        cluster.job().ready(no_patience())
    assert caught.value.exit_code == 5
    assert TAKEN_IN_SECONDS <= cluster.now < TAKEN_IN_SECONDS + 2
    assert len(cluster.writes) == 1, "its own digest stands there still"
    assert len(cluster.nonces) < 30


def test_a_slow_operator_is_waited_for() -> None:
    """An operator that was just started has half a minute."""
    cluster = Cluster(operator_takes=TAKEN_IN_SECONDS - 5)
    cluster.job().ready(no_patience())


def test_a_changed_object_is_read_again() -> None:
    """A conflict is no error: the claim is written to what the object is now."""
    cluster = Cluster(changes=3)
    cluster.job().ready(no_patience())
    assert len(cluster.writes) == 1


def test_an_object_that_always_changes_is_given_up() -> None:
    """It does not go on for ever."""
    with pytest.raises(CliError, match="changes all the time"):
        Cluster(changes=1000).job().ready(no_patience())


def test_another_object_of_the_name_is_not_claimed() -> None:
    """What was deleted and made anew meanwhile is another job."""
    cluster = Cluster()
    job = cluster.job()
    cluster.uid, cluster.version = "u2", 7
    with pytest.raises(RefusedError, match="was replaced"):
        job.ready(no_patience())
    assert cluster.writes == []


def test_anothers_claim_is_left_to_the_operator() -> None:
    """Two people at the same moment: the second writes when the operator has taken in the first's."""
    cluster = Cluster(operator_takes=0.5)
    cluster.annotate("theirs")
    cluster.job().ready(no_patience())
    assert "theirs" in cluster.claims
    assert len(cluster.writes) == 1


def test_a_claim_that_was_replaced_is_written_again() -> None:
    """Somebody who did not look wrote over it before the operator saw it: it is claimed once more."""
    cluster = Cluster(operator_takes=None)
    job = cluster.job()

    def replaced() -> Reply[Result]:
        cluster.annotate("theirs")
        cluster.operator_takes = 0.1
        raise RefusedError("", code="claim-unknown")

    cluster.answers = [replaced]
    job.ready(no_patience())
    assert cluster.writes[0] == cluster.writes[1]


def test_a_fault_of_the_api_leaves_the_claim() -> None:
    """While the API does not answer the claim goes on: the same nonce is asked for again."""
    cluster = Cluster()

    def away() -> Reply[Result]:
        cluster.sleep(1)
        raise TransientError("away")

    cluster.answers = [away, away]
    job = cluster.job()
    job.ready(Patience(60, lambda _text: None, clock=lambda: cluster.now, sleep=cluster.sleep))
    assert len(set(cluster.nonces)) == 1


def test_an_api_without_claims_is_told() -> None:
    """A 404 for the path is an earlier release."""
    cluster = Cluster()

    def refuse() -> Reply[Result]:
        raise RefusedError("There is nothing at this path.", status=404, code="not-found")

    cluster.answers = [refuse]
    with pytest.raises(RefusedError, match="takes no claims"):
        cluster.job().ready(no_patience())


@pytest.mark.parametrize(
    ("phase", "code", "text"),
    [
        ("", 4, "has not taken dj/films in yet"),
        ("Pending", 4, "is pending, so there is no result yet. No file was found. Wait for it by --wait."),
        ("Queued", 4, "is queued, so there is no result yet. Wait for it by --wait."),
        ("Processing", 4, "--wait"),
        ("Retrying", 4, "--wait"),
        ("Failed", 1, "is failed and has no result. No file was found."),
        ("Cancelled", 1, "is cancelled"),
        ("Expired", 4, "has expired"),
    ],
)
def test_without_a_result_nothing_is_claimed(phase: str, code: int, text: str) -> None:
    """An unfinished job and an expired one are refused, a failed one is 1 with its reason."""
    cluster = Cluster()
    with pytest.raises(CliError) as caught:
        cluster.job(download_job(phase, message="No file was found.")).ready(no_patience())
    assert caught.value.exit_code == code
    assert text in caught.value.message
    assert cluster.nonces == cluster.writes == []


def test_one_that_nobody_takes_in_is_not_waited_for() -> None:
    """Waiting for an object that no operator has seen ends as without waiting, but only after a while."""
    cluster, phase = Cluster(), ""

    def get(_name: str, _seconds: float | None = None) -> DownloadJob:
        return download_job(phase)

    cluster.get = get  # type: ignore[method-assign]
    waiting = Awaited(cast("ClusterJobs", cluster), "films", clock=lambda: cluster.now)
    assert waiting.ask().value.status == "pending"
    cluster.now = TAKEN_IN_SECONDS
    with pytest.raises(RefusedError, match="has not taken dj/films in yet"):
        waiting.ask()
    phase = "Pending"
    assert waiting.ask().value.status == "pending"


@pytest.mark.parametrize("phase", ["Completed", "CompletedWithErrors"])
def test_a_result_can_be_claimed(phase: str) -> None:
    """A result in part is one."""
    refuse_without_result(download_job(phase))


def test_the_job_id_is_the_statuss_own() -> None:
    """A mirror of a REST job names its job; without a name it is the uid."""
    assert download_job(jobId="rest-job").job_id == "rest-job"
    assert download_job().job_id == "u1"


def test_a_download_job_has_a_status_like_the_apis() -> None:
    """Phases are the states of the wire; a result in part is completed with failed files."""
    found = download_job(
        "CompletedWithErrors",
        progress={"processed": 2, "total": 2, "percent": "100%"},
        result={"failedFiles": 1},
    )
    reply = found.as_reply()
    assert reply.document == {
        "jobId": "u1", "status": "completed", "progress": {"processed": 2, "total": 2}, "failedFiles": 1,
    }  # fmt: skip
    assert (reply.value.ended, reply.value.whole) == (True, False)
    assert download_job("").as_status().status == "pending"
