"""The commands that run on this machine: seed, demo, up."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final, cast

import click

from downloadjobs_cli.errors import SettingsError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.options import FILE_ID, ByteSize, Options, json_option
from downloadjobs_core.job import MAX_FILES

SIZE: Final = ByteSize()


@click.command()
@click.option(
    "--count", type=click.IntRange(1, 100_000), default=40, show_default=True, help="How many files."
)
@click.option("--size", type=SIZE, help="The size of each; instead of the next two.")
@click.option("--size-min", type=SIZE, default="64k", show_default=True, help="The smallest size.")
@click.option("--size-max", type=SIZE, default="4MB", show_default=True, help="The largest size.")
@click.option(
    "--first-id", type=FILE_ID, metavar="ID", default=10_000, show_default=True, help="The first file's id."
)
@json_option
@click.pass_obj
def seed(
    options: Options, *, count: int, size: int | None, size_min: int, size_max: int, first_id: int
) -> ExitCode:
    """Put sample files into the bucket that the S3_* environment names.

    They are valid zips of pseudo-random bytes, the same each time, under S3_KEY_PREFIX. Files that are
    there already with their size are left alone.
    """
    from downloadjobs_cli.seed_command import seed_bucket

    low, high = (size_min, size_max) if size is None else (size, size)
    return seed_bucket(options.output, count, first_id, low, high)


data_option = click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Keep data and logs in this folder; by default a temporary one is used and removed.",
)  # fmt: skip


@click.command()
@click.option("--files", type=click.IntRange(1, MAX_FILES), default=40, show_default=True, help="How many.")
@click.option("--keep", is_flag=True, help="Leave the temporary folder there: the zip, logs and data.")
@click.option(
    "--chaos", is_flag=True, help="The long form: a large job, whose worker is killed in the middle."
)
@click.option(
    "--chaos-mib", type=click.IntRange(64, 64 * 1024), default=1024, show_default=True,
    help="How large that job is, in MiB; the disk must hold four times as much.",
)  # fmt: skip
@data_option
@json_option
@click.pass_obj
def demo(
    options: Options, *, files: int, keep: bool, chaos: bool, chaos_mib: int, data: Path | None
) -> ExitCode:
    """Run one download job on real servers on this machine, verify its zip, and stop.

    Starts a Valkey, an S3 server, the API and two workers as processes on free ports of loopback. Needs
    no Docker and no network; leaves nothing behind. If it fails, logs are kept and shown.
    """
    if chaos:
        run = _local("downloadjobs_cli.chaos_demo")
        return ExitCode(run(options.output, mib=chaos_mib, folder=data, keep=keep))
    run = _local("downloadjobs_cli.demo")
    return ExitCode(run(options.output, files=files, folder=data, keep=keep))


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=3000, show_default=True,
    help="The API's port; 0 takes any free one.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="How many.")
@data_option
@json_option
@click.pass_obj
def up(options: Options, *, port: int, workers: int, data: Path | None) -> ExitCode:
    """Run the same servers as `demo` until Ctrl-C, and print their addresses and what to try.

    An API or worker that ends by itself is started again. With --data, jobs and files are still there the
    next time.
    """
    run = _local("downloadjobs_cli.up")
    return ExitCode(run(options.output, port=port, workers=workers, folder=data))


def _local(module: str) -> Callable[..., int]:
    """The command's function; its modules need packages that a plain client does not have.

    Raises:
        SettingsError: a package is not installed.
    """
    try:
        return cast("Callable[..., int]", import_module(module).run)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"The package {error.name} is not installed. `pip install 'downloadjobs[local]'` brings all that"
            " a stack on this machine needs."
        ) from error


COMMANDS: Final = (seed, demo, up)
