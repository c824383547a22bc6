"""Claims a DownloadJob's result: proves, by a patch, that its user may patch the object. `docs/claims.md`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from msgspec.structs import replace

from downloadjobs_cli.answers import FAILED, Reply, Result, Status
from downloadjobs_cli.cluster_api import ClaimApi
from downloadjobs_cli.cluster_jobs import PENDING, ClusterJobs, DownloadJob
from downloadjobs_cli.errors import CliError, RefusedError, TimedOutError
from downloadjobs_cli.patience import Patience
from downloadjobs_core.claims import digest_of

NONCE_BYTES: Final = 32
"""256 bits: nobody guesses them, so the digest may be read by anybody."""

TAKEN_IN_SECONDS: Final = 30.0
"""An operator that runs needs less than one; one that has just been started some more."""

AGAIN_SECONDS: Final = 10.0
"""After so long the annotation is looked at again: somebody else's claim may have replaced it."""

FIRST_WAIT_SECONDS: Final = 0.2
LONGEST_WAIT_SECONDS: Final = 2.0

CLAIM_UNKNOWN: Final = "claim-unknown"
NO_SUCH_PATH: Final = "not-found"


class ClaimedJob:
    """A DownloadJob whose result its user claims; a `Source` for `get`.

    Args:
        jobs: the cluster's.
        found: the object, as it was read.
        api: answers claims.
        clock: monotonic seconds.
        sleep: waits.
    """

    def __init__(
        self,
        jobs: ClusterJobs,
        found: DownloadJob,
        api: ClaimApi,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._jobs = jobs
        self._found = found
        self._api = api
        self._clock = clock
        self._sleep = sleep
        self._nonce: str | None = None

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._found.job_id

    @property
    def name(self) -> str:
        """The object's name, by which its result is saved."""
        return self._found.metadata.name

    def ready(self, patience: Patience) -> Status:
        """The status of the job, once its result is claimed.

        Raises:
            RefusedError: it has no result yet, or none any more; or the claim is refused.
            TimedOutError: the operator did not take the claim in.
            CliError: it failed.
        """
        refuse_without_result(self._found)
        reply = patience.call(self.result)
        return replace(self._found.as_status(), failed_files=reply.value.failed_files)

    def result(self) -> Reply[Result]:
        """A fresh presigned URL. Claims anew when the last claim's time is over."""
        if self._nonce is not None and (reply := self._ask(self._nonce)) is not None:
            return reply
        self._nonce = secrets.token_urlsafe(NONCE_BYTES)
        return self._claim(self._nonce)

    def _claim(self, nonce: str) -> Reply[Result]:
        ends = self._clock() + TAKEN_IN_SECONDS
        while True:
            self._write(digest_of(nonce))
            looks_again, wait = min(self._clock() + AGAIN_SECONDS, ends), FIRST_WAIT_SECONDS
            while True:
                if (reply := self._ask(nonce)) is not None:
                    return reply
                now = self._clock()
                if now >= ends:
                    raise self._not_taken_in()
                if now >= looks_again:
                    self._read_again()
                    break
                self._sleep(min(wait, looks_again - now))
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    def _ask(self, nonce: str) -> Reply[Result] | None:
        """The answer to a claim; None if no such claim stands."""
        try:
            return self._api.claim(self.job_id, nonce)
        except RefusedError as error:
            if error.code == CLAIM_UNKNOWN:
                return None
            if error.code == NO_SUCH_PATH or error.status == HTTPStatus.METHOD_NOT_ALLOWED:
                raise RefusedError(
                    "The API takes no claims: it is of an earlier release, or --api leads to something else.",
                    status=error.status,
                    code=error.code,
                    request_id=error.request_id,
                ) from error
            raise

    def _write(self, digest: str) -> None:
        """Write the digest, unless it stands there still, which the operator has then not seen."""
        ends = self._clock() + AGAIN_SECONDS
        while self._found.claim != digest:
            # A claim of somebody else's is left a while: two at the same moment must not undo each other.
            others = self._found.claim is not None and self._clock() < ends
            if not others and self._jobs.write_claim(self._found, digest):
                return
            if self._clock() >= ends + AGAIN_SECONDS:
                raise CliError(
                    f"dj/{self.name} changes all the time, and so cannot be claimed.", code="conflict"
                )
            self._sleep(FIRST_WAIT_SECONDS)
            self._read_again()

    def _read_again(self) -> None:
        before, self._found = self._found, self._jobs.get(self.name)
        if self._found.metadata.uid != before.metadata.uid:
            raise RefusedError(f"dj/{self.name} was replaced by another one of this name.", code="replaced")

    def _not_taken_in(self) -> TimedOutError:
        return TimedOutError(
            "The operator did not take the claim in; does it run, and does it watch the namespace"
            f" {self._found.metadata.namespace}? Or is the API not that of this cluster?"
            f" The claim was unknown for {TAKEN_IN_SECONDS:.0f} s.",
            code="claim-not-taken",
        )


class Awaited:
    """A DownloadJob that is waited for, but not for ever if nobody takes it in.

    Args:
        jobs: the cluster's.
        name: the object's.
        clock: monotonic seconds.
    """

    def __init__(self, jobs: ClusterJobs, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._name = name
        self._clock = clock
        self._gives_up_at = clock() + TAKEN_IN_SECONDS

    def ask(self, seconds: float | None = None) -> Reply[Status]:
        """How far it is.

        Args:
            seconds: how long to wait for the answer; None for as long as it takes.

        Raises:
            RefusedError: the operator has not taken it in for `TAKEN_IN_SECONDS`.
        """
        found = self._jobs.get(self._name, seconds)
        if not found.taken_in and self._clock() >= self._gives_up_at:
            refuse_without_result(found)
        return found.as_reply()


def refuse_without_result(found: DownloadJob) -> None:
    """End where there is nothing to claim.

    Raises:
        RefusedError: the job has not finished, or its result has expired.
        CliError: it failed or was cancelled.
    """
    name, state, why = found.metadata.name, found.state, found.status.message
    why = f" {why}" if why else ""
    if not found.taken_in:
        raise RefusedError(
            f"The operator has not taken dj/{name} in yet. Does it run, and does it watch the namespace"
            f" {found.metadata.namespace}?",
            status=HTTPStatus.CONFLICT,
            code="result-not-ready",
        )
    if not found.as_status().ended:
        raise RefusedError(
            f"dj/{name} is {state}, so there is no result yet.{why if state == PENDING else ''}"
            " Wait for it by --wait.",
            status=HTTPStatus.CONFLICT,
            code="result-not-ready",
        )
    if state in {FAILED, "cancelled"}:
        raise CliError(f"dj/{name} is {state} and has no result.{why}", code="no-result")
    if state == "expired":
        raise RefusedError(
            f"The result of dj/{name} has expired and was removed. Ask for the files by a new DownloadJob.",
            status=HTTPStatus.GONE,
            code="result-expired",
        )
