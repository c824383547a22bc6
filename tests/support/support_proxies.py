"""nginx and HAProxy before the API, by the settings that `docs/following-jobs.md` shows.

Only addresses are changed in these, and the login that they leave to the reader is put in: a request's
user is what stands in the query as `login`.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from downloadjobs_cli.children import dying_with_parent
from downloadjobs_cli.embedded import LOOPBACK, free_ports
from support_tools import require_tool
from support_worker import eventually

PAGE: Final = Path(__file__).parents[2] / "docs" / "following-jobs.md"
SERVERS: Final = 2
"""Of the API, that the page's settings name."""


@dataclass(frozen=True)
class Kind:
    """What differs between the two programs."""

    title: str
    """The page's heading over its settings."""
    listens: tuple[str, str]
    """Where it listens, on the page and in a test, but for the port."""
    login: tuple[str, str]
    """The line of the page that stands for a login, and a login."""
    compresses: tuple[str, str]
    """A line of the page, and the same with compression of all that it may compress."""
    reload: signal.Signals
    reloaded: str
    """What each reload writes into the log."""


KINDS: Final = {
    "nginx": Kind(
        title="nginx",
        listens=("listen 80;", f"listen {LOOPBACK}:%d;"),
        login=("# Your login goes here. It sets $user.", "set $user $arg_login;"),
        compresses=("keepalive 32;\n}\n", "keepalive 32;\n}\ngzip on;\ngzip_types *;\ngzip_min_length 1;\n"),
        reload=signal.SIGHUP,
        reloaded="gracefully shutting down",
    ),
    "haproxy": Kind(
        title="HAProxy",
        listens=("bind :80", f"bind {LOOPBACK}:%d"),
        login=(
            "# Your login goes here. It sets txn.user.",
            "http-request set-var(txn.user) url_param(login)",
        ),
        compresses=("mode http\n", "mode http\n    compression algo gzip\n"),
        reload=signal.SIGUSR2,
        reloaded="Loading success",
    ),
}


def settings(name: str) -> str:
    """A proxy's settings, as the page has them."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n### {KINDS[name].title}\n")[2]
    return text.partition("\n```")[2].partition("\n")[2].partition("```\n")[0]


def replaced(text: str, old: str, new: str) -> str:
    """The text with something else in one place; it must stand there."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in:\n{text}"
    return text.replace(old, new)


@dataclass
class Proxy:
    """One that runs."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{LOOPBACK}:{self.port}"

    def client(self, address: str = LOOPBACK) -> httpx.Client:
        """A client, at an address of this machine."""
        transport = httpx.HTTPTransport(local_address=address)
        return httpx.Client(base_url=self.url, transport=transport, timeout=30)

    def reload(self) -> None:
        """Have it read its settings again, and wait until new requests come to a new process."""
        kind = KINDS[self.name]
        before = self._count(kind.reloaded)
        self.process.send_signal(kind.reload)
        eventually(lambda: self._count(kind.reloaded) > before, 20, f"the reload of {self.name}")

    def _count(self, words: str) -> int:
        return self.log.read_text(encoding="utf-8", errors="replace").count(words)


@contextmanager
def proxied(name: str, apis: Sequence[int], folder: Path, *, compress: bool = False) -> Iterator[Proxy]:
    """Start a proxy.

    Args:
        name: the program.
        apis: the ports of as many API processes as the page's settings name.
        folder: for its files.
        compress: have it compress what it may.
    """
    program = require_tool(name)
    kind = KINDS[name]
    (port,) = free_ports(1)
    text = replaced(settings(name), kind.listens[0], kind.listens[1] % port)
    text = replaced(text, *kind.login)
    assert len(apis) == SERVERS
    for number, api in enumerate(apis, 1):
        text = replaced(text, f"api-{number}.internal:3000", f"{LOOPBACK}:{api}")
    if compress:
        text = replaced(text, *kind.compresses)
    config = folder / f"{name}.cfg"
    config.write_text(_whole(text, folder) if name == "nginx" else text, encoding="utf-8")
    commands = {
        "nginx": [program, "-e", "stderr", "-p", str(folder), "-c", str(config)],
        "haproxy": [program, "-W", "-f", str(config)],
    }
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            dying_with_parent(commands[name], signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        proxy = Proxy(name, port, process, log)
        eventually(lambda: _answers(proxy), 20, f"the first answer of {name}")
        assert not re.search("warn|alert|emerg", log.read_text(encoding="utf-8"), re.IGNORECASE), (
            log.read_text(encoding="utf-8")
        )
        yield proxy
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(proxy: Proxy) -> bool:
    assert proxy.process.poll() is None, proxy.log.read_text(encoding="utf-8")
    with proxy.client() as client, suppress(httpx.TransportError):
        return client.get("/livez").status_code == httpx.codes.OK
    return False


def _whole(text: str, folder: Path) -> str:
    """A whole configuration of nginx. It has all its files in a folder, which only this user may enter."""
    user = f"user {pwd.getpwuid(0).pw_name};\n" if os.geteuid() == 0 else ""
    kept = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{user}daemon off;\nworker_processes 1;\npid {folder / 'nginx.pid'};\nerror_log stderr notice;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{kept}{text}}}\n"
    )
