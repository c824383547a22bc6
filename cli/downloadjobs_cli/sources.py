"""Where a result comes from: whoever asks the API for it, and by what right."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from downloadjobs_cli.answers import FAILED, Reply, Result, Status
from downloadjobs_cli.client import ApiClient
from downloadjobs_cli.errors import CliError, RefusedError
from downloadjobs_cli.patience import Patience


class Source(Protocol):
    """One job's result."""

    @property
    def job_id(self) -> str:
        """The job's id."""

    @property
    def name(self) -> str:
        """What its file is called, without `.zip`."""

    def ready(self, patience: Patience) -> Status:
        """The status of the job, which has a result. Raises `CliError` if it has none."""

    def result(self) -> Reply[Result]:
        """A fresh presigned URL."""


@dataclass(frozen=True, slots=True)
class OwnJob:
    """A job of the user who asks, as the REST API knows them."""

    client: ApiClient
    job_id: str

    @property
    def name(self) -> str:
        """The job's id."""
        return self.job_id

    def ready(self, patience: Patience) -> Status:
        """The status of the job. Raises what `ready_status` raises."""
        return ready_status(self.client, self.job_id, patience)

    def result(self) -> Reply[Result]:
        """A fresh presigned URL."""
        return self.client.result(self.job_id)


def fresh_result(source: Source, patience: Patience) -> Reply[Result]:
    """A new presigned URL. Raises what `Source.ready` raises."""
    source.ready(patience)
    return patience.call(source.result)


def why_no_result(client: ApiClient, status: Status) -> str:
    """Why a job that ended has no result, in the API's words; empty if it does not tell."""
    if status.status != FAILED:
        return ""
    try:
        client.result(status.job_id)
    except RefusedError as error:
        return error.message if error.status == HTTPStatus.CONFLICT else ""
    except CliError:
        pass
    return ""


def ready_status(client: ApiClient, job_id: str, patience: Patience) -> Status:
    """The status of a job that has a result.

    Raises:
        RefusedError: it has none yet, or none any more.
        CliError: it failed.
    """
    status = patience.call(lambda: client.status(job_id)).value
    if not status.ended:
        raise RefusedError(
            f"The job is {status.status}, so there is no result yet."
            f" `downloadjobs watch {job_id}` shows how far it is.",
            status=HTTPStatus.CONFLICT,
            code="result-not-ready",
        )
    if status.status in {FAILED, "cancelled"}:
        why = why_no_result(client, status) or f"The job is {status.status} and has no result."
        raise CliError(why, code="no-result")
    return status
