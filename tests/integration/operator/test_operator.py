"""The operator's services together, on a real Valkey: from an object to a job, and from a job to a status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from downloadjobs_cli.embedded import ValkeyServer, free_ports
from downloadjobs_core.claims import ClaimStore, digest_of
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_core.job import Job
from downloadjobs_core.leases import Outcome
from downloadjobs_core.states import JobState
from downloadjobs_operator.conditions import Type, is_true, reason_of
from downloadjobs_operator.downloadjob import CLAIM, MIRROR, DownloadJob, moment_of
from downloadjobs_operator.kube_client import KubernetesError, KubernetesUnavailableError
from downloadjobs_operator.mirroring import AGAIN_SECONDS, StatusMirror
from downloadjobs_operator.mirrors import hashed
from downloadjobs_operator.status import Verdict, is_finished
from downloadjobs_operator.tracking import Tracked
from support_operator import body, until
from support_operator_services import Site, operating

DONE = Outcome(JobState.COMPLETED, result_key="results/one/1.zip", result_bytes=5, files_done=2, bytes_done=4)

NO_REDIS = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
"""Where nobody listens."""


def on(url: str, test: Callable[[Site], Awaitable[None]], *objects: dict[str, Any], **settings: Any) -> None:  # noqa: ANN401 - settings' own types
    """Run a test's coroutine with an operator over this Redis."""

    async def main() -> None:
        async with operating(url, *objects, **settings) as site:
            await test(site)

    asyncio.run(main())


def reasons_of_events(site: Site) -> list[str]:
    """The reasons of all Events."""
    return [one["reason"] for one in site.cluster.events.values()]


def waiting(count: int) -> list[dict[str, Any]]:
    """Objects of one namespace, none of which is a job yet."""
    return [body(f"n{number}") for number in range(count)]


def test_an_object_becomes_a_job_and_shows_it(valkey: ValkeyServer) -> None:
    """Submitted, taken, and finished: each is in the status, and told as an Event."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        job = site.lease()
        assert job.job_id == "uid-of-one"
        assert await until(lambda: site.cluster.status()["phase"] == "Processing")
        site.leases.finish(job, DONE)
        assert await until(lambda: is_finished(site.cluster.status()))
        assert site.cluster.status()["result"]["key"] == "results/one/1.zip"
        assert await until(lambda: len(site.cluster.events) == 3)
        assert {one["reason"] for one in site.cluster.events.values()} == {"Queued", "Started", "Completed"}

    on(valkey.url, test, body())


def test_a_job_is_submitted_once(valkey: ValkeyServer) -> None:
    """However often an object is seen, and by whom, it is one job."""

    async def test(site: Site) -> None:
        await asyncio.gather(*(site.changed() for _ in range(5)))
        site.operator._missed()
        await asyncio.sleep(0.3)
        assert site.lease().job_id == "uid-of-one"
        assert site.leases.lease("worker-1") is None

    on(valkey.url, test, body())


def test_a_refusal_is_in_the_status(valkey: ValkeyServer) -> None:
    """What may not be is at its end, says why, and is no job."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: is_true(site.cluster.status(), Type.STALLED))
        assert reason_of(site.cluster.status(), Type.FAILED) == "UserIdNotAllowed"
        assert await site.record() is None

    on(valkey.url, test, body(spec={"userId": "ada"}))


def test_cancelled_before_it_was_a_job(valkey: ValkeyServer) -> None:
    """An object that is cancelled when it is first seen is cancelled, and no job."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Cancelled")
        assert await site.record() is None

    on(valkey.url, test, body(spec={"cancel": True}))


def test_a_deletion_withdraws_the_job(valkey: ValkeyServer) -> None:
    """The job of an object that goes is cancelled, and no repair brings it back."""

    async def test(site: Site) -> None:
        tracked = await site.changed()
        site.cluster.objects["team", "one"]["metadata"]["deletionTimestamp"] = moment_of(time.time())
        await site.deleted()
        site.operator._controller.look_at(tracked)
        await site.wipe()
        site.operator._missed()
        await asyncio.sleep(0.3)
        assert await site.record() is None

    on(valkey.url, test, body())


def test_a_deletion_waits_for_a_submission_under_way(valkey: ValkeyServer) -> None:
    """A submission that has read the object before it was deleted does not come after its withdrawal."""

    async def test(site: Site) -> None:
        site.cluster.busy_seconds = 0.3
        tracked = site.watch()
        submission = asyncio.create_task(site.operator._reconciler.reconcile(tracked))
        await asyncio.sleep(0.1)
        site.cluster.objects["team", "one"]["metadata"]["deletionTimestamp"] = moment_of(time.time())
        await site.deleted()
        await submission
        record = await site.record()
        assert record is None or record.state is JobState.CANCELLED

    on(valkey.url, test, body(), running=False)


def test_a_wipe_submits_what_is_unfinished(valkey: ValkeyServer) -> None:
    """After a wipe of Redis an unfinished object is a job again, and a finished one stays as it is."""

    async def test(site: Site) -> None:
        await site.changed("ended")
        assert await until(lambda: site.operator.listener.heard_at > 0)
        site.leases.finish(site.lease(), DONE)
        assert await until(lambda: is_finished(site.cluster.status("ended")))
        await site.changed("going")
        assert await until(lambda: site.cluster.status("going").get("phase") == "Queued")
        await asyncio.sleep(1.1)  # the listener looks at the epoch about every second
        await site.wipe()
        deadline = time.monotonic() + 8
        while await site.record("uid-of-going") is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert await site.record("uid-of-ended") is None
        assert site.cluster.status("ended")["phase"] == "Completed"

    on(valkey.url, test, body("ended"), body("going"))


def test_too_many_wait_until_one_begins(valkey: ValkeyServer) -> None:
    """What a full queue refuses says so, and is let in by itself when there is room."""

    async def test(site: Site) -> None:
        for number in range(3):
            await site.changed(f"n{number}")
        assert await until(lambda: reason_of(site.cluster.status("n2"), Type.QUEUED) == "QuotaExceeded")
        site.lease()
        assert await until(lambda: site.cluster.status("n2").get("phase") == "Queued")

    on(valkey.url, test, *waiting(3), user_max_queued=2)


def test_those_that_gave_up_do_not_stand_in_the_way(valkey: ValkeyServer) -> None:
    """Objects that were turned away and deleted since do not keep others from being let in."""

    async def test(site: Site) -> None:
        for number in range(25):
            await site.changed(f"n{number}")
        for number in range(1, 24):
            site.cluster.objects["team", f"n{number}"]["metadata"]["deletionTimestamp"] = moment_of(
                time.time()
            )
            await site.deleted(f"n{number}")
            site.gone(f"n{number}")
        site.lease()
        assert await until(lambda: site.cluster.status("n24").get("phase") == "Queued", seconds=3)

    on(valkey.url, test, *waiting(25), user_max_queued=1)


def test_of_what_was_turned_away_nothing_stays(valkey: ValkeyServer) -> None:
    """An object that was turned away, and is gone, is no longer remembered."""

    async def test(site: Site) -> None:
        for number in range(3):
            await site.changed(f"n{number}")
        site.cluster.objects["team", "n2"]["metadata"]["deletionTimestamp"] = moment_of(time.time())
        await site.deleted("n2")
        site.gone("n2")
        assert site.operator._reconciler.turned_away("team") == ["uid-of-n1"]

    on(valkey.url, test, *waiting(3), user_max_queued=1)


def test_of_alarms_nothing_stays(valkey: ValkeyServer) -> None:
    """The deadline of an object that is gone is no longer remembered, be it a year away."""

    async def test(site: Site) -> None:
        tracked = await site.changed()
        assert await until(lambda: bool(site.operator._alarms._at))
        site.gone()
        assert await until(lambda: not site.operator._alarms._at)
        site.operator._alarms.set(tracked)  # as a status does that was being written meanwhile
        assert site.operator._alarms._at == {}

    on(valkey.url, test, body(spec={"activeDeadlineSeconds": 31_536_000}))


def test_a_deadline_cancels(valkey: ValkeyServer) -> None:
    """A job whose time is over is cancelled, and told as a failure, once."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: is_finished(site.cluster.status()), seconds=4)
        assert reason_of(site.cluster.status(), Type.FAILED) == "DeadlineExceeded"
        assert await until(lambda: len(site.cluster.events) == 2)
        assert sorted(one["reason"] for one in site.cluster.events.values()) == ["Failed", "Queued"]

    on(valkey.url, test, body(spec={"activeDeadlineSeconds": 1}))


@pytest.mark.parametrize("fault", [KubernetesError("forbidden"), KubernetesUnavailableError("gone")], ids=str)
def test_a_deadline_does_not_spin(valkey: ValkeyServer, fault: Exception) -> None:
    """While a deadline's outcome cannot be written, it is tried again now and then, not all the time."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: "startTime" in site.cluster.status())
        site.cluster.faults["patch_status"] = fault
        await asyncio.sleep(2)
        before = len(site.cluster.patches)
        await asyncio.sleep(1)
        assert len(site.cluster.patches) - before <= 5

    on(valkey.url, test, body(spec={"activeDeadlineSeconds": 1}))


def test_an_end_of_life_deletes(valkey: ValkeyServer) -> None:
    """An object whose time after its end is over is deleted."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: is_finished(site.cluster.status()))
        assert await until(lambda: "one" in site.cluster.deleted)

    on(valkey.url, test, body(spec={"cancel": True, "ttlSecondsAfterFinished": 0}))


def test_refused_ends_of_life_are_tried_later_and_later(valkey: ValkeyServer) -> None:
    """Deletions that are refused are tried with a backoff, whatever changes meanwhile, and told once."""

    async def test(site: Site) -> None:
        alarms = site.operator._alarms
        waits: list[int] = []

        def soon(failures: int, *, refused: bool = False) -> float:
            assert refused
            waits.append(failures)
            return 0.02

        alarms._due.backoff_seconds = soon  # type: ignore[method-assign]
        site.cluster.faults["delete"] = KubernetesError("forbidden")
        with capture_logs() as logs:
            for number in range(3):
                tracked = await site.changed(f"n{number}")
                assert await until(lambda one=tracked: one.finished)  # type: ignore[misc]
            assert await until(lambda: waits.count(5) == 3)
            assert alarms._at == {}
        told = [line for line in logs if line["event"].startswith("an alarm could not be carried out")]
        assert [line["namespace"] for line in told if line["log_level"] == "warning"] == ["team"]
        del site.cluster.faults["delete"]
        assert await until(lambda: set(site.cluster.deleted) == {"n0", "n1", "n2"})

    spec = {"cancel": True, "ttlSecondsAfterFinished": 0}
    on(valkey.url, test, *(body(f"n{number}", spec=spec) for number in range(3)))


def test_what_happened_before_the_start_is_shown(valkey: ValkeyServer) -> None:
    """A job that ended while no operator ran is shown as soon as the watch shows its object."""

    async def test(site: Site) -> None:
        await site.submit_by_rest("uid-of-one", "k8s:team")
        site.leases.finish(site.lease(), DONE)
        assert await until(lambda: site.operator.listener.heard_at > 0)
        await asyncio.sleep(0.3)
        site.list()
        assert await until(lambda: is_finished(site.cluster.status()), seconds=3)

    on(valkey.url, test, body(status={"phase": "Queued", "jobId": "uid-of-one"}))


def test_the_limit_of_running_jobs_is_named(valkey: ValkeyServer) -> None:
    """The status of a job that its user's limit holds up names the operator's USER_MAX_RUNNING."""

    async def test(site: Site) -> None:
        await site.submit_by_rest("other", "k8s:team")
        await site.submit_by_rest("uid-of-one", "k8s:team")
        site.lease()
        assert site.leases.lease("worker-2") is None
        site.list()
        assert await until(lambda: "at once: 1 (USER_MAX_RUNNING)." in site.cluster.status()["message"])

    found = body(status={"phase": "Queued", "jobId": "uid-of-one", "message": ""})
    on(valkey.url, test, found, user_max_running=1)


def test_a_finished_objects_generation_is_observed(valkey: ValkeyServer) -> None:
    """A change of a finished object's spec is observed at once: kstatus calls it in progress until then."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        site.leases.finish(site.lease(), DONE)
        assert await until(lambda: is_finished(site.cluster.status()))
        site.cluster.objects["team", "one"]["metadata"] |= {"generation": 2, "resourceVersion": "900"}
        await site.changed()
        assert await until(lambda: site.cluster.status()["observedGeneration"] == 2, seconds=3)

    on(valkey.url, test, body())


@pytest.mark.parametrize(
    "field",
    [
        {"expires_us": "9" * 20, "state": "completed", "result_key": "k"},
        {"created_us": "9" * 20},
        {"state": "processing", "bytes_done": "1", "bytes_total": "9" * 18, "leased_us": "1"},
    ],
    ids=["expiry", "start", "guess"],
)
def test_one_damaged_record_does_not_end_the_operator(valkey: ValkeyServer, field: dict[str, str]) -> None:
    """A record that no status can be made of is one object's fault: the others' statuses go on."""

    async def test(site: Site) -> None:
        await site.changed("bad")
        await site.damage("uid-of-bad", **field)
        site.operator._missed()
        await asyncio.sleep(0.2)
        await site.changed("good")
        assert await until(lambda: site.cluster.status("good").get("phase") == "Queued", seconds=3)

    on(valkey.url, test, body("bad"), body("good"))


def test_one_status_by_hand_does_not_end_the_operator(valkey: ValkeyServer) -> None:
    """Whoever may write statuses can spoil one object's, and no other's."""

    async def test(site: Site) -> None:
        await site.changed("bad")
        assert await until(lambda: site.cluster.status("bad").get("phase") == "Queued")
        tracked = site.watch("bad")
        tracked.status = {**tracked.status, "progress": {"percent": "half"}}
        site.operator.mirror.mark(tracked)
        await asyncio.sleep(0.2)
        await site.changed("good")
        assert await until(lambda: site.cluster.status("good").get("phase") == "Queued", seconds=3)

    on(valkey.url, test, body("bad"), body("good"))


def write_by_hand(site: Site) -> None:
    """Somebody else writes a status, and the watch shows it."""
    stored = site.cluster.objects["team", "one"]
    stored["status"] = {**stored["status"], "phase": "Completed"}
    stored["metadata"]["resourceVersion"] += "0"
    site.watch()


def test_a_status_by_hand_is_put_right_at_once(valkey: ValkeyServer) -> None:
    """Whoever may write statuses can make one lie for a moment, not until the next comparison."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        site.watch()
        write_by_hand(site)
        assert await until(lambda: site.cluster.status().get("phase") == "Queued", seconds=3)

    on(valkey.url, test, body())


def test_a_status_by_hand_is_noticed_however_quick_the_watch_is(valkey: ValkeyServer) -> None:
    """Also where the watch showed our patch before the API server's answer to it came."""

    async def test(site: Site) -> None:
        patch = site.cluster.patch_status

        async def shown_first(dj: DownloadJob, status: Mapping[str, Any]) -> str:
            version = await patch(dj, status)
            site.watch()
            return version

        site.cluster.patch_status = shown_first  # type: ignore[method-assign]
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        assert await until(lambda: not site.operator.mirror.busy)
        write_by_hand(site)
        assert await until(lambda: site.cluster.status().get("phase") == "Queued", seconds=3)

    on(valkey.url, test, body())


def test_a_status_by_hand_is_noticed_though_ours_was_passed_over(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the watch shows another's status and never ours, that is compared once ours is late."""
    monkeypatch.setattr("downloadjobs_operator.mirroring.OWN_PATCH_SECONDS", 0.5)

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        write_by_hand(site)
        assert site.cluster.status()["phase"] == "Completed"
        assert await until(lambda: site.cluster.status().get("phase") == "Queued", seconds=3)

    on(valkey.url, test, body())


@pytest.mark.parametrize("method", ["patch_status", "announce"])
def test_a_fault_of_a_write_ends_nothing(valkey: ValkeyServer, method: str) -> None:
    """A refused status or Event is one object's: the operator goes on."""

    async def test(site: Site) -> None:
        site.cluster.faults[method] = KubernetesError("forbidden")
        await site.changed("n0")
        await asyncio.sleep(0.3)
        del site.cluster.faults[method]
        await site.changed("n1")
        assert await until(lambda: site.cluster.status("n1").get("phase") == "Queued")

    on(valkey.url, test, *waiting(2))


def hurry(mirror: StatusMirror, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a mirror try again at once, and note for how many seconds it would have waited."""
    again = mirror._again

    def soon(batch: list[Tracked], seconds: float = AGAIN_SECONDS) -> None:
        waits.append(seconds)
        again(batch, 0.01)

    monkeypatch.setattr(mirror, "_again", soon)


def test_a_refusal_is_told_once_for_its_namespace(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many objects and tries; again once something was written there. It is tried later and later."""
    told: list[MutableMapping[str, Any]] = []
    waits: list[float] = []

    async def test(site: Site) -> None:
        hurry(site.operator.mirror, waits, monkeypatch)
        site.cluster.faults["patch_status"] = KubernetesError("forbidden")
        with capture_logs() as logs:
            for number in range(5):
                await site.changed(f"n{number}")
            assert await until(lambda: waits.count(30.0) >= 5)
            told.extend(line for line in logs if line["event"] == "a status was refused")
        del site.cluster.faults["patch_status"]
        assert await until(
            lambda: all(site.cluster.status(f"n{n}").get("phase") == "Queued" for n in range(5))
        )

    on(valkey.url, test, *waiting(5))
    assert [line["namespace"] for line in told if line["log_level"] == "warning"] == ["team"]
    assert len(told) > 5
    assert set(waits) == {15.0, 30.0}


def test_a_refused_status_of_what_goes_is_left(valkey: ValkeyServer) -> None:
    """Its namespace may be going as well: nothing is tried again and again for nobody."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        site.cluster.faults["patch_status"] = KubernetesError("forbidden")
        site.cluster.faults["remove_finalizer"] = KubernetesError("forbidden")
        metadata = site.cluster.objects["team", "one"]["metadata"]
        metadata["deletionTimestamp"] = moment_of(time.time())
        tracked = site.watch()
        assert await until(lambda: tracked.refusals == 1)
        await asyncio.sleep(0.1)
        assert not site.operator.mirror.busy

    on(valkey.url, test, body())


def test_a_status_that_could_not_be_written_is_written_later(valkey: ValkeyServer) -> None:
    """While the API server is away nothing is lost: the status is written once it is back."""

    async def test(site: Site) -> None:
        site.cluster.faults["patch_status"] = KubernetesUnavailableError("gone")
        await site.changed()
        await asyncio.sleep(0.3)
        assert site.cluster.status() == {}
        del site.cluster.faults["patch_status"]
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")

    on(valkey.url, test, body())


def test_a_status_that_cannot_be_written_is_tried_later_and_later(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the API server cannot answer, each try of a status waits twice as long as the one before."""
    waits: list[float] = []

    async def test(site: Site) -> None:
        hurry(site.operator.mirror, waits, monkeypatch)
        site.cluster.faults["patch_status"] = KubernetesUnavailableError("answered 500")
        tracked = await site.changed()
        assert await until(lambda: len(waits) >= 6)
        del site.cluster.faults["patch_status"]
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        assert tracked.failures == 0

    on(valkey.url, test, body())
    assert waits[:6] == [1, 2, 4, 8, 10, 10]


def test_changes_of_a_status_that_waits_begin_no_other_tries(valkey: ValkeyServer) -> None:
    """However often an object changes while its status cannot be written, it waits for one next try."""

    async def test(site: Site) -> None:
        site.cluster.faults["patch_status"] = KubernetesUnavailableError("answered 500")
        tracked = await site.changed()
        for number in range(1, 11):
            assert await until(lambda least=number: tracked.failures >= least)  # type: ignore[misc]
            site.operator.mirror.mark(tracked)
        assert list(site.operator.mirror._timers) == ["uid-of-one"]
        before = len(site.cluster.patches)
        await asyncio.sleep(2.5)
        assert len(site.cluster.patches) - before <= 2

    on(valkey.url, test, body())


def test_a_change_while_a_status_is_written_is_not_lost(valkey: ValkeyServer) -> None:
    """What changes while a patch is under way is written after it."""

    async def test(site: Site) -> None:
        site.cluster.busy_seconds = 0.2
        await site.changed()
        await asyncio.sleep(0.1)
        job = site.lease()
        await asyncio.sleep(0.15)
        site.leases.finish(job, DONE)
        assert await until(lambda: is_finished(site.cluster.status()))
        assert not site.operator.mirror._marked

    on(valkey.url, test, body())


def test_marks_coalesce(valkey: ValkeyServer) -> None:
    """A hundred marks of an object whose status is right cost no patch."""

    async def test(site: Site) -> None:
        tracked = await site.changed()
        assert await until(lambda: site.cluster.status().get("phase") == "Queued")
        await asyncio.sleep(0.2)
        before = len(site.cluster.patches)
        for _ in range(100):
            site.operator.mirror.mark(tracked)
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)
        assert len(site.cluster.patches) == before

    on(valkey.url, test, body())


def test_without_redis_it_is_called_again() -> None:
    """A submission that cannot be made now is tried again, later and later."""

    async def test(site: Site) -> None:
        tracked = await site.changed()
        failures = site.operator._controller._queue._failures
        assert await until(lambda: failures.get(tracked.dj.uid, 0) >= 2)

    on(NO_REDIS, test, body())


def test_without_redis_it_is_told() -> None:
    """That the queue cannot be reached is in the status while that is so."""

    async def test(site: Site) -> None:
        await site.changed()
        assert await until(
            lambda: reason_of(site.cluster.status(), Type.QUEUED) == "QueueUnavailable", seconds=3
        )
        assert site.cluster.status()["phase"] == "Pending"
        assert await until(lambda: reasons_of_events(site) == ["QueueUnavailable"])

    on(NO_REDIS, test, body())


def test_without_redis_one_status_by_hand_does_not_end_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor while the queue cannot be reached, when statuses are computed without it."""

    async def test(site: Site) -> None:
        computed = site.operator.mirror._status

        def status(tracked: Tracked, job: Job | None) -> dict[str, Any] | None:
            if tracked.dj.name == "worse":
                raise ValueError("something else that nobody thought of")
            return computed(tracked, job)

        monkeypatch.setattr(site.operator.mirror, "_status", status)
        for name in ("bad", "worse", "good"):
            site.watch(name)
        for name in ("bad", "good"):
            assert await until(lambda name=name: site.cluster.status(name).get("phase") == "Pending")  # type: ignore[misc]

    forged = {"progress": {"percent": "9" * 5_000 + "%"}}
    on(NO_REDIS, test, body("bad", status=forged), body("worse"), body("good"))


def test_without_redis_it_is_told_whoever_asked() -> None:
    """One that is asked for by a repair, such as a copy or one from before a restart, says so as well."""

    async def test(site: Site) -> None:
        site.list()
        assert await until(lambda: site.cluster.status().get("phase") == "Pending", seconds=3)

    on(NO_REDIS, test, body())


def test_with_redis_it_is_not_told(valkey: ValkeyServer) -> None:
    """Once a job is there, no status says that the queue cannot be reached."""

    async def test(site: Site) -> None:
        tracked = await site.changed()
        tracked.verdict = Verdict(
            final=False, reason="QueueUnavailable", message="The queue cannot be reached."
        )
        site.operator.mirror.mark(tracked)
        await until(lambda: bool(site.cluster.patches), seconds=1)
        assert "QueueUnavailable" not in str(site.cluster.patches)

    on(valkey.url, test, body())


def test_without_redis_a_deletion_waits(valkey: ValkeyServer) -> None:
    """A deletion waits for the queue, but not for ever."""
    del valkey

    async def test(site: Site) -> None:
        metadata = site.cluster.objects["team", "one"]["metadata"]
        metadata["deletionTimestamp"] = moment_of(time.time())
        with pytest.raises(QueueUnavailableError):
            await site.deleted()
        with pytest.raises(QueueUnavailableError):
            await site.deleted()
        assert site.gave_up == 0
        assert site.operator.mirror._news.qsize() == 1  # told once, however often it is tried
        metadata["deletionTimestamp"] = moment_of(time.time() - 700)
        await site.deleted()
        assert site.gave_up == 1

    on(NO_REDIS, test, body(), running=False)


def test_without_redis_a_mirrors_deletion_is_given_up_too() -> None:
    """An object in the namespace of mirrors goes without the queue after the same time."""

    async def test(site: Site) -> None:
        await site.deleted("job-1", "shown")

    gone = body("job-1", namespace="shown", deletionTimestamp=moment_of(time.time() - 700))
    on(NO_REDIS, test, gone, running=False, mirror_api_jobs="all", mirror_namespace="shown")


def test_a_record_of_a_newer_release_does_not_hold_an_object(valkey: ValkeyServer) -> None:
    """An object whose job's record cannot be read is let go as well, after the same time."""

    async def test(site: Site) -> None:
        await site.changed()
        await site.damage("uid-of-one", state="archived")
        site.cluster.objects["team", "one"]["metadata"]["deletionTimestamp"] = moment_of(time.time() - 700)
        await site.deleted()

    on(valkey.url, test, body(), running=False)


SHOWN: dict[str, Any] = {"mirror_api_jobs": "all", "mirror_namespace": "shown"}


def mirror_status(site: Site, job_id: str = "job-1") -> dict[str, Any]:
    """The status of a job's mirror; empty without one."""
    status: dict[str, Any] = site.cluster.objects.get(("shown", job_id), {}).get("status", {})
    return status


def test_a_rest_job_is_shown(valkey: ValkeyServer) -> None:
    """A job that came by REST has a mirror, which follows it to its end and submits nothing."""

    async def test(site: Site) -> None:
        assert await until(lambda: site.operator.listener.heard_at > 0)
        await site.submit_by_rest("job-1")
        assert await until(lambda: ("shown", "job-1") in site.cluster.objects)
        await site.changed("job-1", "shown")
        assert await until(lambda: mirror_status(site).get("phase") == "Queued")
        site.leases.finish(site.lease(), DONE)
        assert await until(lambda: is_finished(mirror_status(site)))
        assert site.leases.lease("worker-1") is None

    on(valkey.url, test, **SHOWN)


def test_a_mirror_is_known_again(valkey: ValkeyServer) -> None:
    """An operator that is started anew knows the mirrors of the one before, which follow their jobs."""

    async def main() -> None:
        async with operating(valkey.url, **SHOWN) as before:
            assert await until(lambda: before.operator.listener.heard_at > 0)
            await before.submit_by_rest("job-1")
            assert await until(lambda: ("shown", "job-1") in before.cluster.objects)
            await before.changed("job-1", "shown")
            kept = before.cluster.objects["shown", "job-1"]
        async with operating(valkey.url, kept, **SHOWN) as site:
            site.list("job-1", "shown")
            site.lease()
            assert await until(lambda: mirror_status(site).get("phase") == "Processing")

    asyncio.run(main())


def test_a_mirror_whose_uid_was_not_noted_is_known_by_its_nonce(valkey: ValkeyServer) -> None:
    """An operator that was killed between creating a mirror and noting its uid left a hash that proves it."""

    async def test(site: Site) -> None:
        await site.submit_by_rest("job-1")
        await site.damage("job-1", mirror="pending:nonce")
        site.cluster.put(
            body("job-1", namespace="shown", uid="u1", annotations={MIRROR: hashed("pending:nonce")})
        )
        tracked = await site.changed("job-1", "shown")
        record = await site.record("job-1")
        assert tracked.is_mirror
        assert record is not None
        assert record.mirror == "u1"

    on(valkey.url, test, running=False, **SHOWN)


@pytest.mark.parametrize(
    ("noted", "annotation"),
    [("", ""), ("", "pending:nonce"), ("pending:nonce", "pending:other"), ("u1", "pending:nonce")],
    ids=["by hand", "hash without a nonce", "another hash", "copied annotation"],
)
def test_no_object_by_hand_passes_for_a_mirror(valkey: ValkeyServer, noted: str, annotation: str) -> None:
    """Only the operator's own object shows a job: another of its name gets no control over it."""

    async def test(site: Site) -> None:
        await site.submit_by_rest("job-1")
        await site.damage("job-1", mirror=noted)
        annotations = {MIRROR: hashed(annotation)} if annotation else {}
        site.cluster.put(
            body("job-1", namespace="shown", uid="u2", annotations=annotations, spec={"cancel": True})
        )
        tracked = await site.changed("job-1", "shown")
        assert not tracked.is_mirror
        assert tracked.verdict is not None
        assert tracked.verdict.reason == "NotAMirror"
        site.cluster.objects["shown", "job-1"]["metadata"]["deletionTimestamp"] = moment_of(time.time())
        await site.deleted("job-1", "shown")
        record = await site.record("job-1")
        assert record is not None
        assert record.state is JobState.QUEUED

    on(valkey.url, test, running=False, **SHOWN)


def test_deleting_a_mirror(valkey: ValkeyServer) -> None:
    """Deleting an active job's mirror cancels it for good; deleting a finished one's leaves its result."""

    async def test(site: Site) -> None:
        assert await until(lambda: site.operator.listener.heard_at > 0)
        for job_id in ("job-1", "job-2"):
            await site.submit_by_rest(job_id)
        assert await until(lambda: len(site.cluster.objects) == 2)
        for job_id in ("job-1", "job-2"):
            await site.changed(job_id, "shown")
        finished = site.lease()
        site.leases.finish(finished, DONE)
        for job_id in ("job-1", "job-2"):
            site.cluster.objects["shown", job_id]["metadata"]["deletionTimestamp"] = moment_of(time.time())
            await site.deleted(job_id, "shown")
            site.gone(job_id, "shown")
        site.operator._missed()
        await asyncio.sleep(0.3)
        records = [await site.record(job_id) for job_id in ("job-1", "job-2")]
        states = {one.job_id: one.state for one in records if one is not None}
        assert states.pop(finished.job_id) is JobState.COMPLETED
        assert list(states.values()) == [JobState.CANCELLED]
        assert site.cluster.objects == {}
        kept = await site.record(finished.job_id)
        assert kept is not None
        assert kept.expires_us > (time.time() + 3600) * 1e6

    on(valkey.url, test, **SHOWN)


def test_one_damaged_record_does_not_end_mirroring(valkey: ValkeyServer) -> None:
    """A record that cannot be read is not shown, and the others are."""

    async def main() -> None:
        async with operating(valkey.url, running=False) as before:
            await before.submit_by_rest("bad")
            await before.damage("bad", attempt="many")
        async with operating(valkey.url, **SHOWN) as site:
            assert await until(lambda: site.operator.listener.heard_at > 0)
            await asyncio.sleep(0.2)
            await site.submit_by_rest("good")
            assert await until(lambda: ("shown", "good") in site.cluster.objects, seconds=3)
            assert ("shown", "bad") not in site.cluster.objects

    asyncio.run(main())


def test_a_claim_is_taken_in(valkey: ValkeyServer) -> None:
    """A claim goes to the queue, and its annotation goes; what is no digest goes too, and that is told."""

    async def test(site: Site) -> None:
        claims = ClaimStore(site.operator._claims._store._redis)
        for name in ("one", "two"):
            site.watch(name)
        left = site.cluster.objects
        assert await until(lambda: not any(one["metadata"]["annotations"] for one in left.values()))
        assert await claims.holds("uid-of-one", "nonce")
        (told,) = [one for one in site.cluster.events.values() if one["reason"] == "ClaimRefused"]
        assert told["involvedObject"]["name"] == "two"

    good, bad = body(annotations={CLAIM: digest_of("nonce")}), body("two", annotations={CLAIM: "x"})
    on(valkey.url, test, good, bad)
