"""`GET /v1/mock/{token}`: what S3 would answer for a presigned URL, when mock storage stands in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Final

import falcon
import falcon.asgi

from downloadjobs_api.conditional import is_known, matches_strongly
from downloadjobs_api.problems import FORBIDDEN, NOT_FOUND, PRECONDITION_FAILED, ProblemError
from downloadjobs_core.errors import LinkRefusedError, ObjectNotFoundError
from downloadjobs_core.objectstore.arguments import content_disposition
from downloadjobs_core.objectstore.folder import FolderObjectStore
from downloadjobs_core.objectstore.protocol import ObjectReader

CHUNK_BYTES: Final = 256 * 1024


class MockFiles:
    """Serves objects of the mock storage to whoever holds a link.

    It heeds ranges and conditions (RFC 9110, 13 and 14), but for those by dates: its answers have none.
    """

    def __init__(self, store: FolderObjectStore, threads: Executor) -> None:
        self._store = store
        self._threads = threads

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, token: str) -> None:
        """One object, or one range of it."""
        loop = asyncio.get_running_loop()
        try:
            key, filename = self._store.verify(token, time.time())
            stat = await loop.run_in_executor(self._threads, self._store.stat, key)
        except LinkRefusedError as error:
            raise ProblemError(FORBIDDEN, str(error)) from None
        except ObjectNotFoundError:
            raise ProblemError(NOT_FOUND, "The file of this link was removed.") from None
        tag = f'"{stat.etag}"'
        required = req.get_header("if-match")
        if required is not None and not matches_strongly(required, tag):
            raise ProblemError(PRECONDITION_FAILED, "The file is another one than If-Match names.")
        if is_known(req, resp, tag):
            return
        asked = _range_of(req, tag)
        first, last = _span(asked, stat.size)
        if asked is not None:
            resp.status = falcon.HTTP_206
            resp.content_range = (first, last, stat.size)
        reader = await loop.run_in_executor(
            self._threads, lambda: self._store.open(key, offset=first, if_match=stat.etag)
        )
        resp.content_type = "application/zip"
        resp.accept_ranges = "bytes"
        resp.set_header("content-disposition", content_disposition(filename or "download.zip"))
        resp.set_stream(self._chunks(reader, last - first + 1), last - first + 1)

    async def _chunks(self, reader: ObjectReader, length: int) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        try:
            while length > 0:
                chunk = await loop.run_in_executor(self._threads, reader.read, min(CHUNK_BYTES, length))
                length -= len(chunk)
                yield chunk
        finally:
            reader.close()


def _range_of(req: falcon.asgi.Request, tag: str) -> tuple[int, int] | None:
    """The range to answer with, or None for the whole: a range of another unit or another file is none."""
    unit, expected = req.range_unit, req.get_header("if-range")
    if unit is None or unit.lower() != "bytes" or expected not in (None, tag):
        return None
    return req.range


def _span(asked: tuple[int, int] | None, size: int) -> tuple[int, int]:
    """The first and last byte to send. Falcon gives an open end as -1, a suffix as a negative start."""
    if asked is None:
        return 0, size - 1
    first, last = asked
    if first < 0:
        return max(0, size + first), size - 1
    if first >= size:
        raise falcon.HTTPRangeNotSatisfiable(size)
    return first, size - 1 if last < 0 else min(last, size - 1)
