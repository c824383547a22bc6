"""Which resource answers at which path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import falcon.asgi

from downloadjobs_api import openapi, reference, resources
from downloadjobs_api.callbacks import Callbacks, WebhookKey
from downloadjobs_api.claims import Claims
from downloadjobs_api.dashboard import (
    CONFIG,
    PATH,
    Dashboard,
    DashboardConfig,
    dashboard_config,
    load_assets,
)
from downloadjobs_api.downloads import Downloads
from downloadjobs_api.drain import Drain
from downloadjobs_api.following import Following
from downloadjobs_api.identity import Identity
from downloadjobs_api.job_list import JobList
from downloadjobs_api.job_retry import JobRetry
from downloadjobs_api.jobs import JobDetail
from downloadjobs_api.mock_files import MockFiles
from downloadjobs_api.operation_table import OPERATIONS
from downloadjobs_api.settings import ApiSettings
from downloadjobs_api.stats import Stats
from downloadjobs_api.streams import JobEvents, Streams, UserEvents
from downloadjobs_api.timelines import Timeline, Timelines
from downloadjobs_api.waiting import Waiting
from downloadjobs_core.objectstore.mock_links import LINK_PATH
from downloadjobs_core.statistics import StatisticsStore


@dataclass(frozen=True, slots=True)
class Services:
    """What resources call; none of it knows HTTP but for `identity` and `waiting`."""

    downloads: Downloads
    identity: Identity
    callbacks: Callbacks
    waiting: Waiting
    streams: Streams
    following: Following
    timelines: Timelines
    statistics: StatisticsStore
    drain: Drain
    mock_files: MockFiles | None


def add_routes(app: falcon.asgi.App[Any, Any], services: Services, settings: ApiSettings) -> None:
    """Add every route."""
    _add_service(app, services, settings)
    _add_downloads(app, services, settings)
    _add_jobs(app, services)
    if settings.dashboard_enabled:
        _add_dashboard(app, services, settings)
    reference.add_routes(
        app, openapi.document(OPERATIONS, settings.auth_mode, anonymous_start=settings.anonymous_start)
    )
    if services.mock_files is not None:
        app.add_route(f"{LINK_PATH}{{token}}", services.mock_files)


def _add_service(app: falcon.asgi.App[Any, Any], services: Services, settings: ApiSettings) -> None:
    mock_storage = services.mock_files is not None
    app.add_route("/", resources.Root(settings.root_message))
    health = resources.Health(
        services.downloads, timeout_seconds=settings.request_timeout_ms / 1000, mock_storage=mock_storage
    )
    app.add_route("/health", health)
    app.add_route("/livez", resources.Livez())
    app.add_route("/readyz", resources.Readyz(services.downloads, services.drain))
    app.add_route("/v1/webhooks/key", WebhookKey(services.callbacks))
    app.add_route("/v1/stats", Stats(services.statistics, services.identity))


def _add_downloads(app: falcon.asgi.App[Any, Any], services: Services, settings: ApiSettings) -> None:
    downloads, identity = services.downloads, services.identity
    start = resources.Start(downloads, identity, anonymous=settings.anonymous_start)
    app.add_route("/v1/download/initiate", resources.Initiate(downloads, services.callbacks, identity))
    app.add_route("/v1/download/status/{job_id}", resources.Status(downloads, identity, services.waiting))
    app.add_route("/v1/download/result/{job_id}", resources.Result(downloads, identity))
    app.add_route("/v1/download/check", resources.Check(downloads, identity))
    app.add_route("/v1/download/start", start)
    app.add_route("/v1/claims", Claims(downloads))


def _add_jobs(app: falcon.asgi.App[Any, Any], services: Services) -> None:
    downloads, identity = services.downloads, services.identity
    streams, following = services.streams, services.following
    app.add_route("/v1/jobs", JobList(downloads, identity))
    app.add_route("/v1/jobs/{job_id}", JobDetail(downloads, identity))
    app.add_route("/v1/jobs/{job_id}/retry", JobRetry(downloads, services.callbacks, identity))
    app.add_route("/v1/jobs/{job_id}/timeline", Timeline(services.timelines, identity))
    app.add_route("/v1/jobs/{job_id}/events", JobEvents(streams, following, identity))
    app.add_route("/v1/events", UserEvents(streams, following, identity))


def _add_dashboard(app: falcon.asgi.App[Any, Any], services: Services, settings: ApiSettings) -> None:
    dashboard = Dashboard(load_assets())
    config = DashboardConfig(dashboard_config(settings, mock_storage=services.mock_files is not None))
    app.add_route(PATH, dashboard)
    app.add_route(f"{PATH}/{{name}}", dashboard)
    app.add_route(f"{PATH}/{CONFIG}", config)
