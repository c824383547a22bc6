"""`GET /v1/jobs`: the jobs that a user may see, newest first. `docs/job-list.md` shows an answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import falcon.asgi

from downloadjobs_api.conditional import send_tagged
from downloadjobs_api.cursors import cursor_of, position_of
from downloadjobs_api.downloads import Downloads
from downloadjobs_api.identity import Identity
from downloadjobs_api.jobs import item_document
from downloadjobs_api.problems import INVALID_PARAMETER, ProblemError
from downloadjobs_api.request_context import Request
from downloadjobs_api.resources import JSON, encode
from downloadjobs_core.jobstore import Position
from downloadjobs_core.states import JobState

MAX_LIMIT: Final = 100
DEFAULT_LIMIT: Final = 50

_MAX_DIGITS: Final = len(str(MAX_LIMIT))
_STATES: Final = {state.value: state for state in JobState}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What part of a list is wanted."""

    states: Collection[JobState]
    """Any of these; all if there is none."""
    limit: int
    after: Position | None


def query_of(req: Request, user: str) -> ListQuery:
    """Read the parameters `state`, `limit` and `cursor`; others are left alone.

    Raises:
        ProblemError: 400 with every parameter that breaks a rule.
    """
    faults: list[dict[str, str]] = []

    def refuse(name: str, message: str) -> None:
        faults.append({"field": name, "message": message})

    given = req.get_param_as_list("state") or []
    names = [name for value in given for name in value.split(",")]
    unknown = [name for name in names if name not in _STATES]
    if unknown:
        refuse("state", f"{unknown[0][:40]!r} is none of {', '.join(_STATES)}")

    limits = req.get_param_as_list("limit") or []
    limit = DEFAULT_LIMIT
    if limits:
        text = limits[0]
        plain = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
        limit = int(text) if plain else 0
        if len(limits) > 1 or not 1 <= limit <= MAX_LIMIT:
            refuse("limit", f"Give one number from 1 to {MAX_LIMIT}")

    cursors = req.get_param_as_list("cursor") or []
    after = position_of(user, cursors[0]) if len(cursors) == 1 else None
    if cursors and after is None:
        refuse("cursor", "Give the nextCursor of the page before as it is, or begin without one")

    if faults:
        first = f"{faults[0]['field']}: {faults[0]['message']}"
        more = f" ({len(faults) - 1} more in errors)" if len(faults) > 1 else ""
        raise ProblemError(INVALID_PARAMETER, f"{first}{more}.", errors=faults)
    return ListQuery(dict.fromkeys(_STATES[name] for name in names), limit, after)


class JobList:
    """`GET /v1/jobs`."""

    def __init__(self, downloads: Downloads, identity: Identity) -> None:
        self._downloads = downloads
        self._identity = identity

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """A page of the list; `nextCursor` is null on the last."""
        user = self._identity.user(req)
        query = query_of(req, user)
        page = await self._downloads.own_jobs(user, query.states, query.after, query.limit)
        document = {
            "items": [item_document(job, place) for job, place in page.jobs],
            "nextCursor": cursor_of(user, page.end) if page.end else None,
        }
        send_tagged(req, resp, encode(document), JSON)

    on_head = on_get
