"""Reading one object from an S3 server, up to its last byte or with an error."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from urllib3 import BaseHTTPResponse

from downloadjobs_core.errors import ObjectStoreUnavailableError
from downloadjobs_core.objectstore.protocol import ObjectStat
from downloadjobs_core.objectstore.s3_faults import BROKEN_CONNECTION, reason_of


class S3Reader:
    """An open read; see `ObjectReader`."""

    def __init__(self, stat: ObjectStat, response: BaseHTTPResponse | None, remaining: int) -> None:
        self.stat = stat
        self._response = response
        self._remaining = remaining

    def read(self, max_bytes: int) -> bytes:
        """See `ObjectReader.read`."""
        if self._response is None or not self._remaining:
            return b""
        try:
            # As stored: size and ETag are of these bytes, whatever Content-Encoding the object carries.
            data = self._response.read(min(max_bytes, self._remaining), decode_content=False)
        except BROKEN_CONNECTION as error:
            self.close()
            raise ObjectStoreUnavailableError(
                f"The object store {reason_of(error)} while {self.stat.key} was read."
            ) from error
        if not data:
            self.close()
            raise ObjectStoreUnavailableError(
                f"Reading {self.stat.key} ended {self._remaining} bytes before its end."
            )
        self._remaining -= len(data)
        return data

    def close(self) -> None:
        """See `ObjectReader.close`."""
        if self._response is not None:
            if self._remaining:
                self._response.close()
            self._response.release_conn()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def opened(key: str, offset: int, response: BaseHTTPResponse) -> S3Reader:
    """Read an open answer's headers: what is left of the body, and how large the object is."""
    length = response.headers.get("Content-Length")
    begins, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if length is None or (offset and begins.partition("-")[0] != str(offset)):
        raise _unfit(key, response, "lacks its length or its range")
    size = int(total or length)
    if int(length) != size - offset:
        # A server may answer with less than was asked for (RFC 9110, 15.3.7).
        raise _unfit(key, response, f"has {length} of the {size - offset} bytes from {offset} on")
    return S3Reader(ObjectStat(key, size, response.headers.get("ETag", "").strip('"')), response, int(length))


def _unfit(key: str, response: BaseHTTPResponse, fault: str) -> ObjectStoreUnavailableError:
    response.close()
    response.release_conn()
    return ObjectStoreUnavailableError(
        f"The answer for {key} {fault}: a proxy on the way may change answers."
    )
