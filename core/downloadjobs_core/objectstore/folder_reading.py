"""Open reads of the mock storage: of a stored file, and of a generated one."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import Self

from downloadjobs_core.objectstore import mock_files
from downloadjobs_core.objectstore.protocol import ObjectStat


def stored_stat(key: str, found: os.stat_result) -> ObjectStat:
    """A stored file's size and ETag. Every write makes a new file, so these three never repeat together."""
    return ObjectStat(key, found.st_size, f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}")


class FileReader:
    """An open read of a stored file; see `ObjectReader`. What replaces the file later does not change it.

    Raises:
        FileNotFoundError: there is no such file, or it is a folder.
    """

    def __init__(self, key: str, path: Path, offset: int) -> None:
        if not S_ISREG(path.stat().st_mode):
            raise FileNotFoundError(path)
        self._file = path.open("rb", buffering=0)
        self.stat = stored_stat(key, os.fstat(self._file.fileno()))
        self._file.seek(offset)

    def read(self, max_bytes: int) -> bytes:
        """See `ObjectReader.read`."""
        return self._file.read(max_bytes)

    def close(self) -> None:
        """See `ObjectReader.close`."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class GeneratedReader:
    """A read of a generated file; see `ObjectReader`."""

    def __init__(self, key: str, file_id: int, offset: int) -> None:
        self.stat = ObjectStat(key, mock_files.size_of(file_id), mock_files.etag_of(file_id))
        self._file_id = file_id
        self._offset = offset

    def read(self, max_bytes: int) -> bytes:
        """See `ObjectReader.read`."""
        data = mock_files.read_at(self._file_id, self._offset, max_bytes)
        self._offset += len(data)
        return data

    def close(self) -> None:
        """See `ObjectReader.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
