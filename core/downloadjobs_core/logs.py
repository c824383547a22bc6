"""Logs: one JSON object a line, or text for people, from our code and every library alike.

Fields: `timestamp` (UTC, RFC 3339 with `Z`), `level`, `logger`, `event`, and
within a request or a job `request_id`, `job_id` and `trace_id`. `docs/logs.md` lists the rest.
"""

from __future__ import annotations

import contextvars
import logging
import logging.config
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar

import structlog


class Cause(Protocol):
    """What log lines are about, such as a request."""

    def log_fields(self) -> Mapping[str, str]:
        """Some of `CONTEXT`, with their values."""


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

CONTEXT: Final = ("request_id", "job_id", "trace_id")
"""What binds a line to its cause. In JSON each stands in every line, empty where there is no cause."""


_cause: ContextVar[Cause | None] = ContextVar("cause", default=None)


def caused_by(cause: Cause) -> None:
    """From here on, in this task, log lines carry the cause's fields; they are asked for only by a line."""
    _cause.set(cause)


def _with_cause(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    cause = _cause.get()
    if cause is not None:
        event.update(cause.log_fields())
    return event


def _with_context(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in CONTEXT:
        event.setdefault(name, "")
    return event


def _without_library_extras(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event.pop("color_message", None)  # uvicorn's copy of its message with terminal colours
    if "k8s_ref" in event:  # kopf's, with all of its settings in every line
        event.pop("settings", None)
        event.pop("k8s_skip", None)
        reference = event.pop("k8s_ref")
        event["namespace"], event["name"] = reference.get("namespace"), reference.get("name")
    return event


def configure(*, level: str = "info", log_format: Literal["json", "text"] | None = None) -> dict[str, Any]:
    """Send every log line of the process to standard error.

    Args:
        level: the lowest level shown: debug, info, warning or error.
        log_format: `json` or `text`; by default text on a terminal, else JSON.

    Returns:
        the `logging.config` dictionary that was applied, for servers that apply one themselves.
    """
    as_text = log_format == "text" or (log_format is None and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_cause,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if as_text
        else [
            _with_context,
            # Never with local variables: they hold headers, URLs and secrets.
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(),
        ]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [*shared, structlog.stdlib.ExtraAdder()],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _without_library_extras,
                    *renderers,
                ],
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "structured",
            }
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # One line for each task and poll, which our own lines say better.
            "huey": {"level": "WARNING" if level != "debug" else "DEBUG"},
            # "Connection pool is full" and retries: the object store reports its faults itself.
            "urllib3": {"level": "ERROR" if level != "debug" else "DEBUG"},
        },
    }
    logging.config.dictConfig(config)
    return config


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A structured logger, named after its module."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound


def about() -> dict[str, str]:
    """Those of `CONTEXT` that a line logged here and now would carry."""
    bound: dict[str, Any] = dict(structlog.contextvars.get_contextvars())
    cause = _cause.get()
    if cause is not None:
        bound.update(cause.log_fields())
    return {name: str(bound[name]) for name in CONTEXT if bound.get(name)}


def in_context(call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A call for another thread whose log lines keep the fields bound here and now.

    Each call of it runs in a copy of its own, so several threads may make it at once.
    """
    bound = contextvars.copy_context()

    def within(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return bound.copy().run(call, *args, **kwargs)

    return within


def context(**values: str) -> AbstractContextManager[None]:
    """Bind fields to every line logged within, from libraries too."""
    return structlog.contextvars.bound_contextvars(**values)
