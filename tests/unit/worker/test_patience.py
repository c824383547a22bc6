"""What a call to storage survives: a few faults of its own, and an outage of storage as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from downloadjobs_core.errors import (
    BucketNotFoundError,
    CredentialsRefusedError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
)
from downloadjobs_core.file_faults import DENIED
from downloadjobs_core.objectstore.memory import MemoryObjectStore, MemoryReader
from downloadjobs_core.objectstore.protocol import ObjectReader, ObjectStat
from downloadjobs_worker import patience, storage_watch
from downloadjobs_worker.hold import HandBackRequested, Hold, Stop
from downloadjobs_worker.patience import Tries, patiently, waited_for_storage
from downloadjobs_worker.planning import PlannedFile, look_up, plan_files
from downloadjobs_worker.reading import CHUNK_BYTES, ReadAhead
from downloadjobs_worker.storage_watch import StorageWatch
from support_worker import leased, put_files

AWAY = ObjectStoreUnavailableError("nobody there")
TRIES = 4


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes only while something sleeps; three tries more after a fault."""
    now = [0.0]
    monkeypatch.setattr(patience, "DELAYS_SECONDS", (0.1, 0.1, 0.1))
    monkeypatch.setattr("downloadjobs_worker.patience.time.monotonic", lambda: now[0])

    def sleep(hold: Hold, seconds: float) -> None:
        now[0] += seconds
        hold.raise_if_stopped()

    monkeypatch.setattr(Hold, "sleep", sleep)
    return now


class Storage(MemoryObjectStore):
    """A store that can be away, or refuse everything, until a moment."""

    def __init__(self, clock: list[float], until: float, fault: ObjectStoreError = AWAY) -> None:
        super().__init__()
        self.clock = clock
        self.until = until
        self.fault = fault
        self.checks = 0

    def _answer(self) -> None:
        if self.clock[0] < self.until:
            raise self.fault

    def check(self) -> None:
        self.checks += 1
        self._answer()

    def stat(self, key: str) -> ObjectStat:
        self._answer()
        return super().stat(key)


def watched(store: Storage, seconds: float) -> Hold:
    """A hold whose job waits for a store for so long."""
    hold = leased(10, 11)
    hold.storage = StorageWatch((store, store), seconds)
    return hold


def read_all(store: Storage, hold: Hold, planned: Sequence[PlannedFile]) -> None:
    """Read what was planned, from a store that has begun to refuse everything."""

    def refused(_key: str, **_: object) -> ObjectReader:
        store.until = 1e9
        raise store.fault

    store.open = refused  # type: ignore[method-assign, assignment]
    with ReadAhead(store, hold, planned, 1, CHUNK_BYTES) as ahead:
        for stream in ahead:
            stream.opened()
            list(stream.chunks())


def counted(call: Callable[[], object]) -> tuple[Callable[[], object], list[int]]:
    """A call, and how often it was made."""
    calls = [0]

    def counting() -> object:
        calls[0] += 1
        return call()

    return counting, calls


def test_a_call_outlasts_an_outage(clock: list[float]) -> None:
    """While storage as a whole is away a call is tried on, and succeeds when it is back."""
    put_files(store := Storage(clock, until=0), {10: 1})
    store.until = 600
    found = patiently(watched(store, 900), "stat", lambda: store.stat("downloads/10.zip"))
    assert found.size == 1
    assert 600 <= clock[0] < 600 + 2 * patience.OUTAGE_PAUSE_SECONDS


def test_patience_has_an_end(clock: list[float]) -> None:
    """After the patience the last fault is raised."""
    store = Storage(clock, until=1e9)
    with pytest.raises(ObjectStoreUnavailableError):
        patiently(watched(store, 60), "stat", lambda: store.stat("k"))
    assert 60 <= clock[0] < 60 + 2 * patience.OUTAGE_PAUSE_SECONDS


def test_a_fault_of_one_object_is_not_waited_for(clock: list[float]) -> None:
    """Where storage answers, a call that fails has its few tries and no more."""
    store = Storage(clock, until=0)

    def broken() -> object:
        raise AWAY

    call, calls = counted(broken)
    with pytest.raises(ObjectStoreUnavailableError):
        patiently(watched(store, 900), "stat", call)
    assert calls == [TRIES]
    assert store.checks == 1


def test_after_an_outage_the_few_tries_begin_anew(clock: list[float]) -> None:
    """What is back may not be quite: a call gets its tries again, but not for ever."""
    store = Storage(clock, until=20)

    def broken() -> object:
        raise AWAY

    call, calls = counted(broken)
    with pytest.raises(ObjectStoreUnavailableError):
        patiently(watched(store, 900), "stat", call)
    assert clock[0] < 30
    # Before, while it was away, and after.
    assert calls[0] == TRIES + 20 / patience.OUTAGE_PAUSE_SECONDS + TRIES - 1


def test_success_ends_what_was_counted(clock: list[float]) -> None:
    """A read that got on between two faults has all its tries for the second."""
    store = Storage(clock, until=0)
    tries = Tries(StorageWatch((store,), 0))
    for _ in range(3):
        for _ in range(TRIES - 1):
            tries.delay_after(AWAY)
        tries.succeeded()
    for _ in range(TRIES - 1):
        tries.delay_after(AWAY)
    with pytest.raises(ObjectStoreUnavailableError):
        tries.delay_after(AWAY)


def test_a_hold_that_is_stopped_waits_no_longer(clock: list[float]) -> None:
    """A drain or a lost lease ends the wait for storage."""
    store = Storage(clock, until=1e9)
    hold = watched(store, 900)

    def stop_at_sixty() -> None:
        if clock[0] > 60:
            hold.stop(Stop.DRAIN)
        store.stat("k")

    with pytest.raises(HandBackRequested):
        patiently(hold, "stat", stop_at_sixty)
    assert clock[0] < 70


@pytest.mark.parametrize("fault", [ObjectStoreDeniedError("wrong key"), BucketNotFoundError("results")])
def test_a_plan_waits_for_credentials_and_the_bucket(clock: list[float], fault: ObjectStoreError) -> None:
    """What refuses every file is an outage: once it is over, the plan has the files."""
    stored = put_files(store := Storage(clock, until=0), {10: 1, 11: 2})
    store.until, store.fault = 120, fault
    if isinstance(fault, BucketNotFoundError):
        store.stat = lambda key: MemoryObjectStore.stat(store, key if clock[0] >= 120 else "none")  # type: ignore[method-assign]
    files = plan_files(store, watched(store, 900), [10, 11], prefix="downloads/", threads=2)
    assert [file.size for file in files] == [len(data) for data in stored.values()]


def test_one_denied_file_is_a_fault_of_that_file(clock: list[float]) -> None:
    """Where storage as a whole answers, a file that is denied twice is left out, and nothing waits for it."""
    put_files(store := Storage(clock, until=0), {10: 1, 11: 2})
    original = store.stat

    def stat(key: str) -> ObjectStat:
        if key == "downloads/10.zip":
            raise ObjectStoreDeniedError("not this one")
        return original(key)

    store.stat = stat  # type: ignore[method-assign]
    files = plan_files(store, watched(store, 900), [10, 11], prefix="downloads/", threads=2)
    assert [file.found == DENIED for file in files] == [True, False]
    assert store.checks == 2
    assert clock[0] == patience.DELAYS_SECONDS[0]


@pytest.mark.parametrize("refusal", [ObjectStoreDeniedError("denied"), CredentialsRefusedError("expired")])
@pytest.mark.parametrize("when", ["looked up", "read"])
def test_a_moments_refusal_leaves_no_file_out(
    clock: list[float], refusal: ObjectStoreError, when: str
) -> None:
    """A file that is refused once, where storage as a whole answers, is asked for again and is there."""
    stored = put_files(store := Storage(clock, until=0), {10: 1})
    refusals = [refusal]

    def refused_once(call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: object, **more: object) -> object:
            if refusals:
                raise refusals.pop()
            return call(*args, **more)

        return asked

    name = "stat" if when == "looked up" else "open"
    setattr(store, name, refused_once(getattr(store, name)))
    hold = watched(store, 900)
    planned = plan_files(store, hold, [10], prefix="downloads/", threads=1)
    with ReadAhead(store, hold, planned, 1, CHUNK_BYTES) as ahead:
        (stream,) = list(ahead)
        stream.opened()
        assert b"".join(stream.chunks()) == stored["10.zip"]
    assert refusals == []


@pytest.mark.parametrize("refusal", [ObjectStoreDeniedError("denied"), CredentialsRefusedError("expired")])
@pytest.mark.parametrize("patience_seconds", [0, 60])
@pytest.mark.parametrize("when", ["looked up", "read"])
def test_a_storage_that_refuses_everything_is_no_fault_of_a_file(
    clock: list[float], refusal: ObjectStoreError, patience_seconds: float, when: str
) -> None:
    """Refused credentials fail the attempt when its patience is over, and leave no file out."""
    put_files(store := Storage(clock, until=0, fault=refusal), {10: 1})
    hold = watched(store, patience_seconds)
    store.until = 1e9 if when == "looked up" else 0
    with pytest.raises(CredentialsRefusedError):
        read_all(store, hold, plan_files(store, hold, [10], prefix="downloads/", threads=1))
    assert patience_seconds <= clock[0] < patience_seconds + 2 * patience.OUTAGE_PAUSE_SECONDS


def test_what_was_known_before_a_refusal_says_nothing_of_it(clock: list[float]) -> None:
    """Credentials that are refused a moment after storage was found usable are not taken for one file's."""
    put_files(store := Storage(clock, until=0, fault=ObjectStoreDeniedError("renewed")), {10: 1})
    hold = watched(store, 900)
    assert hold.storage is not None
    assert hold.storage.fault() is None
    store.until = storage_watch.FRESH_SECONDS / 2
    assert look_up(store, hold, 10, "downloads/10.zip").size == 1


def test_files_denied_by_a_rotation_are_looked_up_again(clock: list[float]) -> None:
    """Credentials that go bad between two look-ups leave no file out: all are looked up again."""
    stored = put_files(store := Storage(clock, until=0), {10: 1, 11: 2})
    original = store.stat

    def stat(key: str) -> ObjectStat:
        if clock[0] < 60 and key == "downloads/11.zip":
            store.until = 60
            raise store.fault
        return original(key)

    store.fault = ObjectStoreDeniedError("renewed")
    store.stat = stat  # type: ignore[method-assign]
    files = plan_files(store, watched(store, 900), [10, 11], prefix="downloads/", threads=1)
    assert [file.size for file in files] == [len(data) for data in stored.values()]


class BreaksOnce(MemoryReader):
    """Reads a chunk and breaks, and from then on the credentials are refused for a minute."""

    def __init__(self, inner: ObjectReader, store: Storage) -> None:
        self.stat = inner.stat
        self._inner = inner
        self._store = store
        self._read = False

    def read(self, max_bytes: int) -> bytes:
        if self._read:
            self._store.until = self._store.clock[0] + 60
            raise AWAY
        self._read = True
        return self._inner.read(max_bytes)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("in_the_middle", [False, True])
def test_a_file_denied_by_a_rotation_is_read_on(clock: list[float], in_the_middle: bool) -> None:  # noqa: FBT001
    """Credentials that go bad after the plan leave no file out and change none: it is read on afterwards."""
    store = Storage(clock, until=0, fault=ObjectStoreDeniedError("renewed"))
    stored = put_files(store, {10: 3 * CHUNK_BYTES})
    hold = watched(store, 900)
    planned = plan_files(store, hold, [10], prefix="downloads/", threads=1)
    original = store.open
    offsets = []

    def opened(key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
        store.check()
        offsets.append(offset)
        reader = original(key, offset=offset, if_match=if_match)
        return BreaksOnce(reader, store) if in_the_middle and offset == 0 else reader

    store.open = opened  # type: ignore[method-assign]
    if not in_the_middle:
        store.until = 60
    with ReadAhead(store, hold, planned, 1, CHUNK_BYTES) as ahead:
        (stream,) = list(ahead)
        assert stream.opened() == planned[0].found
        assert b"".join(stream.chunks()) == stored["10.zip"]
    assert offsets == ([0, CHUNK_BYTES] if in_the_middle else [0])
    assert clock[0] >= 60


def test_one_file_denied_while_it_is_read_is_that_files_fault(clock: list[float]) -> None:
    """Where storage as a whole answers, a file that is denied when its turn comes is left out."""
    put_files(store := Storage(clock, until=0), {10: 1})
    hold = watched(store, 900)
    planned = plan_files(store, hold, [10], prefix="downloads/", threads=1)

    def denied(_key: str, **_: object) -> ObjectReader:
        raise ObjectStoreDeniedError("not this one")

    store.open = denied  # type: ignore[method-assign, assignment]
    with ReadAhead(store, hold, planned, 1, CHUNK_BYTES) as ahead:
        (stream,) = list(ahead)
        assert stream.opened() == DENIED
        assert list(stream.chunks()) == []


def test_without_a_watch_nothing_waits(clock: list[float]) -> None:
    """A hold without a watch has the few tries alone, and a plan fails at once."""
    store = Storage(clock, until=1e9)
    with pytest.raises(ObjectStoreUnavailableError):
        patiently(leased(10), "stat", lambda: store.stat("k"))
    assert clock[0] < 1
    with pytest.raises(ObjectStoreUnavailableError):
        waited_for_storage(leased(10), store.check)


def test_many_who_ask_ask_storage_once(clock: list[float]) -> None:
    """The watch asks each store once a second at most, however many threads want to know."""
    store = Storage(clock, until=1e9)
    watch = StorageWatch((store, store), 900)
    for _ in range(100):
        assert watch.fault() is AWAY
    assert store.checks == 1
    clock[0] += storage_watch.FRESH_SECONDS
    store.until = 0
    assert watch.fault() is None
    assert store.checks == 2
