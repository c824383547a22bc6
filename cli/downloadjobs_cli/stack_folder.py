"""The folder in which a local stack keeps everything: data, logs, and the keys to its S3 server."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final, Self

from downloadjobs_cli.errors import SettingsError

CREDENTIALS: Final = "credentials.env"


class StackFolder:
    """A folder named by the user, which stays; or a temporary one, which goes unless it is to be kept.

    Use it as a context manager. It is locked: two stacks on the same data would destroy it.

    Args:
        path: the user's folder, made if it is not there; None for a temporary one.
        keep: leave a temporary one there, too.

    Raises:
        SettingsError: it cannot be made, or another stack uses it.
    """

    def __init__(self, path: Path | None, *, keep: bool = False) -> None:
        self.temporary = path is None
        self.keep = keep or path is not None
        try:
            if path is None:
                self.path = Path(tempfile.mkdtemp(prefix="downloadjobs-"))
            else:
                self.path = path.absolute()
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self._lock: IO[str] = (self.path / "lock").open("a")
        except OSError as error:
            raise SettingsError(
                f"{error.filename or path} cannot be used: {error.strerror}. Name another folder by --data."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise SettingsError(
                f"Another stack uses {self.path}. Stop it, or name another folder by --data."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._lock.close()
        if not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def logs(self) -> Path:
        """Where the processes' logs are."""
        return self.path / "logs"

    @property
    def credentials_path(self) -> Path:
        """The file with the keys and addresses, as a shell reads it."""
        return self.path / CREDENTIALS

    def keys(self) -> tuple[str, str]:
        """The S3 server's access key and secret key: those of an earlier run, or new ones."""
        try:
            known = dict(
                line.split("=", 1) for line in self.credentials_path.read_text().splitlines() if "=" in line
            )
        except FileNotFoundError:
            known = {}
        return (
            known.get("S3_ACCESS_KEY_ID") or secrets.token_hex(10),
            known.get("S3_SECRET_ACCESS_KEY") or secrets.token_hex(20),
        )

    def write_credentials(self, settings: Mapping[str, str]) -> None:
        """Write what a shell needs to use the stack; only the user may read it.

        Args:
            settings: names and values; values without blanks or quotes.
        """
        descriptor = os.open(self.credentials_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(f"# For a shell: set -a; . {self.credentials_path}; set +a\n")
            file.writelines(f"{name}={value}\n" for name, value in settings.items())
