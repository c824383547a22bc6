"""Runs the API: `downloadjobs-api`, or `python -m downloadjobs_api`."""

from __future__ import annotations

import sys

from downloadjobs_api.app import create_app
from downloadjobs_api.server import PROCESS, serve
from downloadjobs_api.settings import ApiSettings
from downloadjobs_core import logs
from downloadjobs_core.settings import load, refuse_arguments

EXIT_INTERRUPTED = 130


def main() -> None:
    """Check the settings, then serve. What is wrong in them ends the process before anything is forked."""
    try:
        refuse_arguments(PROCESS)
        settings = load(ApiSettings, PROCESS)
        logs.configure(level=settings.log_level, log_format=settings.log_format)
        serve(settings, create_app)
    except KeyboardInterrupt:  # before gunicorn has its handlers
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
