"""Uploads an archive as it is written, although four bytes in it come late.

The archive's bytes are cut into parts of one size. A member's CRC-32 stands in
its local header but is known only after its last byte, so the parts that hold
those four bytes are held back, the parts after them go ahead, and the held ones
follow out of order: S3 takes the parts of an upload in any order.

Only one member is open at a time and a header is far smaller than a part, so at
most two parts are held. Memory is bounded: a fixed number of buffers is used
again and again, and writing waits for one to come free. A large result has large
parts, and then fewer buffers, so that all of them stay within what was set.
"""

from __future__ import annotations

import queue
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from downloadjobs_core import logs
from downloadjobs_core.errors import (
    ObjectNotFoundError,
    ObjectStoreError,
    ResultTooLargeError,
    UploadNotFoundError,
)
from downloadjobs_core.objectstore.protocol import MAX_PARTS, ObjectStore, Part
from downloadjobs_core.zip_layout import CrcPatch
from downloadjobs_worker.hold import Hold
from downloadjobs_worker.patience import patiently

PARTS_AIM: Final = 9_000
"""Parts a result is planned to have at most; below S3's 10,000 because sizes can change after planning."""

MIB: Final = 1024 * 1024
MOST_HELD: Final = 2
"""Parts that can be held back at once: a header may lie across the border of two."""

LEAST_BUFFERS: Final = MOST_HELD + 1
"""Those that are held, and one that is filled and then uploaded: with fewer, writing could wait for ever."""

WAIT_SECONDS: Final = 0.2
"""How long to wait for a buffer before looking whether the attempt must stop."""

CONTENT_TYPE: Final = "application/zip"

log = logs.logger(__name__)


def part_bytes_for(total_bytes: int, at_least: int) -> int:
    """The size of parts by which `total_bytes` fit into one multipart upload: the least, or whole MiB."""
    needed = -(-total_bytes // PARTS_AIM)
    return at_least if needed <= at_least else -(-needed // MIB) * MIB


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How a result is cut into parts, and how many are in memory at once.

    Attributes:
        part_bytes: the size of every part but the last.
        buffers: of that size; `LEAST_BUFFERS` at least.
        threads: parts uploaded at once.
    """

    part_bytes: int
    buffers: int
    threads: int

    @classmethod
    def of(cls, total_bytes: int, *, part_bytes: int, threads: int, memory_bytes: int) -> Self:
        """The plan of a result.

        Args:
            total_bytes: of the whole result.
            part_bytes: the size of parts, where larger ones are not needed.
            threads: parts uploaded at once, where their buffers fit.
            memory_bytes: what all buffers may take.

        Raises:
            ResultTooLargeError: not even `LEAST_BUFFERS` of them fit.
        """
        size = part_bytes_for(total_bytes, part_bytes)
        buffers = min(LEAST_BUFFERS + threads, memory_bytes // size)
        if buffers < LEAST_BUFFERS:
            raise ResultTooLargeError(total_bytes, LEAST_BUFFERS * size, memory_bytes)
        return cls(size, buffers, max(1, buffers - LEAST_BUFFERS))


class UploadLedger(Protocol):
    """Remembers unfinished uploads for the orphan sweep, should this process be killed."""

    def begun(self, key: str) -> None:
        """An upload is about to be created. Raises `LeaseLostError` if the attempt may not go on."""

    def ended(self, key: str) -> None:
        """It was completed or aborted, and nothing else is left. Raises nothing: forgetting it can wait."""

    def left(self, key: str) -> None:
        """Something of it, or the object, may be left that nobody points to. Raises nothing."""


@dataclass(slots=True)
class _Piece:
    """One part on its way: its number, where it begins in the archive, and its bytes."""

    number: int
    offset: int
    buffer: bytearray
    filled: int = 0
    holds: set[int] = field(default_factory=set)
    """Offsets in the archive of patches it waits for."""

    @property
    def end(self) -> int:
        return self.offset + self.filled


class PartUploader:
    """Takes an archive's bytes in order and patches out of order, and makes one object of them.

    Args:
        store: the bucket of results.
        key: the object to make; nobody sees it before `complete`.
        hold: the attempt it belongs to.
        plan: the sizes of its parts, and how many are in memory and under way at once.
        ledger: told of the upload before its creation and after its end.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        hold: Hold,
        *,
        plan: PartPlan,
        ledger: UploadLedger,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._key = key
        self._hold = hold
        self._part_bytes = plan.part_bytes
        self._upload_id: str | None = None
        self._creations = 0
        self._completing = False
        self._next_offset = 0
        self._filling: _Piece | None = None
        self._sealed: list[_Piece] = []
        self._expected: set[int] = set()
        self._pending: list[Future[Part]] = []
        self._parts: list[Part] = []
        self._numbered = 0
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._unmade = plan.buffers
        self._made: list[bytearray] = []
        self._pool = ThreadPoolExecutor(plan.threads, thread_name_prefix="upload")

    @property
    def position(self) -> int:
        """Bytes of the archive taken so far."""
        return self._next_offset

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the archive. Waits while every buffer is in use."""
        view = memoryview(data)
        while view:
            piece = self._filling or self._begin_piece()
            room = min(len(view), self._part_bytes - piece.filled)
            piece.buffer[piece.filled : piece.filled + room] = view[:room]
            piece.filled += room
            self._next_offset += room
            view = view[room:]
            if piece.filled == self._part_bytes:
                self._seal(piece)

    def expect_patch(self, offset: int, length: int) -> None:
        """Hold back the parts with these bytes, which must not have been written yet, until `patch`."""
        self._expected.update(range(offset, offset + length))

    def patch(self, patch: CrcPatch) -> None:
        """Write over bytes that were expected, and let the parts that waited for them go."""
        for index, value in enumerate(patch.data):
            offset = patch.offset + index
            piece = self._piece_at(offset)
            piece.buffer[offset - piece.offset] = value
            piece.holds.discard(offset)
            self._expected.discard(offset)
        released = [piece for piece in self._sealed if not piece.holds]
        self._sealed = [piece for piece in self._sealed if piece.holds]
        for piece in released:
            self._upload(piece)

    def flush(self) -> None:
        """Send what is left and wait until every part has arrived. A small archive stays in memory."""
        if self._filling is not None and self._numbered > 1:
            self._seal(self._filling)
        if self._sealed:
            raise RuntimeError("parts are still held back: a member was begun and not finished")
        for upload in self._pending:
            self._parts.append(upload.result())
        self._pending.clear()

    def complete(self) -> int:
        """Make the object visible and return its size in bytes. Call `flush` first."""
        self._completing = True
        if self._upload_id is None:
            content = (
                bytes(memoryview(self._filling.buffer)[: self._filling.filled]) if self._filling else b""
            )
            patiently(
                self._hold, "put", lambda: self._store.put(self._key, content, content_type=CONTENT_TYPE)
            )
        else:
            patiently(self._hold, "complete upload", self._join_parts)
            completed, self._upload_id = self._upload_id, None
            self._clear(keep=completed)
        self._completing = False
        return self._next_offset

    def abort(self) -> None:
        """Leave no upload, no object and no thread behind. Faults are logged; the orphan sweep is the net."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._empty_buffers()
        self._upload_id = None
        if self._completing:
            # It may have been done, its answer being lost; and a server goes on alone, after our patience.
            self._remove_object()
            self._ledger.left(self._key)
        if self._creations:
            self._clear(known_outcome=not self._completing)

    def close(self) -> None:
        """End the threads. Every part has arrived by then."""
        self._pool.shutdown(wait=True)
        self._empty_buffers()

    def _empty_buffers(self) -> None:
        """Give their memory back now.

        A fault's traceback and its future hold each other, and the pieces, until the collector comes by.
        It counts objects, not bytes, and is late.
        """
        for buffer in self._made:
            buffer.clear()

    def _remove_object(self) -> None:
        try:
            self._store.delete(self._key)
        except ObjectStoreError as error:
            log.warning("an unpublished result is left to the orphan sweep", key=self._key, error=str(error))

    def _clear(self, keep: str | None = None, *, known_outcome: bool = True) -> None:
        """Abort what there is of uploads under the key, which is this attempt's alone.

        Args:
            keep: an upload that was completed. Its creation may have been tried several times, the answers
                to the others being lost; only then is there anything else.
            known_outcome: what is gone now stays gone. An upload that is being completed is not listed by
                every store, and is there again if that fails.
        """
        try:
            if keep is None or self._creations > 1:
                for upload in list(self._store.pending_uploads(self._key)):
                    if upload.upload_id != keep:
                        self._store.abort_upload(self._key, upload.upload_id)
        except ObjectStoreError as error:
            log.warning("an unfinished upload is left to the orphan sweep", key=self._key, error=str(error))
            self._ledger.left(self._key)
        else:
            if known_outcome:
                self._ledger.ended(self._key)

    def _create_upload(self) -> str:
        self._creations += 1
        return self._store.create_upload(self._key, content_type=CONTENT_TYPE)

    def _join_parts(self) -> None:
        parts = sorted(self._parts, key=lambda part: part.number)
        try:
            self._store.complete_upload(self._key, self._upload_id or "", parts)
        except UploadNotFoundError as error:
            # The first try may have succeeded and its answer been lost. The key is this attempt's alone,
            # so an object there is the one we made.
            try:
                self._store.stat(self._key)
            except ObjectNotFoundError:
                raise error from None

    def _begin_piece(self) -> _Piece:
        if self._numbered == MAX_PARTS:
            raise RuntimeError(f"the archive needs more than {MAX_PARTS} parts of {self._part_bytes} bytes")
        self._numbered += 1
        self._filling = _Piece(self._numbered, self._next_offset, self._buffer())
        return self._filling

    def _buffer(self) -> bytearray:
        if self._free.empty() and self._unmade:
            self._unmade -= 1
            self._made.append(bytearray(self._part_bytes))
            return self._made[-1]
        while True:
            self._hold.raise_if_stopped()
            self._collect_uploads()
            try:
                return self._free.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                continue

    def _collect_uploads(self) -> None:
        """Keep what has arrived; raise what has failed."""
        arrived = [upload for upload in self._pending if upload.done()]
        self._pending = [upload for upload in self._pending if upload not in arrived]
        self._parts.extend(upload.result() for upload in arrived)

    def _seal(self, piece: _Piece) -> None:
        self._filling = None
        if self._upload_id is None:
            self._ledger.begun(self._key)
            self._upload_id = patiently(self._hold, "create upload", self._create_upload)
        piece.holds = {offset for offset in self._expected if piece.offset <= offset < piece.end}
        if piece.holds:
            self._sealed.append(piece)
        else:
            self._upload(piece)

    def _piece_at(self, offset: int) -> _Piece:
        candidates = [*self._sealed, *([self._filling] if self._filling else [])]
        for piece in candidates:
            if piece.offset <= offset < piece.end:
                return piece
        raise RuntimeError(f"byte {offset} has already been sent: it was not expected to be patched")

    def _upload(self, piece: _Piece) -> None:
        self._pending.append(self._pool.submit(logs.in_context(self._send), piece, self._upload_id or ""))

    def _send(self, piece: _Piece, upload_id: str) -> Part:
        content = memoryview(piece.buffer)[: piece.filled]
        try:
            return patiently(
                self._hold,
                "upload part",
                lambda: self._store.upload_part(self._key, upload_id, piece.number, content),
            )
        finally:
            content.release()
            self._free.put(piece.buffer)
