"""The errors of the domain.

Each process translates them at its own edge: the API into problem+json, the
worker into a retry or a failed job, the command line into an exit code. None
of them inherits from a framework's exception.
"""

from __future__ import annotations


class DownloadJobsError(Exception):
    """Base of every error this project raises on purpose.

    Its text is one sentence for a person, and says what to do where it can.
    """


class QueueUnavailableError(DownloadJobsError):
    """Redis did not answer, or answered that it cannot work now."""


class JobNotFoundError(DownloadJobsError):
    """No job has this id (it may have been removed after its retention)."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job {job_id}, or its record was removed after its time.")
        self.job_id = job_id


class UnknownStateError(DownloadJobsError):
    """A job's record is damaged, or a newer release's, which knows states that this one does not."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"The job {job_id} is {state!r}, which this release does not know: upgrade it.")


class NotOwnerError(DownloadJobsError):
    """The job belongs to another user."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"The job {job_id} belongs to another user.")


class ClaimUnknownError(DownloadJobsError):
    """No claim stands for this job; why not is told to nobody, so that there is nothing to probe."""

    def __init__(self) -> None:
        super().__init__(
            "No such claim stands: it is not taken in yet, its time is over, or it is on another job."
        )


class PriorityTooHighError(DownloadJobsError):
    """The user may not ask for this class."""

    def __init__(self, asked: str, ceiling: str) -> None:
        super().__init__(f"Your jobs may have priority {ceiling} at most, not {asked}.")


class CallbackRefusedError(DownloadJobsError):
    """A callback URL breaks a rule."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The callback URL is refused: {why}.")
        self.why = why


class WebhooksOffError(DownloadJobsError):
    """A job asks for a call, and this installation makes none."""

    def __init__(self) -> None:
        super().__init__(
            "This installation sends no webhooks: leave the callback URL out, or have them switched on."
        )


class WebhookKeyError(DownloadJobsError):
    """A file has no key to sign webhooks with, or to verify them."""


class TooManyQueuedError(DownloadJobsError):
    """A user has as many jobs waiting as one may have."""

    def __init__(self, user: str, waiting: int) -> None:
        super().__init__(f"{waiting} jobs of {user} wait already: let some of them finish first.")
        self.waiting = waiting


class KeyReusedError(DownloadJobsError):
    """A key that makes a request happen once came with another request."""

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used for another request: take a new key for each thing you ask for."
        )


class UnfinishedError(DownloadJobsError):
    """The job goes on, so it is not known which of its files will fail."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"The job {job_id} has not ended: wait for its end, or cancel it.")


class NothingToRetryError(DownloadJobsError):
    """All of the job's files were in its result."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"No file of the job {job_id} failed. To have its files anew, ask for them again.")


class LeaseLostError(DownloadJobsError):
    """This attempt no longer holds its job: its fencing token was refused."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"The lease on job {job_id} is lost: {reason}.")
        self.job_id = job_id
        self.reason = reason


class ResultGoneError(DownloadJobsError):
    """A result that was to be shared is being removed: nobody pointed to it any more."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The result {key} is no longer there.")
        self.key = key


class IllegalTransitionError(DownloadJobsError):
    """A script was asked for a change of state that the table does not allow."""


class ObjectStoreError(DownloadJobsError):
    """Base of the object store's errors; `retryable` says whether trying again can help."""

    retryable = False


class ObjectStoreUnavailableError(ObjectStoreError):
    """The server cannot be reached, broke off, or answered 5xx or SlowDown."""

    retryable = True


class ObjectNotFoundError(ObjectStoreError):
    """No object has this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no object {key}.")
        self.key = key


class ObjectChangedError(ObjectStoreError):
    """The object no longer has the ETag that was asked for (HTTP 412)."""

    retryable = True

    def __init__(self, key: str) -> None:
        super().__init__(f"The object {key} changed while it was read.")
        self.key = key


class ObjectStoreDeniedError(ObjectStoreError):
    """A request was denied: for its object alone, or since the credentials are wrong or lack a permission."""


class CredentialsRefusedError(ObjectStoreError):
    """The credentials are refused, whatever they ask for: they are wrong, have expired, or cannot be had.

    It concerns no single object. It may pass, since credentials are renewed while they are in use.
    """

    retryable = True


class BucketNotFoundError(ObjectStoreError):
    """The configured bucket does not exist."""

    def __init__(self, bucket: str) -> None:
        super().__init__(f"The bucket {bucket} does not exist: create it, or correct S3_BUCKET_NAME.")
        self.bucket = bucket


class UploadNotFoundError(ObjectStoreError):
    """The multipart upload was aborted or completed before (NoSuchUpload, InvalidPart)."""


class ResultTooLargeError(DownloadJobsError):
    """The parts of a result do not fit into the memory that a job may take.

    Args:
        result_bytes: how large the result would be.
        needed_bytes: what its parts would take.
        memory_bytes: what they may take.
    """

    def __init__(self, result_bytes: int, needed_bytes: int, memory_bytes: int) -> None:
        super().__init__(
            f"The parts of a result of {result_bytes} bytes need {needed_bytes} bytes of memory, more than"
            f" {memory_bytes}: raise UPLOAD_MEMORY_BYTES and the worker's memory, or ask for fewer files."
        )


class LinkRefusedError(DownloadJobsError):
    """A link of the mock storage is past its time, or not one that it signed."""
