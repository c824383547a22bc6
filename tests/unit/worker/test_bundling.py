"""From a job to its archive, on a store in memory."""

import json
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downloadjobs_core.errors import (
    LeaseLostError,
    ObjectChangedError,
    ObjectStoreDeniedError,
    ObjectStoreUnavailableError,
    ResultTooLargeError,
)
from downloadjobs_core.leases import Outcome
from downloadjobs_core.objectstore.memory import MemoryObjectStore
from downloadjobs_core.objectstore.protocol import ObjectReader, ObjectStat
from downloadjobs_core.states import JobState
from downloadjobs_worker import patience, reading
from downloadjobs_worker.attempt import failure_of
from downloadjobs_worker.bundling import Bundler, BundlingLimits
from downloadjobs_worker.hold import HandBackRequested, Hold, Stop
from support_worker import PREFIX, NoLedger, content, eventually, leased, members, put_files, read_object

CHUNK = 1000
PART = 3000
NAME_10 = f"{PREFIX}10.zip"


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, and no waits between tries."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(patience, "DELAYS_SECONDS", (0.0, 0.0, 0.0))


class FaultyReader:
    """Reads until a given offset of the object, then breaks or does what it is told."""

    def __init__(self, inner: ObjectReader, offset: int, break_at: int) -> None:
        self.stat = inner.stat
        self._inner = inner
        self._left = break_at - offset

    def read(self, max_bytes: int) -> bytes:
        if self._left <= 0:
            raise ObjectStoreUnavailableError("the connection broke")
        data = self._inner.read(min(max_bytes, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FaultyStore(MemoryObjectStore):
    """A store whose reads of one key break at given offsets, once each."""

    def __init__(self, breaks: dict[str, list[int]] | None = None) -> None:
        super().__init__(min_part_bytes=1)
        self.breaks = breaks or {}
        self.opened: list[tuple[str, int, str | None]] = []
        self.on_break: Callable[[], object] = lambda: None

    def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
        inner = super().open(key, offset=offset, if_match=if_match)
        self.opened.append((key, offset, if_match))
        pending = self.breaks.get(key)
        if pending:
            at = pending.pop(0)
            self.on_break()
            return FaultyReader(inner, offset, at)
        return inner


def bundler(store: MemoryObjectStore, results: MemoryObjectStore | None = None) -> Bundler:
    """A bundler of tiny parts and windows."""
    limits = BundlingLimits(
        PART, upload_threads=2, upload_memory_bytes=5 * PART, read_ahead_files=3, read_ahead_bytes=2 * CHUNK
    )
    return Bundler(store, results or store, limits, PREFIX, "results/")


def run(store: MemoryObjectStore, hold: Hold) -> tuple[Outcome, dict[str, bytes]]:
    """Bundle, and read the archive back."""
    outcome = bundler(store).bundle(hold, lambda: None, NoLedger())
    return outcome, members(read_object(store, outcome.result_key)) if outcome.result_key else {}


def test_every_file_is_a_member_in_the_order_asked_for() -> None:
    """The archive has the files in their order, whole, and the manifest last."""
    store = FaultyStore()
    stored = put_files(store, {12: 5000, 10: 0, 11: 1})
    outcome, found = run(store, leased(12, 10, 11))
    assert list(found) == ["12.zip", "10.zip", "11.zip", "manifest.json"]
    assert {name: found[name] for name in stored} == stored
    assert outcome.state is JobState.COMPLETED
    assert (outcome.files_done, outcome.files_failed, outcome.bytes_done) == (3, 0, 5001)


def test_the_manifest_tells_of_every_file() -> None:
    """The manifest has each file's size, CRC-32 and ETag, or the error why it is absent."""
    store = FaultyStore()
    put_files(store, {10: 100})
    outcome, found = run(store, leased(10, 99))
    manifest = json.loads(found["manifest.json"])
    assert manifest["files"][0] == {
        "fileId": 10, "name": "10.zip", "status": "ok", "size": 100,
        "crc32": f"{zlib.crc32(content(10, 100)):08x}", "etag": store.stat(NAME_10).etag,
        "error": None, "message": None,
    }  # fmt: skip
    assert manifest["files"][1]["error"] == "not-found"
    assert manifest["totalFileIds"] == 2
    assert (outcome.state, outcome.files_failed) == (JobState.COMPLETED_WITH_ERRORS, 1)
    assert list(outcome.failed) == [(99, "not-found")]


def test_a_result_that_memory_cannot_hold_is_refused_before_it_is_begun() -> None:
    """Where the parts would take more memory than they may, the attempt fails, and another would not help."""
    store = FaultyStore()
    put_files(store, {10: 100})
    store.stat = lambda key: replace(MemoryObjectStore.stat(store, key), size=10**12)  # type: ignore[method-assign]
    with pytest.raises(ResultTooLargeError, match="UPLOAD_MEMORY_BYTES") as caught:
        run(store, leased(10))
    assert failure_of(caught.value).code == "result-too-large"
    assert not failure_of(caught.value).retryable
    assert store.opened == []
    assert store.pending_uploads("") == []


def test_no_file_at_all_is_a_failed_job() -> None:
    """If none of the files exists the job fails, and no archive is made."""
    store = FaultyStore()
    outcome, _ = run(store, leased(98, 99))
    assert (outcome.state, outcome.error_code) == (JobState.FAILED, "no-file-found")
    assert list(outcome.failed) == [(98, "not-found"), (99, "not-found")]
    assert list(store.list("results/")) == []


def test_a_broken_read_goes_on_from_where_it_broke() -> None:
    """After a fault a file is read on by range, with If-Match, and never from its start again."""
    store = FaultyStore({NAME_10: [2500, 4100]})
    put_files(store, {10: 6000})
    etag = store.stat(NAME_10).etag
    _, found = run(store, leased(10))
    assert found["10.zip"] == content(10, 6000)
    reads = [opened for opened in store.opened if opened[0] == NAME_10]
    assert reads == [(NAME_10, 0, etag), (NAME_10, 2500, etag), (NAME_10, 4100, etag)]


def test_a_file_that_changes_while_it_is_read_fails_the_attempt() -> None:
    """Two versions are never mixed in one member: the attempt fails, and another may do better."""
    store = FaultyStore({NAME_10: [2500]})
    put_files(store, {10: 6000})
    store.on_break = lambda: MemoryObjectStore.put(store, NAME_10, b"new" * 2000)
    with pytest.raises(ObjectChangedError):
        run(store, leased(10))
    assert store.pending_uploads("") == []
    assert list(store.list("results/")) == []


def test_a_file_that_changes_before_it_is_read_is_taken_as_it_is_then() -> None:
    """A change between the look-up and the first byte costs nothing: the new version is the member."""

    class Changing(FaultyStore):
        def stat(self, key: str) -> ObjectStat:
            stat = super().stat(key)
            if key == NAME_10 and not self.opened:
                MemoryObjectStore.put(self, key, b"new content")
            return stat

    store = Changing()
    put_files(store, {10: 6000})
    hold = leased(10)
    _, found = run(store, hold)
    assert found["10.zip"] == b"new content"
    assert hold.progress.bytes_total == hold.progress.bytes_done == 11


def test_a_file_that_vanishes_before_it_is_read_is_missing() -> None:
    """A file that is deleted after the look-up is an error in the manifest, not a failed job."""

    class Vanishing(FaultyStore):
        def stat(self, key: str) -> ObjectStat:
            stat = super().stat(key)
            if key == NAME_10:
                self.delete(key)
            return stat

    store = Vanishing()
    put_files(store, {10: 6000, 11: 10})
    outcome, found = run(store, leased(10, 11))
    assert list(found) == ["11.zip", "manifest.json"]
    assert outcome.state is JobState.COMPLETED_WITH_ERRORS


@pytest.mark.parametrize("how", ["vanish", "are denied"])
def test_a_result_without_any_file_is_never_published(how: str) -> None:
    """If every file goes away after its look-up the job fails, as if none had been there."""

    class Empty(FaultyStore):
        def open(self, key: str, *, offset: int = 0, if_match: str | None = None) -> ObjectReader:
            if how == "vanish":
                self.delete(key)
                return super().open(key, offset=offset, if_match=if_match)
            raise ObjectStoreDeniedError("not these")

    store = Empty()
    put_files(store, {10: 6000, 11: 10})
    outcome, _ = run(store, leased(10, 11))
    assert (outcome.state, outcome.error_code) == (JobState.FAILED, "no-file-found")
    code = "not-found" if how == "vanish" else "denied"
    assert list(outcome.failed) == [(10, code), (11, code)]
    assert ("exists" in outcome.error_message) is (how == "vanish")
    assert list(store.list("results/")) == []
    assert store.pending_uploads("") == []


def test_a_storage_that_goes_on_failing_fails_the_attempt_and_leaves_nothing() -> None:
    """When every try breaks, the attempt ends with the fault and leaves no upload behind."""
    store = FaultyStore({NAME_10: [3500] * 1000})
    put_files(store, {10: 6000})
    with pytest.raises(ObjectStoreUnavailableError):
        run(store, leased(10))
    assert store.pending_uploads("") == []


def test_refused_credentials_are_told_from_missing_files() -> None:
    """If nothing was found because the storage refuses the worker, that is the error."""

    class Refusing(FaultyStore):
        def check(self) -> None:
            raise ObjectStoreDeniedError("wrong key")

    with pytest.raises(ObjectStoreDeniedError):
        run(Refusing(), leased(98))


@pytest.mark.parametrize(
    ("why", "expected"), [(Stop.LEASE_LOST, LeaseLostError), (Stop.DRAIN, HandBackRequested)]
)
def test_a_stopped_attempt_leaves_nothing(why: Stop, expected: type[Exception]) -> None:
    """An attempt that is told to stop in the middle of a file removes its upload."""
    store = FaultyStore({NAME_10: [2500]})
    put_files(store, {10: 9000})
    hold = leased(10)
    store.on_break = lambda: hold.stop(why, "test")
    with pytest.raises(expected):
        run(store, hold)
    assert store.pending_uploads("") == []
    assert list(store.list("results/")) == []


def test_a_lease_lost_at_the_end_publishes_nothing() -> None:
    """The lease is confirmed after the last byte and before the archive becomes visible."""
    store = FaultyStore()
    put_files(store, {10: 9000})
    hold = leased(10)

    def refused() -> None:
        assert len(store.pending_uploads("results/")) == 1
        raise LeaseLostError("job", "test")

    with pytest.raises(LeaseLostError):
        bundler(store).bundle(hold, refused, NoLedger())
    assert list(store.list("results/")) == []
    assert store.pending_uploads("") == []


def test_two_attempts_never_write_one_key() -> None:
    """Each attempt has a key of its own, so a late one cannot overwrite another's result."""
    store = FaultyStore()
    put_files(store, {10: 100})
    first, _ = run(store, leased(10, token="1"))
    second, _ = run(store, leased(10, token="2"))
    assert first.result_key != second.result_key


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=9))
def test_any_sizes_make_a_sound_archive_twice_the_same(sizes: list[int]) -> None:
    """Whatever the sizes, the archive opens, and a second attempt makes the same bytes."""
    store = FaultyStore()
    stored = put_files(store, dict(enumerate(sizes, 10)))
    ids = range(10, 10 + len(sizes))
    first, found = run(store, leased(*ids, token="1"))
    second, _ = run(store, leased(*ids, token="2"))
    assert {name: found[name] for name in stored} == stored
    assert read_object(store, first.result_key) == read_object(store, second.result_key)


def test_reading_ends_its_threads() -> None:
    """After a job, done or broken, no reader or uploader thread is left."""
    store = FaultyStore({NAME_10: [100] * 1000})
    put_files(store, {10: 9000, 11: 9000, 12: 9000})
    with pytest.raises(ObjectStoreUnavailableError):
        run(store, leased(10, 11, 12))

    def left() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith(("read-", "upload", "plan"))]

    eventually(lambda: not left(), 5, "the end of all threads")
