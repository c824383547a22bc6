"""What is caught up with although it was missed, overtaken or refused, on a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.claims import ClaimStore, digest_of
from downloadjobs_core.dead_letters import DeadLetters
from downloadjobs_core.job import Job, job_key
from downloadjobs_core.leases import Outcome
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState
from downloadjobs_operator.conditions import Type, is_true, reason_of
from downloadjobs_operator.downloadjob import CLAIM, FINALIZER, MIRROR, moment_of, seconds_of
from downloadjobs_operator.kube_client import KubernetesError
from downloadjobs_operator.mirrors import hashed
from downloadjobs_operator.status import is_finished
from support_metrics import metrics_of
from support_operator import body, until
from support_operator_services import Site, operating

DONE = Outcome(JobState.COMPLETED, result_key="results/one/1.zip", result_bytes=5, files_done=2, bytes_done=4)
SHOWN: dict[str, Any] = {"mirror_api_jobs": "all", "mirror_namespace": "shown"}


def on(url: str, test: Callable[[Site], Awaitable[None]], *objects: dict[str, Any], **settings: Any) -> None:  # noqa: ANN401 - settings' own types
    """Run a test's coroutine with an operator over this Redis."""

    async def main() -> None:
        async with operating(url, *objects, **settings) as site:
            await test(site)

    asyncio.run(main())


async def state(site: Site, job_id: str = "uid-of-one") -> JobState | None:
    """A job's state, if it has a record."""
    record = await site.record(job_id)
    return None if record is None else record.state


@pytest.mark.parametrize("finalizers", [[], [FINALIZER]], ids=["without its finalizer", "with it"])
def test_what_is_gone_all_at_once_is_withdrawn(valkey: ValkeyServer, finalizers: list[str]) -> None:
    """An object that went without having been withdrawn takes its job with it, and nothing of it is kept."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await state(site) is JobState.QUEUED
        site.cluster.objects["team", "one"]["metadata"]["finalizers"] = finalizers
        site.gone()
        assert await until(lambda: len(site.operator.tracking) == 0)
        assert await state(site) is JobState.CANCELLED

    on(valkey.url, test, body())


def test_what_went_before_its_job_was_submitted(valkey: ValkeyServer) -> None:
    """An object that goes while it is submitted leaves no job, whichever is first."""

    async def test(site: Site) -> None:
        site.cluster.busy_seconds = 0.05
        for number in range(20):
            name = f"n{number}"
            site.cluster.put(body(name))
            site.watch(name)
            await asyncio.sleep(0.005 * number)
            site.gone(name)
        assert await until(lambda: len(site.operator.tracking) == 0)
        assert await site.jobs.unfinished() == []

    on(valkey.url, test)


def test_a_job_without_its_object_is_found(valkey: ValkeyServer) -> None:
    """A job whose object went while nobody looked is withdrawn; those of others are left alone."""

    async def test(site: Site) -> None:
        for name in ("one", "there"):
            await site.changed(name)
        await site.submit_by_rest("by-rest")
        await site.submit_by_rest("elsewhere", "k8s:elsewhere")
        await site.damage("elsewhere", source="kubernetes")
        for name in ("one", "there"):
            site.operator.tracking.forget(f"uid-of-{name}")
        del site.cluster.objects["team", "one"]
        await site.operator._orphans.look()
        assert await state(site) is JobState.CANCELLED
        for job_id in ("uid-of-there", "by-rest", "elsewhere"):
            assert await state(site, job_id) is JobState.QUEUED

    on(valkey.url, test, body(), body("there"), running=False, watch_namespaces="team")


@pytest.mark.parametrize("may", [True, False], ids=["refused", "no leader"])
def test_what_cannot_be_known_is_left_alone(valkey: ValkeyServer, *, may: bool) -> None:
    """Without the API server's word that an object is gone, or without the Lease, its job stays."""

    async def test(site: Site) -> None:
        await site.changed()
        site.operator.tracking.forget("uid-of-one")
        del site.cluster.objects["team", "one"]
        if may:
            site.cluster.faults["uids"] = KubernetesError("forbidden")
        site.leads = may
        await site.operator._orphans.look()
        assert await state(site) is JobState.QUEUED

    on(valkey.url, test, body(), running=False, watch_namespaces="team")


def test_rights_that_come_back(valkey: ValkeyServer) -> None:
    """What was refused while the operator's rights were away is done by itself when they are back."""

    async def test(site: Site) -> None:
        await site.changed("old")
        for method in ("add_finalizer", "remove_finalizer"):
            site.cluster.faults[method] = KubernetesError("forbidden")
        with capture_logs() as logs:
            await site.changed("new")
            await site.deleted("old")
            await asyncio.sleep(1.5)
        assert await state(site, "uid-of-new") is None
        told = [
            (one["name"], one["event"].partition(":")[0]) for one in logs if one["log_level"] == "warning"
        ]
        assert told == [  # each once for all of a namespace that meet the same refusal
            ("new", "an object could not be reconciled; it is tried again"),
            ("old", "its DownloadJobs cannot be let go"),
        ]
        site.cluster.faults.clear()
        assert await until(lambda: not site.cluster.objects["team", "old"]["metadata"]["finalizers"])
        assert await until(lambda: site.cluster.status("new").get("phase") == "Queued")

    on(valkey.url, test, body("old"), body("new"))


@pytest.mark.parametrize(
    "command",
    [("CONFIG", "SET", "maxmemory", "1"), ("REPLICAOF", "127.0.0.1", "1")],
    ids=["full", "read-only replica"],
)
def test_a_redis_that_takes_no_writes(valkey: ValkeyServer, command: tuple[str, ...]) -> None:
    """A Redis that can be read, but not written to, is told like one that is away."""

    async def test(site: Site) -> None:
        redis = site.leases.redis
        assert await until(lambda: site.operator.listener.heard_at > 0)
        await asyncio.to_thread(redis.execute_command, *command)
        try:
            site.list()
            assert await until(
                lambda: reason_of(site.cluster.status(), Type.QUEUED) == "QueueUnavailable", seconds=8
            )
        finally:
            await asyncio.to_thread(redis.execute_command, "CONFIG", "SET", "maxmemory", "0")
            await asyncio.to_thread(redis.execute_command, "REPLICAOF", "NO", "ONE")
        assert await until(lambda: site.cluster.status().get("phase") == "Queued", seconds=15)

    on(valkey.url, test, body())


def test_a_stream_that_was_trimmed_is_noticed(valkey: ValkeyServer) -> None:
    """What was trimmed from the stream of events before it was read is found by comparing everything."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        await asyncio.sleep(0.2)
        job = site.lease()
        assert await until(lambda: site.cluster.status()["phase"] == "Processing")
        redis = site.leases.redis

        def finish_unheard() -> None:
            # In one transaction, so that the reader sees the stream only after it was trimmed.
            pipeline = redis.pipeline()
            pipeline.hset(job_key("uid-of-one"), mapping={"state": "failed", "error_code": "x"})
            pipeline.xadd(f"{ROOT}:events", {"job": "uid-of-one", "kind": "failed"})
            pipeline.xadd(f"{ROOT}:events", {"job": "other", "kind": "progress"})
            pipeline.xtrim(f"{ROOT}:events", maxlen=1, approximate=False)
            pipeline.execute()

        await asyncio.to_thread(finish_unheard)
        assert job.job_id == "uid-of-one"
        assert await until(lambda: site.cluster.status()["phase"] == "Failed", seconds=4)

    on(valkey.url, test, body())


def dead(site: Site) -> Job:
    """A job that has lost its worker as often as it may."""
    job = site.lease()
    while True:
        site.leases.redis.zadd(f"{ROOT}:leased", {job.job_id: 1})
        site.leases.reap()
        if site.leases.redis.hget(job_key(job.job_id), "state") == "failed":
            return job
        job = site.lease()


def test_a_dead_letter_that_is_queued_again_begins_anew(valkey: ValkeyServer) -> None:
    """The deadline of a dead letter that is queued again counts from then: it has its whole time again."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: "startTime" in site.cluster.status())
        job = await asyncio.to_thread(dead, site)
        assert await until(lambda: is_finished(site.cluster.status()))
        before = seconds_of(site.cluster.status()["startTime"])
        await asyncio.sleep(3.5)  # its deadline passes
        assert await asyncio.to_thread(DeadLetters(site.leases.redis).retry, job.job_id)
        assert await until(lambda: not is_finished(site.cluster.status()))
        again = seconds_of(site.cluster.status()["startTime"])
        assert before is not None
        assert again is not None
        assert again - before >= 3
        await asyncio.sleep(1)
        assert site.cluster.status()["phase"] == "Queued"

    on(valkey.url, test, body(spec={"activeDeadlineSeconds": 3}))


@pytest.mark.parametrize("field", ["activeDeadlineSeconds", "ttlSecondsAfterFinished"])
def test_an_alarm_acts_on_the_object_as_it_is(valkey: ValkeyServer, field: str) -> None:
    """A time that somebody made longer counts, although the watch has not shown that yet."""

    async def test(site: Site) -> None:
        await site.changed()
        if field == "ttlSecondsAfterFinished":
            site.leases.finish(site.lease(), DONE)
            assert await until(lambda: is_finished(site.cluster.status()))
        else:
            assert await until(lambda: "startTime" in site.cluster.status())
        site.cluster.objects["team", "one"]["spec"][field] = 600
        await asyncio.sleep(2.5)
        assert site.cluster.deleted == []
        assert await state(site) is not JobState.CANCELLED

    on(valkey.url, test, body(spec={field: 2}))


def test_no_alarm_without_the_lease(valkey: ValkeyServer) -> None:
    """A leader whose Lease may have run out cancels and deletes nothing, and goes on when it has it again."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: "startTime" in site.cluster.status())
        site.leads = False
        await asyncio.sleep(2)
        assert await state(site) is JobState.QUEUED
        site.leads = True
        assert await until(lambda: is_finished(site.cluster.status()))

    on(valkey.url, test, body(spec={"activeDeadlineSeconds": 1}))


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_a_deadline_goes_by_redis_clock(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """Where this machine's clock is wrong, by ten minutes either way, a deadline is as long as it says."""
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + ahead)

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: "startTime" in site.cluster.status())
        await asyncio.sleep(1)
        assert await state(site) is JobState.QUEUED
        assert await until(lambda: is_finished(site.cluster.status()), seconds=6)
        assert reason_of(site.cluster.status(), Type.FAILED) == "DeadlineExceeded"

    on(valkey.url, test, body(spec={"activeDeadlineSeconds": 3}))


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_a_status_lag_goes_by_redis_clock(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """Where this machine's clock is wrong, a status still lags by what it took to be written."""
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + ahead)

    async def test(site: Site) -> None:
        await asyncio.sleep(1)
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        assert await until(lambda: not site.operator.mirror.busy)
        lag = metrics_of(site.operator.metrics.registry).value("status_lag_seconds_sum")
        assert lag is not None
        assert 0 < lag < 10

    on(valkey.url, test, body())


def test_a_claim_on_a_mirror_that_is_only_just_seen(valkey: ValkeyServer) -> None:
    """A claim that was made while no operator ran is taken in once the mirror is known to be one."""

    async def test(site: Site) -> None:
        await site.submit_by_rest("job-1")
        await site.damage("job-1", mirror="u1")
        site.cluster.put(body("job-1", namespace="shown", uid="u1", annotations={CLAIM: digest_of("nonce")}))
        site.list("job-1", "shown")
        annotations = site.cluster.objects["shown", "job-1"]["metadata"]["annotations"]
        assert await until(lambda: CLAIM not in annotations)
        assert await ClaimStore(site.operator._claims._store._redis).holds("job-1", "nonce")

    on(valkey.url, test, **SHOWN)


def test_a_claim_is_not_taken_over(valkey: ValkeyServer) -> None:
    """Who copies another's digest to their own object takes nothing away, in whatever order it is seen."""

    async def test(site: Site) -> None:
        for name in ("copied", "one", "late"):
            site.watch(name)
        claims = ClaimStore(site.operator._claims._store._redis)
        left = site.cluster.objects
        assert await until(lambda: not any(one["metadata"]["annotations"] for one in left.values()))
        assert await claims.holds("uid-of-one", "nonce")

    claim = {CLAIM: digest_of("nonce")}
    on(valkey.url, test, *[body(name, annotations=claim) for name in ("copied", "one", "late")])


LOST = {"phase": "Queued", "jobId": "job-1"}


@pytest.mark.parametrize(
    ("status", "annotations", "reason"),
    [
        (LOST, {MIRROR: hashed("pending:nonce")}, "RecordLost"),
        (LOST, {}, "NotAMirror"),
        ({}, {MIRROR: hashed("pending:nonce")}, "NotAMirror"),
        ({"jobId": "job-2"}, {MIRROR: hashed("pending:nonce")}, "NotAMirror"),
    ],
    ids=["a mirror", "without the operator's mark", "without a status", "with another job's status"],
)
def test_a_mirror_whose_record_was_lost_while_nobody_looked(
    valkey: ValkeyServer, status: dict[str, Any], annotations: dict[str, str], reason: str
) -> None:
    """What has the operator's status and mark was a mirror; after a wipe its end says what became of it."""

    async def test(site: Site) -> None:
        site.list("job-1", "shown")
        shown = site.cluster.objects["shown", "job-1"]
        assert await until(lambda: is_true(shown.get("status", {}), Type.STALLED))
        assert reason_of(shown["status"], Type.FAILED) == reason
        assert await site.record("job-1") is None

    one = body("job-1", namespace="shown", uid="u1", annotations=annotations, status=status)
    on(valkey.url, test, one, **SHOWN)


def test_a_deletion_on_a_skewed_machine_waits_its_time(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long a deletion waits for the queue goes by the API server's clock, which wrote when it began."""
    del valkey
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 3600)

    async def test(site: Site) -> None:
        site.cluster.clock.heard(real())
        site.cluster.objects["team", "one"]["metadata"] |= {
            "deletionTimestamp": moment_of(real()),
            "finalizers": [FINALIZER],
        }
        site.watch()
        await asyncio.sleep(1)
        assert site.gave_up == 0

    on("redis://127.0.0.1:1/0", test, body())
