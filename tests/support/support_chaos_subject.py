"""What a chaos run is about: a queue to submit jobs to, and the questions asked of it at the end.

One subject is the project's own queue. The other, in `support_chaos_stock.py`, shows that the run would
notice a queue that loses jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, cast

from downloadjobs_core.errors import JobNotFoundError
from downloadjobs_core.job import NewJob, job_key
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.leases import SECOND_US, LeaseStore, QueuePolicy, translated_errors
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.redis_client import RedisConfig, connect, connect_async
from downloadjobs_core.scripts import ROOT
from downloadjobs_core.states import FINISHED, WITH_RESULT, JobState
from downloadjobs_core.upkeep import EVERY_SECONDS
from support_chaos_audit import Bucket, Results, StoredFiles
from support_chaos_history import History
from support_chaos_plan import USERS, PlannedJob
from support_chaos_site import GRACE_SECONDS
from support_chaos_snapshot import contradictions, take_snapshot

if TYPE_CHECKING:
    from redis import Redis

MAX_ATTEMPTS: Final = 50
"""Far beyond what a run's faults can use up; see `support_chaos_site.SETTINGS`."""

SNAPSHOT_SECONDS: Final = 2.0
SWEEP: Final = "sweep-orphans"
SWEEP_SECONDS: Final = 120.0
SWEEPS: Final = 3
"""How often a sweep is ordered until it leaves nothing for a later one."""

LARGE_COMPARED: Final = 10
"""Large results whose bytes are compared with the stored files'; of all others size and CRC-32."""


SHARED_FACT: Final = "results that were made, and jobs that took another's"


@dataclass(slots=True)
class Findings:
    """What the questions at the end are answered with. Empty lists are good news."""

    states: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    published_twice: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Whatever else is not as it must be, a sentence each."""
    facts: dict[str, str] = field(default_factory=dict)
    """What else is worth telling: what was checked, and how often."""
    events: Counter[str] = field(default_factory=Counter)


class Subject(Protocol):
    """A queue under chaos. `submit` and `cancel` are called by one thread, `look` by another."""

    module: ClassVar[str]
    """What a worker process runs, by `python -m`."""

    def submit(self, job: PlannedJob) -> None:
        """Submit a job, again if need be. Raises `QueueUnavailableError`: then it may be there or not."""

    def cancel(self, job: PlannedJob) -> None:
        """Cancel a job if it has not ended. Raises `QueueUnavailableError`."""

    def look(self) -> None:
        """Notice what happened. Raises `QueueUnavailableError`."""

    def unended(self, accepted: Collection[str]) -> set[str]:
        """Which jobs have not ended. Raises `QueueUnavailableError`."""

    def changed_at(self) -> float:
        """When anything was seen to happen, by the monotonic clock."""

    def settle(self, store: ObjectStore) -> None:
        """Once all jobs have ended, or never will: let it clean up."""

    def examine(
        self, jobs: Sequence[PlannedJob], store: ObjectStore, files: StoredFiles, folder: Path
    ) -> Findings:
        """Answer the questions. The workers have ended."""

    def close(self) -> None:
        """Close connections."""


class LeasedQueue:
    """The project's own queue.

    Args:
        url: of Valkey.
        jobs: that will be submitted.
    """

    module: ClassVar[str] = "downloadjobs_worker"

    def __init__(self, url: str, jobs: Sequence[PlannedJob]) -> None:
        self._config = RedisConfig(url)
        self._redis: Redis = connect(self._config)
        self._policy = QueuePolicy(orphan_grace_seconds=GRACE_SECONDS)
        self._leases = LeaseStore(self._redis, self._policy)
        self._history = History(self._redis)
        self._ids = [job.job_id for job in jobs]
        self._cancelled: set[str] = set()
        self._snapshots = 0
        self._snapshot_at = 0.0
        self._problems: list[str] = []
        self._deliveries = 0
        self._left_before_sweep = ""

    def submit(self, job: PlannedJob) -> None:
        """See `Subject.submit`."""
        new = NewJob(
            job_id=job.job_id,
            user=job.user,
            file_ids=job.file_ids,
            total_file_ids=len(job.file_ids),
            max_attempts=MAX_ATTEMPTS,
            priority=job.priority,
        )
        self._leases.submit(new)

    def cancel(self, job: PlannedJob) -> None:
        """See `Subject.cancel`."""
        try:
            done = asyncio.run(self._cancel(job.job_id))
        except JobNotFoundError:
            self._problems.append(f"{job.job_id} was accepted, and is not there to be cancelled.")
            return
        # An answer that was lost is followed by one that the job is cancelled already.
        if done:
            self._cancelled.add(job.job_id)

    async def _cancel(self, job_id: str) -> bool:
        redis = connect_async(self._config, max_connections=1)
        try:
            changed = await JobStore(redis, self._policy).cancel(
                job_id, code="cancelled", message="By chaos."
            )
        finally:
            await redis.aclose()
        return changed.done or changed.state is JobState.CANCELLED

    def look(self) -> None:
        """See `Subject.look`."""
        self._history.look()
        if time.monotonic() - self._snapshot_at < SNAPSHOT_SECONDS:
            return
        self._snapshot_at = time.monotonic()
        snapshot = take_snapshot(self._redis, self._ids, USERS)
        self._snapshots += 1
        self._problems += [f"In the middle: {found}" for found in contradictions(snapshot)]
        deliveries = [int(record.get("deliveries", 0)) for record in snapshot.records.values()]
        self._deliveries = max([self._deliveries, *deliveries])

    def unended(self, accepted: Collection[str]) -> set[str]:
        """See `Subject.unended`."""
        states = self._read(accepted, "state")
        return {job_id for job_id in accepted if states[job_id] not in FINISHED}

    def changed_at(self) -> float:
        """See `Subject.changed_at`."""
        return self._history.changed_at

    def settle(self, store: ObjectStore) -> None:
        """Make the orphan sweep due, once everything that was left is old enough for it.

        What is left before must have had a sweep ordered by those who left it, and for soon: nobody else
        would.
        """
        before = Bucket.look(store).orphans(self._published(self._ids).values())
        due = self._redis.zscore(f"{ROOT}:maintenance", SWEEP)
        seconds, _ = self._redis.time()
        ordered = due is not None and due <= (seconds + EVERY_SECONDS) * SECOND_US
        self._left_before_sweep = f"{len(before)} (a sweep was ordered: {'yes' if ordered else 'no'})"
        if before and not ordered:
            self._problems.append(f"No sweep is due soon of what was left: {', '.join(before)}.")
        time.sleep(GRACE_SECONDS)
        for _ in range(SWEEPS):
            self._sweep()
            if self._redis.zscore(f"{ROOT}:maintenance", SWEEP) is None:
                return

    def _sweep(self) -> None:
        """Have the sweep run now, and wait until it has."""
        self._redis.zadd(f"{ROOT}:maintenance", {SWEEP: 1})
        until = time.monotonic() + SWEEP_SECONDS
        while time.monotonic() < until:
            due = self._redis.zscore(f"{ROOT}:maintenance", SWEEP)
            seconds, _ = self._redis.time()
            leased = self._redis.zscore(f"{ROOT}:leased", SWEEP) is not None
            if not leased and (due is None or due > seconds * SECOND_US):
                return
            time.sleep(0.1)
        self._problems.append(f"The orphan sweep did not run within {SWEEP_SECONDS:.0f} s.")

    def examine(
        self, jobs: Sequence[PlannedJob], store: ObjectStore, files: StoredFiles, folder: Path
    ) -> Findings:
        """See `Subject.examine`."""
        self._history.look()
        ids = [job.job_id for job in jobs]
        states = self._read(ids, "state")
        found = Findings(problems=self._problems, events=self._history.kinds)
        for job_id, state in states.items():
            found.states[state or "no record"] += 1
            if state not in FINISHED:
                found.lost.append(f"{job_id} was accepted and is {state or 'not there'}.")
            elif state in {JobState.FAILED, JobState.COMPLETED_WITH_ERRORS}:
                why = cast("str | None", self._redis.hget(job_key(job_id), "error_code"))
                found.problems.append(f"{job_id} is {state} ({why}), though every file exists.")
            elif (state == JobState.CANCELLED) != (job_id in self._cancelled):
                found.problems.append(f"{job_id} is {state}, and that is not what its cancellation answered.")
        self._examine_queue(found, ids)
        self._examine_results(found, jobs, states, Results(store, files, folder))
        published = self._published(ids)
        taken = self._read(ids, "deduplicated")
        found.facts[SHARED_FACT] = (
            f"{len(set(published.values()))}, {sum(value == '1' for value in taken.values())}"
        )
        found.orphans = Bucket.look(store).orphans(published.values())
        noted = self._redis.hlen(f"{ROOT}:uploads")
        if noted:
            found.problems.append(f"{noted} uploads are still noted as unfinished.")
        found.facts["snapshots of the queue compared in the middle"] = str(self._snapshots)
        found.facts["most deliveries of one job without an outcome"] = str(self._deliveries)
        found.facts["left behind before the last sweep"] = self._left_before_sweep
        return found

    def _examine_queue(self, found: Findings, ids: Sequence[str]) -> None:
        """Counts by state equal the sets' sizes, and nobody holds a lease."""
        snapshot = take_snapshot(self._redis, ids, USERS)
        found.problems += [f"At the end: {sentence}" for sentence in contradictions(snapshot)]
        for place, held in snapshot.places.items():
            if held and not found.lost:
                found.problems.append(f"At the end {len(held)} jobs are {place}.")
        found.problems += self._history.contradictions()
        found.published_twice = self._history.published_twice()

    def _examine_results(
        self,
        found: Findings,
        jobs: Sequence[PlannedJob],
        states: Mapping[str, str | None],
        results: Results,
    ) -> None:
        """Every completed job points to its own result, which is whole and holds what was asked for."""
        keys = self._published([job.job_id for job in jobs])
        large = 0
        for job in jobs:
            if states[job.job_id] not in WITH_RESULT:
                continue
            large += job.large
            key = keys.get(job.job_id, "")
            seen = self._history.lives[job.job_id].results
            if seen != [key]:
                found.published_twice.append(f"{job.job_id} points to {key or 'nothing'}, and did to {seen}.")
            compare = not job.large or large <= LARGE_COMPARED
            if key and not results.check(job, key, compare_bytes=compare):
                found.published_twice.append(f"{job.job_id} points to {key}, which is not its whole result.")
        found.problems += results.problems
        found.facts["results fetched and verified"] = f"{results.checked}, {results.bytes_read:,} bytes"
        found.facts["members compared byte by byte"] = f"{results.compared:,}"

    def _published(self, ids: Collection[str]) -> dict[str, str]:
        """The results that records point to."""
        return {job_id: key for job_id, key in self._read(ids, "result_key").items() if key}

    def _read(self, ids: Collection[str], name: str) -> dict[str, str | None]:
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in ids:
            pipeline.hget(job_key(job_id), name)
        with translated_errors():
            values = cast("list[str | None]", pipeline.execute())
        return dict(zip(ids, values, strict=True))

    def close(self) -> None:
        """See `Subject.close`."""
        self._redis.close()
