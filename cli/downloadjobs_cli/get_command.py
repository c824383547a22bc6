"""`get`: a result of the REST API's, or of a DownloadJob in a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import click

from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.job_commands import (
    DOWNLOAD_JOB,
    JobId,
    ResultPath,
    fetch,
    follow,
    follow_own,
    patience_option,
    timeout_option,
)
from downloadjobs_cli.options import Options, cluster_options, shared_options, store_option

if TYPE_CHECKING:
    from downloadjobs_cli.client import ApiClient
    from downloadjobs_cli.sources import Source


UUID: Final = re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""As the API and Kubernetes make jobs' ids."""


@dataclass(frozen=True, slots=True)
class DownloadJobName:
    """A DownloadJob, as kubectl names it: `dj/NAME`."""

    name: str


class JobReference(click.ParamType["str | DownloadJobName"]):
    """A job's id, or `dj/NAME`."""

    name = "job"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | DownloadJobName:
        """Tell which it is."""
        if "/" not in str(value):
            return JobId().convert(value, param, ctx)
        found = DOWNLOAD_JOB.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is neither a job's id nor dj/NAME.", param, ctx)
        return DownloadJobName(found[1])


@dataclass(frozen=True, slots=True)
class How:
    """What the command line says of one `get`."""

    to: str | None
    patience: float
    timeout: float | None
    wait: bool
    verify: bool
    force: bool
    print_url: bool


@click.command()
@click.argument("job", metavar="JOB|dj/NAME", type=JobReference())
@click.option(
    "-o",
    "--output",
    "to",
    type=ResultPath(),
    metavar="PATH|DIR",
    help="Where to; by default JOB.zip or NAME.zip here.",
)
@click.option("--wait", is_flag=True, help="Wait for the job to finish.")
@timeout_option
@click.option("--no-verify", is_flag=True, help="Do not read the zip through after the download.")
@click.option("--force", is_flag=True, help="Replace PATH if it exists.")
@click.option("--url", "print_url", is_flag=True, help="Print the presigned URL, a secret, and get nothing.")
@store_option
@patience_option
@cluster_options
@click.option(
    "--api-service",
    metavar="[NAMESPACE/]NAME[:PORT]",
    help="The API's Service, for dj/NAME without --api.  [default: downloadjobs-api, in the DownloadJob's"
    " namespace or in downloadjobs]",
)
@click.option(
    "--kubectl",
    "program",
    metavar="PROGRAM",
    envvar="KUBECTL",
    default="kubectl",
    help="What runs as kubectl, for dj/NAME.  [env: KUBECTL]",
)
@shared_options()
@click.pass_obj
def get(
    options: Options,
    /,
    job: str | DownloadJobName,
    api_service: str | None,
    program: str,
    *,
    no_verify: bool,
    **said: Any,  # noqa: ANN401 - the fields of How
) -> ExitCode:
    """Download a job's result and verify it: every member's CRC-32, and the manifest.

    A download that broke, or was interrupted, goes on where it was when the same command is run again.
    Exits with 1 if files are missing in the result.

    With dj/NAME it is the result of a DownloadJob that you may patch, by your kubectl and its context. Where
    --api is not given, a port is forwarded to the API's Service meanwhile.
    """
    how = How(verify=not no_verify, **said)
    if isinstance(job, DownloadJobName):
        return _get_from_cluster(options, job.name, how, api_service, program)
    if options.namespace or options.context or options.kubeconfig or api_service:
        raise click.UsageError("--namespace, --context, --kubeconfig and --api-service are for dj/NAME.")
    return _get_own(options, job, how)


def _get_own(options: Options, job_id: str, how: How) -> ExitCode:
    """Get the result of a job that the user asked the REST API for."""
    from downloadjobs_cli.deadlines import Deadline, in_time
    from downloadjobs_cli.patience import Patience
    from downloadjobs_cli.sources import OwnJob

    deadline = Deadline(how.timeout)
    with options.client() as client, _hinting(job_id):
        if how.wait:
            patience = Patience(how.patience, options.output.note)
            with in_time(deadline):
                patience.call(lambda: client.status(job_id, deadline.request_seconds), deadline)
            _check_early(how, job_id)
            follow_own(client, job_id, options, how.patience, deadline, stderr=True)
        return _hand_over(OwnJob(client, job_id), options, how)


@contextmanager
def _hinting(job_id: str) -> Iterator[None]:
    """Say what else may be meant by what is no job's id, where the API does not know it, or is away."""
    from downloadjobs_cli.errors import RefusedError, TransientError

    try:
        yield
    except (RefusedError, TransientError) as error:
        known = isinstance(error, RefusedError) and error.status in {HTTPStatus.CONFLICT, HTTPStatus.GONE}
        if not known and not UUID.fullmatch(job_id) and DOWNLOAD_JOB.fullmatch(f"dj/{job_id}"):
            error.add(f"If {job_id} is a DownloadJob in a cluster, say dj/{job_id}.")
        raise


def _get_from_cluster(
    options: Options, name: str, how: How, api_service: str | None, program: str
) -> ExitCode:
    """Get the result of a DownloadJob that the user may patch."""
    from downloadjobs_cli.claiming import Awaited, ClaimedJob, refuse_without_result
    from downloadjobs_cli.cluster_api import ForwardedApi, candidates
    from downloadjobs_cli.cluster_jobs import ClusterJobs
    from downloadjobs_cli.deadlines import Deadline, in_time
    from downloadjobs_cli.interrupts import Interrupts
    from downloadjobs_cli.kubectl import Kubectl, find_program

    kubectl = Kubectl(find_program(program), options.context, options.kubeconfig, options.namespace)
    jobs = ClusterJobs(kubectl)
    deadline = Deadline(how.timeout if how.wait else None)
    with ExitStack() as stack:
        stack.enter_context(Interrupts())  # so that the forwarded port ends with this command
        with in_time(deadline):
            found = jobs.get(name, deadline.request_seconds)
        _check_early(how, name)
        if how.wait and not found.as_status().ended:
            again = f"kubectl get dj/{name} -n {found.metadata.namespace} -w"
            follow(Awaited(jobs, name).ask, again, options, how.patience, deadline, stderr=True)
            found = jobs.get(name)
        refuse_without_result(found)
        api: ApiClient | ForwardedApi
        if options.api_given:
            api = stack.enter_context(options.client())
        else:
            services = candidates(api_service, found.metadata.namespace)
            api = forwarded = stack.enter_context(ForwardedApi(kubectl, services, options.transport))
            forwarded.open()  # without a way to the API, nothing is claimed
        return _hand_over(ClaimedJob(jobs, found, api), options, how)


def _check_early(how: How, name: str) -> None:
    """Refuse a path that must not be written before anything is waited for."""
    from downloadjobs_cli.getting import check_target, target_path

    if not how.print_url:
        with suppress(OSError):  # told when it is written
            check_target(target_path(how.to, name), force=how.force)


def _hand_over(source: Source, options: Options, how: How) -> ExitCode:
    """Download the result, or print its URL."""
    from downloadjobs_cli.patience import Patience
    from downloadjobs_cli.sources import fresh_result

    if not how.print_url:
        return fetch(
            source,
            how.to,
            options,
            how.patience,
            force=how.force,
            verify=how.verify,
            stderr=how.wait and options.as_json,
        )
    reply = fresh_result(source, Patience(how.patience, options.output.note))
    if options.as_json:
        options.output.document(reply.document)
    else:
        options.output.value(reply.value.download_url)
    return ExitCode.DONE


COMMANDS: Final = (get,)
