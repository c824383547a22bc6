"""Calls to callback URLs in a queue: both its sides, time that passes as a test says, and what must hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Final

from downloadjobs_core.job import Job, NewJob, job_key
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.states import JobState
from downloadjobs_core.webhook_addresses import AddressRules, callback_of
from downloadjobs_core.webhooks import Call, LeaseTerms, WebhookStore

WORLD: Final = AddressRules()
URL: Final = "https://hooks.example.com/downloads?key=secret"
TERMS: Final = LeaseTerms(lease_seconds=30, at_once_per_user=2, longest_seconds=3_600)


class Queue:
    """Both sides of the queue, and what a test looks at."""

    def __init__(self, url: str) -> None:
        self.redis: Any = connect(RedisConfig(url))  # its types know bytes as well
        self.jobs = LeaseStore(self.redis, QueuePolicy(max_deliveries=1))
        self.calls = WebhookStore(self.redis)
        self.scripts = Scripts(self.redis)

    def submit(
        self, job_id: str, *, user: str = "ada", url: str | None = URL, rules: AddressRules = WORLD
    ) -> None:
        """Accept a job."""
        callback = None if url is None else callback_of(url, rules)
        self.jobs.submit(
            NewJob(
                job_id=job_id,
                user=user,
                file_ids=(10_000,),
                total_file_ids=2,
                max_attempts=1,
                callback=callback,
            )
        )

    def finish(
        self, job_id: str, state: JobState = JobState.COMPLETED, *, user: str = "ada", url: str | None = URL
    ) -> Job:
        """Submit a job and end it."""
        self.submit(job_id, user=user, url=url)
        job = self.jobs.lease("worker")
        assert job is not None
        key = f"results/{job_id}/1.zip" if state is JobState.COMPLETED else ""
        self.jobs.finish(job, Outcome(state, result_key=key, result_bytes=7, files_done=1))
        return job

    def lease(self, **terms: float) -> Call | None:
        """Lease what is due first."""
        return self.calls.lease(replace(TERMS, **terms), holder="pod")  # type: ignore[arg-type]

    def leased(self, **terms: float) -> Call:
        """The same, where there must be one."""
        call = self.lease(**terms)
        assert call is not None
        return call

    def callback(self, job_id: str) -> Job:
        """What a job's record says of its calls."""
        return Job.from_hash(self.redis.hgetall(job_key(job_id)))

    def pass_time(self, seconds: float, *, ages: bool = True) -> None:
        """Let all that has a time come nearer, and, if it ages, what happened be longer ago."""
        delta = -int(seconds * 1_000_000)
        for name in self._sets("webhooks"):
            for member in self.redis.zrange(name, 0, -1):
                self.redis.zincrby(name, delta, member)
        for name in self.redis.keys(f"{ROOT}:webhook:*") if ages else ():
            self.redis.hincrby(name, "at_us", delta)

    def _sets(self, prefix: str) -> list[str]:
        return [name for name in self.redis.keys(f"{ROOT}:{prefix}*") if self.redis.type(name) == "zset"]

    def lane(self, user: str, url: str) -> list[str]:
        """Calls that wait for one receiver of a user, the next first."""
        origin = callback_of(url, WORLD).origin
        calls: list[str] = self.redis.zrange(f"{ROOT}:webhooks:lane:{user} {origin}", 0, -1)
        return calls

    def check(self) -> None:
        """Each call is in one place, from which it is found again; and what is under way is counted."""
        lanes = self._sets("webhooks:lane:")
        places = [f"{ROOT}:webhooks", f"{ROOT}:webhooks:sending", *lanes, *self._sets("webhooks:parked:")]
        found = Counter(call for name in places for call in self.redis.zrange(name, 0, -1))
        assert set(found.values()) <= {1}
        assert set(found) == {
            name.removeprefix(f"{ROOT}:webhook:") for name in self.redis.keys(f"{ROOT}:webhook:*")
        }
        for name in lanes:
            user, origin = name.removeprefix(f"{ROOT}:webhooks:lane:").split(" ")
            assert self.redis.zscore(f"{ROOT}:webhooks:lanes:{user}", origin) is not None
        for name in self._sets("webhooks:lanes:"):
            user = name.removeprefix(f"{ROOT}:webhooks:lanes:")
            assert self.redis.zscore(f"{ROOT}:webhooks:turns", user) is not None
        sending = Counter(
            self.redis.hget(f"{ROOT}:webhook:{call}", "user")
            for call in self.redis.zrange(f"{ROOT}:webhooks:sending", 0, -1)
        )
        counted = self.redis.hgetall(f"{ROOT}:webhooks:sending_by_user")
        assert {user: int(number) for user, number in counted.items()} == sending

    def left(self) -> set[str]:
        """Keys of calls that are still there."""
        kept = (f"{ROOT}:webhooks:wake", f"{ROOT}:webhooks:adopted")
        return {key for key in self.redis.keys(f"{ROOT}:webhook*") if key not in kept}
