"""What the API says at its start of the servers behind it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from structlog.testing import capture_logs

from downloadjobs_api.lifespan import Lifespan
from downloadjobs_core.errors import ObjectStoreUnavailableError, QueueUnavailableError


class Servers:
    """A queue that answers from its second try on, and a storage that does from its fourth on."""

    def __init__(self) -> None:
        self.queue = 1
        self.storage = 3

    async def check_queue(self) -> None:
        """Fail, or not."""
        self.queue -= 1
        if self.queue >= 0:
            raise QueueUnavailableError("Redis cannot be reached.")

    async def check_storage(self) -> None:
        """Fail, for two reasons, or not."""
        self.storage -= 1
        if self.storage > 0:
            raise ObjectStoreUnavailableError("S3 cannot be reached.")
        if self.storage == 0:
            raise TimeoutError


def started(servers: Servers) -> Lifespan:
    """What looks at them."""
    nothing = cast("Any", None)
    return Lifespan(
        (),
        nothing,
        downloads=cast("Any", servers),
        metrics=nothing,
        live=nothing,
        deadlines=nothing,
        last_calls=(),
        check_seconds=0,
    )


def test_it_says_what_is_not_ready_and_when_it_is() -> None:
    """Each fault is told once, however long it lasts; and that it is over, once, for each server."""
    servers = Servers()
    lifespan = started(servers)
    with capture_logs() as lines:
        asyncio.run(asyncio.wait_for(lifespan._check(), 5))
    assert [(line["event"], line["server"], line.get("error")) for line in lines] == [
        ("not ready", "queue", "Redis cannot be reached."),
        ("not ready", "storage", "S3 cannot be reached."),
        ("ready again", "queue", None),
        ("not ready", "storage", "it did not answer in time"),
        ("ready again", "storage", None),
    ]


def test_it_says_nothing_where_all_is_well() -> None:
    """Servers that answer at once are no news."""
    servers = Servers()
    servers.queue, servers.storage = 0, -1
    lifespan = started(servers)
    with capture_logs() as lines:
        asyncio.run(asyncio.wait_for(lifespan._check(), 5))
    assert lines == []
