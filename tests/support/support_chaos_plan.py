"""What a chaos run does and when, all of it drawn from one seed.

Pure. The same seed and sizes give the same jobs, cancellations and faults, with the same victims, durations
and offsets; the digest proves it. What differs between two runs is only what the machine makes of it.
"""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final

from downloadjobs_core.states import Priority

KIB: Final = 1024
MIB: Final = 1024 * KIB

LEASE_SECONDS: Final = 3.0
"""The shortest that the settings allow."""

SMALL_FILES: Final = {10_000 + n: 1 * KIB + (n * 379) % (15 * KIB) for n in range(60)}
LARGE_FILES: Final = {20_000 + n: 5 * MIB + (n * 700_001) % (5 * MIB) for n in range(8)}
"""Ids and sizes in bytes of the files that exist. Four large ones make a job of 20 to 40 MiB."""

LARGE_JOB_FILES: Final = 4
LARGE_SHARE: Final = 0.15
CANCELLED_SHARE: Final = 0.05
SUBMITTED_TWICE_SHARE: Final = 0.1

SHARING: Final = {"DEDUPLICATE_RESULTS": "true"}
"""The settings of workers whose jobs share results."""

GROUP: Final = 6
"""Jobs that ask for the same at one moment, where results are shared."""

USERS: Final = ("ann", "bob", "cy", "dan", "eve")


class Fault(StrEnum):
    """A kind of fault. The values are for the report."""

    WORKER_KILL = "worker killed (SIGKILL)"
    WORKER_STOP = "worker stopped past its lease (SIGSTOP)"
    WORKER_DRAIN = "worker drained (SIGTERM)"
    S3_KILL = "S3 killed"
    S3_PAUSE = "S3 stopped (SIGSTOP)"
    S3_RESET = "S3 connections reset in the middle"
    S3_CUT = "S3 cut off"
    S3_DEAF = "S3 answers lost after the work was done"
    VALKEY_KILL = "Valkey killed"
    VALKEY_PAUSE = "Valkey stopped past the leases (SIGSTOP)"


@dataclass(frozen=True, slots=True)
class Habit:
    """How a kind of fault is drawn: how often beside the others, and how long it lasts, in seconds.

    The longest cut is longer than a worker's patience with storage (eight seconds), so that attempts fail.
    `recovery` is what the victim takes to be back on an idle machine: no other fault befalls it before.
    """

    weight: int
    shortest: float
    longest: float
    recovery: float


HABITS: Final = {
    Fault.WORKER_KILL: Habit(6, 0.2, 2.0, 3.0),
    Fault.WORKER_STOP: Habit(4, LEASE_SECONDS + 1, LEASE_SECONDS + 4, 1.0),
    Fault.WORKER_DRAIN: Habit(3, 1.0, 2.0, 4.0),
    Fault.S3_KILL: Habit(2, 0.5, 3.0, 6.0),
    Fault.S3_PAUSE: Habit(1, 1.0, 4.0, 1.0),
    Fault.S3_RESET: Habit(3, 1.0, 4.0, 1.0),
    Fault.S3_CUT: Habit(3, 1.0, 12.0, 1.0),
    Fault.S3_DEAF: Habit(4, 1.0, 6.0, 1.0),
    Fault.VALKEY_KILL: Habit(3, 0.2, 3.0, 2.0),
    Fault.VALKEY_PAUSE: Habit(1, LEASE_SECONDS + 1, LEASE_SECONDS + 2, 1.0),
}

GAP_SECONDS: Final = (1.0, 3.5)
"""Between the beginnings of two faults; they last as long, so that some overlap."""

FIRST_FAULT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault: when it begins, in seconds from the start, whom it befalls, and how long it lasts."""

    at: float
    kind: Fault
    victim: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One job: when it is submitted, in seconds from the start, and what is asked for."""

    at: float
    job_id: str
    user: str
    priority: Priority
    file_ids: tuple[int, ...]
    again_at: float | None
    """When the same id is submitted once more."""
    cancel_at: float | None

    @property
    def large(self) -> bool:
        """Whether its result is uploaded in parts."""
        return any(file_id in LARGE_FILES for file_id in self.file_ids)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run."""

    seed: int
    workers: tuple[str, ...]
    faults: tuple[PlannedFault, ...]
    jobs: tuple[PlannedJob, ...]

    @property
    def digest(self) -> str:
        """Of everything in it: two runs with the same one had the same schedule."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw_plan(
    seed: int,
    *,
    jobs: int,
    faults: int,
    workers: int = 3,
    kinds: Sequence[Fault] = tuple(Fault),
    wishes: int | None = None,
) -> Plan:
    """Draw a run.

    Args:
        seed: of everything that is drawn.
        jobs: how many are submitted, from the start until shortly before the last fault.
        faults: how many.
        workers: processes.
        kinds: the faults there are; each of them comes once before any comes twice.
        wishes: so many different sets of files are asked for, by groups of jobs; None for any.
    """
    names = tuple(f"worker-{number}" for number in range(1, workers + 1))
    # Streams of their own, so that the faults stay as they are with another number of jobs.
    drawn = _draw_faults(random.Random(f"faults {seed}"), faults, names, kinds)
    until = drawn[-1].at if drawn else FIRST_FAULT_SECONDS
    asked = _draw_jobs(random.Random(f"jobs {seed}"), jobs, until)
    if wishes is not None:
        asked = _alike(asked, wishes)
    return Plan(seed, names, drawn, asked)


def _alike(jobs: Sequence[PlannedJob], wishes: int) -> tuple[PlannedJob, ...]:
    """The same jobs, but in groups that ask for the same at one moment, and some later once more."""
    sets = sorted((job.file_ids for job in jobs), key=lambda ids: ids[0] not in LARGE_FILES)[:wishes]
    return tuple(
        replace(job, at=jobs[number - number % GROUP].at, file_ids=sets[number // GROUP % len(sets)])
        for number, job in enumerate(jobs)
    )


def _draw_faults(
    source: random.Random, count: int, workers: Sequence[str], kinds: Sequence[Fault]
) -> tuple[PlannedFault, ...]:
    first = source.sample(kinds, len(kinds))
    weights = [HABITS[kind].weight for kind in kinds]
    free_at: dict[str, float] = {}
    drawn: list[PlannedFault] = []
    at = FIRST_FAULT_SECONDS
    while len(drawn) < count:
        kind = first[len(drawn)] if len(drawn) < len(first) else source.choices(kinds, weights)[0]
        victims = [name for name in _victims(kind, workers) if free_at.get(name, 0.0) <= at]
        if victims:
            habit, victim = HABITS[kind], source.choice(victims)
            seconds = round(source.uniform(habit.shortest, habit.longest), 2)
            drawn.append(PlannedFault(round(at, 2), kind, victim, seconds))
            free_at[victim] = at + seconds + habit.recovery
        at += source.uniform(*GAP_SECONDS)
    return tuple(drawn)


def _victims(kind: Fault, workers: Sequence[str]) -> Sequence[str]:
    if kind in {Fault.WORKER_KILL, Fault.WORKER_STOP, Fault.WORKER_DRAIN}:
        return workers
    return ("valkey",) if kind in {Fault.VALKEY_KILL, Fault.VALKEY_PAUSE} else ("s3",)


def _draw_jobs(source: random.Random, count: int, until: float) -> tuple[PlannedJob, ...]:
    jobs = []
    for at in sorted(source.uniform(0, until) for _ in range(count)):
        if source.random() < LARGE_SHARE:
            file_ids = source.sample(sorted(LARGE_FILES), LARGE_JOB_FILES)
        else:
            file_ids = source.sample(sorted(SMALL_FILES), source.randint(1, 5))
        jobs.append(
            PlannedJob(
                at=round(at, 2),
                job_id=str(uuid.UUID(int=source.getrandbits(128), version=4)),
                user=source.choice(USERS),
                priority=source.choices(list(Priority), [1, 3, 1])[0],
                file_ids=tuple(file_ids),
                again_at=_later(source, at, SUBMITTED_TWICE_SHARE),
                cancel_at=_later(source, at, CANCELLED_SHARE),
            )
        )
    return tuple(jobs)


def _later(source: random.Random, at: float, share: float) -> float | None:
    """A moment in the three seconds after, for a share of the jobs; drawn equally often for all of them."""
    happens, wait = source.random() < share, source.uniform(0, 3)
    return round(at + wait, 2) if happens else None
