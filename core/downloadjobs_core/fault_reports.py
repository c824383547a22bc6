"""Reports unexpected faults to Sentry: those that are logged with their traceback.

A log line already has the request, job and trace that it is about, in every thread. So faults are taken
from the log, and nothing else of Sentry's SDK is in use: no hook in a library, no header, body, cookie,
query, local variable or breadcrumb. It is imported by `start` alone, where there is a `SENTRY_DSN`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from downloadjobs_core import __version__, logs

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

    from downloadjobs_core.telemetry_settings import TelemetrySettings

FLUSH_SECONDS: Final = 2.0
"""How long the end of a process waits for its last reports to be sent."""

Report = Callable[[BaseException, str, Mapping[str, str]], None]
"""Told of a fault: the exception, what the log calls it, and `logs.CONTEXT` where it is known."""

_QUERY: Final = re.compile(r"(\w+://[^\s?'\"]+)\?[^\s'\"]+")
_LOGIN: Final = re.compile(r"(\w+://)[^\s/@'\"]+@")


def without_secrets(text: str) -> str:
    """A text whose URLs have no query and no login: presigned URLs and Redis' are secrets."""
    return _LOGIN.sub(r"\1…@", _QUERY.sub(r"\1?…", text))


class FaultHandler(logging.Handler):
    """A handler of logs that reports the lines with a fault of ours in them."""

    def __init__(self, report: Report) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Report a line that carries an exception; never fail because of it."""
        try:
            line = record.msg if isinstance(record.msg, dict) else {}
            error = _exception_in(line.get("exc_info") or record.exc_info)
            if error is None:
                return
            about = {**logs.about(), **{name: line[name] for name in logs.CONTEXT if line.get(name)}}
            self._report(error, str(line.get("event") or record.getMessage()), about)
        except Exception:  # noqa: BLE001 - logging's own way with a handler that fails
            self.handleError(record)


def _exception_in(found: Any) -> Exception | None:  # noqa: ANN401 - as logging takes it
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    return error if isinstance(error, Exception) else None


def start(settings: TelemetrySettings, process: str) -> Callable[[], None]:
    """Begin to report faults, or do nothing without a DSN.

    Args:
        settings: have the DSN, and the environment that is told with each fault.
        process: the name of the process, told with each fault.

    Returns:
        to be called at the end of the process: sends what waits, for `FLUSH_SECONDS` at most.
    """
    if settings.sentry_dsn is None:
        return lambda: None
    import sentry_sdk  # noqa: PLC0415

    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        environment=settings.environment.value,
        release=f"downloadjobs@{__version__}",
        default_integrations=False,
        auto_enabling_integrations=False,
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        auto_session_tracking=False,
        send_client_reports=False,
        shutdown_timeout=FLUSH_SECONDS,
        before_send=_cleaned,
    )

    def report(error: BaseException, event: str, about: Mapping[str, str]) -> None:
        with sentry_sdk.new_scope() as scope:
            scope.set_tag("process", process)
            scope.set_tag("event", event)
            for name, value in about.items():
                scope.set_tag(name, value)
            scope.capture_exception(error)

    logging.getLogger().addHandler(FaultHandler(report))
    return lambda: sentry_sdk.flush(FLUSH_SECONDS)


def _cleaned(event: Event, _hint: Hint) -> Event:
    for fault in event.get("exception", {}).get("values", ()):
        fault["value"] = without_secrets(str(fault.get("value") or ""))
    event.pop("breadcrumbs", None)
    return event
