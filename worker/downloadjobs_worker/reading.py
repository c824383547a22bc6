"""Reads ahead over several files at once, in bounded memory, and resumes what breaks.

Each of a few threads takes the next file in order and fills a small queue of
its own with the file's chunks; the archive's writer drains the queues in order.
The file being written never waits for memory that a later one holds, so there
is nothing to deadlock on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from downloadjobs_core import logs
from downloadjobs_core.errors import (
    LeaseLostError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectStoreDeniedError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
)
from downloadjobs_core.file_faults import FileFault
from downloadjobs_core.objectstore.protocol import ObjectReader, ObjectStat, ObjectStore
from downloadjobs_worker.hold import HandBackRequested, Hold
from downloadjobs_worker.patience import Tries
from downloadjobs_worker.planning import PlannedFile, fault_of, look_up

CHUNK_BYTES: Final = 1024 * 1024
WAIT_SECONDS: Final = 0.2
IDLE_SECONDS: Final = 10.0
"""A read that waits longer for its turn is closed and resumed later: servers drop idle connections."""

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class _Failed:
    """The last item of a queue: the read broke for good."""

    error: Exception


@dataclass(slots=True)
class FileStream:
    """One file on its way. First `opened`, then `chunks`."""

    planned: PlannedFile
    hold: Hold
    items: queue.Queue[bytes | ObjectStat | FileFault | _Failed | None]

    def opened(self) -> ObjectStat | FileFault:
        """Wait until the file is open: its size and ETag as read, or why it cannot be had.

        Raises:
            ObjectStoreError: the storage failed, and went on failing.
            LeaseLostError, HandBackRequested: the attempt must stop.
        """
        item = self._next()
        if isinstance(item, ObjectStat | FileFault):
            return item
        raise RuntimeError("a file's first item must say what was opened")

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes in order; as many as `opened` said, or an error as there."""
        while (item := self._next()) is not None:
            if not isinstance(item, bytes):
                raise RuntimeError("a file was opened twice")  # noqa: TRY004 - a fault of ours
            yield item

    def drop(self) -> None:
        """Forget what is queued."""
        with suppress(queue.Empty):
            while True:
                self.items.get_nowait()

    def _next(self) -> bytes | ObjectStat | FileFault | None:
        while True:
            self.hold.raise_if_stopped()
            try:
                item = self.items.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, _Failed):
                raise item.error
            return item


class _Abandoned(Exception):  # noqa: N818 - no error: nobody wants the file any more
    """The archive's writer has stopped; the reader ends quietly."""


@dataclass(slots=True)
class ReadAhead:
    """Reads planned files in order, `files_at_once` of them at a time.

    A context manager: leaving it stops the threads, also in the middle of files.

    Attributes:
        window_bytes: how much of each file is read before it is its turn.
    """

    store: ObjectStore
    hold: Hold
    files: Sequence[PlannedFile]
    files_at_once: int
    window_bytes: int
    _streams: list[FileStream] = field(init=False)
    _turn: threading.Semaphore = field(init=False)
    _taken: Iterator[FileStream] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        chunks = max(1, self.window_bytes // CHUNK_BYTES)
        self._streams = [FileStream(file, self.hold, queue.Queue(chunks)) for file in self.files]
        self._taken = iter(self._streams)
        # A thread may be ahead of the writer by `files_at_once` files and no more.
        self._turn = threading.Semaphore(self.files_at_once)
        for number in range(min(self.files_at_once, len(self.files))):
            threading.Thread(target=logs.in_context(self._run), name=f"read-{number}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        # A reader that waits for storage looks up later only, and a fault's traceback may live longer still.
        for stream in self._streams:
            stream.drop()

    def __iter__(self) -> Iterator[FileStream]:
        """The files in order. Drain each before asking for the next."""
        for stream in self._streams:
            yield stream
            self._turn.release()

    def _run(self) -> None:
        while True:
            while not self._turn.acquire(timeout=WAIT_SECONDS):
                if self.stopped:
                    return
            with self._lock:
                stream = next(self._taken, None)
            if stream is None or self.stopped:
                return
            try:
                _Read(self, stream).run()
            except (_Abandoned, HandBackRequested, LeaseLostError):
                return
            except Exception as error:  # noqa: BLE001 - carried to the archive's writer
                with suppress(_Abandoned):
                    self.put(stream, _Failed(error))

    @property
    def stopped(self) -> bool:
        """Whether nobody wants the files any more."""
        return self._closed.is_set() or self.hold.stopped

    def put(
        self, stream: FileStream, item: bytes | ObjectStat | FileFault | _Failed | None, patience: float = 1e9
    ) -> bool:
        """Queue an item, waiting for room; False after `patience` seconds without any."""
        until = time.monotonic() + patience
        while True:
            if self.stopped:
                raise _Abandoned
            try:
                stream.items.put(item, timeout=WAIT_SECONDS)
            except queue.Full:
                if time.monotonic() >= until:
                    return False
            else:
                return True


class _Read:
    """The reading of one file, through faults and pauses, from where it broke."""

    def __init__(self, ahead: ReadAhead, stream: FileStream) -> None:
        self._ahead = ahead
        self._stream = stream
        self._key = stream.planned.key
        self._opened: ObjectStat | None = None
        self._offset = 0
        self._tries = Tries(ahead.hold.storage)
        self._since_fault = 0

    def run(self) -> None:
        """Fill the stream's queue, up to the end mark."""
        found = self._stream.planned.found
        while isinstance(found, ObjectStat) and not self._at_end:
            try:
                with self._ahead.store.open(self._key, offset=self._offset, if_match=found.etag) as reader:
                    self._copy(reader)
            except ObjectStoreError as error:
                found = self._after(error, found)
        if isinstance(found, FileFault):
            self._ahead.put(self._stream, found)
        self._ahead.put(self._stream, None)

    @property
    def _at_end(self) -> bool:
        return self._opened is not None and self._offset >= self._opened.size

    def _copy(self, reader: ObjectReader) -> None:
        """Queue what is read, up to the end or a pause; every turn but the last takes a byte or raises."""
        if self._opened is None:
            self._opened = reader.stat
            self._ahead.put(self._stream, reader.stat)
        while not self._at_end:
            chunk = reader.read(CHUNK_BYTES)
            if not chunk:
                raise ObjectStoreUnavailableError(
                    f"Reading {self._key} ended {self._opened.size - self._offset} bytes before its end."
                )
            self._offset += len(chunk)
            self._got_on(len(chunk))
            if not self._ahead.put(self._stream, chunk, IDLE_SECONDS):
                reader.close()
                self._ahead.put(self._stream, chunk)
                return

    def _got_on(self, read: int) -> None:
        """Forget the fault before once a chunk came without another: ten bytes a try would take for ever."""
        self._since_fault += read
        if self._since_fault >= CHUNK_BYTES:
            self._tries.succeeded()

    def _after(self, error: ObjectStoreError, expected: ObjectStat) -> ObjectStat | FileFault:
        """Wait after a fault that may pass.

        Returns:
            what to read on, or why the file cannot be had.

        Raises:
            ObjectStoreError: the read broke for good.
        """
        if isinstance(error, ObjectChangedError) and self._opened is not None:
            raise error
        try:
            self._wait(error)
        except (ObjectNotFoundError, ObjectStoreDeniedError) as final:
            if self._opened is not None:
                raise ObjectChangedError(self._key) from final
            return fault_of(final)
        if not isinstance(error, ObjectChangedError):
            return expected
        # Nothing of it is in the archive yet, so the new content may take the old one's place.
        planned = self._stream.planned
        return look_up(self._ahead.store, self._ahead.hold, planned.file_id, planned.key).found

    def _wait(self, error: ObjectStoreError) -> None:
        if self._ahead.stopped:
            raise _Abandoned
        self._since_fault = 0
        delay = self._tries.delay_after(error)
        log.warning(
            "reading a file broke, going on from there",
            key=self._key, offset=self._offset, error=str(error), delay_seconds=delay,
        )  # fmt: skip
        self._ahead.hold.sleep(delay)
