"""What is read ahead, when nobody wants it any more."""

from __future__ import annotations

from downloadjobs_core.objectstore.memory import MemoryObjectStore
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
