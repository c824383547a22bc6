"""What `seed` does around `seeding`: settings, limits, and what is said."""

from __future__ import annotations

from typing import Final

import click
from pydantic import ValidationError

from downloadjobs_cli.errors import SettingsError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.meter import Meter
from downloadjobs_cli.output import Output, amount, counted
from downloadjobs_cli.sample_files import MIN_BYTES, SampleFile, sample_files
from downloadjobs_cli.seeding import THREADS, Seeded, seed
from downloadjobs_core.job import MAX_FILE_ID
from downloadjobs_core.objectstore.factory import open_stores
from downloadjobs_core.settings import StorageSettings, faults

MAX_BYTES: Final = 256 * 1024**3
"""Well within what one multipart upload of `seeding.PART_BYTES` parts can hold."""


def planned(count: int, first_id: int, size_min: int, size_max: int) -> list[SampleFile]:
    """The files to make.

    Raises:
        click.UsageError: the ids or the sizes are out of range.
    """
    if first_id + count - 1 > MAX_FILE_ID:
        raise click.UsageError(f"{count:,} ids from {first_id} on go beyond {MAX_FILE_ID}.")
    if not MIN_BYTES <= size_min <= size_max <= MAX_BYTES:
        raise click.UsageError(
            f"Sizes go from {MIN_BYTES} bytes to {amount(MAX_BYTES)}, the smallest not above the largest."
        )
    return sample_files(count, first_id, size_min, size_max)


def seed_bucket(output: Output, count: int, first_id: int, size_min: int, size_max: int) -> ExitCode:
    """Put sample files into the bucket that the environment describes.

    Raises:
        SettingsError: the environment describes none.
        ObjectStoreError: the bucket is missing, or the store refuses or cannot be reached.
    """
    files = planned(count, first_id, size_min, size_max)
    try:
        settings = StorageSettings()
    except ValidationError as error:
        raise SettingsError("These settings are wrong:\n  " + "\n  ".join(faults(error))) from None
    if settings.mock_storage:
        raise SettingsError(
            "S3_BUCKET_NAME is not set, so there is no bucket to put files into. Set it and the other S3_*"
            " settings; `downloadjobs up` writes them to credentials.env."
        )
    store = open_stores(settings, connections=THREADS).files
    total = sum(file.size for file in files)
    with Meter("Seeding", shown=not output.as_json) as meter:
        seeded = seed(store, settings.s3_key_prefix, files, lambda size: meter.advance(size, total))
    if output.as_json:
        output.document(
            {
                "bucket": store.bucket,
                "prefix": settings.s3_key_prefix,
                "firstId": files[0].file_id,
                "lastId": files[-1].file_id,
                "put": seeded.put,
                "putBytes": seeded.put_bytes,
                "there": seeded.there,
            }
        )
    else:
        where = f"{store.bucket}/{settings.s3_key_prefix}"
        output.say(f"{seeded_line(seeded, files)}, in {where}")
    return ExitCode.DONE


def seeded_line(seeded: Seeded, files: list[SampleFile]) -> str:
    """What was put, for people."""
    ids = f"ids {files[0].file_id} to {files[-1].file_id}"
    there = f" ({seeded.there:,} were there already)" if seeded.there else ""
    return f"{counted(seeded.put, 'sample file')}, {amount(seeded.put_bytes)}{there}: {ids}"
