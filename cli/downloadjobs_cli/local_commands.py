"""The commands that run on this machine: seed, demo, up."""

from __future__ import annotations

from typing import Final

import click

from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.options import FILE_ID, ByteSize, Options, json_option

SIZE: Final = ByteSize()


@click.command()
@click.option(
    "--count", type=click.IntRange(1, 100_000), default=40, show_default=True, help="How many files."
)
@click.option("--size", type=SIZE, help="The size of each; instead of the next two.")
@click.option("--size-min", type=SIZE, default="64k", show_default=True, help="The smallest size.")
@click.option("--size-max", type=SIZE, default="4MB", show_default=True, help="The largest size.")
@click.option("--first-id", type=FILE_ID, default=10_000, show_default=True, help="The first file's id.")
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


COMMANDS: Final = (seed,)
