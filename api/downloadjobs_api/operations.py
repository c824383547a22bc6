"""How one operation of the API is described; `operation_table.py` has them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from pydantic import BaseModel

from downloadjobs_api.bodies import MAX_JOB_ID
from downloadjobs_api.problems import Kind

JSON: Final = "application/json"
HTML: Final = "text/html"


class Who(Enum):
    """Who may call an operation."""

    ANYBODY = "anybody"
    USER = "user"
    START = "start"
    """A user, unless `ALLOW_ANONYMOUS_START` holds."""
    FILES = "files"
    """A user where `AUTH_MODE` is `jwt`."""


class Tag(Enum):
    """The groups of operations, in the order in which a reader wants them."""

    DOWNLOADS = "Downloads"
    JOBS = "Jobs"
    FILES = "Files"
    SERVICE = "Service"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path, the query or a header."""

    name: str
    where: str
    """`path`, `query` or `header`."""
    schema: Mapping[str, object]
    description: str


JOB_ID: Final = Parameter(
    "job_id", "path", {"type": "string", "minLength": 1, "maxLength": MAX_JOB_ID}, "The job's id"
)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that is no problem."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str = JSON
    headers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    """As the router has it, such as `/v1/jobs/{job_id}`."""
    name: str
    tag: Tag
    summary: str
    answers: Mapping[int, Answered]
    description: str = ""
    body: type[BaseModel] | None = None
    parameters: Sequence[Parameter] = ()
    who: Who = Who.USER
    problems: Sequence[Kind] = field(default=())
    """Beside those that every operation of its sort may meet."""
