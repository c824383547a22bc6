"""The commands that speak with an API: submit, status, watch, cancel, check. `get_command.py` has `get`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.options import FILE_ID, Options, Seconds, shared_options, store_option
from downloadjobs_core.job import MAX_FILES

if TYPE_CHECKING:
    from downloadjobs_cli.answers import Reply, Status
    from downloadjobs_cli.client import ApiClient
    from downloadjobs_cli.deadlines import Deadline
    from downloadjobs_cli.nudging import Opener
    from downloadjobs_cli.sources import Source

DEFAULT_PATIENCE: Final = 60.0
"""Seconds; a rolling restart of the API takes less."""


DOWNLOAD_JOB: Final = re.compile(
    r"(?i:dj|djob|downloadjobs?(?:\.downloadjobs\.dev)?)/([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)"
)
"""A DownloadJob as kubectl names it, `dj/NAME`."""

BY_KUBECTL: Final = {
    "status": "kubectl get dj/{}",
    "watch": "kubectl get dj/{} --watch",
    "cancel": """kubectl patch dj/{} --type=merge -p '{{"spec":{{"cancel":true}}}}'""",
}
"""What does for a DownloadJob what a command does for a job."""


class JobId(click.ParamType[str]):
    """A job's id: it becomes part of a URL and of a file's name."""

    name = "job"
    _pattern = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's
        """Refuse what is no id."""
        download_job = DOWNLOAD_JOB.fullmatch(str(value))
        if download_job is not None:
            command = (ctx.command.name or "") if ctx is not None else ""
            instead = BY_KUBECTL.get(command, "kubectl get dj/{} -o jsonpath={{.status.jobId}}")
            self.fail(
                f"{value} is a DownloadJob, and this command is for jobs by their ids. Try:"
                f" {instead.format(download_job[1])}",
                param,
                ctx,
            )
        if not self._pattern.fullmatch(str(value)):
            self.fail(f"{value!r} is no job's id. `downloadjobs submit` prints it.", param, ctx)
        return str(value)


class ResultPath(click.ParamType[str]):
    """Where a result goes: a file or a folder, but not standard output."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401 - click's
        """Refuse `-`: a result is verified before it is handed over, which a stream cannot wait for."""
        if value == "-":
            self.fail(
                "A result is not written to standard output: it is verified first. Name a file or folder"
                " (./- for a file of that name).",
                param,
                ctx,
            )
        return str(value)


job_argument = click.argument("job_id", metavar="JOB", type=JobId())
patience_option = click.option(
    "--patience", type=Seconds(), metavar="SECONDS", default=DEFAULT_PATIENCE,
    show_default=True, help="How long to go on while the API or the store does not answer.",
)  # fmt: skip
timeout_option = click.option(
    "--timeout", type=Seconds(), metavar="SECONDS",
    help="Stop watching after so long (exit 5); the job itself goes on.",
)  # fmt: skip


def read_ids(text: str) -> list[int]:
    """File ids from a text: separated by whitespace or commas, `#` begins a comment.

    Raises:
        click.BadParameter: a word is no file id; the line is named.
    """
    ids = []
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            try:
                ids.append(int(FILE_ID(word)))
            except click.BadParameter as error:
                raise click.BadParameter(f"line {number}: {error.message}") from None
    return ids


def wanted_ids(file_ids: tuple[int, ...], from_file: TextIO | None) -> list[int]:
    """All ids that were asked for.

    Raises:
        click.UsageError: none, or more than one job may have.
    """
    try:
        ids = [*file_ids, *(read_ids(from_file.read()) if from_file else ())]
    except UnicodeDecodeError:
        raise click.UsageError("--from-file names no text file.") from None
    if not ids:
        raise click.UsageError("Name at least one FILE_ID, or a file of them by --from-file.")
    if len(ids) > MAX_FILES:
        raise click.UsageError(
            f"A job takes {MAX_FILES:,} files at most; these are {len(ids):,}. Split them."
        )
    return ids


def follow(
    ask: Callable[[float | None], Reply[Status]],
    again: str,
    options: Options,
    patience: float,
    deadline: Deadline,
    *,
    stderr: bool,
    opener: Opener | None = None,
) -> Reply[Status]:
    """Watch a job to its end, and show it.

    Args:
        ask: gets its status, within the seconds it is given.
        again: the command that shows it again, for who interrupts this one.
        options: where to show it.
        patience: how long to go on without an answer, in seconds.
        deadline: when to stop watching.
        stderr: show it on standard error.
        opener: opens the stream of its events, if there may be one.

    Returns:
        its last status.
    """
    from downloadjobs_cli.display import display_for
    from downloadjobs_cli.errors import CliError, InterruptedByUserError
    from downloadjobs_cli.nudging import Nudges
    from downloadjobs_cli.patience import Patience
    from downloadjobs_cli.watching import Watcher

    last: Reply[Status] | None = None
    try:
        with (
            display_for(options.output, stderr=stderr) as display,
            Nudges(opener) if opener is not None else nullcontext() as nudges,
        ):
            watcher = Watcher(ask, Patience(patience, display.note), deadline=deadline, nudges=nudges)
            for last in watcher.updates():
                display.update(last)
    except KeyboardInterrupt:
        raise InterruptedByUserError(f"Interrupted. The job goes on; `{again}` shows it again.") from None
    if last is None:
        raise CliError("The API gave no status.")
    return last


def follow_own(
    client: ApiClient, job_id: str, options: Options, patience: float, deadline: Deadline, *, stderr: bool
) -> Reply[Status]:
    """Watch a job of the REST API to its end, and show it. Returns its last status."""
    again = f"downloadjobs watch {job_id}"
    return follow(
        lambda seconds: client.status(job_id, seconds),
        again,
        options,
        patience,
        deadline,
        stderr=stderr,
        opener=lambda last: client.events(job_id, last),
    )


def conclude(client: ApiClient, status: Status, options: Options, *, stderr: bool) -> ExitCode:
    """Say how a job ended, to people."""
    from downloadjobs_cli.sources import why_no_result
    from downloadjobs_cli.watching import describe_end, outcome_of

    if not options.as_json:
        reason = why_no_result(client, status)
        (options.output.note if stderr else options.output.say)(describe_end(status, reason))
    return outcome_of(status)


@click.command()
@click.argument("file_ids", metavar="[FILE_ID]...", type=FILE_ID, nargs=-1)
@click.option(
    "--from-file", type=click.File(encoding="utf-8"), metavar="F",
    help="Read more ids from a file, - for standard input: separated by blanks, commas or lines.",
)  # fmt: skip
@click.option("--wait", "--watch", "wait", is_flag=True, help="Watch the job to its end.")
@click.option(
    "--get", "get_to", type=ResultPath(), metavar="PATH",
    help="Wait, then get the result to this file or folder.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="With --get: replace PATH if it exists.")
@store_option
@timeout_option
@patience_option
@shared_options()
@click.pass_obj
def submit(
    options: Options,
    *,
    file_ids: tuple[int, ...],
    from_file: TextIO | None,
    get_to: str | None,
    timeout: float | None,
    patience: float,
    wait: bool,
    force: bool,
) -> ExitCode:
    """Ask for files as one zip. Prints the job's id.

    In a pipe the id is all that goes to standard output: id=$(downloadjobs submit 10003 10010)
    """
    from downloadjobs_cli.deadlines import Deadline
    from downloadjobs_cli.output import counted, stdout_is_terminal, unwritable
    from downloadjobs_cli.sources import OwnJob

    output = options.output
    ids = wanted_ids(file_ids, from_file)
    if get_to is not None:
        _check_early(get_to, force=force)
    with options.client() as client:
        reply = client.initiate(ids)
        job = reply.value
        try:
            if output.as_json:
                output.line(reply.document)
            else:
                output.value(job.job_id)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritable(error, f"The job is submitted, as {job.job_id}.") from error
        output.note(f"Submitted {counted(job.total_file_ids, 'file')}; it may take {job.estimated_time}.")
        if not wait and get_to is None:
            if stdout_is_terminal():
                output.note(f"Follow it:  downloadjobs watch {job.job_id}")
                output.note(f"Fetch it:   downloadjobs get {job.job_id}")
            return ExitCode.DONE
        sys.stdout.flush()
        last = follow_own(client, job.job_id, options, patience, Deadline(timeout), stderr=True)
        code = conclude(client, last.value, options, stderr=True)
        if get_to is None or last.value.status != "completed":
            return code
        source = OwnJob(client, job.job_id)
        return fetch(source, get_to, options, patience, force=force, verify=True, stderr=True)


def _check_early(get_to: str, *, force: bool) -> None:
    """Refuse a path that must not be written before a job is made for it."""
    from downloadjobs_cli.getting import check_target, names_folder

    with suppress(OSError):  # told when it is written
        if not names_folder(get_to):
            check_target(Path(get_to), force=force)


@click.command()
@job_argument
@shared_options()
@click.pass_obj
def status(options: Options, job_id: str) -> ExitCode:
    """Say once how far a job is.

    Exits with 0 while it runs and when it is done, with 1 if it failed or is done only in part.
    """
    from downloadjobs_cli.display import describe

    with options.client() as client:
        reply = client.status(job_id)
        if options.as_json:
            options.output.document(reply.document)
        else:
            options.output.say(f"{reply.value.status:<10}  {describe(reply.value, None)}")
        if not reply.value.ended:
            return ExitCode.DONE
        return conclude(client, reply.value, options, stderr=False)


@click.command()
@job_argument
@timeout_option
@patience_option
@shared_options()
@click.pass_obj
def watch(options: Options, job_id: str, timeout: float | None, patience: float) -> ExitCode:
    """Follow a job to its end: a bar at a terminal, lines in a pipe.

    Exits with 0 if it completed, with 1 if it failed or is done only in part. With --json each change is
    one document on a line.
    """
    from downloadjobs_cli.deadlines import Deadline

    with options.client() as client:
        last = follow_own(client, job_id, options, patience, Deadline(timeout), stderr=False)
        return conclude(client, last.value, options, stderr=False)


def fetch(
    source: Source,
    to: str | None,
    options: Options,
    patience: float,
    *,
    force: bool,
    verify: bool,
    stderr: bool = False,
) -> ExitCode:
    """Get a job's result and say so. Returns the exit code."""
    from downloadjobs_cli import getting

    output = options.output
    how = getting.GetOptions(force, verify, patience, options.store, options.transport)
    got = getting.get(source, getting.target_path(to, source.name), how, output)
    if output.as_json:
        (output.line if stderr else output.document)(getting.document(got, source.job_id))
    else:
        getting.tell(got, output.note if stderr else output.say)
    return got.exit_code


@click.command()
@click.argument("file_ids", metavar="FILE_ID...", type=FILE_ID, nargs=-1, required=True)
@shared_options()
@click.pass_obj
def check(options: Options, file_ids: tuple[int, ...]) -> ExitCode:
    """Say of each file whether it is there, and how large it is.

    Exits with 0 if all are there, with 1 otherwise.
    """
    from downloadjobs_cli.output import aligned, amount

    with options.client() as client:
        replies = [client.check(file_id) for file_id in file_ids]
    if options.as_json:
        options.output.document([reply.document for reply in replies])
    else:
        rows = [("FILE", "THERE", "SIZE", "KEY")]
        for reply in replies:
            found = reply.value
            size = amount(found.size) if found.size is not None else "–"
            rows.append((str(found.file_id), "yes" if found.available else "no", size, found.key or "–"))
        for line in aligned(rows, right=(0, 2)):
            options.output.say(line)
    return ExitCode.DONE if all(reply.value.available for reply in replies) else ExitCode.FAILED


@click.command()
@job_argument
@shared_options()
@click.pass_obj
def cancel(options: Options, job_id: str) -> ExitCode:
    """Cancel a job: a waiting one at once, a running one within two seconds."""
    with options.client() as client:
        reply = client.cancel(job_id)
    if options.as_json:
        options.output.document(reply.document)
    else:
        options.output.say(f"{job_id}  {reply.value.state}")
    return ExitCode.DONE


@click.command()
@job_argument
@click.option("--wait", "--watch", "wait", is_flag=True, help="Watch the new job to its end.")
@timeout_option
@patience_option
@shared_options()
@click.pass_obj
def retry(options: Options, *, job_id: str, wait: bool, timeout: float | None, patience: float) -> ExitCode:
    """Ask again for the files of a job that failed. Prints the new job's id.

    All files of a job that failed or was cancelled are asked for. In a pipe the id is all that goes to
    standard output.
    """
    from downloadjobs_cli.deadlines import Deadline
    from downloadjobs_cli.output import counted

    output = options.output
    with options.client() as client:
        reply = client.retry(job_id)
        job = reply.value
        if output.as_json:
            output.line(reply.document)
        else:
            output.value(job.job_id)
        output.note(f"Submitted {counted(job.total_file_ids, 'file')}; it may take {job.estimated_time}.")
        if not wait:
            return ExitCode.DONE
        sys.stdout.flush()
        last = follow_own(client, job.job_id, options, patience, Deadline(timeout), stderr=True)
        return conclude(client, last.value, options, stderr=True)


COMMANDS: Final = (submit, status, watch, cancel, retry, check)
