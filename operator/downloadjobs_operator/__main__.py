"""The operator process: `downloadjobs-operator`, or `python -m downloadjobs_operator`."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from downloadjobs_core import logs
from downloadjobs_core.settings import load, refuse, refuse_arguments
from downloadjobs_operator.app import EndedError, run
from downloadjobs_operator.autoscaler.limits import LimitsError
from downloadjobs_operator.connection import NoClusterError
from downloadjobs_operator.leadership import LeadershipLostError
from downloadjobs_operator.settings import OperatorSettings

NAME: Final = "downloadjobs-operator"

EXIT_FAILED: Final = 1

log = logs.logger("downloadjobs_operator")


def main() -> None:
    """Run until a signal. Exits with 2 if settings are wrong, and with 1 to be started again."""
    refuse_arguments(NAME)
    settings = load(OperatorSettings, NAME)
    logs.configure(level=settings.log_level, log_format=settings.log_format)
    if settings.log_level != "debug":
        # One line for each step of each object, which our own lines say better.
        for library in ("kopf.objects", "kopf.activities"):
            logging.getLogger(library).setLevel(logging.WARNING)
        # It tells every fault each time, and with none of the names that `leadership.py` tells it with, once.
        logging.getLogger("kubernetes.aio.leaderelection").setLevel(logging.CRITICAL + 1)
    try:
        # Not by uvloop: after a TLS connection was reset it may spin, and open no connection any more (0.23).
        asyncio.run(run(settings))
    except NoClusterError as error:
        raise SystemExit(refuse(NAME, [str(error)])) from None
    except LimitsError as error:
        raise SystemExit(refuse(NAME, [f"AUTOSCALER_FILE: {error}"])) from None
    except OSError as error:
        raise SystemExit(
            refuse(NAME, [f"PORT: cannot listen on {settings.port}: {error.strerror}"])
        ) from None
    except LeadershipLostError as error:
        log.critical("leadership lost; another operator may be at work", error=str(error))
        raise SystemExit(EXIT_FAILED) from None
    except EndedError as error:
        log.critical("ended", error=str(error))
        raise SystemExit(EXIT_FAILED) from None


if __name__ == "__main__":
    main()
