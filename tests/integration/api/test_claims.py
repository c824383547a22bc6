"""`POST /v1/claims` on a real queue: whoever knows the nonce gets the result, and nobody else."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from downloadjobs_api.bodies import MAX_NONCE, MIN_NONCE
from downloadjobs_cli.embedded import SeaweedServer, ValkeyServer
from downloadjobs_core.claims import CLAIM_SECONDS, ClaimStore, digest_of
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect, connect_async
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState
from support_processes import System, running

DATABASE = 11
CLAIMS = "/v1/claims"


@pytest.fixture(scope="module")
def shared(
    valkey_server: ValkeyServer, seaweedfs: SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """The module's API process, in header mode, which says all that it can say."""
    settings = {"REDIS_URL": f"redis://127.0.0.1:{valkey_server.port}/{DATABASE}", "LOG_LEVEL": "debug"}
    system = System(valkey_server, seaweedfs, tmp_path_factory.mktemp("claims"), settings=settings)
    with running(system):
        system.start_api()
        yield system


@pytest.fixture
def queue(shared: System) -> Iterator[LeaseStore]:
    """The worker's side of the queue, which is empty."""
    with closing(connect(RedisConfig(shared.environment()["REDIS_URL"]))) as redis:
        redis.flushdb()
        yield LeaseStore(redis, QueuePolicy())


@pytest.fixture
def nobody(shared: System) -> Iterator[httpx.Client]:
    """A client that does not say who asks."""
    with shared.client() as client:
        del client.headers["x-user-id"]
        yield client


def job_in(state: JobState, system: System, queue: LeaseStore) -> str:
    """The id of a job in a state."""
    job_id = system.submit([10_003, 10_004])
    if state is JobState.QUEUED:
        return job_id
    job = queue.lease("w")
    assert job is not None
    result = f"results/{job_id}/{job.token}.zip"
    if state in {JobState.COMPLETED, JobState.EXPIRED}:
        queue.finish(job, Outcome(JobState.COMPLETED, result_key=result, result_bytes=9, files_done=2))
    elif state is JobState.COMPLETED_WITH_ERRORS:
        queue.finish(job, Outcome(state, result_key=result, result_bytes=9, files_done=2, files_failed=1))
    elif state is JobState.FAILED:
        queue.finish(job, Outcome(state, error_code="no-file-found", error_message="No file was found."))
    if state is JobState.EXPIRED:
        queue.redis.hset(f"{ROOT}:job:{job_id}", "state", state.value)
    return job_id


@pytest.fixture
def job_id(shared: System, queue: LeaseStore) -> str:
    """A job with a result."""
    return job_in(JobState.COMPLETED, shared, queue)


def claimed(system: System, job_id: str) -> str:
    """Claim a job as the operator would; the nonce."""
    nonce = secrets.token_urlsafe(32)

    async def keep() -> None:
        async with connect_async(RedisConfig(system.environment()["REDIS_URL"]), max_connections=1) as redis:
            await ClaimStore(redis).keep(job_id, digest_of(nonce))

    asyncio.run(keep())
    return nonce


def ask(client: httpx.Client, job_id: str, nonce: str) -> httpx.Response:
    """Ask for a job's result."""
    return client.post(CLAIMS, json={"jobId": job_id, "nonce": nonce})


def problem_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Compare an answer with the problem that it must be; its document."""
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["error"]) == (status, code), answer.text
    return document


@pytest.mark.contract("claims")
def test_who_knows_the_nonce_gets_the_result(shared: System, nobody: httpx.Client, job_id: str) -> None:
    """Without any user the answer is that of `result`, again and again, and nothing keeps a copy of it."""
    nonce = claimed(shared, job_id)
    for _ in range(3):
        answer = ask(nobody, job_id, nonce)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        with shared.client() as owner:
            own = owner.get(f"/v1/download/result/{job_id}").json()
        assert urlsplit(body.pop("downloadUrl")).path == urlsplit(own.pop("downloadUrl")).path
        assert body == own


def test_a_result_in_part_says_so(shared: System, queue: LeaseStore, nobody: httpx.Client) -> None:
    """Files that are missing are counted, as `result` does."""
    job_id = job_in(JobState.COMPLETED_WITH_ERRORS, shared, queue)
    body = ask(nobody, job_id, claimed(shared, job_id)).json()
    assert (body["status"], body["failedFiles"]) == ("completed", 1)


def test_a_user_may_be_named_and_does_not_count(shared: System, nobody: httpx.Client, job_id: str) -> None:
    """Neither a user nor a reserved one changes the answer."""
    nonce = claimed(shared, job_id)
    for user in ("eve", "k8s:team", ""):
        nobody.headers["x-user-id"] = user
        assert ask(nobody, job_id, nonce).status_code == 200


@pytest.mark.contract("claims")
def test_all_unknown_claims_look_alike(
    shared: System, queue: LeaseStore, nobody: httpx.Client, job_id: str
) -> None:
    """A wrong nonce, another's job, no such job, the digest instead of the nonce: one and the same 403."""
    nonce = claimed(shared, job_id)
    other = job_in(JobState.COMPLETED, shared, queue)
    answers = [
        ask(nobody, job_id, secrets.token_urlsafe(32)),
        ask(nobody, other, nonce),
        ask(nobody, "no-such-job", nonce),
        ask(nobody, job_id.upper(), nonce),
        ask(nobody, "no-such-job", "n" * MIN_NONCE),
        ask(nobody, job_id, digest_of(nonce)),
        ask(nobody, job_id, nonce + "\u00e9"),
        ask(nobody, job_id, nonce + "\u0000"),
    ]
    told = set()
    for answer in answers:
        document = problem_of(answer, 403, "claim-unknown")
        assert answer.headers["cache-control"] == "no-store"
        del document["requestId"], document["traceId"]
        told.add(str(document))
    assert len(told) == 1


def test_a_claim_ends(shared: System, queue: LeaseStore, nobody: httpx.Client, job_id: str) -> None:
    """A claim is kept for five minutes; after its time it is unknown."""
    nonce = claimed(shared, job_id)
    key = f"{ROOT}:claim:{digest_of(nonce)}:{job_id}"
    assert CLAIM_SECONDS - 5 <= int(queue.redis.ttl(key)) <= CLAIM_SECONDS == 300
    assert ask(nobody, job_id, nonce).status_code == 200
    queue.redis.pexpire(key, 1)
    while queue.redis.exists(key):
        pass
    problem_of(ask(nobody, job_id, nonce), 403, "claim-unknown")


def test_several_people_claim_one_job(shared: System, nobody: httpx.Client, job_id: str) -> None:
    """Each claim holds beside the others."""
    for nonce in [claimed(shared, job_id), claimed(shared, job_id)]:
        assert ask(nobody, job_id, nonce).status_code == 200


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        (JobState.QUEUED, 409, "result-not-ready"),
        (JobState.PROCESSING, 409, "result-not-ready"),
        (JobState.FAILED, 409, "no-result"),
        (JobState.EXPIRED, 410, "result-expired"),
    ],
)
def test_without_a_result_it_says_why(
    shared: System,
    queue: LeaseStore,
    nobody: httpx.Client,
    *,
    state: JobState,
    status: int,
    code: str,
) -> None:
    """Who may claim is told what `result` tells; who may not, learns nothing of the job's state."""
    job_id = job_in(state, shared, queue)
    document = problem_of(ask(nobody, job_id, claimed(shared, job_id)), status, code)
    if state is JobState.FAILED:
        assert "No file was found." in document["message"]
    problem_of(ask(nobody, job_id, "n" * MIN_NONCE), 403, "claim-unknown")


def test_a_claim_may_outlive_its_job(shared: System, nobody: httpx.Client, queue: LeaseStore) -> None:
    """The claim holds, and the record was removed: 404."""
    assert queue.ready_count() == 0
    problem_of(ask(nobody, "gone", claimed(shared, "gone")), 404, "job-not-found")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["jobId", "nonce"]),
        ({"jobId": "", "nonce": "n" * (MIN_NONCE - 1)}, ["jobId", "nonce"]),
        ({"jobId": "j" * 129, "nonce": "n" * (MAX_NONCE + 1)}, ["jobId", "nonce"]),
        ({"jobId": 1, "nonce": None}, ["jobId", "nonce"]),
        ({"jobId": ["j"], "nonce": {"n": 1}}, ["jobId", "nonce"]),
        ({"job_id": "j", "nonce": "n" * MAX_NONCE}, ["jobId"]),
        ([], ["body"]),
    ],
    ids=["none", "short", "long", "null", "nested", "name", "list"],
)
def test_every_fault_of_a_claim_is_listed(nobody: httpx.Client, body: object, fields: list[str]) -> None:
    """What is missing or breaks a rule is 400, and every field at fault is named."""
    document = problem_of(nobody.post(CLAIMS, json=body), 400, "invalid-body")
    assert [fault["field"] for fault in document["errors"]] == fields


def test_a_body_that_is_wrong_is_not_told_back(nobody: httpx.Client) -> None:
    """A nonce does not come back in an error; what is no JSON, or says it is none, is refused."""
    answer = nobody.post(CLAIMS, json={"nonce": "s3cret" * 30})
    assert "s3cret" not in answer.text
    answer = nobody.post(CLAIMS, content=b'{"nonce": "s3cret"', headers={"content-type": "application/json"})
    problem_of(answer, 400, "invalid-json")
    assert "s3cret" not in answer.text
    problem_of(nobody.post(CLAIMS, content=b"{}"), 415, "unsupported-media-type")
    problem_of(nobody.get(CLAIMS), 405, "method-not-allowed")


def test_neither_nonce_nor_url_is_logged(shared: System, nobody: httpx.Client, job_id: str) -> None:
    """A process that logs all it can logs no secret, whatever the answer."""
    nonce = claimed(shared, job_id)
    url = ask(nobody, job_id, nonce).json()["downloadUrl"]
    problem_of(ask(nobody, "other", nonce), 403, "claim-unknown")
    log = shared.children[0].log_path.read_text()
    assert CLAIMS in log
    assert nonce not in log
    assert not re.search("X-Amz-Signature|" + re.escape(urlsplit(url).query), log)
