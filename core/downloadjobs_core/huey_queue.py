"""Huey on leases: a storage from which nothing is lost, and a Huey that uses it.

Stock Huey pops destructively: the task of a killed worker is gone
(huey 3.5.4, storage.py, `dequeue`). Here a pop is a lease (`leases.py`), and
Huey's own results, retries, schedule and revocations are off, because each of
them is a second write that a crash can separate from the first.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar

from huey.api import Huey, Task
from huey.constants import EmptyData
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import BaseStorage

from downloadjobs_core import logs
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_core.job import MAINTENANCE
from downloadjobs_core.leases import LeaseStore

POLL_SECONDS: Final = 1.0
"""How long an idle slot waits on the wake list before it looks again; the net below it."""

Result = TypeVar("Result")

log = logs.logger(__name__)

BUNDLE: Final = "bundle"
MAINTAIN: Final = "maintain"
"""The tasks' names. With their module's they are what a message names."""

_MODULE: Final = "downloadjobs_core.tasks"


class JsonSerializer(Serializer):  # type: ignore[misc]  # huey has no types
    """Messages as JSON: a payload can never be code, as with pickle it could."""

    def _serialize(self, data: Message) -> bytes:
        return json.dumps(data._asdict(), separators=(",", ":")).encode()

    def _deserialize(self, data: bytes) -> Message:
        return Message(**json.loads(data))


def message_of(job: dict[str, str]) -> Message:
    """The message by which Huey runs a leased job, given its hash."""
    name = MAINTAIN if job.get("kind") == MAINTENANCE else BUNDLE
    return Message(id=job["id"], name=f"{_MODULE}.{name}", args=[], kwargs=job)


class LeaseStorage(BaseStorage):  # type: ignore[misc]  # huey has no types
    """Huey's storage over the leased queue.

    Jobs enter by `submit.lua`, not by `enqueue`; the schedule is `delayed`,
    which `promote.lua` empties. Results, revocations, locks and counters do not
    exist: reads find nothing and cost nothing.
    """

    blocking = True

    def __init__(
        self,
        name: str,
        *,
        leases: LeaseStore,
        worker: str,
        holder: str = "",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(name, **kwargs)
        self._leases = leases
        self._worker = worker
        self._holder = holder
        self._reachable = threading.Event()
        self._reachable.set()
        self._unanswered = threading.local()
        self.closing = threading.Event()
        """Set when the process drains: no job is leased any more."""

    def dequeue(self) -> bytes | None:
        """Lease a job and return its message; see `lease`."""
        job = self.lease()
        return None if job is None else JsonSerializer().serialize(message_of(job))

    def lease(self) -> dict[str, str] | None:
        """Lease a job, waiting up to `POLL_SECONDS` for one: its hash, or None if there is none."""
        return self._unless_redis_is_away(self._wait_and_pop)

    def _wait_and_pop(self) -> dict[str, str] | None:
        job = self._pop()
        if job is None and not self.closing.is_set():
            self._leases.wait_for_work(POLL_SECONDS)
            job = self._pop()
        return job

    def _pop(self) -> dict[str, str] | None:
        if self.closing.is_set():
            return None
        # The same id until an answer came, also in the slot's next call: see `LeaseStore.pop`.
        call = self._unanswered.call = getattr(self._unanswered, "call", "") or uuid.uuid4().hex
        job = self._leases.pop(self._worker, holder=self._holder, call=call)
        self._unanswered.call = ""
        return job

    def _unless_redis_is_away(self, call: Callable[[], Result]) -> Result | None:
        """Make a call, or wait a moment if Redis cannot be asked; said once, not by each slot again."""
        try:
            result = call()
        except QueueUnavailableError as error:
            if self._reachable.is_set():
                self._reachable.clear()
                log.warning("the queue cannot be read", error=str(error))
            self.closing.wait(POLL_SECONDS)
            return None
        if not self._reachable.is_set():
            self._reachable.set()
            log.info("the queue is read again")
        return result

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        """Refused: an entry without its job's hash could be lost."""
        raise NotImplementedError("jobs enter the queue by JobStore.submit or LeaseStore.submit")

    def add_to_schedule(self, data: bytes, ts: datetime) -> None:
        """Refused: a retry is placed by `retry_later.lua`, together with the attempt's end."""
        raise NotImplementedError("retries are placed by LeaseStore.retry_later")

    def read_schedule(self, ts: datetime) -> list[bytes]:
        """Tend the queue: due retries and expired leases become ready, without passing through here."""
        self._unless_redis_is_away(self._tend)
        return []

    def _tend(self) -> None:
        self._leases.promote()
        self._leases.reap()

    def queue_size(self) -> int:
        """Jobs ready to be leased."""
        return self._leases.ready_count()

    def peek_many(self, keys: list[str]) -> dict[str, bytes]:
        """No revocations: a cancelled job's token is taken away instead."""
        return {}

    def peek_data(self, key: str) -> Any:  # noqa: ANN401 - huey's marker class
        """Nothing is stored beside jobs."""
        return EmptyData

    pop_data = peek_data

    def has_data_for_key(self, key: str) -> bool:
        """Nothing is stored beside jobs."""
        return False


class LeasedHuey(Huey):  # type: ignore[misc]  # huey has no types
    """A Huey whose tasks are leased jobs."""

    def __init__(self, leases: LeaseStore, *, worker: str, holder: str = "") -> None:
        super().__init__(
            "downloadjobs",
            results=False,
            serializer=JsonSerializer(),
            storage_class=LeaseStorage,
            leases=leases,
            worker=worker,
            holder=holder,
        )

    @property
    def closing(self) -> threading.Event:
        """Set it to lease no further job."""
        event: threading.Event = self.storage.closing
        return event

    def dequeue(self) -> Task | None:
        """The next leased job's task, made of its hash as Redis sent it."""
        job = self.storage.lease()
        return None if job is None else self._registry.create_task(message_of(job))

    def enqueue(self, task: Task) -> None:
        """Submit the job that a call of the task describes by its `new_job` argument."""
        self.storage.enqueue(self.serialize_task(task), task.priority)
