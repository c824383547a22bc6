"""The `downloadjobs` command: its group, and how it ends."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from downloadjobs_cli import autoscaler_commands, dead_commands, get_command, job_commands, local_commands
from downloadjobs_cli.errors import CliError, InterruptedByUserError, translated
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.options import Options, cluster_options, shared_options
from downloadjobs_cli.output import unwritable
from downloadjobs_core import __version__
from downloadjobs_core.errors import DownloadJobsError

EPILOG = """Exit codes: 0 done, 1 the job failed or is done in part, 2 usage or settings, 3 unreachable,
4 refused or not found, 5 timed out, 130 interrupted, 141 what reads the output went away."""


class _Group(click.Group):
    """Says with exit codes of ours what click would end with 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:  # noqa: ANN401 - click's
        with _translated_faults():  # --help and --version print here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - what a command returned
        with _translated_faults():
            outcome = super().invoke(ctx)
            sys.stdout.flush()
        return outcome


@contextmanager
def _translated_faults() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedByUserError("Interrupted.") from None
    except BrokenPipeError:
        raise click.exceptions.Exit(ExitCode.READER_GONE) from None
    except OSError as error:
        if _flushes(sys.stdout) and not _printing(error):
            raise
        raise unwritable(error) from error


def _printing(error: OSError) -> bool:
    """Whether it was raised in `click.echo`: where nothing is buffered, a full stream does not fail again."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is click.echo.__code__


@click.group(
    cls=_Group,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@cluster_options
@shared_options(environment=True)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Prepare large downloads: many files from object storage become one zip.

    \b
    Try it here:       downloadjobs demo     or: downloadjobs up
    Ask for files:     downloadjobs submit 10003 10010 --wait
    Fetch the result:  downloadjobs get JOB
    In a cluster:      kubectl downloadjobs get dj/NAME
    """  # noqa: D301 - \b is click's mark for lines it must not join
    ctx.ensure_object(Options)


for command in (
    *job_commands.COMMANDS,
    *get_command.COMMANDS,
    *dead_commands.COMMANDS,
    *autoscaler_commands.COMMANDS,
    *local_commands.COMMANDS,
):
    cli.add_command(command)


def run(arguments: list[str] | None = None, options: Options | None = None) -> int:
    """Run one command line to its end and return the exit code.

    Args:
        arguments: what follows the program's name; the process' own by default.
        options: what holds where the command line says nothing.
    """
    options = options or Options()
    try:
        outcome = cli.main(arguments, prog_name=program_name(), standalone_mode=False, obj=options)
    except click.UsageError as error:
        if "--json" in (sys.argv[1:] if arguments is None else arguments):
            options.as_json = options.output.as_json = True
            options.output.error(CliError(error.format_message(), code="usage"))
        else:
            with suppress(OSError):
                error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        options.output.error(CliError(error.format_message()))
        return error.exit_code
    except DownloadJobsError as error:
        found = translated(error)
        options.output.error(found)
        return found.exit_code
    except (KeyboardInterrupt, click.Abort):
        options.output.error(InterruptedByUserError("Interrupted."))
        return ExitCode.INTERRUPTED
    return exit_code_of(outcome)


def program_name() -> str:
    """What the user typed: kubectl runs a program `kubectl-downloadjobs` as its own subcommand."""
    return "kubectl downloadjobs" if Path(sys.argv[0]).stem == "kubectl-downloadjobs" else "downloadjobs"


def exit_code_of(outcome: Any) -> int:  # noqa: ANN401 - what a command returned
    """Commands return an exit code, or None for done."""
    return int(outcome) if isinstance(outcome, int) else ExitCode.DONE


def _flushes(stream: TextIO) -> bool:
    """Whether all that was printed is written; a stream that is full or broken keeps it, and fails again."""
    try:
        stream.flush()
    except OSError:
        return False
    return True


def open_closed_streams() -> None:
    """Give each standard stream that the caller closed (`>&-`) a place where nothing is kept.

    Without, Python has None for it, and the next file or socket that is opened would take its number.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # noqa: FBT003 - it takes no keyword
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def forget_unwritten() -> None:
    """Send nowhere what cannot be written, so that the interpreter's last flush does not complain."""
    for stream in (sys.stdout, sys.stderr):
        if not _flushes(stream):
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, stream.fileno())
            os.close(devnull)


def main() -> NoReturn:
    """Entry point of the `downloadjobs` script."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of another encoding must not end a command
    try:
        code = run()
    finally:
        forget_unwritten()
    sys.exit(code)
