"""Reading ahead: what has an end, and what is left when nobody wants it any more."""

from __future__ import annotations

import threading

import pytest

from downloadjobs_core.errors import ObjectStoreUnavailableError
from downloadjobs_core.objectstore.memory import MemoryObjectStore, MemoryReader
from downloadjobs_core.objectstore.protocol import ObjectReader
from downloadjobs_worker import patience
from downloadjobs_worker.hold import Hold, Stop
from downloadjobs_worker.planning import plan_files
from downloadjobs_worker.reading import CHUNK_BYTES, ReadAhead
from support_worker import eventually, leased


def test_what_was_read_ahead_is_dropped() -> None:
    """The chunks that wait go with the attempt, whoever still holds its streams."""
    store = MemoryObjectStore()
    for file_id in (10_000, 10_001):
        store.put(f"{file_id}.zip", bytes(2 * CHUNK_BYTES))
    hold = leased(10_000, 10_001)
    planned = plan_files(store, hold, [10_000, 10_001], prefix="", threads=1)
    with ReadAhead(store, hold, planned, 2, 4 * CHUNK_BYTES) as ahead:
        streams = list(ahead._streams)
        # What was opened, both chunks, and the end.
        eventually(lambda: [one.items.qsize() for one in streams] == [4, 4], 10, "the files")
    assert [one.items.qsize() for one in streams] == [0, 0]


@pytest.mark.parametrize("bytes_a_time", [0, 10])
def test_a_read_that_hardly_gets_on_is_given_up(monkeypatch: pytest.MonkeyPatch, bytes_a_time: int) -> None:
    """A reader that ends before the end has as many tries as one that breaks, also with a few bytes each."""
    monkeypatch.setattr(patience, "DELAYS_SECONDS", (0.0,) * 5)

    class Short(MemoryObjectStore):
        offsets: list[int]

        def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
            inner = super().open(key, offset=offset, if_match=if_match)
            self.offsets.append(offset)
            whole = bytes(CHUNK_BYTES if offset == 0 else offset + bytes_a_time)
            return MemoryReader(inner.stat, whole, offset)

    store = Short()
    store.offsets = []
    store.put("10000.zip", bytes(2 * CHUNK_BYTES))
    hold = leased(10_000)
    planned = plan_files(store, hold, [10_000], prefix="", threads=1)
    with ReadAhead(store, hold, planned, 1, 4 * CHUNK_BYTES) as ahead:
        (stream,) = list(ahead)
        stream.opened()
        with pytest.raises(ObjectStoreUnavailableError, match="before its end"):
            list(stream.chunks())
    assert store.offsets == [0, *(CHUNK_BYTES + bytes_a_time * number for number in range(5))]


@pytest.mark.parametrize("why", Stop)
def test_a_reader_of_a_stopped_attempt_ends_quietly(monkeypatch: pytest.MonkeyPatch, why: Stop) -> None:
    """A cancel, a lost lease or a drain that meets a reader between two tries is no fault of the thread."""
    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    waits = threading.Event()
    sleep = Hold.sleep

    def told(hold: Hold, seconds: float) -> None:
        waits.set()
        sleep(hold, seconds)

    def down(_key: str, **_: object) -> ObjectReader:
        raise ObjectStoreUnavailableError("down")

    monkeypatch.setattr(Hold, "sleep", told)
    monkeypatch.setattr(patience, "DELAYS_SECONDS", (60.0,))

    store = MemoryObjectStore()
    store.put("10000.zip", b"x")
    store.open = down  # type: ignore[method-assign, assignment]
    hold = leased(10_000)
    planned = plan_files(store, hold, [10_000], prefix="", threads=1)
    before = set(threading.enumerate())
    with ReadAhead(store, hold, planned, 1, CHUNK_BYTES):
        (reader,) = set(threading.enumerate()) - before
        assert waits.wait(10)
        hold.stop(why, "cancelled")
        reader.join(10)
    assert not reader.is_alive()
    assert uncaught == []
