"""kopf's handlers: they translate, and decide nothing.

kopf watches DownloadJobs, keeps the finalizer, and calls again what failed for
a while; everything else is done by the services that are given here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import kopf

from downloadjobs_core import logs
from downloadjobs_core.errors import DownloadJobsError, QueueUnavailableError
from downloadjobs_operator.announcements import Announcement, held_up
from downloadjobs_operator.downloadjob import FINALIZER, GROUP, PLURAL, VERSION
from downloadjobs_operator.kube_client import KubernetesError
from downloadjobs_operator.reconciling import Reconciler
from downloadjobs_operator.tracking import Tracked, Tracking

KOPF_PREFIX: Final = f"kopf.{GROUP}"
"""Of the annotations in which kopf notes what it has handled. Not the project's own prefix: kopf leaves the
annotations under its own out of all it compares."""

HANDLED: Final = f"{KOPF_PREFIX}/last-handled-configuration"
"""The annotation of an object whose creation kopf has handled. A copy of such an object has it from the
start, so kopf never calls for its creation."""

FIRST_DELAY_SECONDS: Final = 1.0
LONGEST_DELAY_SECONDS: Final = 60.0

WATCH_SERVER_SECONDS: Final = 240
"""The API server ends a watch after this, and kopf goes on where it stood. An int: 240.0 is refused."""

WATCH_CLIENT_SECONDS: Final = 300.0
"""The client's own limit, in case the server's end of it never comes."""

WATCH_INACTIVITY_SECONDS: Final = 75.0
"""Bookmarks come about every minute: a watch that is silent for longer is dead, and begun anew."""

WORKER_IDLE_SECONDS: Final = 1.0
"""How long kopf keeps an object's own task after its last event: thousands of them are much memory."""

ERROR_BACKOFFS: Final = (0.5, 1, 2, 3, 5, 5, 5, 5)
"""Seconds between kopf's tries while the API server is away: its own grow to 21, which is how late it would
notice that the server is back."""

CONNECT_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 30.0

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers call."""

    tracking: Tracking
    reconciler: Reconciler
    seen: Callable[[Tracked], None]
    """Called with each object that the watch shows."""
    listed: Callable[[Tracked], None]
    """Called with each object that was there before the watch began, or is a copy of another one: kopf may
    not call for what was missed of these."""
    gone: Callable[[str], None]
    """Called with the uid of each object that is gone."""
    finalizer_give_up_seconds: float
    gave_up: Callable[[], None]
    """Called when an object was let go although its job could not be withdrawn."""
    tell: Callable[[Tracked, Announcement], None]
    """Called with what is to be told by an Event."""
    reconciling: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
    """Around each call of a handler, given its name."""


def kopf_settings(*, peering_name: str | None, peering_priority: int) -> kopf.OperatorSettings:
    """Kopf's settings, where its defaults do not suit."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=KOPF_PREFIX, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix=KOPF_PREFIX,
        v1=False,
        # Only the spec counts, and its ids never change; a copy of them would double the object.
        ignored_fields=["spec.fileIds", "metadata"],
    )
    settings.watching.server_timeout = WATCH_SERVER_SECONDS
    settings.watching.client_timeout = WATCH_CLIENT_SECONDS
    settings.watching.inactivity_timeout = WATCH_INACTIVITY_SECONDS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.chunk_size = 500
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
    resource = (GROUP, VERSION, PLURAL)

    @kopf.on.login(registry=registry)
    async def sign_in(**_: Any) -> kopf.AiohttpSession:  # noqa: ANN401 - whatever kopf passes
        return login()

    @kopf.on.event(*resource, registry=registry)
    async def seen(event: Mapping[str, Any], **_: Any) -> None:  # noqa: ANN401
        if event["type"] == "DELETED":
            services.gone(event["object"]["metadata"]["uid"])
            return
        tracked = services.tracking.see(event["object"])
        services.seen(tracked)
        if event["type"] is None or (event["type"] == "ADDED" and _is_copy(event["object"], tracked)):
            services.listed(tracked)

    @kopf.on.create(*resource, registry=registry, id="submit", param="submit")
    @kopf.on.update(*resource, registry=registry, id="follow", field="spec", param="follow")
    async def changed(body: kopf.Body, retry: int, param: Any = "", **_: Any) -> None:  # noqa: ANN401
        tracked = services.tracking.see(body)
        with services.reconciling(param):
            await _translated(retry, _reconcile(services, tracked, body))

    @kopf.on.delete(*resource, registry=registry, id="withdraw")
    async def deleted(body: kopf.Body, retry: int, **_: Any) -> None:  # noqa: ANN401
        with services.reconciling("withdraw"):
            await _withdraw(services, services.tracking.see(body), retry)

    return registry


def _is_copy(body: Mapping[str, Any], tracked: Tracked) -> bool:
    """Whether a new object, of which no job was made yet, says that it was handled."""
    handled = HANDLED in (body["metadata"].get("annotations") or {})
    return handled and not (tracked.status.get("jobId") or tracked.finished or tracked.going)


def delay_seconds(retry: int) -> float:
    """How long to wait after the attempt with this number, from 0, has failed."""
    return float(min(FIRST_DELAY_SECONDS * 2 ** min(retry, 16), LONGEST_DELAY_SECONDS))


async def _reconcile(services: Services, tracked: Tracked, body: Mapping[str, Any]) -> None:
    try:
        await services.reconciler.reconcile(tracked, body)
    finally:
        services.seen(tracked)


async def _withdraw(services: Services, tracked: Tracked, retry: int) -> None:
    """End what a job still wants, or let its object go when that took too long."""
    waited = time.time() - (tracked.dj.deleted_at or time.time())
    try:
        await services.reconciler.withdraw(tracked)
    except DownloadJobsError as error:
        if waited < services.finalizer_give_up_seconds:
            if isinstance(error, QueueUnavailableError) and not tracked.held_up:
                tracked.held_up = True
                services.tell(
                    tracked, held_up(tracked.dj, give_up_seconds=services.finalizer_give_up_seconds)
                )
            raise kopf.TemporaryError(str(error), delay=delay_seconds(retry)) from error
        services.gave_up()
        log.warning(
            "let go without its job: it may still run, and its result goes only with its time",
            namespace=tracked.dj.namespace,
            name=tracked.dj.name,
            job_id=tracked.job_id,
            waited_seconds=round(waited),
            error=str(error),
        )


async def _translated(retry: int, work: Awaitable[Any]) -> None:
    """Faults that pass become kopf's kind, which calls again."""
    try:
        await work
    except (DownloadJobsError, KubernetesError) as error:
        raise kopf.TemporaryError(str(error), delay=delay_seconds(retry)) from error
