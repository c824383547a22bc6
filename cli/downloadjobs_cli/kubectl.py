"""Runs the user's own `kubectl`: it knows their contexts, plugins for signing in, and proxies."""

from __future__ import annotations

import codecs
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from threading import Thread
from typing import IO, Final

from downloadjobs_cli.errors import CliError, SettingsError, TransientError
from downloadjobs_cli.exit_codes import ExitCode
from downloadjobs_cli.output import harmless

SHOWN_LINES: Final = 3
"""Of what kubectl says, an error has so many lines; the first is nearly always the only one."""

CHUNK_BYTES: Final = 4096

LAST_WORDS_SECONDS: Final = 1.0
"""For reading what is left of a process that has ended; what it started may hold its standard error open."""


class Reason(Enum):
    """Why kubectl failed, as far as its caller acts on it. The value is the error's code."""

    NOT_FOUND = "not-found"
    NO_KIND = "no-such-kind"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    UNAUTHORIZED = "unauthenticated"
    UNREACHABLE = "cluster-unreachable"
    SETTINGS = "kubeconfig"
    OTHER = "kubectl"


_REASONS: Final = (
    (Reason.NOT_FOUND, r"\(NotFound\)"),
    (Reason.NO_KIND, r"doesn't have a resource type|could not find the requested resource"),
    (Reason.FORBIDDEN, r"\(Forbidden\)|is forbidden:"),
    (Reason.CONFLICT, r"\(Conflict\)"),
    (
        Reason.SETTINGS,
        r"Error in configuration|error: context .* does not exist|error: stat .*: |error loading config",
    ),
    (Reason.UNAUTHORIZED, r"\(Unauthorized\)|must be logged in"),
    (
        Reason.UNREACHABLE,
        r"Unable to connect|right host or port|\((ServiceUnavailable|InternalError|\w*Timeout|TooMany\w+)\)",
    ),
)
"""What each is known by. kubectl has one exit code for all of them, so its words must do."""

_OWN_BEGINNINGS: Final = (
    "Error from server", "Error in configuration", "error: ", "Unable to ", "The connection ", "Warning: ",
)  # fmt: skip
"""How kubectl's own lines on standard error begin; others are a plugin's, which may ask for something."""

_OWN_WORDS: Final = re.compile("|".join([r"[EWI]\d{4} ", *map(re.escape, _OWN_BEGINNINGS)]))
_LOG_LINE: Final = re.compile(r"[EWI]\d{4} |Warning: ")


_EXIT_CODES: Final = {
    Reason.NOT_FOUND: ExitCode.REFUSED,
    Reason.FORBIDDEN: ExitCode.REFUSED,
    Reason.UNAUTHORIZED: ExitCode.REFUSED,
    Reason.SETTINGS: ExitCode.USAGE,
}


class KubectlError(CliError):
    """kubectl ended with an error that trying again does not help.

    Args:
        reason: what kind of error.
        text: what it said.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"kubectl: {text}", code=reason.value, exit_code=_EXIT_CODES.get(reason))
        self.reason = reason
        self.text = text


def error_of(stderr: str) -> CliError:
    """The error that kubectl's words stand for."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if not _LOG_LINE.match(line)] or lines or ["it failed and said nothing"]
    text = "\n".join(told[:SHOWN_LINES])
    reason = next((reason for reason, words in _REASONS if re.search(words, stderr)), Reason.OTHER)
    if reason is Reason.UNREACHABLE:
        return TransientError(f"The cluster does not answer. kubectl: {text}", code=reason.value)
    return KubectlError(reason, text)


def find_program(named: str) -> tuple[str, ...]:
    """The words that begin each call of kubectl.

    Args:
        named: a program on PATH or its path, perhaps with words behind it, such as `minikube kubectl --`.

    Raises:
        SettingsError: there is no such program.
    """
    try:
        words = shlex.split(named)
    except ValueError:
        words = [named]
    found = shutil.which(words[0]) if words else None
    if found is None:
        raise SettingsError(
            f"A DownloadJob is read and claimed by kubectl, and there is no program {named or '(empty)'!s}."
            " Install kubectl, or name it by --kubectl (or KUBECTL).",
            code="no-kubectl",
        )
    return (found, *words[1:])


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The user's kubectl, with what they told of where to go."""

    program: Sequence[str]
    context: str | None = None
    kubeconfig: str | None = None
    namespace: str | None = None
    """That of the DownloadJob; None for the context's own."""

    def command(self, *arguments: str, namespace: str | None = None) -> list[str]:
        """A whole command line."""
        flags = {
            "--kubeconfig": self.kubeconfig,
            "--context": self.context,
            "--namespace": namespace or self.namespace,
        }
        given = [f"{flag}={value}" for flag, value in flags.items() if value]
        return [*self.program, *arguments, *given]

    def run(self, *arguments: str, namespace: str | None = None, seconds: float | None = None) -> str:
        """Run it to its end. Returns what it printed.

        Args:
            arguments: what follows its name.
            namespace: instead of the user's.
            seconds: after which it is killed; None for as long as it takes.

        Raises:
            KubectlError: it failed, for good.
            TransientError: the cluster cannot be reached, or cannot answer now, or not in time.
        """
        with started(self.command(*arguments, namespace=namespace)) as process:
            said = Said(process)
            try:
                out, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise TransientError(
                    "The cluster does not answer (it took too long).", code=Reason.UNREACHABLE.value
                ) from None
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise error_of(said.text)
        return out.decode(errors="replace")


def started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start kubectl with both outputs in pipes. Its input is ours: a plugin may ask for a password."""
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise SettingsError(
            f"{command[0]} cannot be run: {error.strerror or error}.", code="no-kubectl"
        ) from error


class Said:
    """What a process says on standard error, collected.

    What is not kubectl's own is shown at once: a plugin for signing in tells its user there what to do.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        stream, process.stderr = process.stderr, None  # what kubectl started may hold it open after its end
        self._text = ""
        self._line = ""
        self._shown = 0
        self._thread = Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with stream:
            while chunk := os.read(stream.fileno(), CHUNK_BYTES):
                text = decoder.decode(chunk)
                self._text += text
                for part in text.splitlines(keepends=True):
                    self._show(part)

    def _show(self, part: str) -> None:
        self._line += part
        # A question has no end of line, so a line is shown as soon as it cannot be kubectl's.
        if not _OWN_WORDS.match(self._line) and not _may_become_own(self._line):
            with suppress(OSError):  # a terminal that is gone is no reason to end
                sys.stderr.write(harmless(self._line[self._shown :]))
                sys.stderr.flush()
            self._shown = len(self._line)
        if part.endswith("\n"):
            self._line, self._shown = "", 0

    @property
    def text(self) -> str:
        """All of it, once the process has ended."""
        self.wait()
        return self._text

    def wait(self) -> None:
        """Read to the end, once the process has ended."""
        self._thread.join(LAST_WORDS_SECONDS)


def _may_become_own(line: str) -> bool:
    """Whether a line is unfinished and may still become one of kubectl's own."""
    longest = max(map(len, _OWN_BEGINNINGS))
    return len(line) < longest and any(beginning.startswith(line) for beginning in _OWN_BEGINNINGS)
