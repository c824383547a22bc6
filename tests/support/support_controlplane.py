"""The control plane of `tests/support/controlplane`: built once with Go, and run as a process on loopback.

Run as a program, this file builds it and prints its folder. It needs nothing but Python's own library, so
that this can be done before there is a virtual environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

MODULE: Final = Path(__file__).parent / "controlplane"
PROGRAM: Final = "controlplane"
KUBECTL: Final = "kubectl"

LOG_TAIL_LINES: Final = 20

STOP_SECONDS: Final = 10.0
"""It has only a folder to remove."""

Tell = Callable[[str], object]


class ControlPlaneError(Exception):
    """It cannot be built, or does not start; the message says why."""


def go() -> str | None:
    """The Go compiler's path, if there is one."""
    return shutil.which("go")


def built() -> Path | None:
    """The folder with both programs, if this version of the module was built already."""
    folder = _folder()
    return folder if folder.is_dir() else None


def build(tell: Tell = print) -> Path:
    """Build the control plane and kubectl, if that was not done yet; the folder with both programs.

    Raises `ControlPlaneError`.
    """
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent / "controlplane.lock"):
        if not folder.is_dir():
            tell("Building a Kubernetes control plane for tests, once: some minutes.")
            # What is built under another name and renamed is either whole or not there.
            for leftover in folder.parent.glob("controlplane-*.part"):
                shutil.rmtree(leftover, ignore_errors=True)
            part = Path(tempfile.mkdtemp(dir=folder.parent, prefix="controlplane-", suffix=".part"))
            try:
                _compile(part)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return folder


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256()
    for path in sorted(MODULE.iterdir()):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return cache / "downloadjobs" / f"controlplane-{digest.hexdigest()[:16]}"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock, so that two test runs do not build the same; the kernel frees it if this process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(folder: Path) -> None:
    compiler = go()
    if compiler is None:
        raise ControlPlaneError("the control plane needs Go to be built, and there is no go on PATH")
    found = re.search(
        r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)", (MODULE / "go.mod").read_text(encoding="utf-8")
    )
    assert found is not None
    # Clients look at the server's version: kubectl does, and Helm's charts. The linker sets it.
    values = {"gitVersion": found[1], "gitMajor": found[2], "gitMinor": found[3]}
    version = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())
    done = subprocess.run(
        [
            compiler, "build", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {version}",
            "-o", f"{folder}{os.sep}", ".", "k8s.io/kubernetes/cmd/kubectl",
        ],
        cwd=MODULE,
        # GOWORK: a workspace around the clone does not know this module.
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise ControlPlaneError(f"the control plane does not build:\n{_tail(done.stdout)}")


class ControlPlane:
    """A running control plane. A context manager; it also ends when this process does, however that ends.

    Args:
        programs: what `build` returned.
        folder: for its kubeconfig, its log, and while it runs its data.
        port: of the API server; 0 takes a free one.
    """

    def __init__(self, programs: Path, folder: Path, port: int = 0) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.log_path = folder / "controlplane.log"
        self._command = [
            str(programs / PROGRAM),
            f"-kubeconfig={self.kubeconfig}",
            f"-folder={folder}",
            f"-port={port}",
        ]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of its one process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it can be used. Raises `ControlPlaneError`."""
        with self.log_path.open("w") as log:
            # Its standard input is what it ends with: the kernel closes this end when this process is gone.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the test run, which still needs it at its end
            )
        assert self._process.stdout is not None
        # It gives up by itself if it takes too long, so there is a line or an end to wait for.
        if self._process.stdout.readline() != "ready\n":
            self.stop()
            raise ControlPlaneError(f"the control plane does not start: {self._reason()}")

    def stop(self) -> int:
        """End it; its exit code."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            process.stdout.close()

    def _reason(self) -> str:
        log = self.log_path.read_text(encoding="utf-8", errors="replace")
        own = [line for line in log.splitlines() if line.startswith(f"{PROGRAM}: ")]
        return own[-1].removeprefix(f"{PROGRAM}: ") if own else f"its log ends with\n{_tail(log)}"


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])


if __name__ == "__main__":
    try:
        print(build(lambda text: print(text, file=sys.stderr)))  # noqa: T201 - its answer
    except ControlPlaneError as error:
        sys.exit(str(error))
