"""Fences: a pod that shall be removed gets no job, and none that works is fenced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.fences import FenceStore
from downloadjobs_core.job import NewJob
from downloadjobs_core.leases import LeaseStore, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect, connect_async

Result = TypeVar("Result")

PODS = ("pod-1", "pod-2", "pod-3")


def store(valkey: ValkeyServer, jobs: int, lease_seconds: float = 30) -> LeaseStore:
    """A queue of so many jobs."""
    leases = LeaseStore(connect(RedisConfig(valkey.url)), QueuePolicy(lease_seconds=lease_seconds))
    for number in range(jobs):
        leases.submit(
            NewJob(job_id=f"job-{number}", user="ada", file_ids=(10_000,), total_file_ids=1, max_attempts=3)
        )
    return leases


def ask(valkey: ValkeyServer, question: Callable[[FenceStore], Awaitable[Result]]) -> Result:
    """Ask as the autoscaler does."""

    async def run() -> Result:
        redis = connect_async(RedisConfig(valkey.url), max_connections=2)
        try:
            return await question(FenceStore(redis))
        finally:
            await redis.aclose()

    return asyncio.run(run())


def test_only_idle_ones_are_fenced(valkey: ValkeyServer) -> None:
    """A process that holds a lease is not fenced, and the answer says which are."""
    leases = store(valkey, 1)
    assert leases.pop("worker", holder="pod-2") is not None
    assert ask(valkey, lambda fences: fences.fence(PODS, seconds=30)) == ["pod-1", "pod-3"]


def test_a_fenced_one_gets_nothing(valkey: ValkeyServer) -> None:
    """The pop of a fenced process gets no job, and another's gets it."""
    leases = store(valkey, 1)
    ask(valkey, lambda fences: fences.fence(["pod-1"], seconds=30))
    assert leases.pop("worker", holder="pod-1") is None
    assert leases.pop("worker", holder="pod-2") is not None


def test_a_fence_is_taken_away(valkey: ValkeyServer) -> None:
    """A process whose fence was taken away gets jobs again."""
    leases = store(valkey, 1)
    ask(valkey, lambda fences: fences.fence(["pod-1"], seconds=30))
    ask(valkey, lambda fences: fences.unfence(["pod-1"]))
    assert leases.pop("worker", holder="pod-1") is not None
    assert ask(valkey, lambda fences: fences.fenced()) == []


def test_a_fence_runs_out(valkey: ValkeyServer) -> None:
    """A fence that nobody renews ends by itself, as when who made it was killed."""
    leases = store(valkey, 1)
    ask(valkey, lambda fences: fences.fence(["pod-1"], seconds=0))
    assert leases.pop("worker", holder="pod-1") is not None


def test_holders_are_told(valkey: ValkeyServer) -> None:
    """Who holds how many live leases is told, and one that hands its job back holds none."""
    leases = store(valkey, 3)
    first = leases.pop("worker", holder="pod-1")
    assert first is not None
    assert leases.pop("worker", holder="pod-1") is not None
    assert leases.pop("other", holder="pod-2") is not None
    assert ask(valkey, lambda fences: fences.holders()) == {"pod-1": 2, "pod-2": 1}


def test_without_a_holder_it_is_the_worker(valkey: ValkeyServer) -> None:
    """Outside of Kubernetes a process is known by its worker's name."""
    leases = store(valkey, 1)
    assert leases.lease("worker") is not None
    assert ask(valkey, lambda fences: fences.holders()) == {"worker": 1}
