"""`/v1/jobs/{jobId}`: a job's whole record, and its cancellation. `docs/job-detail.md` shows an answer."""

from __future__ import annotations

from typing import Any

import falcon.asgi

from downloadjobs_api.callbacks import callback_document
from downloadjobs_api.conditional import send_tagged
from downloadjobs_api.downloads import Downloads
from downloadjobs_api.identity import Identity
from downloadjobs_api.problems import ALREADY_FINISHED, ProblemError
from downloadjobs_api.request_context import Request
from downloadjobs_api.resources import JSON, encode, send_json
from downloadjobs_core.file_faults import fault_by_code
from downloadjobs_core.job import Job, rfc3339
from downloadjobs_core.jobstore import Place
from downloadjobs_core.leases import SECOND_US
from downloadjobs_core.states import JobState


def job_document(job: Job, place: Place | None) -> dict[str, Any]:
    """A job as its owner sees it; what does not apply is null."""
    return item_document(job, place) | {"fileIds": list(job.file_ids), "failures": failures_document(job)}


def failures_document(job: Job) -> list[dict[str, Any]] | None:
    """The files that are not in the result, in their order; null if it is not known which."""
    if not job.failures_known:
        return None
    faults = {file_id: code for code, ids in job.failed_files.items() for file_id in ids}
    found = [(file_id, fault_by_code(faults[file_id])) for file_id in job.file_ids if file_id in faults]
    return [{"fileId": file_id, "error": fault.code, "message": fault.message} for file_id, fault in found]


def eta_seconds(job: Job, place: Place | None) -> float | None:
    """When the job has probably ended, in seconds; None where there is nothing to go by.

    For one that waits from now, for one that runs from when it last changed.
    """
    if job.state is JobState.QUEUED and place is not None and place.where == "ready":
        return place.starts_in_seconds + place.service_seconds
    return job.remaining_seconds


def item_document(job: Job, place: Place | None) -> dict[str, Any]:
    """A job as a list shows it: all but its files."""
    eta = eta_seconds(job, place)

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
        "etaSeconds": None if eta is None else round(eta, 1),
        "resultBytes": job.result_bytes or None,
        "deduplicated": job.deduplicated,
        "workerSeconds": round(job.used_us / SECOND_US, 3),
        "workerBytes": job.used_bytes,
        "retryOf": job.retry_of or None,
        "retriedBy": job.retried_by or None,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "callback": callback_document(job),
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

    async def on_get(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """The whole record, with the place in the queue."""
        job, place = await self._downloads.detail(self._identity.user(req), job_id)
        send_tagged(req, resp, encode(job_document(job, place)), JSON)

    on_head = on_get

    async def on_delete(self, req: Request, resp: falcon.asgi.Response, job_id: str) -> None:
        """Cancel: a waiting job at once, a running one within two seconds."""
        changed = await self._downloads.cancel(self._identity.user(req), job_id)
        if not changed.done:
            raise ProblemError(ALREADY_FINISHED, f"The job has ended before: it is {changed.state.value}.")
        send_json(resp, {"jobId": job_id, "state": "cancelled"})
