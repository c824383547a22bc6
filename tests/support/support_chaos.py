"""Chaos: jobs are submitted while the system is broken in every way, and then every job is accounted for.

`run_chaos` plays a plan against a subject. Faults begin and end in the main thread, since the kernel ends
servers with the thread that started them; one thread submits, one looks.
"""

from __future__ import annotations

import heapq
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from downloadjobs_core.errors import QueueUnavailableError
from support_chaos_audit import StoredFiles
from support_chaos_plan import Fault, Plan, PlannedFault, PlannedJob
from support_chaos_site import Site
from support_chaos_subject import Findings, LeasedQueue, Subject

LOOK_SECONDS: Final = 0.5
WATCH_SECONDS: Final = 0.2
AGAIN_SECONDS: Final = 0.2
"""Before a submission without an answer is made again."""

QUIET_SECONDS: Final = 45.0
"""After the last fault: a queue in which nothing happens for so long will never finish what is left."""

END_SECONDS: Final = 600.0
"""After the last fault, for everything to end on a busy machine."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class Told:
    """What happened in a run, beside the findings."""

    faults: Counter[Fault] = field(default_factory=Counter)
    submissions: int = 0
    unanswered: int = 0
    """Submissions and cancellations whose answer did not come, so that they were made again."""
    resets: int = 0
    log_events: Counter[str] = field(default_factory=Counter)
    chaos_seconds: float = 0.0
    ending_seconds: float = 0.0


@dataclass(slots=True)
class Report:
    """The outcome of a run."""

    plan: Plan
    told: Told
    findings: Findings

    @property
    def numbers(self) -> dict[str, int]:
        """What a run is judged by."""
        return {
            "seed": self.plan.seed,
            "jobs": len(self.plan.jobs),
            "faults": self.told.faults.total(),
            "lost": len(self.findings.lost),
            "published_twice": len(self.findings.published_twice),
            "orphans": len(self.findings.orphans),
        }

    @property
    def good(self) -> bool:
        """Whether everything is as it must be."""
        found = self.findings
        return not (found.lost or found.published_twice or found.orphans or found.problems)

    @property
    def line(self) -> str:
        """The numbers as one line of JSON."""
        return json.dumps(self.numbers, separators=(",", ":"))


class Submitter:
    """Submits, submits again, and cancels, each at its time or as soon after as the queue answers."""

    def __init__(self, subject: Subject, jobs: tuple[PlannedJob, ...], told: Told) -> None:
        self._subject = subject
        self._told = told
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="submitter", daemon=True)
        self.fault: Exception | None = None
        calls: list[tuple[float, int, Callable[[PlannedJob], None], PlannedJob]] = []
        for job in jobs:
            calls.append((job.at, len(calls), subject.submit, job))
            if job.again_at is not None:
                calls.append((job.again_at, len(calls), subject.submit, job))
            if job.cancel_at is not None:
                calls.append((job.cancel_at, len(calls), subject.cancel, job))
        self._calls = sorted(calls, key=lambda call: call[:2])

    def start(self) -> None:
        """Begin; the plan's clock starts now."""
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until everything was answered. Raises what went wrong, `TimeoutError` among it."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"after {seconds:.0f} s there is still a submission without an answer")
        if self.fault is not None:
            raise self.fault

    def abandon(self) -> None:
        """Give up what was not submitted yet."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            for at, _, call, job in self._calls:
                if self._stop.wait(max(0.0, began + at - time.monotonic())):
                    return
                self._until_answered(call, job)
        except Exception as error:  # noqa: BLE001 - raised again where the run can end
            self.fault = error

    def _until_answered(self, call: Callable[[PlannedJob], None], job: PlannedJob) -> None:
        self._told.submissions += 1
        while not self._stop.is_set():
            try:
                call(job)
            except QueueUnavailableError:
                self._told.unanswered += 1
                self._stop.wait(AGAIN_SECONDS)
            else:
                return


class Observer:
    """Looks at the subject all the time."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self.fault: Exception | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """Stop. Raises what went wrong."""
        self._stop.set()
        self._thread.join()
        if self.fault is not None:
            raise self.fault

    def _run(self) -> None:
        try:
            while not self._stop.wait(LOOK_SECONDS):
                try:
                    self._subject.look()
                except QueueUnavailableError:
                    continue
        except Exception as error:  # noqa: BLE001 - raised again where the run can end
            self.fault = error


def run_chaos(
    plan: Plan,
    *,
    make_subject: Callable[[str, Sequence[PlannedJob]], Subject] = LeasedQueue,
    module: str = LeasedQueue.module,
    tell: Tell = lambda _text: None,
    quiet_seconds: float = QUIET_SECONDS,
    keep: Path | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Report:
    """Play a plan, and account for every job.

    Args:
        plan: what to do and when.
        make_subject: given Valkey's URL and the jobs to come, the queue under test.
        module: what its workers run.
        tell: told what happens, line by line.
        quiet_seconds: how long nothing must happen after the last fault for what is left to be lost.
        keep: a folder for logs and data; without it they are removed.
        settings: of the workers, beside those of every run.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = keep or Path(temporary)
        with Site(folder, plan.workers, module, settings) as site:
            subject = make_subject(site.valkey.url, plan.jobs)
            try:
                return _Run(plan, site, subject, tell, quiet_seconds).play(folder)
            finally:
                subject.close()


class _Run:
    """One run, step by step."""

    def __init__(self, plan: Plan, site: Site, subject: Subject, tell: Tell, quiet_seconds: float) -> None:
        self._plan = plan
        self._site = site
        self._subject = subject
        self._tell = tell
        self._quiet_seconds = quiet_seconds
        self._told = Told()

    def play(self, folder: Path) -> Report:
        """The whole run; results are read into the folder."""
        with closing(self._site.store()) as store:
            files = StoredFiles.put(store)
            self._site.start_workers()
            submitter = Submitter(self._subject, self._plan.jobs, self._told)
            observer = Observer(self._subject)
            try:
                submitter.start()
                observer.start()
                self._break_things()
                submitter.finish(END_SECONDS)
                self._wait_for_the_end()
                self._tell("Sweeping what lost attempts left …")
                self._subject.settle(store)
            finally:
                submitter.abandon()
                observer.finish()
            self._tell("Stopping the workers, and checking every result …")
            self._site.stop_workers()
            findings = self._subject.examine(self._plan.jobs, store, files, folder)
        findings.problems += self._site.faults_of_workers
        self._told.resets = self._site.proxy.resets
        self._told.log_events = self._read_logs()
        return Report(self._plan, self._told, findings)

    def _break_things(self) -> None:
        """Begin and end every fault at its time, or as soon after as its victim is well again."""
        began = time.monotonic()
        begins = [(began + fault.at, number, fault) for number, fault in enumerate(self._plan.faults)]
        ends: list[tuple[float, int, PlannedFault]] = []
        heapq.heapify(begins)
        while begins or ends:
            if begins and (not ends or begins[0][0] <= ends[0][0]):
                at, number, fault = heapq.heappop(begins)
                healed_at = next((end for end, _, other in ends if other.victim == fault.victim), None)
                if healed_at is not None:
                    heapq.heappush(begins, (max(at, healed_at) + WATCH_SECONDS, number, fault))
                    continue
                self._watch_until(at)
                self._tell(
                    f"{time.monotonic() - began:6.1f} s  {fault.victim:<9} {fault.kind} for {fault.seconds} s"
                )
                self._site.begin(fault)
                self._told.faults[fault.kind] += 1
                heapq.heappush(ends, (time.monotonic() + fault.seconds, number, fault))
            else:
                at, number, fault = heapq.heappop(ends)
                self._watch_until(at)
                if self._site.still_draining(fault):
                    heapq.heappush(ends, (time.monotonic() + WATCH_SECONDS, number, fault))
                else:
                    self._site.end(fault)
        self._told.chaos_seconds = time.monotonic() - began
        self._tell(f"{self._told.chaos_seconds:6.1f} s  the last fault is over")

    def _watch_until(self, moment: float) -> None:
        """Wait, and start again any worker that ended by itself."""
        while (left := moment - time.monotonic()) > 0:
            self._site.check_workers()
            time.sleep(min(left, WATCH_SECONDS))

    def _wait_for_the_end(self) -> None:
        """Until every job has ended, or nothing has happened for too long."""
        began = time.monotonic()
        ids = [job.job_id for job in self._plan.jobs]
        while True:
            self._watch_until(time.monotonic() + LOOK_SECONDS)
            now = time.monotonic()
            try:
                unended = self._subject.unended(ids)
            except QueueUnavailableError:
                continue
            self._told.ending_seconds = now - began
            quiet = now - max(began, self._subject.changed_at())
            if not unended or quiet > self._quiet_seconds or now - began > END_SECONDS:
                self._tell(
                    f"After {now - began:.1f} s more, {len(unended)} of {len(ids)} jobs have not ended"
                )
                return

    def _read_logs(self) -> Counter[str]:
        """How often workers said what."""
        said: Counter[str] = Counter()
        for worker in self._site.workers.values():
            for line in worker.log_path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, dict):
                        said[str(entry.get("event"))] += 1
        return said
