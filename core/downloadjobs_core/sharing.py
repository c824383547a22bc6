"""Results that several jobs share: what an attempt asks for, is told, and says at its end.

`docs/deduplication.md` has the whole picture; the rules themselves are in Lua
(`board.lua`, `finish.lua`, `expire_shared.lua`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

FOLDER: Final = "shared/"
"""Shared results lie in it, under the prefix of results: `<prefix>shared/<digest>/<token>.zip`. No worker of
a release that shares none takes such a key for an attempt's, so none removes what others point to."""


class Sharing(StrEnum):
    """How a job's result is shared, as it is told to `finish.lua`."""

    KEPT = "kept"
    """It could be, but is not what its digest promises: nobody else gets it."""

    OFFERED = "offered"
    """Whoever asks for the same gets it."""

    REUSED = "reused"
    """It was made for another job."""


@dataclass(frozen=True, slots=True)
class Shared:
    """How a job's result is shared, the digest of what it holds, and its object's ETag."""

    how: Sharing
    digest: str
    etag: str = ""


class Answer(IntEnum):
    """What `board.lua` says."""

    MAKE = 1
    """Nobody has it, and nobody makes it: make it."""

    THERE = 2
    """There is one."""

    WAIT = 3
    """Another attempt makes it: the lease has ended, and the job waits for it."""


@dataclass(frozen=True, slots=True)
class Boarding:
    """What an attempt is told; key, size in bytes and ETag only of a result that is there."""

    answer: Answer
    key: str = ""
    size: int = 0
    etag: str = ""

    @classmethod
    def from_reply(cls, reply: Sequence[str | int]) -> Boarding:
        """Read the reply of `board.lua`."""
        answer, *found = reply
        if not found:
            return cls(Answer(int(answer)))
        key, size, etag = found
        return cls(Answer(int(answer)), str(key), int(size), str(etag))


def shared_result_key(prefix: str, digest: str, token: str) -> str:
    """The key under which an attempt makes a result that can be shared: it names no job, and no user."""
    return f"{prefix}{FOLDER}{digest}/{token}.zip"


def is_shared(key: str, prefix: str) -> bool:
    """Whether several jobs may point to the object of this key."""
    return key.startswith(f"{prefix}{FOLDER}")


SharingArguments: TypeAlias = tuple[str, str, str, int, str, int]


def sharing_arguments(shared: Shared | None, key: str, size: int, seconds: int) -> SharingArguments:
    """The arguments of `finish.lua` on sharing.

    Args:
        shared: None for a result that is not shared.
        key: of the result.
        size: of the result, in bytes.
        seconds: how long it is offered to others.
    """
    if shared is None:
        return "", "", "", 0, "", 0
    return shared.how.value, shared.digest, key, size, shared.etag, seconds
