"""The API of a cluster, through `kubectl port-forward` to its Service."""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Final

from downloadjobs_cli.children import dying_with_parent
from downloadjobs_cli.errors import TransientError
from downloadjobs_cli.kubectl import Kubectl, Said, error_of, started

START_SECONDS: Final = 60.0
"""For finding the Service's pod and opening the way to it, on a slow cluster."""

POD_SECONDS: Final = 10
"""For a pod of the Service to run; kubectl's own minute is long for a Service that has none."""

END_SECONDS: Final = 3.0

_SERVICE: Final = re.compile(r"(?:(?P<namespace>[a-z0-9-]+)/)?(?P<name>[a-z0-9-]+)(?::(?P<port>[a-z0-9-]+))?")
_FORWARDING: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")


@dataclass(frozen=True, slots=True)
class Service:
    """A Service of the API, and its port."""

    namespace: str
    name: str
    port: str = "80"

    @classmethod
    def parse(cls, text: str, namespace: str) -> Service | None:
        """Read `[NAMESPACE/]NAME[:PORT]`; None for anything else."""
        found = _SERVICE.fullmatch(text)
        return found and cls(found["namespace"] or namespace, found["name"], found["port"] or "80")

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PortForward:
    """One `kubectl port-forward`, from a free port of loopback, until it is stopped.

    The kernel ends it when the command line is killed (on Linux).

    Raises:
        KubectlError, TransientError: it did not come about.
    """

    def __init__(self, kubectl: Kubectl, service: Service) -> None:
        self._service = service
        command = kubectl.command(
            "port-forward",
            "--address=127.0.0.1",
            f"--pod-running-timeout={POD_SECONDS}s",
            f"service/{service.name}",
            f":{service.port}",
            namespace=service.namespace,
        )
        self._process = started(dying_with_parent(command, signal.SIGTERM))
        self._said = Said(self._process)
        self._ports = _Ports(self._process)
        try:
            self.url = f"http://127.0.0.1:{self._port()}"
        except BaseException:
            self.stop()
            raise

    def _port(self) -> int:
        try:
            port = self._ports.found.get(timeout=START_SECONDS)
        except Empty:
            raise TransientError(
                f"kubectl port-forward to the Service {self._service} did not begin within"
                f" {START_SECONDS:.0f} s.",
                code="no-port-forward",
            ) from None
        if port is None:
            self._process.wait()
            raise error_of(self._said.text)
        return port

    @property
    def running(self) -> bool:
        """Whether it is still there; it ends when its pod does."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.wait()
        self._ports.wait()


class _Ports(Thread):
    """Reads kubectl's output to its end: a pipe that nobody empties would stop it at some connection."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        self._stream, process.stdout = process.stdout, None
        self.found: Queue[int | None] = Queue()
        """The port, and None at the end."""
        self.start()

    def run(self) -> None:
        """Find the port."""
        with self._stream as lines:
            for line in lines:
                if found := _FORWARDING.match(line.decode(errors="replace")):
                    self.found.put(int(found[1]))
        self.found.put(None)

    def wait(self) -> None:
        """Read to the end, once the process has ended."""
        self.join(END_SECONDS)
