"""`get`: a job's result, downloaded, verified, and given its name only then."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from downloadjobs_cli.answers import Status
from downloadjobs_cli.errors import CliError, InterruptedByUserError, SettingsError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.fetching import Fetched, Fetcher
from downloadjobs_cli.meter import Meter
from downloadjobs_cli.output import Output, amount, counted, duration
from downloadjobs_cli.partial_file import PartialFile, part_path, refuse_special
from downloadjobs_cli.patience import Patience
from downloadjobs_cli.sources import Source
from downloadjobs_cli.verifying import Report, verify

SHOWN_LINES: Final = 20
"""So many missing files or problems are printed; the manifest has all."""


@dataclass(frozen=True, slots=True)
class GetOptions:
    """How to get a result.

    Attributes:
        patience: how long to go on without an answer, in seconds.
        store: where to connect instead of the host that its URL names.
        transport: stands in for the network in tests.
    """

    force: bool = False
    verify: bool = True
    patience: float = 60.0
    store: str | None = None
    transport: httpx.BaseTransport | None = None


@dataclass(frozen=True, slots=True)
class Got:
    """A result on this machine."""

    path: Path
    fetched: Fetched
    seconds: float
    failed_files: int
    report: Report | None
    """None if it was not verified."""

    @property
    def exit_code(self) -> ExitCode:
        """Done only if every file that was asked for is there."""
        whole = not self.failed_files if self.report is None else self.report.whole
        return ExitCode.DONE if whole else ExitCode.FAILED


def target_path(output: str | None, name: str) -> Path:
    """Where a result goes: the path itself, or `NAME.zip` in the folder that was named, or here."""
    path = Path(output) if output else Path()
    return path / f"{name}.zip" if names_folder(output) else path


def names_folder(output: str | None) -> bool:
    """Whether a result gets its job's name, in a folder."""
    if not output or output.endswith("/"):
        return True
    try:
        return Path(output).is_dir()
    except OSError:  # a name that is too long: what cannot be looked at is told once it is written
        return False


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a path that must not be written.

    Only a regular file is ever replaced, and that only by --force.

    Raises:
        SettingsError: a file is there already, or something else than a regular file.
        OSError: see `refuse_special`.
    """
    if refuse_special(target) and not force:
        raise SettingsError(
            f"{target} exists already. Name another path, or replace it by --force.", code="exists"
        )


def kept(target: Path) -> str:
    """A sentence on what is kept of an unfinished download; empty if nothing is."""
    part = part_path(target)
    try:
        found = part.lstat()
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return ""
    return f" What was downloaded is kept in {part}; the same command goes on from there."


def get(source: Source, target: Path, options: GetOptions, output: Output) -> Got:
    """Download a result to `target` and verify it.

    Raises:
        CliError: with the exit code for what went wrong; what was downloaded is kept, and used next time.
    """
    began = time.monotonic()
    try:
        status = source.ready(Patience(options.patience, output.note))
        check_target(target, force=options.force)
        with PartialFile(target) as partial:
            fetched = _fetched(source, partial, options, output)
            seconds = time.monotonic() - began
            report = _verified(partial, status, output) if options.verify else None
            check_target(target, force=options.force)  # somebody may have put it there meanwhile
            partial.complete()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CliError(
            f"{target} cannot be written: {error.strerror or error}.{kept(target)}",
            code="cannot-write",
        ) from error
    except KeyboardInterrupt:
        raise InterruptedByUserError(f"Interrupted.{kept(target)}") from None
    return Got(target, fetched, seconds, status.failed_files, report)


def _fetched(source: Source, partial: PartialFile, options: GetOptions, output: Output) -> Fetched:
    with Meter("Downloading", shown=not output.as_json) as meter:
        fetcher = Fetcher(
            source.job_id,
            lambda: source.result().value.download_url,
            Patience(options.patience, meter.note),
            meter.reach,
            store=options.store,
            transport=options.transport,
        )
        return fetcher.fetch(partial)


def _verified(partial: PartialFile, status: Status, output: Output) -> Report:
    size = partial.size
    with Meter("Verifying", shown=not output.as_json) as meter:
        report = verify(
            partial.path,
            job_id=status.job_id,
            files=status.progress.total,
            read=lambda count: meter.advance(count, size),
        )
    if not report.sound:
        shown = "\n".join(f"  {line}" for line in first(report.problems))
        path = partial.set_aside()
        raise CliError(
            f"The result is not sound; it is kept as {path}:\n{shown}\n"
            "Get it again, or submit the files again.",
            code="not-sound",
        )
    return report


def first(lines: list[str]) -> list[str]:
    """As many lines as a person reads, and how many more there are."""
    more = len(lines) - SHOWN_LINES
    return lines if more <= 0 else [*lines[:SHOWN_LINES], f"and {more:,} more"]


def tell(got: Got, say: Callable[[str], None]) -> None:
    """Say what was got, to people."""
    resumed = f" ({amount(got.fetched.resumed_from)} were there before)" if got.fetched.resumed_from else ""
    say(f"Saved to {got.path}: {amount(got.fetched.size)} in {duration(got.seconds)}{resumed}.")
    report = got.report
    if report is None:
        missing = counted(got.failed_files, "file")
        say("Not verified." if not got.failed_files else f"Not verified. In part: {missing} missing.")
        return
    say(f"Verified: {verified_line(report)}")
    if report.missing:
        of = report.files + len(report.missing)
        say(f"In part: {len(report.missing):,} of {counted(of, 'file')} missing:")
        lines = [f"{file.file_id}  {file.error}  {file.message or ''}".rstrip() for file in report.missing]
        for line in first(lines):
            say(f"  {line}")


def verified_line(report: Report) -> str:
    """One line on a sound result."""
    return (
        f"{counted(report.files, 'file')}, {amount(report.data_bytes)}; the CRC-32 of each is right,"
        " and manifest.json agrees."
    )


def document(got: Got, job_id: str) -> dict[str, Any]:
    """What was got, for scripts. Sizes are in bytes."""
    report = got.report
    document: dict[str, Any] = {
        "jobId": job_id,
        "path": str(got.path),
        "size": got.fetched.size,
        "resumedFrom": got.fetched.resumed_from,
        "verified": report is not None,
        "failedFiles": got.failed_files if report is None else len(report.missing),
    }
    if report is not None:
        document["files"] = report.files
        document["missing"] = [
            {"fileId": file.file_id, "error": file.error, "message": file.message} for file in report.missing
        ]
    return document
