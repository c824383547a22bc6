"""The queue's invariants in every state: a model beside the real Lua on a real Valkey.

Hypothesis plays submitters, workers that die or come back late, cancellations,
suspensions and the passing of time in any order, and after every step the sets
in Redis are compared with each other and with the model.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from downloadjobs_cli.embedded import ValkeyServer
from downloadjobs_core.errors import LeaseLostError, ResultGoneError, TooManyQueuedError
from downloadjobs_core.job import Job, NewJob, Once, job_key
from downloadjobs_core.leases import LeaseStore, Outcome, QueuePolicy
from downloadjobs_core.redis_client import RedisConfig, connect
from downloadjobs_core.scripts import ROOT, Scripts
from downloadjobs_core.sharing import Answer, Shared, Sharing, shared_result_key
from downloadjobs_core.states import FINISHED, JobState, Priority
from downloadjobs_core.upkeep import UpkeepStore

USERS = ("ann", "bob", "cy")
POLICY = QueuePolicy(max_deliveries=3, user_max_running=2, user_max_queued=6)
UNFINISHED = frozenset(JobState) - FINISHED
DIGESTS = ("d", "e")


@dataclass
class Known:
    """What the model knows of one job."""

    user: str
    state: JobState = JobState.QUEUED
    suspended: bool = False
    failures: int = 0
    deliveries: int = 0
    token: str = ""
    outcomes: int = 0
    """How often it has ended, or its result was published: never more than once."""
    tokens: set[str] = field(default_factory=set)
    attempt_bytes: int = 0
    worker_bytes: int = 0
    """Bytes that the attempt under way is done with, and those of all attempts before."""
    digest: str = ""
    """Of the result that its attempt makes or was told of; empty for one of its own."""
    offer: str = ""
    """The key of the result that its attempt was told of."""
    lease: Job | None = None
    """As it was leased last."""

    def attempt_ends(self) -> None:
        """Its lease is over, however that came."""
        self.token = ""
        self.worker_bytes += self.attempt_bytes
        self.attempt_bytes = 0


class QueueMachine(RuleBasedStateMachine):
    """Every operation of the queue, in any order."""

    server: ClassVar[ValkeyServer]
    submitted: Bundle[str] = Bundle("submitted")
    leased: Bundle[Job] = Bundle("leased")

    def __init__(self) -> None:
        super().__init__()
        self.redis = connect(RedisConfig(self.server.url))
        self.redis.flushall()
        self.queue = LeaseStore(self.redis, POLICY)
        self.scripts = Scripts(self.redis)
        self.jobs: dict[str, Known] = {}
        self.last_token = 0
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        """The job, and what was asked, by user and key."""
        self.upkeep = UpkeepStore(self.redis)
        self.flights: dict[str, tuple[str, str]] = {}
        """By digest, the job that makes its result, and the token of its attempt."""
        self.offered: dict[str, str] = {}
        """By digest, the key of the result that was made last."""
        self.sharers: dict[str, set[str]] = {}
        """By key, the jobs that point to it."""

    def submit_once(self, job_id: str, user: str, key: str, asked: str) -> tuple[Any, ...]:
        """Submit a job by a key; the script's reply."""
        new = NewJob(job_id=job_id, user=user, file_ids=(1,), total_file_ids=1, max_attempts=3)
        once = Once.of(user, key, {"asked": asked}, 1_000)
        arguments = new.submission(max_queued=POLICY.user_max_queued, record_seconds=1_000, once=once)
        return tuple(self.scripts.run("submit", *arguments))

    @rule(
        target=submitted, user=st.sampled_from(USERS), key=st.sampled_from("ab"), asked=st.sampled_from("xy")
    )
    def submit_by_key(self, user: str, key: str, asked: str) -> MultipleResults[str]:
        """By a key there is one job, in whatever state it is by now, and none for another request."""
        made = self.keys.get((user, key))
        job_id = f"job{len(self.jobs)}"
        waiting = sum(k.user == user and k.state in {"queued", "retrying"} for k in self.jobs.values())
        accepted, *rest = self.submit_once(job_id, user, key, asked)
        if made is not None:
            assert accepted == (2 if made[1] == asked else -2)
            assert accepted < 0 or rest[0] == made[0]
            return multiple()
        if waiting >= POLICY.user_max_queued:
            assert accepted == -1
            return multiple()
        assert accepted == 1
        self.keys[user, key] = (job_id, asked)
        self.jobs[job_id] = Known(user)
        return multiple(job_id)

    @invariant()
    def keys_point_to_jobs(self) -> None:
        """There are as many keys as requests by key that were accepted, and each has its job."""
        kept = cast("list[str]", self.redis.keys(f"{ROOT}:idempotency:*"))
        found = {cast("str", self.redis.get(name)).split()[1] for name in kept}
        assert found == {job_id for job_id, _ in self.keys.values()}
        assert len(kept) == len(self.keys)
        assert all(self.redis.exists(job_key(job_id)) for job_id in found)

    def teardown(self) -> None:
        self.redis.close()

    @rule(target=submitted, user=st.sampled_from(USERS), priority=st.sampled_from(Priority))
    def submit(self, user: str, priority: Priority) -> MultipleResults[str] | str:
        """A new job is accepted, unless as many of its user wait as may."""
        job_id = f"job{len(self.jobs)}"
        waiting = sum(k.user == user and k.state in {"queued", "retrying"} for k in self.jobs.values())
        new = NewJob(
            job_id=job_id, user=user, file_ids=(1,), total_file_ids=1, max_attempts=3, priority=priority
        )
        try:
            assert self.queue.submit(new)
        except TooManyQueuedError:
            assert waiting >= POLICY.user_max_queued
            return multiple()
        assert waiting < POLICY.user_max_queued
        self.jobs[job_id] = Known(user)
        return job_id

    @initialize(target=submitted, user=st.sampled_from(USERS))
    def begin_with_a_crowd(self, user: str) -> MultipleResults[str]:
        """One user has more jobs than may run, so that some are parked from the start."""
        for _ in range(POLICY.user_max_running + 4):
            self.submit(user, Priority.NORMAL)
        return multiple(*self.jobs)

    @rule(job_id=submitted, user=st.sampled_from(USERS))
    def submit_again(self, job_id: str, user: str) -> None:
        """An id that was accepted before changes nothing, whoever sends it."""
        new = NewJob(job_id=job_id, user=user, file_ids=(2,), total_file_ids=1, max_attempts=3)
        assert not self.queue.submit(new)

    @rule(target=leased, slots=st.integers(1, 4), digest=st.sampled_from(["", *DIGESTS]))
    def pop(self, slots: int, digest: str) -> MultipleResults[Job]:
        """Idle slots take what they can get, and look for the same result, or make their own."""
        jobs = list(filter(None, (self.pop_one() for _ in range(slots))))
        for job in jobs if digest else ():
            self.ask(job, digest, twice=False)
        return multiple(*jobs)

    def pop_one(self) -> Job | None:
        """A lease goes to a job that waits, is the only one on it, and has a token that never was before."""
        values = self.queue.pop("w")
        if values is None:
            return None
        job = Job.from_hash(values)
        if job.is_maintenance:
            self.scripts.run("maintenance_done", job.job_id, job.token, -1, "")
            return None
        known = self.jobs[job.job_id]
        assert known.state in {JobState.QUEUED, JobState.RETRYING}
        assert not known.suspended
        assert not known.token
        assert int(job.token) > self.last_token
        self.last_token = int(job.token)
        known.state, known.token, known.deliveries = JobState.PROCESSING, job.token, known.deliveries + 1
        known.digest, known.offer, known.lease = "", "", job
        assert (job.attempt, job.deliveries) == (known.failures + 1, known.deliveries)
        running = sum(k.user == known.user and k.state is JobState.PROCESSING for k in self.jobs.values())
        assert running <= POLICY.user_max_running
        return job

    def holds(self, job: Job) -> bool:
        return self.jobs[job.job_id].token == job.token

    def held(self, job: Job) -> Job:
        """This one, or, if its lease is over, another that is held: most of those drawn are long over."""
        leases = [job, *(known.lease for known in self.jobs.values() if known.lease is not None)]
        return next(filter(self.holds, leases), job)

    @rule(
        job=leased,
        state=st.sampled_from([JobState.COMPLETED, JobState.FAILED]),
        twice=st.booleans(),
        changed=st.booleans(),
        late=st.booleans(),
    )
    def finish(self, job: Job, *, state: JobState, twice: bool, changed: bool, late: bool) -> None:
        """Only the holder ends a job, once; a call that comes twice is not an error."""
        job = job if late else self.held(job)
        held = self.holds(job)
        known = self.jobs[job.job_id]
        outcome = self.outcome_of(job, state, changed=changed)
        if held and outcome.deduplicated and not self.sharers.get(outcome.result_key):
            with pytest.raises(ResultGoneError):
                self.queue.finish(job, outcome)
            return
        for _ in range(1 + twice):
            if held:
                self.queue.finish(job, outcome)
            elif not self.ended_it(job):
                with pytest.raises(LeaseLostError):
                    self.queue.finish(job, outcome)
        if held:
            known.attempt_bytes = 0 if outcome.deduplicated else outcome.bytes_done
            known.attempt_ends()
            known.state, known.outcomes, known.deliveries = state, known.outcomes + 1, 0
            assert known.outcomes == 1
            if outcome.shared:
                self.sharers.setdefault(outcome.result_key, set()).add(job.job_id)
                if outcome.shared.how is Sharing.OFFERED:
                    self.offered[known.digest] = outcome.result_key

    def outcome_of(self, job: Job, state: JobState, *, changed: bool) -> Outcome:
        """How an attempt ends, by what it was told: with its own result, a new shared one, or another's."""
        known = self.jobs[job.job_id]
        if state != "completed":
            return Outcome(state, bytes_done=5)
        if not known.digest:
            return Outcome(state, result_key=f"results/{job.job_id}/{job.token}.zip", bytes_done=5)
        key, how = shared_result_key("results/", known.digest, job.token), Sharing.OFFERED
        if known.offer:
            key, how = known.offer, Sharing.REUSED
        elif changed:
            how = Sharing.KEPT
        return Outcome(state, result_key=key, bytes_done=5, shared=Shared(how, known.digest, "etag"))

    @rule(job=leased, digest=st.sampled_from(DIGESTS), twice=st.booleans())
    def board(self, job: Job, digest: str, *, twice: bool) -> None:
        """An attempt makes a result only if there is none and nobody makes it; else it takes it or waits."""
        self.ask(job, digest, twice=twice)

    def ask(self, job: Job, digest: str, *, twice: bool) -> None:
        """Ask, and compare the answer with the model's."""
        known = self.jobs[job.job_id]
        if not self.holds(job):
            if not self.ended_it(job):
                with pytest.raises(LeaseLostError):
                    self.queue.board(job, digest)
            return
        if known.digest:
            return  # an attempt has one plan
        there = self.offered.get(digest, "")
        told = self.queue.board(job, digest)
        if self.sharers.get(there):
            assert (told.answer, told.key) == (Answer.THERE, there)
            known.digest, known.offer = digest, there
        elif self.builds(digest):
            assert told.answer is Answer.WAIT
            known.attempt_ends()
            known.state, known.deliveries = JobState.QUEUED, known.deliveries - 1
        else:
            assert told.answer is Answer.MAKE
            self.flights[digest], known.digest = (job.job_id, job.token), digest
        if twice:
            assert self.queue.board(job, digest) == told

    @rule(job_id=submitted)
    def result_expires(self, job_id: str) -> None:
        """A job's time with a shared result ends by a withdrawal; the object goes with the last of them."""
        key = next((key for key, jobs in self.sharers.items() if job_id in jobs), None)
        if key is None:
            return
        assert self.scripts.run("withdraw", job_id, "x", "x", 1000, 0, 1) == [1, "completed"]
        assert self.upkeep.expired_shared(10) == [key]
        self.sharers[key].remove(job_id)
        self.jobs[job_id].state = JobState.EXPIRED
        assert self.upkeep.expire_shared(key, 10) == (1, not self.sharers[key])
        if not self.sharers[key]:
            del self.sharers[key]
            self.upkeep.forget_shared(key)

    @rule(target=leased, digest=st.sampled_from(DIGESTS))
    def make_and_tell(self, digest: str) -> MultipleResults[Job]:
        """One makes a result, if nobody did; the next is told of it, and has yet to take it."""
        builder = self.pop_one()
        if builder is None:
            return multiple()
        self.ask(builder, digest, twice=False)
        if self.holds(builder):
            self.finish(builder, state=JobState.COMPLETED, twice=False, changed=False, late=True)
        told = self.pop_one()
        if told is None:
            return multiple(builder)
        self.ask(told, digest, twice=False)
        return multiple(builder, told)

    @rule(digest=st.sampled_from(DIGESTS))
    def result_goes(self, digest: str) -> None:
        """All of a result's jobs give it up: nobody is given it then, also who was told of it before."""
        for job_id in sorted(self.sharers.get(self.offered.get(digest, ""), ())):
            self.result_expires(job_id)

    @rule()
    def somebody_looks_after_results(self) -> None:
        """Where jobs wait for a result which nobody makes, the next is woken within a minute."""
        before = {digest: self.redis.zcard(f"{ROOT}:joined:{digest}") for digest in DIGESTS}
        for digest in cast("list[str]", self.redis.zrange(f"{ROOT}:followed", 0, -1)):
            self.redis.zadd(f"{ROOT}:followed", {digest: 1})
        self.queue.promote()
        for digest in DIGESTS:
            assert self.builds(digest) or self.redis.zcard(f"{ROOT}:joined:{digest}") < max(1, before[digest])

    def ended_it(self, job: Job) -> bool:
        """This very attempt ended the lease before: its calls succeed again, and change nothing."""
        return cast("str | None", self.redis.hget(job_key(job.job_id), "ended_token")) == job.token

    @rule(job=leased)
    def fail(self, job: Job) -> None:
        """A failed attempt ends and its retry is placed, together; only by the holder."""
        job = self.held(job)
        if not self.holds(job):
            return
        self.queue.retry_later(job, delay_seconds=60, code="x", message="x")
        known = self.jobs[job.job_id]
        known.attempt_ends()
        known.state, known.deliveries = JobState.RETRYING, 0
        known.failures += 1

    @rule(job=leased)
    def hand_back(self, job: Job) -> None:
        """A drain gives a job back without counting its delivery."""
        job = self.held(job)
        if not self.holds(job):
            return
        self.queue.hand_back(job)
        known = self.jobs[job.job_id]
        known.attempt_ends()
        known.state, known.deliveries = JobState.QUEUED, known.deliveries - 1

    @rule(job=leased)
    def work(self, job: Job) -> None:
        """Progress and renewals of the holder are accepted; those of anybody else are refused."""
        renewed = self.queue.renew([(job.job_id, job.token)]) == [""]
        assert renewed == self.holds(job)
        if self.holds(job):
            self.queue.progress(job, files_done=1, bytes_done=1, bytes_total=2)
            self.jobs[job.job_id].attempt_bytes = 1
            self.queue.check(job)
        else:
            with pytest.raises(LeaseLostError):
                self.queue.progress(job, files_done=9, bytes_done=9, bytes_total=9)
            with pytest.raises(LeaseLostError):
                self.queue.check(job)

    @rule(job=leased)
    def crash(self, job: Job) -> None:
        """A worker that dies leaves a lease that runs out; after three in a row the job is a dead letter."""
        job = self.held(job)
        if not self.holds(job):
            return
        self.redis.zadd(f"{ROOT}:leased", {job.job_id: 1})
        back, dead = self.queue.reap()
        known = self.jobs[job.job_id]
        known.attempt_ends()
        if known.deliveries >= POLICY.max_deliveries:
            assert (back, dead) == (0, 1)
            known.state, known.outcomes = JobState.FAILED, known.outcomes + 1
        else:
            assert (back, dead) == (1, 0)
            known.state = JobState.QUEUED

    @rule(hours=st.booleans())
    def time_passes(self, *, hours: bool) -> None:
        """Every retry comes due, and becomes ready once; after hours, who waits for a result does as well."""
        joined = set(cast("list[str]", self.redis.zrange(f"{ROOT}:joined", 0, -1)))
        delayed = cast("list[str]", self.redis.zrange(f"{ROOT}:delayed", 0, -1))
        delayed = [job_id for job_id in delayed if hours or job_id not in joined]
        for job_id in delayed:
            self.redis.zadd(f"{ROOT}:delayed", {job_id: 1})
        assert self.queue.promote() == len(delayed)
        assert self.queue.promote() == 0

    @rule(job_id=submitted)
    def cancel(self, job_id: str) -> None:
        """Any unfinished job can be cancelled, and its holder loses it at once."""
        known = self.jobs[job_id]
        done, before = self.scripts.run("cancel", job_id, "cancelled", "x", 1000, 0)
        assert bool(done) == (known.state in UNFINISHED)
        assert before == known.state
        if done:
            known.attempt_ends()
            known.state, known.outcomes = JobState.CANCELLED, known.outcomes + 1
            assert known.outcomes == 1

    @rule(job_id=submitted, hold=st.booleans())
    def suspend_or_resume(self, job_id: str, *, hold: bool) -> None:
        """A suspended job is not leased; resumed, it goes on."""
        known = self.jobs[job_id]
        done, _ = self.scripts.run("suspend" if hold else "resume", job_id)
        assert bool(done) == (known.state in UNFINISHED)
        if done:
            known.suspended = hold

    @rule(job_id=submitted)
    def retry_dead(self, job_id: str) -> None:
        """A dead letter, and nothing else, can be queued again by hand."""
        known = self.jobs[job_id]
        dead = self.redis.zscore(f"{ROOT}:dead", job_id) is not None
        assert bool(self.scripts.run("dead_retry", job_id)) == dead
        if dead:
            assert known.state is JobState.FAILED
            known.state, known.failures, known.deliveries = JobState.QUEUED, 0, 0
            known.outcomes -= 1

    @invariant()
    def every_job_is_in_exactly_one_place(self) -> None:
        """No accepted job is lost: each is in the one set that its state calls for, or has ended."""
        places: Counter[str] = Counter()
        found: dict[str, str] = {}
        for priority in Priority:
            for entry in cast("list[str]", self.redis.zrange(f"{ROOT}:ready:{priority}", 0, -1)):
                places[entry[17:]] += 1
                found[entry[17:]] = "ready"
        joined = cast("list[str]", self.redis.zrange(f"{ROOT}:joined", 0, -1))
        for name in ("delayed", "suspended", "parked", "joined", "leased"):
            for job_id in cast("list[str]", self.redis.zrange(f"{ROOT}:{name}", 0, -1)):
                if name == "delayed" and job_id in joined:
                    continue  # its net below the net
                places[job_id] += 1
                found[job_id] = name
        for job_id, known in self.jobs.items():
            record = Job.from_hash(cast("dict[str, str]", self.redis.hgetall(job_key(job_id))))
            assert record.state is known.state
            assert record.token == known.token
            assert record.worker_bytes == known.worker_bytes
            assert record.used_bytes == known.worker_bytes + known.attempt_bytes
            assert record.worker_us >= 0
            assert places[job_id] == (1 if known.state in UNFINISHED else 0), (job_id, found.get(job_id))
            place = found.get(job_id, "")
            assert (self.redis.hget(job_key(job_id), "place") or "") == place
            assert (place == "leased") == (known.state is JobState.PROCESSING)
            assert not (known.suspended and place in {"ready", "parked", "delayed", "joined"})
        assert set(places) <= set(self.jobs)

    @invariant()
    def who_waits_for_a_result_is_found(self) -> None:
        """Each of them stands with its digest, which is looked after, and comes back by itself at last."""
        names = ("joined", "delayed", "followed", *(f"joined:{digest}" for digest in DIGESTS))
        joined, delayed, followed, *found = self.members(*names)
        by_digest = dict(zip(DIGESTS, found, strict=True))
        assert set().union(*found) == joined
        assert joined <= delayed
        assert followed == {digest for digest, jobs in by_digest.items() if jobs}
        flights = cast("dict[str, str]", self.redis.hgetall(f"{ROOT}:flights"))
        held = {d: f"{token}:{job}" for d, (job, token) in self.flights.items() if self.builds(d)}
        assert flights == held

    @invariant()
    def shared_results_are_those_pointed_to(self) -> None:
        """A result is kept exactly while a job points to it, and each job that does is known to it."""
        shared, *found = self.members("shared", *(f"sharers:{key}" for key in self.sharers))
        assert shared == set(self.sharers)
        assert found == list(self.sharers.values())
        pipeline = self.redis.pipeline()
        for job_id in self.jobs:
            pipeline.hget(job_key(job_id), "result_key")
        pointing = dict(zip(self.jobs, cast("list[str | None]", pipeline.execute()), strict=True))
        told = {job_id: key for key, jobs in self.sharers.items() for job_id in jobs}
        assert {job_id: key for job_id, key in pointing.items() if key and "shared/" in key} == told

    def members(self, *names: str) -> list[set[str]]:
        """The members of several sorted sets, in one round trip."""
        pipeline = self.redis.pipeline()
        for name in names:
            pipeline.zrange(f"{ROOT}:{name}", 0, -1)
        return [set(found) for found in cast("list[list[str]]", pipeline.execute())]

    def builds(self, digest: str) -> bool:
        """Whether an attempt makes a digest's result, which still holds its job."""
        job_id, token = self.flights.get(digest, ("", ""))
        return bool(job_id) and self.jobs[job_id].token == token

    @invariant()
    def counts_equal_the_sets(self) -> None:
        """The counts by user, and the list of who waits, are those of the jobs' states."""
        waiting = {i for i, k in self.jobs.items() if k.state in {JobState.QUEUED, JobState.RETRYING}}
        running = [k.user for k in self.jobs.values() if k.state is JobState.PROCESSING]
        assert set(cast("list[str]", self.redis.zrange(f"{ROOT}:waiting", 0, -1))) == waiting
        by_user = Counter(self.jobs[job_id].user for job_id in waiting)
        for name, expected in (("waiting_by_user", by_user), ("running_by_user", Counter(running))):
            stored = cast("dict[str, str]", self.redis.hgetall(f"{ROOT}:{name}"))
            assert {user: int(number) for user, number in stored.items()} == dict(expected)

    @invariant()
    def parked_jobs_can_come_back(self) -> None:
        """A job is parked only while its user has one running or ready, whose end or start brings it back."""
        running = {k.user for k in self.jobs.values() if k.state is JobState.PROCESSING}
        ready = {
            self.jobs[entry[17:]].user
            for priority in Priority
            for entry in cast("list[str]", self.redis.zrange(f"{ROOT}:ready:{priority}", 0, -1))
        }
        parked = set(cast("list[str]", self.redis.zrange(f"{ROOT}:parked", 0, -1)))
        assert {self.jobs[job_id].user for job_id in parked} <= running | ready
        queued = {
            entry[17:]
            for user in USERS
            for priority in Priority
            for entry in cast("list[str]", self.redis.zrange(f"{ROOT}:parked:{priority}:{user}", 0, -1))
        }
        assert queued == parked


def test_the_invariants_hold_in_every_state() -> None:
    """No job lost, none ended twice, one holder at a time, counts equal to the sets: after every step."""
    with tempfile.TemporaryDirectory() as folder, ValkeyServer(Path(folder)) as server:
        QueueMachine.server = server
        run_state_machine_as_test(
            QueueMachine,
            settings=settings(
                max_examples=120,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
