"""`/v1/jobs/{id}`: a job's whole record, and its cancellation. `docs/job-detail.md` shows an answer."""

from __future__ import annotations

from typing import Any

import falcon.asgi

from downloadjobs_api.downloads import Downloads
from downloadjobs_api.identity import Identity
from downloadjobs_api.problems import ALREADY_FINISHED, ProblemError
from downloadjobs_api.resources import send_json
from downloadjobs_core.job import Job, rfc3339
from downloadjobs_core.jobstore import Place


def job_document(job: Job, place: Place | None) -> dict[str, Any]:
    """A job as its owner sees it; what does not apply is null."""

    def moment(time_us: int) -> str | None:
        return rfc3339(time_us) if time_us else None

    return {
        "jobId": job.job_id,
        "state": job.state.value,
        "priority": job.priority.value,
        "suspended": job.suspended,
        "createdAt": moment(job.created_us),
        "startedAt": moment(job.started_us),
        "updatedAt": moment(job.updated_us),
        "finishedAt": moment(job.finished_us),
        "expiresAt": moment(job.expires_us),
        "retryAt": moment(job.due_us),
        "totalFileIds": job.total_file_ids,
        "failedFiles": job.files_failed,
        "progress": {
            "processed": job.files_done,
            "total": job.files_total,
            "bytes": job.bytes_done,
            "bytesTotal": job.bytes_total,
        },
        "attempt": job.attempt,
        "maxAttempts": job.max_attempts,
        "deliveries": job.deliveries,
        "worker": job.worker or None,
        "queue": queue_document(place),
        "resultBytes": job.result_bytes or None,
        "deduplicated": job.deduplicated,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "requestId": job.request_id or None,
        "traceId": job.trace_id or None,
    }


def queue_document(place: Place | None) -> dict[str, Any] | None:
    """Where a waiting job stands. The error says how far past estimates were off, in percent of the wait."""
    if place is None:
        return None
    ready = place.where == "ready"
    return {
        "place": place.where,
        "ahead": place.ahead if ready else None,
        "startsInSeconds": round(place.starts_in_seconds, 1) if ready else None,
        "estimateErrorPercent": round(place.estimate_error * 100),
    }


class JobDetail:
    """`GET` and `DELETE /v1/jobs/{id}`."""

    def __init__(self, downloads: Downloads, identity: Identity) -> None:
        self._downloads = downloads
        self._identity = identity

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """The whole record, with the place in the queue."""
        job, place = await self._downloads.detail(self._identity.user(req), job_id)
        resp.cache_control = ("no-store",)
        send_json(resp, job_document(job, place))

    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Cancel: a waiting job at once, a running one within two seconds."""
        changed = await self._downloads.cancel(self._identity.user(req), job_id)
        if not changed.done:
            raise ProblemError(ALREADY_FINISHED, f"The job has ended before: it is {changed.state.value}.")
        send_json(resp, {"jobId": job_id, "state": "cancelled"})
