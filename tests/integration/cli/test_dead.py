"""`downloadjobs dead` and `cancel` against a real queue, as a person or a script calls them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from downloadjobs_cli.embedded import ValkeyServer, free_ports
from downloadjobs_cli.stack import without_addresses
from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import JobState
from support_processes import System

MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        """What it printed for a script."""
        return json.loads(self.out)


def command(*words: str, **settings: str) -> Ran:
    """Run one command line with these settings alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DOWNLOADJOBS_")}
    ran = subprocess.run(
        [sys.executable, "-m", "downloadjobs_cli", *words],
        env={**without_addresses(kept), **settings},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "Traceback" not in ran.stderr
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@dataclass(frozen=True)
class Queue:
    """A queue, and `downloadjobs dead` for it."""

    leases: LeaseStore
    url: str

    def dead(self, *words: str) -> Ran:
        """Run one of the commands."""
        return command("dead", *words, REDIS_URL=self.url)

    def submit(self, job_id: str, user: str = "ada") -> None:
        """A job that waits."""
        new = NewJob(job_id=job_id, user=user, file_ids=(10_000, 10_001), total_file_ids=2, max_attempts=3)
        assert self.leases.submit(new)

    def kill(self, job_id: str, user: str = "ada") -> None:
        """A job whose worker was lost twice."""
        self.submit(job_id, user)
        reaped = []
        for _ in range(2):
            assert self.leases.lease("w") is not None
            self.leases.redis.zadd(f"{ROOT}:leased", {job_id: 1})
            reaped.append(self.leases.reap())
        assert reaped == [(1, 0), (0, 1)]

    def record(self, job_id: str) -> dict[str, str]:
        """A job's hash; empty if there is none."""
        return self.leases.redis.hgetall(job_key(job_id))  # type: ignore[return-value]


@pytest.fixture
def queue(valkey: ValkeyServer) -> Iterator[Queue]:
    """An empty queue, where a job is dead after two deliveries."""
    redis = connect(RedisConfig(valkey.url))
    yield Queue(LeaseStore(redis, QueuePolicy(max_deliveries=2)), valkey.url)
    redis.close()


def test_an_empty_list_says_so(queue: Queue) -> None:
    """Without dead letters `dead list` is a sentence, and an empty list for scripts."""
    queue.submit("alive")
    ran = queue.dead("list")
    assert (ran.code, ran.out) == (0, "There are no dead letters.\n")
    ran = queue.dead("list", "--json")
    assert (ran.code, ran.document) == (0, {"items": []})


def test_the_list_is_a_table(queue: Queue) -> None:
    """`dead list` shows each with its user, when it died, its deliveries and files; the newest first."""
    queue.kill("j1")
    queue.kill("j2", "bob")
    ran = queue.dead("list")
    assert ran.code == 0
    header, *rows = [line.split() for line in ran.out.splitlines()]
    assert header == ["JOB", "USER", "DIED", "DELIVERIES", "FILES"]
    assert [[*row[:2], *row[3:]] for row in rows] == [["j2", "bob", "2", "2"], ["j1", "ada", "2", "2"]]
    assert all(re.fullmatch(MOMENT, row[2]) for row in rows)


def test_the_list_for_scripts(queue: Queue) -> None:
    """`dead list --json` gives the same, with the reason."""
    queue.kill("j1")
    ran = queue.dead("list", "--json")
    assert ran.code == 0
    (letter,) = ran.document["items"]
    assert re.fullmatch(MOMENT, letter.pop("diedAt"))
    assert letter == {
        "jobId": "j1",
        "user": "ada",
        "deliveries": 2,
        "files": 2,
        "message": "Its worker was lost 2 times without an outcome.",
    }


def test_the_list_has_a_limit(queue: Queue) -> None:
    """`--limit` shows so many of the newest."""
    for number in range(3):
        queue.kill(f"j{number}")
    listed = queue.dead("list", "--json", "--limit", "2").document["items"]
    assert [letter["jobId"] for letter in listed] == ["j2", "j1"]


def test_a_retried_one_is_queued_again(queue: Queue) -> None:
    """`dead retry` queues a job with its counts begun anew; it is no dead letter any more."""
    queue.kill("j1")
    ran = queue.dead("retry", "j1")
    assert (ran.code, ran.out) == (0, "j1  queued again\n")
    job = Job.from_hash(queue.record("j1"))
    assert (job.state, job.deliveries, job.failures, job.error_code) == (JobState.QUEUED, 0, 0, "")
    assert queue.leases.redis.ttl(job_key("j1")) == -1
    assert queue.dead("list", "--json").document == {"items": []}
    leased = queue.leases.lease("w")
    assert leased is not None
    assert (leased.job_id, leased.deliveries) == ("j1", 1)
    queue.leases.finish(leased, Outcome(JobState.COMPLETED))


def test_a_dropped_one_is_forgotten(queue: Queue) -> None:
    """`dead drop` removes a job, record and all."""
    queue.kill("j1")
    ran = queue.dead("drop", "j1")
    assert (ran.code, ran.out) == (0, "j1  forgotten\n")
    assert queue.record("j1") == {}
    assert queue.leases.redis.zcard(f"{ROOT}:user:ada:jobs") == 0
    assert queue.leases.lease("w") is None


@pytest.mark.parametrize(
    ("act", "done", "key"), [("retry", "queued again", "retried"), ("drop", "forgotten", "dropped")]
)
def test_what_is_no_dead_letter_is_refused(queue: Queue, act: str, done: str, key: str) -> None:
    """Of several jobs each is told; one that is no dead letter stays as it is, and the exit code is 4."""
    queue.kill("j1")
    queue.submit("alive")
    before = queue.record("alive")
    ran = queue.dead(act, "j1", "alive", "unknown")
    assert ran.code == 4
    assert ran.out.splitlines() == [
        f"j1  {done}", "alive  is no dead letter", "unknown  is no dead letter",
    ]  # fmt: skip
    assert queue.record("alive") == before
    ran = queue.dead(act, "j1", "alive", "--json")
    assert (ran.code, ran.document) == (4, {key: [], "notDead": ["j1", "alive"]})


@pytest.mark.parametrize(("act", "key"), [("retry", "retried"), ("drop", "dropped")])
def test_acting_for_scripts(queue: Queue, act: str, key: str) -> None:
    """`--json` tells which jobs were acted on, and which not."""
    queue.kill("j1")
    queue.kill("j2")
    ran = queue.dead(act, "j1", "j2", "--json")
    assert (ran.code, ran.document) == (0, {key: ["j1", "j2"], "notDead": []})


@pytest.mark.parametrize("act", ["retry", "drop"])
@pytest.mark.parametrize("words", [(), ("no/id",)], ids=["none", "no id"])
def test_acting_wants_ids(queue: Queue, act: str, words: tuple[str, ...]) -> None:
    """Without a job's id, or with what can be none, the command line is wrong: exit code 2."""
    assert queue.dead(act, *words).code == 2


@pytest.mark.parametrize("words", [("list",), ("retry", "j1"), ("drop", "j1")])
def test_a_queue_that_is_away(words: tuple[str, ...]) -> None:
    """When Redis cannot be reached the exit code is 3, with one sentence."""
    url = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
    ran = command("dead", *words, REDIS_URL=url)
    assert (ran.code, ran.out) == (3, "")
    assert "Redis cannot be reached" in ran.err
    assert "by REDIS_URL" in ran.err
    ran = command("dead", *words, "--json", REDIS_URL=url)
    assert ran.code == 3
    assert "unreachable" in ran.out + ran.err


def test_a_queue_by_host_and_port(queue: Queue, valkey: ValkeyServer) -> None:
    """REDIS_HOST and REDIS_PORT name the queue as well."""
    queue.kill("j1")
    ran = command("dead", "list", "--json", REDIS_HOST="127.0.0.1", REDIS_PORT=str(valkey.port))
    assert [letter["jobId"] for letter in ran.document["items"]] == ["j1"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("REDIS_URL", "nonsense"), ("REDIS_URL", "http://hidden:secret@localhost"), ("REDIS_PORT", "many")],
)
def test_wrong_settings(name: str, value: str) -> None:
    """A setting that is wrong is named, and a URL, which may hold a password, is not shown: exit code 2."""
    ran = command("dead", "list", **{name: value})
    assert (ran.code, ran.out) == (2, "")
    assert name in ran.err
    assert "secret" not in ran.err


def test_wrong_password(valkey: ValkeyServer) -> None:
    """A login that Redis refuses is told in a sentence, without the password: exit code 3."""
    ran = command("dead", "list", REDIS_URL=f"redis://nobody:secret@127.0.0.1:{valkey.port}/0")
    assert ran.code == 3
    assert "Redis refuses the login" in ran.err
    assert "secret" not in ran.err


def cancel(system: System, job_id: str, *words: str, user: str = "ada") -> Ran:
    """`downloadjobs cancel`."""
    return command("cancel", job_id, *words, "--api", f"http://127.0.0.1:{system.port}", "--user", user)


def test_cancel_ends_a_waiting_job(system: System) -> None:
    """`cancel` ends a job that waits and says so; the second time the API refuses: exit code 4."""
    system.start_api()
    job_id = system.submit([10_003])
    ran = cancel(system, job_id)
    assert (ran.code, ran.out) == (0, f"{job_id}  cancelled\n")
    assert system.status(job_id)["status"] == "cancelled"
    ran = cancel(system, job_id)
    assert (ran.code, ran.out) == (4, "")
    assert "has ended before" in ran.err
    ran = cancel(system, system.submit([10_003]), "--json")
    assert (ran.code, ran.document["state"]) == (0, "cancelled")


def test_cancel_is_for_the_owner(system: System) -> None:
    """Somebody else's job, and one that is not there, are refused: exit code 4; the job goes on."""
    system.start_api()
    job_id = system.submit([10_003])
    assert cancel(system, job_id, user="bob").code == 4
    assert cancel(system, "unknown").code == 4
    assert system.status(job_id)["status"] == "queued"


def test_cancel_without_an_api(system: System) -> None:
    """When the API does not answer the exit code is 3."""
    assert cancel(system, "j1").code == 3
