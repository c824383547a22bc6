"""`GET /v1/jobs/{id}/timeline`: what happened to a job and when. `docs/timeline.md` shows an answer."""

from __future__ import annotations

from typing import Any

import falcon.asgi

from downloadjobs_api.identity import Identity
from downloadjobs_api.request_context import Request
from downloadjobs_api.resources import send_json
from downloadjobs_core.errors import JobNotFoundError, NotOwnerError
from downloadjobs_core.job import Job, rfc3339
from downloadjobs_core.jobstore import JobStore
from downloadjobs_core.telemetry_settings import TRACE_ID_PLACE
from downloadjobs_core.timeline import Item, timeline


class Timelines:
    """Jobs' timelines, as a signed-in user may see them; it knows no HTTP.

    Args:
        jobs: where the records are.
        trace_url_template: where a trace viewer shows a trace; empty without one.
    """

    def __init__(self, jobs: JobStore, trace_url_template: str) -> None:
        self._jobs = jobs
        self._trace_url_template = trace_url_template

    async def of(self, user: str, job_id: str) -> tuple[Job, list[Item], int]:
        """A job, its items, and how many were left out.

        Raises:
            JobNotFoundError, NotOwnerError
        """
        job, entries = await self._jobs.notes(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        if not job.may_be_seen_by(user):
            raise NotOwnerError(job_id)
        return job, *timeline(job, entries)

    def trace_url(self, job: Job) -> str | None:
        """Where a job's trace can be looked at."""
        if not self._trace_url_template or not job.trace_id:
            return None
        return self._trace_url_template.replace(TRACE_ID_PLACE, job.trace_id)


def timeline_document(job: Job, trace_url: str | None, items: list[Item], omitted: int) -> dict[str, Any]:
    """A timeline as its job's owner sees it; what does not apply is null."""
    return {
        "jobId": job.job_id,
        "traceId": job.trace_id or None,
        "traceUrl": trace_url,
        "omitted": omitted,
        "items": [
            {
                "name": item.name,
                "at": rfc3339(item.at_us),
                "endAt": None if item.end_us is None else rfc3339(item.end_us),
                "attempt": item.attempt,
                "status": item.status,
                "attributes": item.attributes,
            }
            for item in items
        ],
    }


class Timeline:
    """`GET /v1/jobs/{id}/timeline`."""

    def __init__(self, timelines: Timelines, identity: Identity) -> None:
        self._timelines = timelines
        self._identity = identity

    async def on_get(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """What happened to a job, as far as it is known now."""
        job, items, omitted = await self._timelines.of(self._identity.user(req), job_id)
        resp.cache_control = ("no-store",)
        send_json(resp, timeline_document(job, self._timelines.trace_url(job), items, omitted))
