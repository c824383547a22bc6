"""Why a file is not in a result: what the manifest, the job's record and its detail say of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class FileFault:
    """Why a file is not in the archive: a stable code, and a sentence for a person."""

    code: str
    message: str


NOT_FOUND: Final = FileFault("not-found", "There is no such file.")
DENIED: Final = FileFault("denied", "The storage refuses access to this file.")

_BY_CODE: Final[Mapping[str, FileFault]] = {fault.code: fault for fault in (NOT_FOUND, DENIED)}


def fault_by_code(code: str) -> FileFault:
    """The fault that a code names; a newer release may have written one that this one does not know."""
    return _BY_CODE.get(code) or FileFault(code, "The file could not be had.")


def encode(failed: Iterable[tuple[int, str]]) -> str:
    """Pairs of file id and code, as the record's field `failed_files`: ids by code, or empty without any.

    Ids stand in the order given. A thousand of them, the most that a job has, take 10 KB.
    """
    by_code: dict[str, list[int]] = {}
    for file_id, code in failed:
        by_code.setdefault(code, []).append(file_id)
    return json.dumps(by_code, separators=(",", ":")) if by_code else ""
