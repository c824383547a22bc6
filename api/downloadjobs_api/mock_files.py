"""`GET /v1/mock/{token}`: what S3 would answer for a presigned URL, when mock storage stands in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Final

import falcon
import falcon.asgi

from downloadjobs_api.problems import FORBIDDEN, NOT_FOUND, ProblemError
from downloadjobs_core.errors import LinkRefusedError, ObjectNotFoundError
from downloadjobs_core.objectstore.arguments import content_disposition
from downloadjobs_core.objectstore.folder import FolderObjectStore
from downloadjobs_core.objectstore.protocol import ObjectReader

CHUNK_BYTES: Final = 256 * 1024


class MockFiles:
    """Serves objects of the mock storage to whoever holds a link; ranges too (RFC 9110, 14)."""

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
        first, last = _span(req.range, stat.size)
        if req.range is not None:
            resp.status = falcon.HTTP_206
            resp.content_range = (first, last, stat.size)
        reader = await loop.run_in_executor(
            self._threads, lambda: self._store.open(key, offset=first, if_match=stat.etag)
        )
        resp.content_type = "application/zip"
        resp.etag = stat.etag
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
