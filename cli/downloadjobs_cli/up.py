"""`up`: the local stack kept running in the foreground until Ctrl-C."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from downloadjobs_cli.children import ended
from downloadjobs_cli.embedded import LOOPBACK
from downloadjobs_cli.errors import CliError, SettingsError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.interrupts import Interrupts
from downloadjobs_cli.output import Output, aligned, counted, duration
from downloadjobs_cli.restarts import Restarts
from downloadjobs_cli.sample_files import sample_files
from downloadjobs_cli.seed_command import seeded_line
from downloadjobs_cli.seeding import seed
from downloadjobs_cli.stack import KEY_PREFIX, Stack, StackError, failed, log_lines
from downloadjobs_cli.stack_folder import StackFolder
from downloadjobs_core.errors import DownloadJobsError

FILES: Final = 40
FIRST_ID: Final = 10_000
SIZE_MIN: Final = 64_000
SIZE_MAX: Final = 4_000_000

USER: Final = "me"
"""Who the examples are from."""

WATCH_SECONDS: Final = 0.25


def run(output: Output, *, port: int, workers: int, folder: Path | None) -> ExitCode:
    """Start everything, say where it is, and keep it running until a signal comes.

    Args:
        output: where to tell of it.
        port: the API's; 0 for any free one.
        workers: how many worker processes.
        folder: where data stays from run to run; None for a temporary folder.

    Returns:
        `INTERRUPTED`: nothing but a signal ends it well.

    Raises:
        SettingsError: the port is taken, or the folder cannot be used.
        CliError: a server ended, or another process ended again and again; everything is stopped.
    """
    if port:
        _check_port(port)
    with Interrupts() as interrupts, StackFolder(folder) as place:
        stack = Stack(place, port=port or None, workers=workers)
        try:
            output.say(f"Starting Valkey, SeaweedFS, the API and {counted(workers, 'worker')} …")
            _start(stack, place, output)
            _keep_running(stack, output.note)
        except KeyboardInterrupt:
            interrupts.hold(stack.kill)
            output.note("")
            stack.stop(output.note, in_order=True)
            output.note(_stopped(place))
            return ExitCode.INTERRUPTED
        except DownloadJobsError as error:
            interrupts.hold(stack.kill)
            place.keep = True
            stack.stop(output.note, in_order=False)
            if isinstance(error, StackError):
                output.note(log_lines(error.logs))
            raise CliError(
                f"{error}\nEverything is stopped. Logs and data are kept in {place.path}.", code="stack"
            ) from error
        finally:
            interrupts.hold(stack.kill)
            stack.stop(lambda _text: None, in_order=True)


def _check_port(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise SettingsError(
                f"Port {port} cannot be used ({error.strerror}). Name another by --port;"
                " 0 takes any free one."
            ) from error


def _start(stack: Stack, place: StackFolder, output: Output) -> None:
    stack.start_servers()
    files = sample_files(FILES, FIRST_ID, SIZE_MIN, SIZE_MAX)
    seeded = seed(stack.store(), KEY_PREFIX, files)
    stack.start_processes()  # after the files: whoever waits for the API finds them
    stack.wait_until_ready()
    place.write_credentials(
        {**stack.addresses(), "DOWNLOADJOBS_API": stack.api_url, "DOWNLOADJOBS_USER": USER}
    )
    if output.as_json:
        output.document(
            {
                "api": stack.api_url,
                "redis": stack.valkey.url,
                "s3Endpoint": stack.s3.endpoint,
                "bucket": stack.s3.bucket,
                "metrics": stack.metrics_urls,
                "credentials": str(place.credentials_path),
                "logs": str(place.logs),
                "data": str(place.path),
            }
        )
        sys.stdout.flush()
        return
    for text in introduction(stack, place, seeded_line(seeded, files), own_command()):
        output.say(text)


def introduction(stack: Stack, place: StackFolder, files: str, command: str) -> list[str]:
    """Where everything is, and what to try, as lines.

    Args:
        stack: that runs.
        place: its folder.
        files: what was seeded.
        command: how this command line is called here.
    """
    kept = "stays when this stops" if place.keep else "removed when this stops; --data DIR keeps it"
    rows = aligned(
        [
            ("API", stack.api_url),
            ("Pages", f"{stack.api_url}/dashboard: jobs; {stack.api_url}/docs: the contract"),
            ("S3", f"{stack.s3.endpoint}, bucket {stack.s3.bucket}; its keys: {place.credentials_path}"),
            ("Redis", f"{stack.valkey.url} (Valkey)"),
            *(
                ("Metrics" if not number else "", f"{url} ({name})")
                for number, (name, url) in enumerate(stack.metrics_urls.items())
            ),
            ("Files", files),
            ("Logs", f"{place.logs}/"),
            ("Data", f"{place.path} ({kept})"),
        ]
    )
    first, second = FIRST_ID + 3, FIRST_ID + 10
    download = f"{stack.api_url}/v1/download"
    # The stack's processes have this environment's settings.
    by_token = os.environ.get("AUTH_MODE") == "jwt"
    login = '-H "authorization: Bearer $TOKEN"' if by_token else f"-H 'x-user-id: {USER}'"
    named = 'DOWNLOADJOBS_TOKEN="$TOKEN"' if by_token else f"DOWNLOADJOBS_USER={USER}"
    return [
        "",
        *(f"  {row}" for row in rows),
        "",
        "Try it in another terminal:",
        "",
        f"  curl {login} -H 'content-type: application/json' \\",
        f"       -d '{{\"file_ids\": [{first}, {second}]}}' {download}/initiate",
        f"  curl {login} {download}/status/JOB",
        f"  curl {login} {download}/result/JOB",
        "",
        "The same by the command line:",
        "",
        f"  export DOWNLOADJOBS_API={stack.api_url} {named}",
        f"  job=$({command} submit {first} {second})",
        f"  {command} watch $job",
        f"  {command} get $job",
        "",
        "DownloadJobs too, from a clone, by an operator for your kubeconfig's cluster:",
        "",
        f"  {operator_line(stack.valkey.url, stack.s3.bucket)}",
        "",
        "Ctrl-C stops everything.",
    ]


def operator_line(redis_url: str, bucket: str) -> str:
    """What starts an operator on the same queue; the bucket's name is only told in statuses."""
    return f"REDIS_URL={redis_url} S3_BUCKET_NAME={bucket} WATCH_NAMESPACES=default make operator"


def own_command() -> str:
    """How this command line is called: by its name if PATH leads to it, else by its path."""
    called = Path(sys.argv[0])
    on_path = shutil.which("downloadjobs")
    if on_path and called.exists() and Path(on_path).samefile(called):
        return "downloadjobs"
    if called.name != "downloadjobs":
        return f"{sys.executable} -m downloadjobs_cli"
    return os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called)


def _keep_running(stack: Stack, say: Callable[[str], None]) -> NoReturn:
    """Start again what ends by itself, until it ends too often.

    Raises:
        StackError: a server ended, or a process ended too often.
    """
    restarts = {child.name: Restarts() for child in stack.children}
    while True:
        time.sleep(WATCH_SECONDS)
        for server in stack.servers():
            if not server.running:
                raise failed(server, "ended by itself")
        for child in stack.children:
            code = child.exit_code
            if code is None:
                continue
            lived = child.age
            child.kill()  # what it started itself, which may hold its port
            pause = restarts[child.name].pause_seconds(lived)
            if pause is None:
                raise failed(child, f"ended again and again ({ended(code)})")
            say(f"{child.name} ended ({ended(code)}) after {duration(lived)}; starting it again.")
            time.sleep(pause)
            stack.start_child(child)


def _stopped(place: StackFolder) -> str:
    if place.keep:
        return f"Everything is stopped. The data is in {place.path}."
    return "Everything is stopped, and its temporary folder is removed."
