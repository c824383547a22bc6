"""The uploader that takes an archive in order and its patches late."""

import gc
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downloadjobs_core.errors import (
    LeaseLostError,
    ObjectNotFoundError,
    ObjectStoreUnavailableError,
    ResultTooLargeError,
)
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_core.objectstore.protocol import BytesLike, Part, PendingUpload
from downloadjobs_core.zip_layout import CrcPatch
from downloadjobs_worker import patience
from downloadjobs_worker.hold import Hold, Stop
from downloadjobs_worker.uploading import LEAST_BUFFERS, PARTS_AIM, PartPlan, PartUploader, part_bytes_for
from support_worker import NoLedger, leased, read_object

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another at once."""
    monkeypatch.setattr(patience, "DELAYS_SECONDS", (0.0, 0.0, 0.0))


class Recorder(MemoryObjectStore):
    """A store that remembers the order parts came in, and how many came at once."""

    def __init__(self) -> None:
        super().__init__(min_part_bytes=1)
        self.order: list[int] = []
        self.faults = 0
        self.puts = 0

    def put(self, key: str, data: BytesLike, *, content_type: str = "application/octet-stream") -> str:
        self.puts += 1
        return super().put(key, data, content_type=content_type)

    def upload_part(self, key: str, upload_id: str, number: int, data: BytesLike) -> Part:
        if self.faults:
            self.faults -= 1
            raise ObjectStoreUnavailableError("down for a moment")
        self.order.append(number)
        return super().upload_part(key, upload_id, number, data)


def uploader(
    store: MemoryObjectStore, hold: Hold | None = None, part_bytes: int = 10, buffers: int = 5
) -> PartUploader:
    """An uploader of tiny parts."""
    plan = PartPlan(part_bytes, buffers, max(1, buffers - LEAST_BUFFERS))
    return PartUploader(store, "key", hold or leased(1), plan=plan, ledger=NoLedger())


def test_a_part_with_a_late_patch_goes_after_those_behind_it() -> None:
    """A part that waits for its CRC is held back while later parts are uploaded."""
    store = Recorder()
    upload = uploader(store)
    upload.expect_patch(3, 4)
    upload.write(b"0123456789" * 3)
    for pending in list(upload._pending):
        pending.result()
    assert sorted(store.order) == [2, 3]
    upload.patch(CrcPatch(3, b"abcd"))
    upload.flush()
    assert upload.complete() == 30
    upload.close()
    assert read_object(store, "key") == b"012abcd789" + b"0123456789" * 2
    assert store.order[-1] == 1


def test_a_patch_may_lie_across_two_parts() -> None:
    """Four bytes across a border hold back both parts, and no third."""
    store = Recorder()
    upload = uploader(store)
    upload.write(b"0123456")
    upload.expect_patch(8, 4)
    upload.write(b"7890123456789xyz")
    upload.patch(CrcPatch(8, b"ABCD"))
    upload.flush()
    upload.complete()
    upload.close()
    assert read_object(store, "key") == b"01234567ABCD23456789xyz"


def test_a_small_archive_is_one_put() -> None:
    """What fits into one part needs no multipart upload."""
    store = Recorder()
    upload = uploader(store)
    upload.write(b"small")
    upload.flush()
    assert upload.complete() == 5
    upload.close()
    assert (store.puts, store.order) == (1, [])
    assert read_object(store, "key") == b"small"


@settings(max_examples=60, deadline=None)
@given(
    part_bytes=st.integers(8, 40),
    buffers=st.integers(LEAST_BUFFERS, 5),
    pieces=st.lists(st.tuples(st.binary(max_size=30), st.binary(min_size=4, max_size=4)), max_size=12),
)
def test_any_cut_gives_the_same_object(
    part_bytes: int, buffers: int, pieces: list[tuple[bytes, bytes]]
) -> None:
    """However writes, patches and parts fall, with the fewest buffers, the object is the patched bytes."""
    store = Recorder()
    upload = uploader(store, part_bytes=part_bytes, buffers=buffers)
    expected = b""
    for data, patch in pieces:
        at = len(expected)
        upload.expect_patch(at, 4)
        upload.write(b"\0\0\0\0")
        upload.write(data)
        upload.patch(CrcPatch(at, patch))
        expected += patch + data
    upload.write(b"end")
    upload.flush()
    assert upload.complete() == len(expected) + 3
    assert len(upload._made) <= buffers
    upload.close()
    assert read_object(store, "key") == expected + b"end"


def test_a_passing_fault_costs_a_try() -> None:
    """An upload that fails for a moment is tried again, and the object is whole."""
    store = Recorder()
    store.faults = 2
    upload = uploader(store)
    upload.write(b"0123456789" * 3)
    upload.flush()
    upload.complete()
    upload.close()
    assert read_object(store, "key") == b"0123456789" * 3


def test_a_lasting_fault_ends_the_attempt_and_leaves_no_upload() -> None:
    """When tries are used up, writing raises the fault; after the abort nothing is pending."""
    store = Recorder()
    store.faults = 1000
    upload = uploader(store)
    with pytest.raises(ObjectStoreUnavailableError):
        upload.write(b"0123456789" * 50)
    upload.abort()
    assert store.pending_uploads("") == []


def test_a_failed_upload_gives_its_memory_back_at_once() -> None:
    """Although its fault, whose traceback knows every part, is at hand, and the collector does not run."""
    store = Recorder()
    store.faults = 100
    upload = uploader(store, part_bytes=MIB)
    data = bytes(8 * MIB)
    gc.disable()
    tracemalloc.start()
    try:
        with pytest.raises(ObjectStoreUnavailableError):
            upload.write(data)
        assert tracemalloc.get_traced_memory()[0] > MIB
        upload.abort()
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()
        gc.enable()


def test_an_aborted_upload_leaves_nothing() -> None:
    """After an abort there is neither an object nor an upload."""
    store = Recorder()
    upload = uploader(store)
    upload.write(b"0123456789" * 3)
    upload.abort()
    assert store.pending_uploads("") == []
    with pytest.raises(ObjectNotFoundError):
        store.stat("key")


def test_a_stopped_attempt_does_not_wait_for_buffers() -> None:
    """An attempt whose lease is lost stops writing although every buffer is in use."""
    blocked = threading.Event()

    class Stuck(Recorder):
        def upload_part(self, key: str, upload_id: str, number: int, data: BytesLike) -> Part:
            blocked.wait(10)
            return super().upload_part(key, upload_id, number, data)

    hold = leased(1)
    upload = uploader(Stuck(), hold)
    hold_timer = threading.Timer(0.3, hold.stop, (Stop.LEASE_LOST, "test"))
    hold_timer.start()
    with pytest.raises(LeaseLostError):
        upload.write(b"0123456789" * 50)
    blocked.set()
    upload.abort()


def test_a_completion_whose_answer_was_lost_is_a_success() -> None:
    """If completing says that the upload is gone, but the object is there, it was completed before."""

    class Forgetful(Recorder):
        completed = False

        def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
            etag = super().complete_upload(key, upload_id, parts)
            if not self.completed:
                self.completed = True
                raise ObjectStoreUnavailableError("the answer was lost")
            return etag

    store = Forgetful()
    upload = uploader(store)
    upload.write(b"0123456789" * 2 + b"x")
    upload.flush()
    assert upload.complete() == 21
    upload.close()
    assert read_object(store, "key") == b"0123456789" * 2 + b"x"


class Ledger(NoLedger):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begun(self, key: str) -> None:
        self.told.append(f"begun {key}")

    def left(self, key: str) -> None:
        self.told.append(f"left {key}")

    def ended(self, key: str) -> None:
        self.told.append(f"ended {key}")


class Late(Recorder):
    """A store that goes on after nobody waits for its answer any more, and then makes the object."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on: Callable[[], object] | None = None

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> str:
        self.go_on = self.go_on or partial(super().complete_upload, key, upload_id, parts)
        raise ObjectStoreUnavailableError("no answer")

    def put(self, key: str, data: BytesLike, *, content_type: str = "application/octet-stream") -> str:
        self.go_on = self.go_on or partial(super().put, key, bytes(data), content_type=content_type)
        raise ObjectStoreUnavailableError("no answer")

    def pending_uploads(self, prefix: str) -> Sequence[PendingUpload]:  # noqa: ARG002 - being completed, none is listed
        return []


@pytest.mark.parametrize(("size", "told"), [(30, ["begun key", "left key"]), (5, ["left key"])])
def test_a_completion_of_unknown_outcome_orders_a_sweep(size: int, told: list[str]) -> None:
    """What may become an object after the abort is left to the sweep, and the queue remembers its upload."""
    store, ledger = Late(), Ledger()
    upload = PartUploader(store, "key", leased(1), plan=PartPlan(10, 5, 2), ledger=ledger)
    upload.write(bytes(size))
    upload.flush()
    with pytest.raises(ObjectStoreUnavailableError):
        upload.complete()
    upload.abort()
    assert store.go_on is not None
    store.go_on()
    assert store.stat("key").size == size
    assert ledger.told == told


@pytest.mark.parametrize("total", [0, 1, 80 * 1024 * MIB, 5 * 1024 * 1024 * MIB])
def test_parts_are_large_enough_for_any_archive(total: int) -> None:
    """Up to S3's largest object, a result needs no more parts than planned, each of whole MiB."""
    part_bytes = part_bytes_for(total, 8 * MIB)
    assert part_bytes >= 8 * MIB
    assert part_bytes % MIB == 0
    assert total <= PARTS_AIM * part_bytes


@settings(deadline=None)
@given(
    total=st.integers(0, 6 * 1024**4),
    threads=st.integers(1, 16),
    memory_bytes=st.integers(LEAST_BUFFERS * 8 * MIB, 4 * 1024**3),
)
def test_parts_stay_within_their_memory(total: int, threads: int, memory_bytes: int) -> None:
    """As parts grow there are fewer buffers and threads, but enough to get on, or the result is refused."""
    try:
        plan = PartPlan.of(total, part_bytes=8 * MIB, threads=threads, memory_bytes=memory_bytes)
    except ResultTooLargeError:
        assert LEAST_BUFFERS * part_bytes_for(total, 8 * MIB) > memory_bytes
        return
    assert plan.part_bytes * plan.buffers <= memory_bytes
    assert plan.buffers >= LEAST_BUFFERS
    assert 1 <= plan.threads <= min(threads, plan.buffers)


def test_a_small_result_has_all_its_threads() -> None:
    """Where larger parts are not needed, each thread has a buffer beside those that are filled and held."""
    plan = PartPlan.of(MIB, part_bytes=8 * MIB, threads=2, memory_bytes=128 * MIB)
    assert plan == PartPlan(8 * MIB, LEAST_BUFFERS + 2, 2)
