"""Replays a trace against a policy, event by event: what the queue, the pods and the jobs would have done.

Pods take time to start, a slot works on one job at a time, and the queue is first come, first served. A pod
that is removed while it works goes on for its policy's grace; what it cannot end by then begins anew, at the
head of the queue. A pod that terminates takes nothing more, and counts until it is gone.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from downloadjobs_core.counts import FIRST_SERVICE_SECONDS
from downloadjobs_core.errors import DownloadJobsError
from downloadjobs_operator.autoscaler.decision import Pod, Snapshot
from downloadjobs_operator.autoscaler.history import camel
from downloadjobs_operator.autoscaler.policies import Policy
from downloadjobs_operator.autoscaler.traces import DAY, Arrival, Trace

NEWEST_WEIGHT: Final = 1 / 8
"""Of the newest job in the running mean of service times, as the queue has it."""

MAX_ATTEMPTS: Final = 5
"""A job that was interrupted so often is given up: some would never end, as each attempt is cut off."""

PATIENCE_SECONDS: Final = 10 * DAY
"""After the trace's end: what is not worked off by then never will be."""


class SimulationError(DownloadJobsError):
    """The policy does not get the work done."""


@dataclass(slots=True)
class _Worker:
    uid: str
    created_at: float
    ready_at: float
    running: dict[int, float] = field(default_factory=dict)
    """The ends of its jobs, by their numbers."""
    gone_at: float | None = None
    """When it is gone, once it terminates."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.

    Attributes:
        pod_hours: of all pods, from their creation until they were gone, while they started included.
        busy_share: of the slots' time that was worked in.
        wait_p50_seconds: a job's wait is from its arrival to the begin of the attempt that ended it.
        busy_kills: pods that were removed while they worked.
        restarted_jobs: attempts that were lost so.
        given_up_jobs: those that were interrupted `MAX_ATTEMPTS` times. Their waits count nowhere.
        scale_ups: how often the number of pods was raised.
    """

    policy: str
    jobs: int
    pod_hours: float
    busy_share: float
    wait_p50_seconds: float
    wait_p95_seconds: float
    wait_p99_seconds: float
    wait_max_seconds: float
    max_queue: int
    max_pods: int
    scale_ups: int
    scale_downs: int
    busy_kills: int
    restarted_jobs: int
    given_up_jobs: int

    def document(self) -> dict[str, Any]:
        """For scripts."""
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in camel(asdict(self)).items()
        }


@dataclass(frozen=True, slots=True)
class Run:
    """A report, and what a picture is drawn from.

    Attributes:
        seconds: when the last job had ended, and the trace too.
        replicas: times at which the number of pods that are wanted changed, and to what.
        queue: the same for the queue's length.
        waits: when a job began, and how long it had waited.
    """

    report: Report
    seconds: float
    replicas: Sequence[tuple[float, int]]
    queue: Sequence[tuple[float, int]]
    waits: Sequence[tuple[float, float]]


def simulate(trace: Trace, policy: Policy, *, concurrency: int, pod_start_seconds: float) -> Run:
    """Replay a trace.

    Args:
        trace: what comes.
        policy: who decides; a new one for each run, as it remembers.
        concurrency: slots of a pod.
        pod_start_seconds: from a pod's creation until it takes jobs.

    Raises:
        SimulationError: jobs are left that never begin.
    """
    return _World(trace.arrivals, policy, concurrency, pod_start_seconds).run(trace.seconds)


class _World:
    """The queue, the pods, and a heap of what happens next."""

    def __init__(
        self, arrivals: Sequence[Arrival], policy: Policy, concurrency: int, start_seconds: float
    ) -> None:
        self._arrivals = arrivals
        self._policy = policy
        self._concurrency = concurrency
        self._start_seconds = start_seconds
        self._now = 0.0
        self._count = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._queue: deque[int] = deque()
        self._workers: dict[str, _Worker] = {}
        self._replicas = 0
        self._service: float | None = None
        self._look_at = math.inf
        self._left = len(arrivals)
        self._began = [0.0] * len(arrivals)
        self._lost_attempts = dict[int, int]()
        self._given_up = set[int]()
        self._pod_seconds = self._worked = 0.0
        self._max_queue = self._max_pods = self._ups = self._downs = self._kills = self._restarted = 0
        self._replica_steps: list[tuple[float, int]] = []
        self._queue_steps: list[tuple[float, int]] = [(0.0, 0)]

    def run(self, trace_seconds: float) -> Run:
        self._resize(self._policy.first, None)
        for worker in self._workers.values():
            worker.ready_at = 0.0  # they were there before
        self._ups = 0
        self._look()
        following = 0
        total = len(self._arrivals)
        while self._left:
            arrives = self._arrivals[following].at if following < total else math.inf
            happens = self._events[0][0] if self._events else math.inf
            at = min(arrives, happens, self._look_at)
            if at > trace_seconds + PATIENCE_SECONDS:
                raise SimulationError(
                    f"{self._policy.name}: {self._left:,} jobs never end; {len(self._queue):,} of them wait."
                )
            self._now = at
            if happens <= at:
                heapq.heappop(self._events)[2]()
            elif arrives <= at:
                # Those that come in the same moment are seen at once.
                while following < total and self._arrivals[following].at <= at:
                    self._queue.append(following)
                    following += 1
                self._serve()
                if self._policy.woken:
                    self._look()
            else:
                self._look()
        ended = max(trace_seconds, self._now)
        self._until(ended)
        return self._told(ended)

    def _until(self, ended: float) -> None:
        """Let the trace's time pass, without any job."""
        while (at := min(self._events[0][0] if self._events else math.inf, self._look_at)) < ended:
            self._now = at
            if self._events and self._events[0][0] <= at:
                heapq.heappop(self._events)[2]()
            else:
                self._look()
        self._now = ended
        for worker in self._workers.values():
            self._pod_seconds += min(worker.gone_at or ended, ended) - worker.created_at

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), happens))

    def _look(self) -> None:
        """Let the policy decide, and do it."""
        pods = tuple(
            Pod(w.uid, w.uid, w.ready_at <= self._now, w.gone_at is not None, len(w.running), w.created_at)
            for w in self._workers.values()
        )
        order = self._policy.look(
            Snapshot(
                now=self._now,
                queued=len(self._queue),
                running=sum(pod.leases for pod in pods if not pod.terminating),
                service_seconds=FIRST_SERVICE_SECONDS if self._service is None else self._service,
                pods=pods,
                replicas=self._replicas,
            )
        )
        self._look_at = order.look_at
        if not (pods or self._queue or order.replicas) and self._policy.woken:
            self._look_at = math.inf  # the next job wakes it
        if order.replicas != self._replicas:
            self._resize(order.replicas, order.victims)

    def _resize(self, replicas: int, victims: tuple[str, ...] | None) -> None:
        """Set the Deployment's replicas, and do as its ReplicaSet does."""
        self._ups += replicas > self._replicas
        self._downs += replicas < self._replicas
        self._replicas = replicas
        self._replica_steps.append((self._now, replicas))
        alive = [worker for worker in self._workers.values() if worker.gone_at is None]
        for _ in range(replicas - len(alive)):
            worker = _Worker(f"pod-{next(self._count):06}", self._now, self._now + self._start_seconds)
            self._workers[worker.uid] = worker
            self._at(worker.ready_at, self._serve)
        self._max_pods = max(self._max_pods, replicas)
        excess = max(0, len(alive) - replicas)
        if victims is None:
            alive.sort(key=self._removed_first)
            victims = tuple(worker.uid for worker in alive[:excess])
        for uid in victims[:excess]:
            self._remove(self._workers[uid])

    def _removed_first(self, worker: _Worker) -> tuple[bool, int, str]:
        """A ReplicaSet's order: not ready, then the youngest by the logarithm of its age, then by uid."""
        age = max(1.0, self._now - worker.ready_at)
        return (worker.ready_at <= self._now, int(math.log2(age)), worker.uid)

    def _remove(self, worker: _Worker) -> None:
        """Terminate a pod: what it can end within the grace it ends, the rest is lost then."""
        ends = worker.running.values()
        self._kills += bool(worker.running)
        deadline = self._now + self._policy.grace_seconds
        worker.gone_at = min(deadline, max(ends, default=self._now))
        self._at(worker.gone_at, lambda: self._gone(worker))

    def _gone(self, worker: _Worker) -> None:
        del self._workers[worker.uid]
        self._pod_seconds += self._now - worker.created_at
        lost = [job for job, end in worker.running.items() if end > self._now]
        for job in sorted(lost, reverse=True):
            del worker.running[job]
            self._worked += self._now - self._began[job]
            self._lost_attempts[job] = self._lost_attempts.get(job, 0) + 1
            if self._lost_attempts[job] < MAX_ATTEMPTS:
                self._restarted += 1
                self._queue.appendleft(job)
            else:
                self._given_up.add(job)
                self._left -= 1
        self._serve()

    def _serve(self) -> None:
        """Give what waits to free slots, those of the oldest pods first."""
        if self._queue:
            for worker in self._workers.values():
                if worker.ready_at <= self._now and worker.gone_at is None:
                    while self._queue and len(worker.running) < self._concurrency:
                        self._begin(worker, self._queue.popleft())
        length = len(self._queue)
        self._max_queue = max(self._max_queue, length)
        if length != self._queue_steps[-1][1]:
            self._queue_steps.append((self._now, length))

    def _begin(self, worker: _Worker, job: int) -> None:
        self._began[job] = self._now
        end = self._now + self._arrivals[job].service_seconds
        worker.running[job] = end
        self._at(end, lambda: self._end(worker, job, end))

    def _end(self, worker: _Worker, job: int, end: float) -> None:
        if worker.running.get(job) != end:
            return  # this attempt was lost
        del worker.running[job]
        self._left -= 1
        took = self._arrivals[job].service_seconds
        self._worked += took
        self._service = (
            took if self._service is None else self._service + (took - self._service) * NEWEST_WEIGHT
        )
        self._serve()

    def _told(self, ended: float) -> Run:
        began = sorted(
            (at, at - arrival.at)
            for job, (at, arrival) in enumerate(zip(self._began, self._arrivals, strict=True))
            if job not in self._given_up
        )
        waits = sorted(wait for _, wait in began)
        slot_seconds = self._pod_seconds * self._concurrency
        report = Report(
            policy=self._policy.name,
            jobs=len(self._arrivals),
            pod_hours=self._pod_seconds / 3_600,
            busy_share=self._worked / slot_seconds if slot_seconds else 0.0,
            wait_p50_seconds=percentile(waits, 0.5),
            wait_p95_seconds=percentile(waits, 0.95),
            wait_p99_seconds=percentile(waits, 0.99),
            wait_max_seconds=waits[-1] if waits else 0.0,
            max_queue=self._max_queue,
            max_pods=self._max_pods,
            scale_ups=self._ups,
            scale_downs=self._downs,
            busy_kills=self._kills,
            restarted_jobs=self._restarted,
            given_up_jobs=len(self._given_up),
        )
        return Run(report, ended, self._replica_steps, self._queue_steps, began)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that so large a share lies below or at; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
