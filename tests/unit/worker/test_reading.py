"""Reading ahead: what has an end, and what is left when nobody wants it any more."""

from __future__ import annotations

import pytest

from downloadjobs_core.errors import ObjectStoreUnavailableError
from downloadjobs_core.objectstore.memory import MemoryObjectStore, MemoryReader
from downloadjobs_core.objectstore.protocol import ObjectReader
from downloadjobs_worker import patience
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
