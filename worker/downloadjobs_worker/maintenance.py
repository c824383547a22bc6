"""Keeps storage clean: removes results past their time, and what lost attempts left.

These are tasks of the same queue, leased like jobs, so that one worker at a
time runs each, and one that is killed is run again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from itertools import islice
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError, ObjectStoreError
from downloadjobs_core.job import Job
from downloadjobs_core.leases import SECOND_US
from downloadjobs_core.objectstore.protocol import ObjectStore
from downloadjobs_core.sharing import FOLDER, is_shared
from downloadjobs_core.upkeep import EVERY_SECONDS, Attempted, Task, UpkeepStore
from downloadjobs_worker.hold import HandBackRequested, Hold
from downloadjobs_worker.keeper import Keeper
from downloadjobs_worker.removing import Removals

BATCH: Final = 100
RETRY_SECONDS: Final = 60.0
"""When a task that failed is due again."""

TOKEN: Final = re.compile(r"[0-9]{16}", re.ASCII)
"""A fencing token: microseconds since 1970, 16 digits until 2286. Other numbers are foreign files."""

UNKNOWN_MARGIN_SECONDS: Final = 86_400
"""Results of jobs that Redis does not know are kept a day longer than results live: after a wipe of Redis
they may still be pointed to from elsewhere. So are unfinished uploads that it does not know either."""

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt, as the key of its result names it.

    That is `<prefix><job>/<token>.zip`, or, if it can be shared, `<prefix>shared/<digest>/<token>.zip`.
    """

    owner: str
    """Its job's id, or the digest."""
    token: str
    key: str
    shared: bool = False

    @property
    def began_us(self) -> int:
        """When it was leased: a token is the time of its lease by Redis' clock, in microseconds."""
        return int(self.token)


def attempt_of(key: str, prefix: str) -> Attempt | None:
    """The attempt that owns a key, or None for an object that is not ours."""
    shared = is_shared(key, prefix)
    folder = f"{prefix}{FOLDER}" if shared else prefix
    owner, _, name = key.removeprefix(folder).partition("/")
    token = name.removesuffix(".zip")
    if not key.startswith(folder) or not owner or name == token or not TOKEN.fullmatch(token):
        return None
    return Attempt(owner, token, key, shared)


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Runs the queue's own tasks in the consumer's threads.

    Attributes:
        result_ttl_seconds: how long results live.
        orphan_grace_seconds: what an attempt left is removed when it began longer ago.
    """

    upkeep: UpkeepStore
    keeper: Keeper
    results: ObjectStore
    results_prefix: str
    result_ttl_seconds: int
    orphan_grace_seconds: float

    def run(self, task: Job) -> None:
        """Run one leased task. Raises nothing: a lease that could not be ended runs out."""
        hold = self.keeper.hold(task)
        try:
            if task.job_id == Task.EXPIRE_RESULTS:
                self.expire_results(hold)
                self.upkeep.done(task, again_seconds=EVERY_SECONDS, when_first_in="expiring")
            elif task.job_id == Task.EXPIRE_SHARED:
                self.expire_shared(hold)
                self.upkeep.done(task, again_seconds=EVERY_SECONDS, when_first_in="shared")
            elif task.job_id == Task.SWEEP_ORPHANS:
                left = self.sweep_orphans(hold)
                self.upkeep.done(task, again_seconds=EVERY_SECONDS if left else None)
            else:
                log.warning("a maintenance task of another release is left to it", task=task.job_id)
                self.upkeep.done(task, again_seconds=RETRY_SECONDS)
        except HandBackRequested:
            self._postpone(task, 0)
        except DownloadJobsError as error:
            log.warning("maintenance failed", task=task.job_id, error=str(error))
            self._postpone(task, RETRY_SECONDS)
        except Exception:
            log.exception("maintenance met a fault", task=task.job_id)
            self._postpone(task, RETRY_SECONDS)
        finally:
            self.keeper.release(hold)

    def _postpone(self, task: Job, seconds: float) -> None:
        try:
            self.upkeep.done(task, again_seconds=seconds)
        except DownloadJobsError as error:
            log.warning("a maintenance task's lease is left to run out", task=task.job_id, error=str(error))

    def expire_results(self, hold: Hold) -> int:
        """Remove results past their time; how many."""
        removals = Removals(self.results)
        removed = 0
        while batch := self.upkeep.expired_results(BATCH):
            for job_id, key in batch:
                hold.raise_if_stopped()
                if is_shared(key, self.results_prefix):
                    # A process of a release that shares none asked for its removal.
                    self.upkeep.leave_result(job_id)
                    continue
                if key and not removals.tried(key, partial(self.results.delete, key)):
                    self.upkeep.put_off_result(job_id)
                    continue
                removed += self.upkeep.expire_result(job_id, sweep_seconds=self.orphan_grace_seconds)
        removals.report()
        if removed:
            log.info("results expired", removed=removed)
        return removed

    def expire_shared(self, hold: Hold) -> int:
        """End jobs' time with results that they share; how many objects were removed with their last."""
        removals = Removals(self.results)
        removed = 0
        while batch := self.upkeep.expired_shared(BATCH):
            for key in batch:
                hold.raise_if_stopped()
                # In this order: once nobody points to it, nobody can come to; and if this process ends here,
                # the key is found again.
                _, removable = self.upkeep.expire_shared(key, BATCH)
                if not removable:
                    continue
                if removals.tried(key, partial(self.results.delete, key)):
                    self.upkeep.forget_shared(key)
                    removed += 1
                else:
                    self.upkeep.put_off_shared(key)
        removals.report()
        if removed:
            log.info("shared results expired", removed=removed)
        return removed

    def sweep_orphans(self, hold: Hold) -> int:
        """Remove results and uploads of attempts that were lost; how many must wait for a later sweep."""
        removals = Removals(self.results)
        now_us = self.upkeep.now_us()
        found = {Verdict.KEEP: 0, Verdict.WAIT: 0, Verdict.REMOVE: 0}
        noted = set(self.upkeep.uploads())
        for attempt, said in self._asked(noted | self._listed_uploads()):
            hold.raise_if_stopped()
            verdict = self._verdict(attempt, said, now_us, of_upload=True, noted=attempt.key in noted)
            found[verdict] += 1
            if verdict is Verdict.REMOVE and removals.tried(
                attempt.key, partial(self._abort_uploads, attempt.key)
            ):
                self.upkeep.forget_upload(attempt.key)
        for attempt, said in self._asked(stat.key for stat in self.results.list(self.results_prefix)):
            hold.raise_if_stopped()
            verdict = self._verdict(attempt, said, now_us, of_upload=False)
            found[verdict] += 1
            if verdict is Verdict.REMOVE:
                removals.tried(attempt.key, partial(self.results.delete, attempt.key))
        removals.report()
        left = found[Verdict.WAIT] + removals.kept
        log.info("orphans swept", removed=found[Verdict.REMOVE] - removals.kept, left=left)
        return left

    def _listed_uploads(self) -> set[str]:
        """Keys of uploads that the store knows of, also those that Redis forgot (a wipe, a failover)."""
        try:
            return {upload.key for upload in self.results.pending_uploads(self.results_prefix)}
        except ObjectStoreError as error:
            self.results.check()
            log.warning("the storage lists no uploads, so only those in Redis are swept", error=str(error))
            return set()

    def _abort_uploads(self, key: str) -> None:
        # More than one, if the answer to a creation was lost and it was created again.
        for upload in list(self.results.pending_uploads(key)):
            self.results.abort_upload(upload.key, upload.upload_id)

    def _asked(self, keys: Iterable[str]) -> Iterator[tuple[Attempt, Attempted]]:
        """The attempts that own the keys, and what their jobs say of them, in batches."""
        attempts = filter(None, (attempt_of(key, self.results_prefix) for key in keys))
        while batch := list(islice(attempts, BATCH)):
            for shared, ask in ((False, self.upkeep.attempted), (True, self.upkeep.attempted_shared)):
                some = [attempt for attempt in batch if attempt.shared is shared]
                asked = [(attempt.owner, attempt.token, attempt.key) for attempt in some]
                yield from zip(some, ask(asked) if asked else [], strict=True)

    def _verdict(
        self, attempt: Attempt, said: Attempted, now_us: int, *, of_upload: bool, noted: bool = False
    ) -> Verdict:
        unknown_seconds = self.result_ttl_seconds + UNKNOWN_MARGIN_SECONDS
        return verdict_on(
            said,
            age_seconds=(now_us - attempt.began_us) / SECOND_US,
            grace_seconds=self.orphan_grace_seconds if noted or said.known else unknown_seconds,
            of_upload=of_upload,
        )


class Verdict(Enum):
    """What a sweep does with what an attempt left."""

    KEEP = auto()
    """It is in use."""

    WAIT = auto()
    """It may be an orphan, and is too young to tell."""

    REMOVE = auto()


def verdict_on(said: Attempted, *, age_seconds: float, grace_seconds: float, of_upload: bool) -> Verdict:
    """Judge one object, or one unfinished upload, by what Redis says of the attempt that made it."""
    if said.current or (said.published and not of_upload):
        return Verdict.KEEP
    return Verdict.REMOVE if age_seconds >= grace_seconds else Verdict.WAIT
