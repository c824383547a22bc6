"""The autoscaler on a real Valkey, with a Deployment in memory: what it patches, and whom it removes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.fences import FenceStore
from downloadjobs_core.job import NewJob
from downloadjobs_operator.autoscaler.decision import Limits, Mode
from downloadjobs_operator.autoscaler.workers import DELETION_COST, VICTIMS_COST
from downloadjobs_operator.kube_client import KubernetesError, KubernetesUnavailableError
from support_autoscaler import SETTLE_SECONDS, InMemoryWorkers, Scene, scaling
from support_operator import until

EAGER = Limits(max=10, concurrency=2, target_wait_seconds=1, cooldown_seconds=0)
"""Removes at once what is idle."""

SETTLED = 3 * SETTLE_SECONDS
"""After which a removal that was to come has come."""


def on(
    valkey: ValkeyServer,
    test: Callable[[Scene], Awaitable[None]],
    workers: InMemoryWorkers | None = None,
    limits: Limits = EAGER,
    **options: Any,  # noqa: ANN401 - `scaling`'s
) -> None:
    """Run a test's coroutine with an autoscaler at work."""

    async def main() -> None:
        async with scaling(valkey.url, workers or InMemoryWorkers(), limits, **options) as scene:
            await test(scene)

    asyncio.run(main())


def test_from_none_to_many_in_one_patch(valkey: ValkeyServer) -> None:
    """A burst asks for as many pods as it needs by one patch, with an Event that says why."""

    async def test(scene: Scene) -> None:
        assert await until(lambda: "Unchanged" in scene.outcomes())
        scene.submit(12)
        assert await until(lambda: scene.workers.scaled == [6])
        assert await until(lambda: scene.workers.reasons() == ["ScaledUp"])
        (event,) = scene.workers.events
        assert event["involvedObject"]["kind"] == "Deployment"
        assert "12 waiting" in event["message"]
        assert await until(lambda: len(scene.workers.alive()) == 6)
        assert await until(lambda: scene.sample("scale_latency_seconds_count", stage="ready") == 1)

    on(valkey, test)


def test_parked_jobs_are_told(valkey: ValkeyServer) -> None:
    """The document has how many jobs wait because their user runs as many as may."""

    async def test(scene: Scene) -> None:
        most = scene.leases.policy.user_max_running
        for number in range(most + 2):
            scene.leases.submit(
                NewJob(job_id=f"j{number}", user="ada", file_ids=(10_000,), total_file_ids=1, max_attempts=3)
            )
        for _ in range(most):
            assert scene.take("pod-0") is not None
        assert scene.take("pod-0") is None
        scene.autoscaler.wake()
        document = scene.autoscaler.history.document
        assert await until(lambda: any(one["inputs"]["parked"] == 2 for one in document()["items"]))

    on(valkey, test, InMemoryWorkers(1))


def test_whom_nobody_wakes_looks_by_itself(valkey: ValkeyServer) -> None:
    """A job whose event was lost brings a pod all the same, within some seconds."""

    async def test(scene: Scene) -> None:
        assert await until(lambda: "Unchanged" in scene.outcomes())
        scene.autoscaler.wake = lambda: None  # type: ignore[method-assign]
        scene.submit()
        assert await until(lambda: scene.workers.scaled == [1], seconds=10)

    on(valkey, test)


def test_idle_pods_go_and_busy_ones_stay(valkey: ValkeyServer) -> None:
    """Of five pods two work: the three others are removed, and counted as idle."""
    workers = InMemoryWorkers(5)

    async def test(scene: Scene) -> None:
        scene.submit(2)
        busy = {"pod-1", "pod-4"}
        for uid in busy:
            assert scene.take(uid) is not None
        assert await until(lambda: set(workers.alive()) == busy)
        assert await until(lambda: scene.sample("victims_total", state="idle") == 3)
        assert scene.sample("victims_total", state="busy") == 0
        assert workers.scaled == [2]
        assert await until(lambda: "ScaledDown" in workers.reasons())

    on(valkey, test, workers)


def test_nothing_goes_without_a_fence(valkey: ValkeyServer) -> None:
    """When the Deployment is patched, each victim is fenced, and has the least deletion cost."""
    workers = InMemoryWorkers(2)
    seen: list[tuple[object, set[str]]] = []

    async def test(scene: Scene) -> None:
        redis = scene.leases.redis

        def look() -> None:
            costs = {pod["metadata"]["annotations"].get(DELETION_COST) for pod in workers.pods_there.values()}
            seen.append((redis.zcard("{downloadjobs}:fenced"), costs))

        workers.before["scale"] = look
        assert await until(lambda: workers.scaled == [0])
        assert seen == [(2, {VICTIMS_COST})]

    on(valkey, test, workers)


def test_an_evicted_pod_is_no_rollout(valkey: ValkeyServer) -> None:
    """Beside a pod of an older template that the kubelet evicted, idle pods are removed as ever."""
    workers = InMemoryWorkers(2)
    workers.evict(workers.add(template="t0"))

    async def test(_: Scene) -> None:
        assert await until(lambda: workers.alive() == [])
        assert workers.scaled == [0]

    on(valkey, test, workers)


def test_whoever_takes_a_job_first_stays(valkey: ValkeyServer) -> None:
    """A pod that takes a job between the decision and its fence stays; the others go."""
    workers = InMemoryWorkers(3)

    async def test(scene: Scene) -> None:
        def take() -> None:
            del workers.before["deployment"]
            scene.submit()
            assert scene.take("pod-2") is not None

        workers.before["deployment"] = take
        assert await until(lambda: workers.alive() == ["pod-2"])
        assert scene.sample("victims_total", state="busy") == 0
        assert await until(lambda: bool(workers.events))
        assert "2 of them could be removed; the others took jobs." in workers.events[0]["message"]

    on(valkey, test, workers)


def test_pods_that_have_just_come_took_no_job(valkey: ValkeyServer) -> None:
    """Pods that came after the decision stay, and the Event says that, and of no job."""
    workers = InMemoryWorkers(1)
    workers.replicas = 3

    async def test(_: Scene) -> None:
        def come() -> None:
            del workers.before["deployment"]
            workers.add()
            workers.add()

        workers.before["deployment"] = come
        assert await until(lambda: bool(workers.events))
        assert "1 of them could be removed; the others had only just come." in workers.events[0]["message"]

    on(valkey, test, workers)


def test_a_fenced_pod_gets_no_job(valkey: ValkeyServer) -> None:
    """Between fence and patch a victim gets no job, though one waits."""
    workers = InMemoryWorkers(1)

    async def test(scene: Scene) -> None:
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") == 1)
        scene.autoscaler.wake = lambda: None  # type: ignore[method-assign]
        scene.submit()
        assert scene.take("pod-0") is None

    on(valkey, test, workers, settle_seconds=1)


def test_more_work_ends_a_removal(valkey: ValkeyServer) -> None:
    """Work that comes before the patch gives the removal up: the pods are free again, and more come."""
    workers = InMemoryWorkers(4)

    async def test(scene: Scene) -> None:
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") == 4)
        scene.submit(12)
        assert await until(lambda: workers.scaled == [6], seconds=2)
        assert scene.leases.redis.zcard("{downloadjobs}:fenced") == 0
        assert not workers.gone()
        assert all(DELETION_COST not in pod["metadata"]["annotations"] for pod in workers.pods_there.values())

    on(valkey, test, workers, settle_seconds=5)


@pytest.mark.parametrize(
    ("what", "meanwhile"),
    [
        ("replicas", lambda workers: setattr(workers, "replicas", 4)),
        ("a pod more", lambda workers: workers.add()),
        ("another template", lambda workers: workers.add(template="t2")),
        ("a busy one not ready", lambda workers: workers.ready("pod-0", ready=False)),
    ],
)
def test_whatever_changes_meanwhile_ends_a_removal(
    valkey: ValkeyServer, what: str, meanwhile: Callable[[InMemoryWorkers], None]
) -> None:
    """A change of the Deployment or its pods before the patch ends the removal: no pod goes by it."""
    workers = InMemoryWorkers(3)
    workers.controlled = False

    async def test(scene: Scene) -> None:
        scene.submit()
        assert scene.take("pod-0") is not None
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") == 2), what
        meanwhile(workers)
        assert await until(lambda: "Refused" in scene.outcomes()), what
        assert scene.leases.redis.zcard("{downloadjobs}:fenced") == 0
        assert workers.scaled == []

    on(valkey, test, workers, settle_seconds=0.5)


def test_a_pod_that_is_not_ready_is_fenced_too(valkey: ValkeyServer) -> None:
    """A pod that is not ready would go before any victim, so it is fenced though it is none."""
    workers = InMemoryWorkers(1)
    workers.controlled = False
    for _ in range(3):
        workers.add(ready=False)
    workers.replicas = 4
    limits = replace(EAGER, min=3)

    async def test(scene: Scene) -> None:
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") == 3)
        workers.controlled = True
        assert await until(lambda: len(workers.gone()) == 1)
        # The two others are let free.
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") <= 1)
        assert scene.sample("victims_total", state="busy") == 0

    on(valkey, test, workers, limits)


def rollout(old: int, new: int, *, room: bool = False) -> InMemoryWorkers:
    """Workers of which new ones were made, for which there may be no room."""
    workers = InMemoryWorkers(old)
    for _ in range(new):
        workers.add(template="t2", room=room, ready=False)
    return workers


@pytest.mark.parametrize("takes_from", ["t1", "t2"])
def test_a_rollout_without_room_is_given_some(valkey: ValkeyServer, takes_from: str) -> None:
    """Idle pods go though a rollout is under way, without room; the busy one stays, whatever is chosen."""
    workers = rollout(4, 1)
    workers.takes_from = takes_from

    async def test(scene: Scene) -> None:
        scene.submit()
        assert scene.take("pod-3") is not None
        assert await until(lambda: len(workers.gone()) == 3)
        assert "pod-3" in workers.alive()
        assert workers.scaled == [2]
        # What survives works again.
        assert await until(lambda: not scene.leases.redis.zcard("{downloadjobs}:fenced") - 3)
        scene.submit(2)
        (other,) = set(workers.alive()) - {"pod-3"}
        assert await until(lambda: scene.take(other) is not None)
        assert await until(lambda: scene.sample("victims_total", state="idle") == 3)
        assert scene.sample("victims_total", state="busy") == 0

    on(valkey, test, workers)


def test_an_idle_rollout_without_room_ends(valkey: ValkeyServer) -> None:
    """Where nothing works all pods go, and with them the rollout."""
    workers = rollout(3, 1)

    async def test(scene: Scene) -> None:
        assert await until(lambda: not workers.alive())
        assert workers.scaled == [0]
        assert scene.sample("held", reason="rollout") == 0

    on(valkey, test, workers)


def test_a_rollout_that_goes_on_is_left_alone(valkey: ValkeyServer) -> None:
    """New pods that only start are no reason to remove any; and the metric says what is waited for."""
    workers = rollout(3, 1, room=True)

    async def test(scene: Scene) -> None:
        assert await until(lambda: scene.sample("held", reason="rollout") == 1)
        await asyncio.sleep(SETTLED)
        assert workers.scaled == []

    on(valkey, test, workers)


def test_a_rollout_that_goes_on_meanwhile_ends_a_removal(valkey: ValkeyServer) -> None:
    """A new pod that found room after all, and took a job, ends the removal before the patch."""
    workers = rollout(3, 1)

    async def test(scene: Scene) -> None:
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") == 4)
        workers.terminate("pod-0")
        scene.submit()
        assert scene.take(workers.add(template="t2")) is not None
        assert await until(lambda: "Refused" in scene.outcomes())
        assert workers.scaled == []

    on(valkey, test, workers, settle_seconds=0.5)


class BrokenFences(FenceStore):
    """Says that all are fenced, and fences none."""

    async def fence(self, holders: Sequence[str], *, seconds: float) -> list[str]:
        del seconds
        return list(holders)


def test_a_broken_fence_would_be_counted(valkey: ValkeyServer) -> None:
    """Without fences a pod that takes a job in time is removed while it works, and is counted as busy."""
    workers = InMemoryWorkers(1)

    async def test(scene: Scene) -> None:
        def take() -> None:
            del workers.before["scale"]
            scene.submit()
            assert scene.take("pod-0") is not None

        workers.before["scale"] = take
        workers.at_once = True
        assert await until(lambda: scene.sample("victims_total", state="busy") == 1)

    on(valkey, test, workers, fences=BrokenFences)


def test_a_pod_that_goes_in_a_victims_place_is_counted(valkey: ValkeyServer) -> None:
    """If Kubernetes takes another pod than the victim, that one counts, busy as it is."""
    workers = InMemoryWorkers(2)
    workers.controlled = False

    async def test(scene: Scene) -> None:
        scene.submit()
        assert scene.take("pod-0") is not None
        assert await until(lambda: workers.scaled == [1])
        workers.terminate("pod-0")
        workers.touch()
        assert await until(lambda: scene.sample("victims_total", state="busy") == 1)

    on(valkey, test, workers)


def test_a_patch_without_an_answer_keeps_the_fences(valkey: ValkeyServer) -> None:
    """While it is not known whether the patch was done, its victims stay fenced; the failure is told once."""
    workers = InMemoryWorkers(2)
    workers.fault["scale"] = KubernetesUnavailableError("no answer")

    async def test(scene: Scene) -> None:
        assert await until(lambda: "Failed" in scene.outcomes())
        await asyncio.sleep(SETTLED)
        assert scene.leases.redis.zcard("{downloadjobs}:fenced") == 2
        assert workers.reasons() == ["ScalingFailed"]

    on(valkey, test, workers)


def test_a_patch_that_is_refused_frees_the_pods(valkey: ValkeyServer) -> None:
    """What the API server will not do, such as for want of rights, is told, and costs no pod its work."""
    workers = InMemoryWorkers(2)
    workers.fault["scale"] = KubernetesError("forbidden")

    async def test(scene: Scene) -> None:
        assert await until(lambda: "Failed" in scene.outcomes())
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") == 0)

    on(valkey, test, workers)


def test_a_failed_patch_is_tried_again(valkey: ValkeyServer) -> None:
    """Pods that could not be asked for are asked for again, and one failure after the other is told once."""
    workers = InMemoryWorkers()
    workers.fault["scale"] = KubernetesUnavailableError("no answer")

    async def test(scene: Scene) -> None:
        scene.submit(2)
        assert await until(lambda: "Failed" in scene.outcomes())
        await asyncio.sleep(0.7)
        del workers.fault["scale"]
        assert await until(lambda: workers.scaled == [1], seconds=10)
        assert await until(lambda: workers.reasons() == ["ScalingFailed", "ScaledUp"])

    on(valkey, test, workers)


def test_a_conflict_is_read_again(valkey: ValkeyServer) -> None:
    """A Deployment whose status changed is read again, and patched; one whose replicas changed is not."""
    workers = InMemoryWorkers()

    async def test(scene: Scene) -> None:
        def change() -> None:
            del workers.before["scale"]
            workers.version += 1

        workers.before["scale"] = change
        scene.submit(2)
        assert await until(lambda: workers.scaled == [1])

    on(valkey, test, workers)


def test_recommending_changes_nothing(valkey: ValkeyServer) -> None:
    """`mode: Recommend` tells what it would do, and patches nothing, neither up nor down."""
    workers = InMemoryWorkers(1)

    async def test(scene: Scene) -> None:
        scene.submit(12)
        assert await until(lambda: workers.reasons() == ["ScaleRecommended"])
        assert workers.events[0]["message"].startswith("Would scale from 1 to 6 pods")
        for _ in range(12):
            job = scene.take("elsewhere")
            assert job is not None
            scene.end(job)
        assert await until(lambda: "Would scale from 1 to 0" in workers.events[-1]["message"])
        await asyncio.sleep(SETTLED)
        assert (workers.scaled, workers.gone()) == ([], set())
        assert scene.leases.redis.zcard("{downloadjobs}:fenced") == 0

    on(valkey, test, workers, replace(EAGER, mode=Mode.RECOMMEND))


@pytest.mark.parametrize("woken", [True, False])
def test_recommending_ends_a_removal(valkey: ValkeyServer, *, woken: bool) -> None:
    """`mode: Recommend` that comes before a removal's patch stops it, and its pods are free again."""
    workers = InMemoryWorkers(2)

    async def test(scene: Scene) -> None:
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") == 2)
        scene.autoscaler._limits = replace(EAGER, mode=Mode.RECOMMEND)
        if woken:
            scene.autoscaler.wake()
        assert await until(lambda: "Refused" in scene.outcomes())
        assert await until(lambda: workers.reasons() == ["ScaleRecommended"])
        assert scene.leases.redis.zcard("{downloadjobs}:fenced") == 0
        assert all(DELETION_COST not in pod["metadata"]["annotations"] for pod in workers.pods_there.values())
        assert (workers.scaled, workers.gone()) == ([], set())

    on(valkey, test, workers, settle_seconds=1)


def test_without_redis_it_holds(valkey: ValkeyServer) -> None:
    """While Redis is away nothing changes, and a metric, an Event and the history say so."""
    workers = InMemoryWorkers(2)

    async def test(scene: Scene) -> None:
        scene.submit(2)
        busy = [scene.take(uid) for uid in ("pod-0", "pod-1")]
        assert all(busy)
        assert await until(lambda: "Unchanged" in scene.outcomes())
        valkey.pause()
        try:
            assert await until(lambda: scene.sample("held", reason="stale") == 1, seconds=20)
            assert await until(lambda: workers.reasons() == ["ScalingHeld"])
            assert scene.autoscaler.history.document()["items"][0]["reason"] == "StaleSignal"
            assert scene.sample("signal_age_seconds") > 1
        finally:
            valkey.resume()
        assert await until(lambda: scene.sample("held", reason="stale") == 0, seconds=20)
        assert workers.scaled == []

    on(valkey, test, workers, replace(EAGER, stale_seconds=1))


def test_fences_of_a_lost_operator_are_taken_away(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new operator lets pods free that an older one fenced, and takes the deletion cost away."""
    monkeypatch.setattr("downloadjobs_operator.autoscaler.scaling.RECOVER_SECONDS", 0.3)
    workers = InMemoryWorkers(1)
    workers.pods_there["pod-0"]["metadata"]["annotations"][DELETION_COST] = VICTIMS_COST

    async def test(scene: Scene) -> None:
        scene.leases.redis.zadd("{downloadjobs}:fenced", {"pod-0": 9e15})
        assert await until(lambda: scene.leases.redis.zcard("{downloadjobs}:fenced") == 0)
        assert await until(lambda: not workers.pods_there["pod-0"]["metadata"]["annotations"])

    on(valkey, test, workers, replace(EAGER, min=1))


def test_an_evicted_pod_keeps_no_fences(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A victim of a lost operator that was evicted is passed over, and the pods after it are let free."""
    monkeypatch.setattr("downloadjobs_operator.autoscaler.scaling.RECOVER_SECONDS", 0.3)
    workers = InMemoryWorkers(2)
    for pod in workers.pods_there.values():
        pod["metadata"]["annotations"][DELETION_COST] = VICTIMS_COST
    workers.evict("pod-0")
    workers.control()

    async def test(_: Scene) -> None:
        assert await until(lambda: not workers.pods_there["pod-1"]["metadata"]["annotations"])

    on(valkey, test, workers, replace(EAGER, min=2))


def test_a_missing_deployment_is_told(valkey: ValkeyServer) -> None:
    """While nothing is known of the workers nothing is decided; the queue's own metrics go on."""
    workers = InMemoryWorkers()
    workers.synced = False

    async def test(scene: Scene) -> None:
        scene.submit(2)
        assert await until(lambda: scene.sample("held", reason="unreachable") == 1)
        assert await until(lambda: scene.counts[-1].ready == 2)
        assert scene.outcomes() == []
        workers.synced = True
        workers.touch()
        assert await until(lambda: workers.scaled == [1])
        assert await until(lambda: scene.sample("held", reason="unreachable") == 0)

    on(valkey, test, workers)
