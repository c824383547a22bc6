"""The command line's errors: one or two sentences for a person, and an exit code for a script."""

from __future__ import annotations

from typing import Any

from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_core.errors import (
    DownloadJobsError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    QueueUnavailableError,
)


class CliError(DownloadJobsError):
    """Ends a command with its exit code.

    Args:
        message: what went wrong, and what to do about it.
        code: a stable word for scripts; the API's own, where the error is the API's.
        exit_code: overrides the class' own.
        request_id: the id by which the API's log has more.
    """

    exit_code = ExitCode.FAILED
    code = "failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        exit_code: ExitCode | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.code = code or self.code
        self.exit_code = self.exit_code if exit_code is None else exit_code

    def add(self, hint: str) -> None:
        """Say more about what to do."""
        self.message = f"{self.message} {hint}"

    def document(self) -> dict[str, Any]:
        """The error as `--json` prints it."""
        document = {"error": self.code, "message": self.message}
        return document if self.request_id is None else {**document, "requestId": self.request_id}


class SettingsError(CliError):
    """An option, a setting or a file named by one is wrong, or a needed package is absent."""

    exit_code = ExitCode.USAGE
    code = "settings"


class TransientError(CliError):
    """Trying again later can help.

    Args:
        message: as for every error here.
        retry_after: the seconds that the server asked to wait, if it did.
        code: as for every error here.
        exit_code: as for every error here.
        request_id: as for every error here.
    """

    exit_code = ExitCode.UNREACHABLE
    code = "unreachable"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        code: str | None = None,
        exit_code: ExitCode | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, code=code, exit_code=exit_code, request_id=request_id)
        self.retry_after = retry_after


class RefusedError(CliError):
    """The API understood and said no.

    Args:
        message: as for every error here.
        status: the HTTP status.
        code: as for every error here.
        request_id: as for every error here.
    """

    exit_code = ExitCode.REFUSED
    code = "refused"

    def __init__(
        self, message: str, *, status: int = 0, code: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.status = status


class TimedOutError(CliError):
    """The time that the user allowed is over."""

    exit_code = ExitCode.TIMED_OUT
    code = "timed-out"


class InterruptedByUserError(CliError):
    """Ctrl-C, or a signal that asks to end; what had to be stopped is stopped."""

    exit_code = ExitCode.INTERRUPTED
    code = "interrupted"


def translated(error: DownloadJobsError) -> CliError:
    """Give an error of the domain the exit code it has on the command line."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, (ObjectStoreUnavailableError, QueueUnavailableError)):
        return TransientError(str(error))
    if isinstance(error, ObjectStoreError):
        return RefusedError(str(error), code="object-store")
    return CliError(str(error))
