"""`downloadjobs dead`: look at dead letters, queue them again, or forget them.

These speak with Redis, not with the API: they are for who runs the installation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.job_commands import JobId
from downloadjobs_cli.options import Options, shared_options

if TYPE_CHECKING:
    from downloadjobs_core.dead_letters import DeadLetter, DeadLetters

MOST_LISTED: Final = 1_000


def connect() -> DeadLetters:
    """The dead letters of the queue that the environment describes.

    Raises:
        SettingsError: the environment is wrong.
    """
    from pydantic import ValidationError

    from downloadjobs_cli.errors import SettingsError
    from downloadjobs_core import redis_client
    from downloadjobs_core.dead_letters import DeadLetters
    from downloadjobs_core.settings import RedisSettings, faults

    try:
        settings = RedisSettings()
    except ValidationError as error:
        raise SettingsError("These settings are wrong:\n  " + "\n  ".join(faults(error))) from None
    try:
        client = redis_client.connect(settings.redis)
        pool = client.connection_pool
        if not settings.redis.sentinels:
            pool.make_connection()  # opens nothing; refuses what the URL's query names and nobody knows
        str(pool.connection_kwargs.get("host") or "").encode("idna")
    except (TypeError, ValueError):  # never its text: the URL has a password
        raise SettingsError(
            "REDIS_URL is wrong (or REDIS_HOST and the like). It must be such as redis://host:6379/0."
        ) from None
    return DeadLetters(client)


@contextmanager
def _asking() -> Iterator[None]:
    """Say by which settings Redis is found, where it cannot be asked."""
    from downloadjobs_cli.errors import TransientError
    from downloadjobs_core.errors import QueueUnavailableError

    try:
        yield
    except QueueUnavailableError as error:
        text = str(error).rstrip(".")
        raise TransientError(
            f"{text}. It was looked for by REDIS_URL, or REDIS_HOST and the like."
        ) from error


def document(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for scripts."""
    from downloadjobs_core.job import rfc3339

    job = letter.job
    return {
        "jobId": job.job_id,
        "user": job.user,
        "diedAt": rfc3339(letter.died_us),
        "deliveries": job.deliveries,
        "files": job.files_total,
        "message": job.error_message,
    }


@click.group()
def dead() -> None:
    """Dead letters: jobs whose workers were lost too often.

    Speaks with Redis itself, by REDIS_URL or REDIS_HOST and the other REDIS_* settings.
    """


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, MOST_LISTED), default=100, show_default=True, help="At most.")
@shared_options()
@click.pass_obj
def list_(options: Options, limit: int) -> ExitCode:
    """List them, the newest first."""
    from downloadjobs_cli.output import aligned

    with _asking():
        letters = [document(letter) for letter in connect().list(limit)]
    if options.as_json:
        options.output.document({"items": letters})
    elif not letters:
        options.output.say("There are no dead letters.")
    else:
        header = ["JOB", "USER", "DIED", "DELIVERIES", "FILES"]
        rows = [[d["jobId"], d["user"], d["diedAt"], str(d["deliveries"]), str(d["files"])] for d in letters]
        for line in aligned([header, *rows], right=(3, 4)):
            options.output.say(line)
    return ExitCode.DONE


@dead.command()
@click.argument("job_ids", metavar="JOB...", type=JobId(), nargs=-1, required=True)
@shared_options()
@click.pass_obj
def retry(options: Options, job_ids: tuple[str, ...]) -> ExitCode:
    """Queue them again, with their counts begun anew."""
    letters = connect()
    return _each(options, job_ids, letters.retry, "queued again", "retried")


@dead.command()
@click.argument("job_ids", metavar="JOB...", type=JobId(), nargs=-1, required=True)
@shared_options()
@click.pass_obj
def drop(options: Options, job_ids: tuple[str, ...]) -> ExitCode:
    """Forget them, records and all."""
    letters = connect()
    return _each(options, job_ids, letters.drop, "forgotten", "dropped")


def _each(
    options: Options, job_ids: tuple[str, ...], act: Callable[[str], bool], done: str, key: str
) -> ExitCode:
    from downloadjobs_cli.errors import TransientError

    wanted = list(dict.fromkeys(job_ids))
    acted: dict[str, bool] = {}
    try:
        with _asking():
            for job_id in wanted:
                acted[job_id] = act(job_id)
                # At once: what is done stays done, also if the next one fails.
                options.output.say(f"{job_id}  {done if acted[job_id] else 'is no dead letter'}")
    except TransientError as error:
        if acted:
            error.add(f"Run it again with the others: {' '.join(wanted[len(acted) :])}")
        raise
    finally:
        if options.as_json and acted:
            options.output.document({key: [i for i, ok in acted.items() if ok],
                                     "notDead": [i for i, ok in acted.items() if not ok]})  # fmt: skip
    return ExitCode.DONE if all(acted.values()) else ExitCode.REFUSED


COMMANDS: Final = (dead,)
