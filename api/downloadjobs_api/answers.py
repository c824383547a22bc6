"""The shapes of answers, for the OpenAPI document; tests hold real answers against them.

Answers are built as plain dicts and encoded by msgspec, which is quicker. Names
are camelCase on the wire, but for `file_id`, which the first clients know.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from downloadjobs_core.states import JobState, Priority

Moment = Annotated[datetime, Field(description="RFC 3339 in UTC, with `Z`")]
JobId = Annotated[str, Field(description="The job's id", examples=["1f2f879b-6de6-4913-84ea-0f5cd1d8e9aa"])]
Count = Annotated[int, Field(ge=0)]
WireState = Literal["queued", "processing", "retrying", "completed", "failed", "cancelled", "expired"]
"""`completed_with_errors` is `completed` on the first routes, with `failedFiles`."""


class Answer(BaseModel):
    """A shape that may grow: clients ignore members that they do not know."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Message(Answer):
    """Who answers."""

    message: str


class Ok(Answer):
    """The process is well."""

    status: Literal["ok"]


class Health(Answer):
    """Whether the servers behind the API can be used."""

    status: Literal["healthy", "unhealthy"]
    checks: dict[str, Literal["ok", "error"]]
    mock_storage: Annotated[bool, Field(description="Files are generated, nothing is real")] = False


Number = Annotated[float, Field(ge=0)]


class OwnJobs(Answer):
    """Jobs of the user who asks."""

    waiting: Count
    running: Count


class Stats(Answer):
    """How the queue does; times are in seconds."""

    at: Moment
    waiting: Annotated[Count, Field(description="Jobs of all users that could start")]
    running: Count
    slots: Annotated[Count, Field(description="Jobs that all workers can run at once")]
    finished_per_minute: Annotated[Number, Field(description="Jobs that ended, as a rate that fades")]
    mean_service_seconds: Annotated[Number, Field(description="What one job takes: a running mean")]
    oldest_waiting_seconds: Number
    own: OwnJobs


class Initiated(Answer):
    """A job that was accepted."""

    job_id: JobId
    status: Literal["queued"]
    total_file_ids: Annotated[Count, Field(description="How many ids were asked for, duplicates included")]
    estimated_time: Annotated[str, Field(description="For people", examples=["30-90 seconds"])]


class Progress(Answer):
    """How far a job is; `bytes` and `bytesTotal` come once they are known."""

    processed: Annotated[Count, Field(description="Files that are done, those that are missing included")]
    total: Annotated[Count, Field(description="Distinct files")]
    bytes: Count = 0
    bytes_total: Count = 0


class Status(Answer):
    """A job's status."""

    job_id: JobId
    status: Annotated[
        WireState,
        Field(
            description="`completed` also where files are not in the result: `failedFiles` says how many."
            " The other routes say `completed_with_errors` then"
        ),
    ]
    progress: Progress
    updated_at: Moment
    failed_files: Annotated[
        Count, Field(description="Files that are not in the result, if there are any")
    ] = 0


class Result(Answer):
    """Where a result can be fetched."""

    job_id: JobId
    status: Literal["completed"]
    download_url: Annotated[str, Field(description="A presigned URL: a secret for as long as it is good")]
    expires_in: Annotated[int, Field(description="Seconds that the URL is good for", examples=[600])]
    failed_files: Annotated[
        Count, Field(description="Files that are not in the result, if there are any")
    ] = 0


class Checked(BaseModel):
    """Whether a file exists."""

    file_id: int
    available: bool
    s3_key: Annotated[str | None, Field(alias="s3Key", description="Null where there is no such file")]
    size: Annotated[int | None, Field(description="Bytes; null where there is no such file")]


class Started(BaseModel):
    """Where one file can be fetched."""

    file_id: int
    status: Literal["completed", "failed"]
    download_url: Annotated[str | None, Field(alias="downloadUrl")]
    size: int | None
    processing_time_ms: Annotated[int, Field(alias="processingTimeMs")]
    message: str


class Retried(Initiated):
    """A job that tries again what failed in another."""

    retry_of: JobId


class QueuePlace(Answer):
    """Where a waiting job stands."""

    place: Literal["ready", "parked", "delayed", "joined", "suspended"]
    ahead: Annotated[int | None, Field(description="Jobs that start before it; only for `ready`")]
    starts_in_seconds: Annotated[float | None, Field(description="An estimate; only for `ready`")]
    estimate_error_percent: Annotated[int, Field(description="How far such estimates were off lately")]


class JobError(Answer):
    """Why a job failed, or its last attempt did."""

    code: str
    message: str


class Callback(Answer):
    """How the newest call to a job's callback URL stands."""

    state: Literal["pending", "delivered", "failed"]
    origin: Annotated[str, Field(description="Scheme, host and port; the rest may hold a secret")]
    event: str | None
    attempts: Count
    last_status: int | None
    last_error: str | None
    next_attempt_at: Moment | None


class JobItem(Answer):
    """A job as the list shows it; what does not apply is null."""

    job_id: JobId
    state: JobState
    priority: Priority
    suspended: bool
    created_at: Moment
    started_at: Moment | None
    updated_at: Moment
    finished_at: Moment | None
    expires_at: Moment | None
    retry_at: Moment | None
    total_file_ids: Count
    failed_files: Count
    progress: Progress
    attempt: Count
    max_attempts: Count
    deliveries: Count
    worker: str | None
    queue: QueuePlace | None
    eta_seconds: Annotated[float | None, Field(description="Until it has probably ended")]
    result_bytes: int | None
    deduplicated: Annotated[bool, Field(description="Its result was made for another job")]
    worker_seconds: Annotated[float, Field(description="How long workers held it, in all attempts")]
    worker_bytes: Annotated[Count, Field(description="Bytes of files that those attempts were done with")]
    retry_of: str | None
    retried_by: str | None
    error: JobError | None
    callback: Callback | None
    request_id: str | None
    trace_id: str | None


class FileFailure(Answer):
    """A file that is not in the result."""

    file_id: int
    error: str
    message: str


class JobDetail(JobItem):
    """A job's whole record; what does not apply is null."""

    file_ids: Annotated[list[int], Field(description="The distinct ids, in the order of the zip's members")]
    failures: Annotated[list[FileFailure] | None, Field(description="Null while it is not known")]


class JobPage(Answer):
    """A page of the list."""

    items: list[JobItem]
    next_cursor: Annotated[str | None, Field(description="Of the next page; null on the last")]


class JobChange(Answer):
    """The data of each event of a stream after its snapshot: how things are after the change."""

    job_id: JobId
    state: JobState
    progress: Progress
    updated_at: Moment
    attempt: Count = 0
    deliveries: Count = 0
    worker: str = ""
    error_code: str = ""
    retry_at: Annotated[Moment | None, Field(description="When the next attempt is due")] = None
    failed_files: Annotated[Count, Field(description="With `finished`")] = 0


class Overview(Answer):
    """The data of the snapshot of all one's jobs."""

    items: list[JobItem]


class EndedJob(Answer):
    """What a webhook tells of a job; what does not apply is null."""

    job_id: JobId
    state: JobState
    created_at: Moment | None
    finished_at: Moment | None
    expires_at: Moment | None
    total_file_ids: Count
    files: Annotated[Count, Field(description="Distinct files")]
    failed_files: Count
    result_bytes: int | None
    error: JobError | None
    trace_id: str | None


class WebhookCall(Answer):
    """The body of a webhook (Standard Webhooks). Verify its signature before you believe it."""

    type: Annotated[
        Literal["job.completed", "job.completed_with_errors", "job.failed", "job.cancelled", "job.expired"],
        Field(description="What has happened"),
    ]
    timestamp: Annotated[Moment, Field(description="When")]
    data: EndedJob


class TimelineItem(Answer):
    """Something that happened to a job, or lasts."""

    name: str
    at: Moment
    end_at: Moment | None
    attempt: int | None
    status: str
    attributes: dict[str, str | int | float | bool | None]


class Timeline(Answer):
    """What happened to a job and when."""

    job_id: JobId
    trace_id: str | None
    trace_url: Annotated[str | None, Field(description="Where a trace viewer shows it, if one is set up")]
    omitted: Annotated[Count, Field(description="What was left out, of the oldest")]
    items: list[TimelineItem]


class VerificationKey(Answer):
    """A public key, in three forms."""

    public_key: Annotated[str, Field(description="As Standard Webhooks has it", examples=["whpk_…"])]
    pem: str
    jwk: dict[str, str]


class VerificationKeys(Answer):
    """The current key first; more than one while keys are exchanged."""

    keys: list[VerificationKey]


class Cancelled(Answer):
    """A job that was cancelled."""

    job_id: JobId
    state: Literal["cancelled"]


class Fault(Answer):
    """What is wrong with one field of a body."""

    field: Annotated[str, Field(examples=["file_ids.3"])]
    message: str


class Problem(Answer):
    """An error (RFC 9457). Programs compare `error`, never the sentences."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(examples=["https://downloadjobs.dev/problems/job-not-found"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    error: Annotated[str, Field(description="The code, the last segment of `type`")]
    message: Annotated[str, Field(description="The same as `detail`")]
    request_id: str
    trace_id: str
    errors: Annotated[list[Fault], Field(description="Every field at fault, where a body is invalid")] = []
