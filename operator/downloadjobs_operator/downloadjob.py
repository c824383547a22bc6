"""A DownloadJob as the operator reads it: without its file ids, which are most of its bytes.

The API server checks objects by the schema; but an object may be older than a
rule, or the schema that of another release. So what is read here is read with
care, and what cannot be is refused with a reason (`RefusedError`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from downloadjobs_core.claims import valid_digest
from downloadjobs_core.job import MAX_FILE_ID, MAX_FILES, MIN_FILE_ID

GROUP: Final = "downloadjobs.dev"
VERSION: Final = "v1"
PLURAL: Final = "downloadjobs"
KIND: Final = "DownloadJob"
API_VERSION: Final = f"{GROUP}/{VERSION}"

CLAIM: Final = f"{GROUP}/claim-sha256"
"""The annotation by which somebody proves that they may change the object (see `claims.py`)."""

MIRROR: Final = f"{GROUP}/mirror-sha256"
"""The annotation by which the operator knows its own mirrors (see `mirrors.py`)."""

FINALIZER: Final = f"{GROUP}/job"
_ONLY_OURS: Final = (FINALIZER,)

LONGEST_FINALIZERS: Final = 1_000
"""Characters of all finalizers of an object that are kept. Others have one or two of some 30 characters."""

WRONG: Final = "wrong:"
"""Before the mark that is kept of an annotation's text in place of it, where it is no digest."""

LONGEST_QUOTE: Final = 50
"""Characters of a wrong value that a message quotes."""

BACKOFF_LIMIT: Final = 2
"""As the schema has it: three attempts."""


class RefusedError(Exception):
    """What is asked for will never be done; the text says what to change.

    Attributes:
        reason: one CamelCase word, for a condition.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadJob:
    """The parts of one object, as it was last seen. Times are seconds since 1970, durations seconds."""

    uid: str
    namespace: str
    name: str
    generation: int = 1
    version: str = ""
    """The resourceVersion: opaque, compared for equality alone."""
    deleted_at: float | None = None
    """When somebody deleted it; the operator's finalizer keeps it until its job is dealt with."""
    finalizers: tuple[str, ...] = ()
    finalizers_cut: bool = False
    """There are more or longer ones than are kept: of these, only ours is, where it is there."""
    claim: str = ""
    """A digest, or a mark of the wrong text that stands in its place (`is_marked`); empty for none."""
    mirror: str = ""
    """The same."""
    user_id: str = ""
    priority: str = ""
    callback_url: str = field(default="", repr=False)
    """Where a webhook tells of its job's end; its path and query may hold a secret."""
    suspend: bool = False
    cancel: bool = False
    backoff_limit: int = BACKOFF_LIMIT
    deadline_seconds: int | None = None
    ttl_seconds: int | None = None
    expiration_seconds: int = 0
    """How long the result is kept; 0 for the installation's own rule."""
    retain: bool = False
    """The result stays when the object goes."""
    file_count: int = 0

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> DownloadJob:
        """Read an object as the API server gives it; what has the wrong type counts as absent."""
        metadata = _mapping(body.get("metadata"))
        annotations = _mapping(metadata.get("annotations"))
        spec = _mapping(body.get("spec"))
        result = _mapping(spec.get("result"))
        backoff = _number(spec.get("backoffLimit"))
        finalizers, cut = _finalizers(metadata.get("finalizers"))
        return cls(
            uid=str(metadata["uid"]),
            namespace=str(metadata.get("namespace", "")),
            name=str(metadata["name"]),
            generation=_number(metadata.get("generation")) or 1,
            version=str(metadata.get("resourceVersion", "")),
            deleted_at=seconds_of(metadata.get("deletionTimestamp")),
            finalizers=finalizers,
            finalizers_cut=cut,
            claim=_digest(annotations.get(CLAIM)),
            mirror=_digest(annotations.get(MIRROR)),
            user_id=_text(spec.get("userId")),
            priority=_text(spec.get("priority")),
            callback_url=_text(spec.get("callbackUrl")),
            suspend=spec.get("suspend") is True,
            cancel=spec.get("cancel") is True,
            backoff_limit=BACKOFF_LIMIT if backoff is None else backoff,
            deadline_seconds=_number(spec.get("activeDeadlineSeconds")),
            ttl_seconds=_number(spec.get("ttlSecondsAfterFinished")),
            expiration_seconds=_number(result.get("expirationSeconds")) or 0,
            retain=result.get("deletionPolicy") == "Retain",
            file_count=len(ids) if isinstance(ids := spec.get("fileIds"), list | tuple) else 0,
        )


def file_ids_of(body: Mapping[str, Any]) -> tuple[int, ...]:
    """The file ids, duplicates included.

    Raises:
        RefusedError: they are not what the schema asks for.
    """
    ids = _mapping(body.get("spec")).get("fileIds")
    if not isinstance(ids, list | tuple) or not 1 <= len(ids) <= MAX_FILES:
        raise RefusedError(
            "InvalidFileIds", f"spec.fileIds must have 1 to {MAX_FILES:,} ids. Create another DownloadJob."
        )
    wrong = [value for value in ids if _number(value) is None or not MIN_FILE_ID <= value <= MAX_FILE_ID]
    if wrong:
        raise RefusedError(
            "InvalidFileIds",
            f"spec.fileIds has {repr(wrong[0])[:LONGEST_QUOTE]}; ids are numbers from {MIN_FILE_ID} to"
            f" {MAX_FILE_ID}. Create another DownloadJob.",
        )
    return tuple(ids)


def seconds_of(value: object) -> float | None:
    """An RFC 3339 time as seconds since 1970; None if it is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def moment_of(seconds: float) -> str:
    """Seconds since 1970 as Kubernetes writes times: RFC 3339, UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _finalizers(value: object) -> tuple[tuple[str, ...], bool]:
    """Those that are kept, and whether they are not all."""
    found = tuple(one for one in value if isinstance(one, str)) if isinstance(value, list | tuple) else ()
    if sum(map(len, found)) + len(found) > LONGEST_FINALIZERS:
        return _ONLY_OURS if FINALIZER in found else (), True
    return _ONLY_OURS if found == _ONLY_OURS else found, False  # thousands of objects have the same


def is_marked(text: str) -> bool:
    """Whether an annotation that holds a digest where it is right held something else."""
    return text.startswith(WRONG)


def _digest(value: object) -> str:
    """A digest, or of any other text, which may be very long, a mark that differs from that of the next."""
    text = _text(value)
    if not text or valid_digest(text):
        return text
    return WRONG + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
