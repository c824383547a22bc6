"""`demo`: one download job, from its files to its verified zip, on real servers on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from downloadjobs_cli.answers import Status
from downloadjobs_cli.client import ApiClient, Login
from downloadjobs_cli.deadlines import Deadline
from downloadjobs_cli.display import Quiet, describe, display_for
from downloadjobs_cli.errors import CliError, InterruptedByUserError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.fetching import Fetched, Fetcher
from downloadjobs_cli.getting import verified_line
from downloadjobs_cli.interrupts import Interrupts
from downloadjobs_cli.meter import Meter
from downloadjobs_cli.output import Output, amount, counted, duration
from downloadjobs_cli.partial_file import PartialFile
from downloadjobs_cli.patience import Patience
from downloadjobs_cli.sample_files import SampleFile, sample_files
from downloadjobs_cli.seed_command import seeded_line
from downloadjobs_cli.seeding import seed
from downloadjobs_cli.stack import KEY_PREFIX, Stack, StackError, log_lines
from downloadjobs_cli.stack_folder import StackFolder
from downloadjobs_cli.steps import Steps
from downloadjobs_cli.verifying import Report, verify
from downloadjobs_cli.watching import Watcher
from downloadjobs_core.errors import DownloadJobsError

WORKERS: Final = 2
USER: Final = "demo"
FIRST_ID: Final = 10_000
SIZE_MIN: Final = 64_000
SIZE_MAX: Final = 4_000_000
"""Bytes; 40 files of such sizes are some 40 MB: enough to see progress, soon done."""

INDENT: Final = "   "
"""Of what is said within a step."""

PATIENCE_SECONDS: Final = 20.0
JOB_SECONDS: Final = 300.0
"""A job of this size takes a second or two; beyond, something is wrong."""

SETTINGS: Final = {"AUTH_MODE": "header", "DOWNLOAD_DELAY_ENABLED": "false"}
"""The demo is the same for everybody, whatever the user's environment asks for."""


@dataclass(frozen=True, slots=True)
class Done:
    """What the demo did."""

    job_id: str
    path: Path
    report: Report
    seconds: float
    facts: Mapping[str, Any]
    """What else a script may want to know."""


def run(output: Output, *, files: int, folder: Path | None, keep: bool) -> ExitCode:
    """Run the demo with so many sample files; see `perform`."""
    return perform(output, Demo, sample_files(files, FIRST_ID, SIZE_MIN, SIZE_MAX), folder=folder, keep=keep)


def perform(
    output: Output, kind: type[Demo], files: list[SampleFile], *, folder: Path | None, keep: bool
) -> ExitCode:
    """Run a demo from start to end, and stop whatever it started.

    Args:
        output: where to tell of it.
        kind: which demo.
        files: what the job asks for.
        folder: where to keep data and logs; None for a temporary folder.
        keep: leave the temporary folder there.

    Raises:
        InterruptedByUserError: a signal came; everything is stopped.
        CliError: something did not work; logs are kept, and everything is stopped.
    """
    with Interrupts() as interrupts, StackFolder(folder, keep=keep) as place:
        stack = Stack(place, port=None, workers=WORKERS, settings=kind.settings)
        steps = Steps(output)
        try:
            output.say(f"{kind.opening}\n", bold=True)
            done = kind(stack, place, output, steps).run(files)
        except KeyboardInterrupt:
            interrupts.hold(stack.kill)
            stack.stop(output.note, in_order=False)
            raise InterruptedByUserError("Interrupted. Everything the demo started is stopped.") from None
        except DownloadJobsError as error:
            interrupts.hold(stack.kill)
            place.keep = True
            logs = error.logs if isinstance(error, StackError) else stack.logs()
            stack.stop(output.note, in_order=False)
            output.note(log_lines(logs))
            raise CliError(
                f"The demo did not come to its end. {error}\nLogs and data are kept in {place.path}.",
                code="demo-failed",
            ) from error
        finally:
            interrupts.hold(stack.kill)
            stack.stop(lambda _text: None, in_order=place.keep)
    _tell(done, place, output, steps)
    return ExitCode.DONE


class Demo:
    """The steps, in their order."""

    opening: ClassVar[str] = "One download job on real servers, all of them on this machine."
    settings: ClassVar[Mapping[str, str]] = SETTINGS
    job_seconds: ClassVar[float] = JOB_SECONDS

    def __init__(self, stack: Stack, place: StackFolder, output: Output, steps: Steps) -> None:
        self._stack = stack
        self._place = place
        self._output = output
        self._steps = steps
        self._facts: dict[str, Any] = {}

    def run(self, files: list[SampleFile]) -> Done:
        """All steps."""
        self._start(files)
        with ApiClient(Login(self._stack.api_url, USER)) as client:
            status = self._job(client, files)
            path = self._place.path / f"{status.job_id}.zip"
            with PartialFile(path) as partial:
                self._download(client, status, partial)
                report = self._verify(status, partial)
                partial.complete()
        return Done(status.job_id, path, report, self._steps.seconds, self._facts)

    def _start(self, files: list[SampleFile]) -> None:
        stack = self._stack
        total = sum(file.size for file in files)
        with self._steps.step("Servers") as step:
            stack.start_servers()
            step.text = f"Valkey on {stack.valkey.url}, SeaweedFS (S3) on {stack.s3.endpoint}"
        stack.start_processes()  # they get ready while the files are put
        with (
            self._steps.step("Files") as step,
            Meter("Seeding", shown=not self._output.as_json) as meter,
        ):
            seeded = seed(stack.store(), KEY_PREFIX, files, lambda size: meter.advance(size, total))
            step.text = f"{seeded_line(seeded, files)}, in the bucket"
        with self._steps.step("Processes") as step:
            stack.wait_until_ready()
            step.text = f"the API on {stack.api_url}, and {counted(len(stack.workers), 'worker')}"

    def _job(self, client: ApiClient, files: list[SampleFile]) -> Status:
        with self._steps.step("Job") as step:
            status = self._watch(client, self._submit(client, files))
            step.text = f"bundled by a worker into one zip: {describe(status, None)}"
        return status

    def _submit(self, client: ApiClient, files: list[SampleFile]) -> str:
        submitted = client.initiate([file.file_id for file in files]).value
        self._output.say(f"{INDENT}POST /v1/download/initiate → job {submitted.job_id}")
        return submitted.job_id

    def _watch(self, client: ApiClient, job_id: str) -> Status:
        with Quiet() if self._output.as_json else display_for(self._output, indent=INDENT) as display:
            watcher = Watcher(
                lambda seconds: client.status(job_id, seconds),
                Patience(PATIENCE_SECONDS, display.note),
                deadline=Deadline(self.job_seconds),
            )
            status: Status | None = None
            for reply in watcher.updates():
                display.update(reply)
                status = reply.value
        if status is None or not status.whole:
            raise CliError(f"The job ended as {status.status if status else 'unknown'}, not completed.")
        return status

    def _download(self, client: ApiClient, status: Status, partial: PartialFile) -> Fetched:
        valid = 0

        def url() -> str:
            nonlocal valid
            result = client.result(status.job_id).value
            valid = result.expires_in
            return result.download_url

        with (
            self._steps.step("Download") as step,
            Meter("Downloading", shown=not self._output.as_json) as meter,
        ):
            patience = Patience(PATIENCE_SECONDS, meter.note)
            fetched = Fetcher(status.job_id, url, patience, meter.reach).fetch(partial)
            step.text = f"{amount(fetched.size)} from S3 itself, by a URL that is good for {duration(valid)}"
        return fetched

    def _verify(self, status: Status, partial: PartialFile) -> Report:
        with self._steps.step("Verified") as step:
            report = verify(partial.path, job_id=status.job_id, files=status.progress.total)
            if not report.whole:
                raise CliError(f"The zip is not as it should be: {' '.join(report.problems)}")
            step.text = verified_line(report)
        return report


def _tell(done: Done, place: StackFolder, output: Output, steps: Steps) -> None:
    if output.as_json:
        document: dict[str, Any] = {
            "jobId": done.job_id,
            "verified": done.report.whole,
            "files": done.report.files,
            "bytes": done.report.data_bytes,
            "seconds": round(steps.seconds, 3),
            **done.facts,
        }
        if place.keep:
            document["path"] = str(done.path)
        output.document(document)
        return
    output.say()
    if place.keep:
        output.say(f"The zip is {done.path}; logs and data lie beside it.")
    removed = "" if place.keep else ", and its temporary folder is removed"
    output.say(f"Done in {duration(steps.seconds)}. Everything the demo started is stopped{removed}.")
    output.say()
    output.say("Where to look next", bold=True)
    if Path("Makefile").is_file() and Path("README.md").is_file():
        output.say("  make up      the same servers, kept running: with addresses and commands to try")
        output.say("  README.md    what this is, and how it is installed for real")
        output.say("  docs/        the API, settings, and what to do when something is wrong")
    else:
        output.say(
            "  downloadjobs up      the same servers, kept running: with addresses and commands to try"
        )
        output.say("  downloadjobs --help  the other commands")
