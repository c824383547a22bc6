"""Huey over leases: what a leased job becomes, what is refused, and what happens while Redis is away."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import pytest
from huey.constants import EmptyData
from huey.registry import Message
from structlog.testing import CapturingLogger

from downloadjobs_core import huey_queue
from downloadjobs_core.errors import QueueUnavailableError
from downloadjobs_core.huey_queue import JsonSerializer, LeasedHuey, LeaseStorage
from downloadjobs_core.job import Job
from downloadjobs_core.leases import LeaseStore
from downloadjobs_core.tasks import bind_bundle, bind_maintain

BUNDLE = {
    "id": "j1",
    "user": "ada",
    "state": "processing",
    "token": "1700000000000000",
    "file_ids": "[10003,10010]",
    "files_total": "2",
    "attempt": "1",
}
SWEEP = {
    "id": "sweep-orphans",
    "user": "",
    "state": "processing",
    "token": "1700000000000001",
    "kind": "maintenance",
}

Popped = dict[str, str] | QueueUnavailableError | None


@dataclass
class Leases:
    """A queue whose pops are told beforehand; after them it is empty."""

    pops: list[Popped] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    away: bool = False

    def pop(self, worker: str, *, holder: str = "", call: str = "") -> dict[str, str] | None:
        assert call
        self.calls.append(f"pop for {holder or worker}")
        popped = self.pops.pop(0) if self.pops else None
        if isinstance(popped, QueueUnavailableError):
            raise popped
        return popped

    def wait_for_work(self, _timeout_seconds: float) -> None:
        self.calls.append("wait")

    def promote(self) -> int:
        if self.away:
            raise QueueUnavailableError("Redis cannot be reached: gone")
        self.calls.append("promote")
        return 0

    def reap(self) -> tuple[int, int]:
        self.calls.append("reap")
        return 0, 0


@dataclass
class Bound:
    """A Huey over a queue, and the jobs that its tasks were run with."""

    leases: Leases
    huey: LeasedHuey
    bundled: list[Job] = field(default_factory=list)
    maintained: list[Job] = field(default_factory=list)

    @property
    def storage(self) -> LeaseStorage:
        """What Huey asks for jobs."""
        return cast("LeaseStorage", self.huey.storage)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """What is logged; and nobody waits before asking again."""
    logger = CapturingLogger()
    monkeypatch.setattr(huey_queue, "log", logger)
    monkeypatch.setattr(huey_queue, "POLL_SECONDS", 0)
    return logger


@pytest.fixture
def bound() -> Bound:
    """A Huey with both tasks, over an empty queue."""
    leases = Leases()
    bound = Bound(leases, LeasedHuey(cast("LeaseStore", leases), worker="w"))
    bind_bundle(bound.huey, bound.bundled.append)
    bind_maintain(bound.huey, bound.maintained.append)
    return bound


def away(times: int = 1) -> Sequence[QueueUnavailableError]:
    """As many pops that find no Redis."""
    return [QueueUnavailableError("Redis cannot be reached: gone") for _ in range(times)]


@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_a_pickled_payload_is_refused(protocol: int) -> None:
    """A payload is never code: what is no JSON is not read."""
    message = Message(id="j1", name="downloadjobs_core.tasks.bundle", args=(), kwargs={})
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        JsonSerializer().deserialize(pickle.dumps(tuple(message), protocol))


def test_a_message_is_json_and_comes_back() -> None:
    """A message is one JSON object, which is read back as it was."""
    message = Message(id="j1", name="downloadjobs_core.tasks.bundle", args=[], kwargs=BUNDLE)
    data = JsonSerializer().serialize(message)
    assert json.loads(data)["kwargs"] == BUNDLE
    assert JsonSerializer().deserialize(data) == message


def test_huey_reads_json_only(bound: Bound) -> None:
    """The process' Huey has that serializer, not Huey's own."""
    assert isinstance(bound.huey.serializer, JsonSerializer)


def test_enqueue_is_refused(bound: Bound) -> None:
    """A job enters by a submission, which writes its record as well; the refusal says so."""
    with pytest.raises(NotImplementedError, match=r"JobStore\.submit or LeaseStore\.submit"):
        bound.storage.enqueue(b"{}")
    task = bind_bundle(LeasedHuey(cast("LeaseStore", Leases()), worker="w"), bound.bundled.append)
    with pytest.raises(NotImplementedError, match=r"JobStore\.submit or LeaseStore\.submit"):
        task()


def test_scheduling_is_refused(bound: Bound) -> None:
    """A retry is placed together with the end of its attempt; the refusal says by what."""
    with pytest.raises(NotImplementedError, match=r"LeaseStore\.retry_later"):
        bound.storage.add_to_schedule(b"{}", datetime.now(UTC))


def test_a_leased_job_becomes_its_task(bound: Bound) -> None:
    """The hash of a job is the task that bundles it, by the job's id and with its record."""
    bound.leases.pops = [BUNDLE]
    task = bound.huey.dequeue()
    assert task is not None
    assert (task.id, task.name, task.kwargs) == ("j1", "bundle", BUNDLE)
    task.execute()
    assert bound.bundled == [Job.from_hash(BUNDLE)]
    assert bound.bundled[0].file_ids == (10_003, 10_010)
    assert bound.maintained == []


def test_leased_maintenance_becomes_its_task(bound: Bound) -> None:
    """The hash of a maintenance task is run by the process' maintenance, and not bundled."""
    bound.leases.pops = [SWEEP]
    task = bound.huey.dequeue()
    assert task is not None
    assert (task.id, task.name) == ("sweep-orphans", "maintain")
    task.execute()
    assert bound.maintained == [Job.from_hash(SWEEP)]
    assert bound.maintained[0].is_maintenance
    assert bound.bundled == []


@pytest.mark.parametrize("leased", [BUNDLE, SWEEP], ids=["bundle", "maintenance"])
def test_the_storage_gives_the_same_as_bytes(bound: Bound, leased: dict[str, str]) -> None:
    """Whoever asks the storage itself, as Huey's own tools do, gets the message of the same task."""
    bound.leases.pops = [leased]
    data = bound.storage.dequeue()
    assert data is not None
    task = bound.huey.deserialize_task(data)
    assert (task.id, task.kwargs) == (leased["id"], leased)


def test_an_empty_queue_is_waited_for_once(bound: Bound) -> None:
    """An idle slot waits to be woken and looks again, whether it was or not."""
    assert bound.huey.dequeue() is None
    assert bound.leases.calls == ["pop for w", "wait", "pop for w"]
    bound.leases.pops = [None, BUNDLE]
    task = bound.huey.dequeue()
    assert task is not None
    assert task.id == "j1"


def test_a_closing_process_leases_nothing(bound: Bound) -> None:
    """From the beginning of a drain on the queue is not asked for jobs."""
    bound.leases.pops = [BUNDLE]
    bound.huey.closing.set()
    assert bound.huey.dequeue() is None
    assert bound.leases.calls == []


def test_a_queue_that_is_away_is_told_once(bound: Bound, said: CapturingLogger) -> None:
    """While Redis cannot be asked there is no job; that is said once, and once more when it is back."""
    bound.leases.pops = [*away(3), BUNDLE, None]
    found = [bound.huey.dequeue() for _ in range(5)]
    assert [task and task.id for task in found] == [None, None, None, "j1", None]
    assert [(call.method_name, call.args) for call in said.calls] == [
        ("warning", ("the queue cannot be read",)),
        ("info", ("the queue is read again",)),
    ]
    assert said.calls[0].kwargs == {"error": "Redis cannot be reached: gone"}


def test_a_queue_that_goes_away_again_is_told_again(bound: Bound, said: CapturingLogger) -> None:
    """Each time that Redis goes, and each time that it comes back, is said."""
    bound.leases.pops = [*away(), BUNDLE, *away(2), SWEEP]
    for _ in range(5):
        bound.huey.dequeue()
    assert [call.method_name for call in said.calls] == ["warning", "info", "warning", "info"]


def test_looking_after_the_queue_waits_for_redis_too(bound: Bound, said: CapturingLogger) -> None:
    """Retries that are due and leases that ran out are made ready when Huey reads its schedule, if it can."""
    now = datetime.now(UTC)
    assert bound.storage.read_schedule(now) == []
    assert bound.leases.calls == ["promote", "reap"]
    bound.leases.away = True
    assert bound.storage.read_schedule(now) == []
    assert bound.storage.dequeue() is None
    assert [call.method_name for call in said.calls] == ["warning", "info"]


def test_nothing_is_stored_beside_jobs(bound: Bound) -> None:
    """Results, revocations and locks do not exist: reads find nothing."""
    assert bound.storage.peek_data("any") is EmptyData
    assert bound.storage.pop_data("any") is EmptyData
    assert bound.storage.peek_many(["any"]) == {}
    assert not bound.storage.has_data_for_key("any")
