"""DownloadJobs as the command line reads and claims them, by kubectl."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from downloadjobs_cli.answers import COMPLETED, IN_PART, Progress, Reply, Status
from downloadjobs_cli.errors import CliError, RefusedError
from downloadjobs_cli.kubectl import Kubectl, KubectlError, Reason
from downloadjobs_core.claims import CLAIM_ANNOTATION

RESOURCE: Final = "downloadjobs.downloadjobs.dev"
"""The whole name: another operator in the cluster may have DownloadJobs too."""

ROLE: Final = "manifests/rbac/team-role.yaml"
"""Where the project has a Role with every right that this needs."""

PENDING: Final = "pending"
"""What is shown of an object that is no job yet, or that the operator has not seen; no state of a job."""

POLL_SECONDS: Final = 2.0
"""Each look is a process and a request to the cluster; the operator writes progress every ten seconds."""


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """Which object it is."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    annotations: dict[str, str] = {}


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """What was asked for."""

    file_ids: list[int] = []


class JobProgress(msgspec.Struct, frozen=True):
    """Distinct files, and bytes where they are known."""

    processed: int = 0
    total: int = 0
    bytes: int = 0


class JobResult(msgspec.Struct, frozen=True, rename="camel"):
    """What the operator tells of the result; never a URL."""

    failed_files: int = 0


class JobStatus(msgspec.Struct, frozen=True, rename="camel"):
    """How far it is, as the operator wrote it."""

    phase: str = ""
    message: str = ""
    job_id: str = ""
    progress: JobProgress | None = None
    result: JobResult | None = None


class DownloadJob(msgspec.Struct, frozen=True):
    """One object, as kubectl gave it. What this release does not know is left alone."""

    metadata: Metadata
    spec: Spec = Spec()
    status: JobStatus = JobStatus()

    @property
    def job_id(self) -> str:
        """The job's id: the status' own, which is another than the uid for jobs that came by REST."""
        return self.status.job_id or self.metadata.uid

    @property
    def claim(self) -> str | None:
        """The digest in its annotation, which the operator has not taken in yet."""
        return self.metadata.annotations.get(CLAIM_ANNOTATION)

    @property
    def taken_in(self) -> bool:
        """Whether the operator has seen it."""
        return bool(self.status.phase)

    @property
    def state(self) -> str:
        """The job's state on the wire; `pending` while the object is no job yet."""
        return re.sub(r"(?<!^)([A-Z])", r"_\1", self.status.phase).lower() or PENDING

    def as_status(self) -> Status:
        """The answer that the REST API would give: a result in part is `completed` there too."""
        progress, result = self.status.progress or JobProgress(), self.status.result or JobResult()
        return Status(
            self.job_id,
            COMPLETED if self.state == IN_PART else self.state,
            Progress(progress.processed, progress.total or len(set(self.spec.file_ids)), progress.bytes),
            failed_files=result.failed_files,
        )

    def as_reply(self) -> Reply[Status]:
        """The same for who polls."""
        status = self.as_status()
        document: dict[str, Any] = {
            "jobId": status.job_id,
            "status": status.status,
            "progress": {"processed": status.progress.processed, "total": status.progress.total},
        }
        if status.failed_files:
            document["failedFiles"] = status.failed_files
        return Reply(status, document, POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class ClusterJobs:
    """The DownloadJobs that a kubectl leads to.

    Methods raise `TransientError` while the cluster cannot be reached, and `KubectlError` for the rest.
    """

    kubectl: Kubectl

    def get(self, name: str, seconds: float | None = None) -> DownloadJob:
        """Read one.

        Args:
            name: the object's.
            seconds: how long to wait for the answer; None for as long as it takes.

        Raises:
            RefusedError: there is none of this name, or the user may not read it.
        """
        try:
            text = self.kubectl.run("get", RESOURCE, name, "--output=json", seconds=seconds)
        except KubectlError as error:
            raise self._explained(error, name, "get") from error
        try:
            return msgspec.json.decode(text, type=DownloadJob)
        except msgspec.DecodeError as error:
            raise CliError(
                f"What kubectl gave of dj/{name} is no DownloadJob of this release: {error}."
            ) from error

    def write_claim(self, found: DownloadJob, digest: str) -> bool:
        """Write a claim's digest into the annotation of the very object that was read.

        Returns:
            False if the object has changed since then, or is another one of that name: read it again.

        Raises:
            RefusedError: the user may not patch it.
        """
        metadata = {
            "uid": found.metadata.uid,
            "resourceVersion": found.metadata.resource_version,
            "annotations": {CLAIM_ANNOTATION: digest},
        }
        try:
            self.kubectl.run(
                "patch",
                RESOURCE,
                found.metadata.name,
                "--type=merge",
                f"--patch={json.dumps({'metadata': metadata})}",
                "--output=name",
                namespace=found.metadata.namespace,
            )
        except KubectlError as error:
            if error.reason is Reason.CONFLICT:
                return False
            raise self._explained(error, found.metadata.name, "patch") from error
        return True

    def _explained(self, error: KubectlError, name: str, verb: str) -> CliError:
        """Say what is missing, where that is known."""
        where = f" in the namespace {self.kubectl.namespace}" if self.kubectl.namespace else ""
        match error.reason:
            case Reason.NOT_FOUND:
                text = f"There is no DownloadJob {name}{where}. `kubectl get dj -A` lists those you may see."
            case Reason.NO_KIND:
                text = "The cluster knows no DownloadJobs: is downloadjobs installed, and the context right?"
            case Reason.FORBIDDEN:
                text = (
                    f"You may not {verb} the DownloadJob {name}{where}: you lack the right to {verb}"
                    f" {RESOURCE}. {ROLE} has a Role with it."
                )
            case _:
                return error
        return RefusedError(f"{text} (kubectl: {error.text})", code=error.code)
