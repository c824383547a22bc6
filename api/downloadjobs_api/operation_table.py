"""All operations of the API: the OpenAPI document is made of this table, and tests compare the routes."""

from __future__ import annotations

from typing import Final

from downloadjobs_api import answers, problems
from downloadjobs_api.bodies import ClaimBody, FileBody, InitiateBody
from downloadjobs_api.operations import HTML, JOB_ID, Answered, Operation, Tag, Who

_QUEUE: Final = (problems.QUEUE_UNAVAILABLE,)
_STORAGE: Final = (problems.STORAGE_UNAVAILABLE, problems.STORAGE_TIMEOUT)
_OF_ONE_JOB: Final = (problems.FORBIDDEN, problems.JOB_NOT_FOUND, *_QUEUE)
_RESULT: Final = (problems.RESULT_NOT_READY, problems.NO_RESULT, problems.RESULT_EXPIRED, *_STORAGE)

OPERATIONS: Final = (
    Operation(
        "POST",
        "/v1/download/initiate",
        "initiate",
        Tag.DOWNLOADS,
        "Ask for up to 1,000 files as one zip",
        {
            202: Answered(
                "The job is accepted, and will not be lost.",
                answers.Initiated,
                headers=("Location", "Retry-After"),
            )
        },
        "The answer comes at once; a worker bundles the files. `Location` is the job's status.",
        body=InitiateBody,
        problems=(problems.PRIORITY_TOO_HIGH, problems.TOO_MANY_QUEUED, *_QUEUE),
    ),
    Operation(
        "GET",
        "/v1/download/status/{job_id}",
        "status",
        Tag.DOWNLOADS,
        "How far a job is",
        {200: Answered("The job's status now.", answers.Status)},
        "`Retry-After` says when to ask again, for as long as the job has not ended.",
        parameters=(JOB_ID,),
        problems=_OF_ONE_JOB,
    ),
    Operation(
        "GET",
        "/v1/download/result/{job_id}",
        "result",
        Tag.DOWNLOADS,
        "Where the zip can be fetched",
        {200: Answered("A short-lived URL of the result.", answers.Result)},
        "Ask again for a new URL when it has expired. A broken download goes on by `Range`, never by `HEAD`.",
        parameters=(JOB_ID,),
        problems=(*_OF_ONE_JOB, *_RESULT),
    ),
    Operation(
        "GET",
        "/v1/jobs/{job_id}",
        "job",
        Tag.JOBS,
        "A job's whole record",
        {200: Answered("The record, and the job's place in the queue.", answers.JobDetail)},
        parameters=(JOB_ID,),
        problems=_OF_ONE_JOB,
    ),
    Operation(
        "DELETE",
        "/v1/jobs/{job_id}",
        "cancel",
        Tag.JOBS,
        "Cancel a job",
        {200: Answered("It is cancelled.", answers.Cancelled)},
        "A waiting job ends at once, a running one within two seconds.",
        parameters=(JOB_ID,),
        problems=(*_OF_ONE_JOB, problems.ALREADY_FINISHED),
    ),
    Operation(
        "POST",
        "/v1/download/check",
        "check",
        Tag.FILES,
        "Whether a file exists",
        {200: Answered("What is known of the file.", answers.Checked)},
        "With `?sentry_test=true` it raises a test error instead: 500, and in Sentry where that is set up.",
        body=FileBody,
        who=Who.FILES,
        problems=_STORAGE,
    ),
    Operation(
        "POST",
        "/v1/download/start",
        "start",
        Tag.FILES,
        "One file, at once",
        {200: Answered("Where the file can be fetched, or that there is none.", answers.Started)},
        "The synchronous call for one file. `status` is `failed` where there is no such file.",
        body=FileBody,
        who=Who.START,
        problems=_STORAGE,
    ),
    Operation(
        "POST",
        "/v1/claims",
        "claim",
        Tag.FILES,
        "The result of a DownloadJob, for who may change it",
        {200: Answered("A short-lived URL of the result.", answers.Result)},
        "The nonce, whose SHA-256 stands in an annotation of the DownloadJob, is the proof.",
        body=ClaimBody,
        who=Who.ANYBODY,
        problems=(problems.CLAIM_UNKNOWN, problems.JOB_NOT_FOUND, *_RESULT, *_QUEUE),
    ),
    Operation(
        "GET",
        "/v1/stats",
        "stats",
        Tag.SERVICE,
        "How the queue does",
        {200: Answered("What waits and runs, and how quickly.", answers.Stats)},
        problems=_QUEUE,
    ),
    Operation(
        "GET",
        "/",
        "root",
        Tag.SERVICE,
        "Who answers",
        {200: Answered("A greeting.", answers.Message)},
        who=Who.ANYBODY,
    ),
    Operation(
        "GET",
        "/health",
        "health",
        Tag.SERVICE,
        "Whether the servers behind the API can be used",
        {
            200: Answered("All of them can.", answers.Health),
            503: Answered("One of them cannot.", answers.Health),
        },
        who=Who.ANYBODY,
    ),
    Operation(
        "GET",
        "/livez",
        "livez",
        Tag.SERVICE,
        "The process is alive",
        {200: Answered("It is.", answers.Ok)},
        who=Who.ANYBODY,
    ),
    Operation(
        "GET",
        "/readyz",
        "readyz",
        Tag.SERVICE,
        "The process can take work",
        {200: Answered("It can.", answers.Ok)},
        who=Who.ANYBODY,
        problems=(*_QUEUE, problems.DRAINING),
    ),
    Operation(
        "GET",
        "/openapi",
        "openapi",
        Tag.SERVICE,
        "This document",
        {200: Answered("OpenAPI 3.1 as JSON.")},
        who=Who.ANYBODY,
    ),
    Operation(
        "GET",
        "/docs",
        "docs",
        Tag.SERVICE,
        "This document as a page",
        {200: Answered("For people.", media_type=HTML)},
        who=Who.ANYBODY,
    ),
    Operation(
        "GET",
        "/doc",
        "doc",
        Tag.SERVICE,
        "The same page",
        {200: Answered("For people.", media_type=HTML)},
        who=Who.ANYBODY,
    ),
)
