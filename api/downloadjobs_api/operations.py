"""How one operation of the API is described; `operation_table.py` has them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from pydantic import BaseModel

from downloadjobs_api.bodies import MAX_JOB_ID
from downloadjobs_api.idempotency import MAX_KEY
from downloadjobs_api.job_list import DEFAULT_LIMIT, MAX_LIMIT
from downloadjobs_api.problems import Kind
from downloadjobs_core.states import JobState

JSON: Final = "application/json"
HTML: Final = "text/html"
EVENTS: Final = "text/event-stream"


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
IF_NONE_MATCH: Final = Parameter(
    "If-None-Match", "header", {"type": "string"}, "The `ETag` that the client has: 304 if it still holds"
)
IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    "header",
    {
        "type": "string",
        "pattern": rf'^([!#-+\--\[\]-~]{{1,{MAX_KEY}}}|"([!#-\[\]-~]|\\["\\]){{1,{MAX_KEY}}}")$',
    },
    f"The same key and body give the same job. 1 to {MAX_KEY} visible ASCII characters, quoted or bare",
)
PREFER: Final = Parameter(
    "Prefer",
    "header",
    {"type": "string"},
    "`wait=N`: hold the answer for N seconds at most, until there is news (RFC 7240)",
)
LAST_EVENT_ID: Final = Parameter(
    "Last-Event-ID",
    "header",
    {"type": "string"},
    "The last event that the client has: what it missed comes first",
)
STATE: Final = Parameter(
    "state",
    "query",
    {"type": "array", "items": {"type": "string", "enum": [state.value for state in JobState]}},
    "Only jobs in one of these",
)
LIMIT: Final = Parameter(
    "limit",
    "query",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "Jobs on a page at most",
)
CURSOR: Final = Parameter("cursor", "query", {"type": "string"}, "`nextCursor` of the page before")


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that is no problem."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str | None = JSON
    """None for an answer without a body."""
    headers: Sequence[str] = ()
    events: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    """Of a stream: the data of its events, by their name; `*` stands for all others."""


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
    limited: bool = True
    """Whether it counts for the rate limit."""
    problems: Sequence[Kind] = field(default=())
    """Beside those that every operation of its sort may meet."""

    @property
    def streams(self) -> bool:
        """Whether it answers with events, for as long as there are any."""
        return any(answer.media_type == EVENTS for answer in self.answers.values())
