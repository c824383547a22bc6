"""gunicorn's master and uvicorn's worker as this API runs them.

The configuration comes from the settings only: not from `GUNICORN_CMD_ARGS`, a
file, or the command line. The socket is bound before gunicorn starts, which
would try a taken port for five seconds, and exit with another code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, NoReturn

import falcon.asgi
import uvicorn
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from downloadjobs_api.cors import Cors
from downloadjobs_api.drain import Drain
from downloadjobs_api.exchange import share
from downloadjobs_api.http_protocol import HttpProtocol
from downloadjobs_api.settings import ApiSettings
from downloadjobs_api.shared_metrics import SharedMetrics
from downloadjobs_core.listening import BACKLOG, listen_or_end, url_of
from downloadjobs_core.logs import logger
from downloadjobs_core.metrics import metrics_page
from downloadjobs_core.side_port import SidePort

PROCESS: Final = "downloadjobs-api"

KEEP_ALIVE_SECONDS: Final = 75
"""For an idle connection. Load balancers close theirs after 60 s, and must be the first to: a
server that closes while the next request is on its way makes a 502 of it."""

LIVENESS_SECONDS: Final = 30
"""A worker whose event loop does not turn for so long is killed, and another started."""

KILL_MARGIN_SECONDS: Final = 5
"""What a worker has beyond `DRAIN_SECONDS`, to cancel what still runs and to close its connections."""

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

AppFactory = Callable[[ApiSettings, Drain], falcon.asgi.App[Any, Any]]
"""Builds the app of one worker process, in that process."""

log = logger(__name__)


def serve(
    settings: ApiSettings, create_app: AppFactory, protocol: type[HttpProtocol] = HttpProtocol
) -> NoReturn:
    """Serve until the process is told to stop, then exit.

    Exit codes: 0 after a drain, 2 where the address cannot be listened on, 3 if the app does not start.

    Args:
        settings: checked already, since this forks.
        create_app: called in each worker.
        protocol: of each connection; tests give one with shorter times.
    """
    listener = listen_or_end(PROCESS, settings.host, settings.port, setting="PORT")
    side_listener = listen_or_end(PROCESS, settings.host, settings.metrics_port, setting="METRICS_PORT")
    metrics = SharedMetrics()
    try:
        application = _Application(settings, create_app, protocol, listener.detach(), side_listener, metrics)
        _Master(application).run()
    finally:
        if os.getpid() == metrics.owner:
            metrics.close()
    raise AssertionError("gunicorn's master ends by SystemExit")


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's view of the settings."""

    def __init__(  # noqa: PLR0917 - once, above
        self,
        settings: ApiSettings,
        create_app: AppFactory,
        protocol: type[HttpProtocol],
        listener: int,
        side_listener: socket.socket,
        metrics: SharedMetrics,
    ) -> None:
        self.settings = settings
        self.create_app = create_app
        self.protocol = protocol
        self.listener = listener
        self.side_listener = side_listener
        self.metrics = metrics
        super().__init__()

    def load_config(self) -> None:
        """Set everything that gunicorn would else take from the environment, and what differs."""
        config: Config = self.cfg
        values = {
            "bind": f"fd://{self.listener}",
            "workers": self.settings.api_workers,
            "worker_class": _Worker,
            "logger_class": _Logger,
            "timeout": LIVENESS_SECONDS,
            "graceful_timeout": math.ceil(self.settings.drain_seconds) + KILL_MARGIN_SECONDS,
            "keepalive": KEEP_ALIVE_SECONDS,
            "backlog": BACKLOG,
            "forwarded_allow_ips": "",
            "control_socket_disable": True,
            "proc_name": PROCESS,
            # Workers touch a file every second to show that they live; on a disk that could block them.
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108 - as gunicorn
            "when_ready": self._when_ready,
            "child_exit": lambda _master, worker: self.metrics.ended(worker.pid),
        }
        for name, value in values.items():
            config.set(name, value)

    def _when_ready(self, master: Arbiter) -> None:
        log.info("listening", address=str(master.LISTENERS[0]), workers=master.num_workers)
        log.info("serving metrics", address=f"{url_of(self.side_listener)}/metrics")


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Hands gunicorn's lines to the standard loggers, whose root writes them; no access log."""

    def setup(self, cfg: Config) -> None:
        """Leave handlers and levels to `logs.configure`."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True

    def info(self, msg: str, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 - as logging takes them
        """Say less: what a person should know of a start and a stop, our own lines say."""
        self.error_log.debug(msg, *args, **kwargs)


class _Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's master with fewer signals: Ctrl-C drains too, and nothing reloads or starts itself anew."""

    handle_int = Arbiter.handle_term

    def init_signals(self) -> None:
        """Ignore the signals to reload: settings are the environment, which does not change."""
        super().init_signals()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    def spawn_worker(self) -> int:
        """Fork. A stop that came before the worker has its own handlers would be lost, so it is held back."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid: int = super().spawn_worker()
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


class _NotCancelled(logging.Filter):
    """Drops the traceback of each request that was cancelled: uvicorn has said how many there are."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


_not_cancelled = _NotCancelled()


class _Server(uvicorn.Server):
    """uvicorn's server with our signals: the drain begins first, and the process ends by exiting."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain
        self._interrupts = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop. uvicorn would raise them again at the end, and so die of them."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number, task)
        yield

    def _on_signal(self, number: signal.Signals, serving: asyncio.Task[Any] | None) -> None:
        # A terminal sends Ctrl-C to master and worker, and the master's SIGTERM may come before it: only
        # the worker's own second one is a person's.
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1 or (self._drain.begun and number == signal.SIGQUIT):
            self.force_exit = True
        self.stop(number.name)
        if not self.started and serving is not None:
            serving.cancel()

    def stop(self, cause: str) -> None:
        """Begin the drain, which ends in the process' end."""
        if not self._drain.begun:
            log.info("draining", cause=cause, requests=len(self.server_state.tasks))
        self._drain.begin()
        self.should_exit = True


class _Worker(UvicornWorker):  # type: ignore[misc]  # uvicorn_worker has no types
    """uvicorn in a gunicorn worker process."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "ws": "none",
        "interface": "asgi3",
        "lifespan": "on",
        "workers": 1,  # else WEB_CONCURRENCY is read
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "date_header": True,
        "callback_notify": None,  # `_sweep` does, during a drain as well
    }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.config.http = self.app.protocol
        self.config.timeout_graceful_shutdown = self.app.settings.drain_seconds
        self._drain = Drain()
        errors = logging.getLogger("uvicorn.error")  # to which super gave gunicorn's handlers: none
        errors.propagate = True
        level = logging.root.level
        errors.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
        errors.addFilter(_not_cancelled)

    def load_wsgi(self) -> None:
        """Build the app, in this process."""
        registry = self.app.metrics.registry(self.app.settings.build_commit)
        pages = {"/metrics": lambda accept: metrics_page(registry, accept)}
        SidePort(self.app.side_listener, pages).start()
        share(Cors(self.app.settings.cors_origins))
        self.app.protocol.request_seconds = self.app.settings.request_timeout_ms / 1000
        self.wsgi = self.app.create_app(self.app.settings, self._drain)

    def init_signals(self) -> None:
        """Ignore what the master ignores, and take a stop that came since the fork."""
        super().init_signals()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = _Server(self.config, self._drain)
        sweeping = asyncio.create_task(self._sweep(server))
        with contextlib.suppress(asyncio.CancelledError):  # stopped before the app was up
            await server.serve(sockets=self.sockets)
        sweeping.cancel()

    async def _sweep(self, server: _Server) -> None:
        """Close connections whose time is out, show the master that the loop turns, and end without it."""
        loop = asyncio.get_running_loop()
        while True:
            self.notify()
            if os.getppid() != self.ppid and not self._drain.begun:
                server.stop("the master is gone")  # else this worker would hold the port for ever
            for connection in list(server.server_state.connections):
                if isinstance(connection, HttpProtocol):
                    connection.expire(loop.time())
            await asyncio.sleep(self.app.protocol.sweep_seconds)
