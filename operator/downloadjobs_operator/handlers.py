"""What kopf is used for: it lists and watches DownloadJobs, and pauses for a peer with more priority.

Its handlers are one, which hands each event on. What kopf calls "changing" is not used: it notes
in annotations what it has handled, which whoever may write annotations could change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import kopf

from downloadjobs_operator.downloadjob import GROUP, PLURAL, VERSION
from downloadjobs_operator.kube import PAGE
from downloadjobs_operator.tracking import Tracked, Tracking

UNUSED_FINALIZER: Final = f"kopf.{GROUP}/unused"
"""Kopf removes its finalizer wherever it is and no handler of its own wants it: so it must not be ours."""

WATCH_SERVER_SECONDS: Final = 240
"""The API server ends a watch after this, and kopf goes on where it stood. An int: 240.0 is refused."""

WATCH_CLIENT_SECONDS: Final = 300.0
"""The client's own limit, in case the server's end of it never comes."""

WATCH_INACTIVITY_SECONDS: Final = 75.0
"""Bookmarks come about every minute: a watch that is silent for longer is dead, and begun anew."""

WORKER_IDLE_SECONDS: Final = 0.1
"""How long kopf keeps an object's own task after its last event: thousands of them are much memory."""

ERROR_BACKOFFS: Final = (0.5, 1, 2, 3, 5, 5, 5, 5)
"""Seconds between kopf's tries while the API server is away: its own grow to 21, which is how late it would
notice that the server is back."""

CONNECT_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Services:
    """What the handler calls."""

    tracking: Tracking
    seen: Callable[[Tracked], None]
    """Called with each object that the watch shows."""
    listed: Callable[[Tracked], None]
    """Called with each object that was there before the watch began: events of its job may be missed."""
    gone: Callable[[Tracked], None]
    """Called with each object that the watch shows the end of."""


class _Nothing(kopf.DiffBaseStorage, kopf.ProgressStorage):
    """Keeps nothing in objects, and reads nothing that somebody wrote there as kopf would."""

    def __init__(self) -> None:
        kopf.DiffBaseStorage.__init__(self)

    def build(self, **_: Any) -> Any:  # noqa: ANN401 - kopf's own type of a dict
        return {}

    def fetch(self, **_: Any) -> Any:  # noqa: ANN401
        return None

    def store(self, **_: Any) -> None:  # noqa: ANN401
        """Nothing."""

    def purge(self, **_: Any) -> None:  # noqa: ANN401
        """Nothing."""

    def touch(self, **_: Any) -> None:  # noqa: ANN401
        """Nothing."""

    def clear(self, *, essence: Any) -> Any:  # noqa: ANN401
        return essence


def kopf_settings(*, peering_name: str | None, peering_priority: int) -> kopf.OperatorSettings:
    """Kopf's settings, where its defaults do not suit."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = UNUSED_FINALIZER
    settings.persistence.progress_storage = settings.persistence.diffbase_storage = _Nothing()
    settings.watching.server_timeout = WATCH_SERVER_SECONDS
    settings.watching.client_timeout = WATCH_CLIENT_SECONDS
    settings.watching.inactivity_timeout = WATCH_INACTIVITY_SECONDS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.chunk_size = PAGE
    settings.queueing.idle_timeout = WORKER_IDLE_SECONDS
    settings.networking.error_backoffs = ERROR_BACKOFFS
    settings.networking.connect_timeout = CONNECT_SECONDS
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.posting.enabled = False  # Events tell transitions, which the status mirror knows
    settings.scanning.disabled = True  # no rights to watch namespaces and CustomResourceDefinitions
    if peering_name is None:
        settings.peering.standalone = True
    else:
        settings.peering.name = peering_name
        settings.peering.mandatory = True
        settings.peering.priority = peering_priority
    return settings


def create_registry(services: Services, login: Callable[[], kopf.AiohttpSession]) -> kopf.OperatorRegistry:
    """The handlers, in a registry of their own."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def sign_in(**_: Any) -> kopf.AiohttpSession:  # noqa: ANN401 - whatever kopf passes
        return login()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def seen(event: Mapping[str, Any], **_: Any) -> None:  # noqa: ANN401
        tracked = services.tracking.see(event["object"])
        if event["type"] == "DELETED":
            services.gone(tracked)
            return
        services.seen(tracked)
        if event["type"] is None:
            services.listed(tracked)

    return registry
