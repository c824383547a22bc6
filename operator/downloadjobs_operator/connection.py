"""How the operator reaches the API server: one set of credentials, for kopf's requests and its own.

In a pod these are the ServiceAccount's, whose token is read anew as Kubernetes
renews it; elsewhere the current context of the kubeconfig.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import kopf
import yaml
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException

from downloadjobs_core import logs

USER_AGENT: Final = "downloadjobs-operator"

EVERYWHERE: Final = "all namespaces"

REFUSALS: Final = frozenset({403, 404})
"""Forbidden; and not found, where the definition is gone."""

LONGEST_REFUSAL_SECONDS: Final = 20.0
"""Between two tries of a namespace that is refused: shorter than a request of kopf's may take."""

log = logs.logger(__name__)


class NoClusterError(Exception):
    """There is no way to a cluster: not in a pod, and no kubeconfig."""


@dataclass(slots=True)
class WatchClock:
    """When the watch of DownloadJobs was last heard: its beginning, an event, or a bookmark.

    Attributes:
        heard_at: by `time.monotonic`; 0 before the first time.
        open: how many watches are under way. None means that what is known of objects may be old.
    """

    heard_at: float = 0.0
    open: int = 0
    last_event_at: float = field(default=0.0)
    """Seconds since 1970, for people and metrics."""
    refused: dict[str, str] = field(default_factory=dict)
    """The namespaces that cannot be watched now, and what the API server says to that."""

    def hear(self) -> None:
        """Note that something came."""
        self.heard_at = time.monotonic()
        self.last_event_at = time.time()

    @property
    def silent_seconds(self) -> float:
        """Since when nothing came; 0 before the watch began."""
        return time.monotonic() - self.heard_at if self.heard_at else 0.0


async def load_configuration() -> Configuration:
    """Where the API server is, and the credentials for it.

    Raises:
        NoClusterError
    """
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        try:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError, TypeError, yaml.YAMLError) as error:
            raise NoClusterError(
                f"This is no pod with a ServiceAccount, and the kubeconfig cannot be used ({error})."
                " Set KUBECONFIG to a file whose current context is the cluster."
            ) from error
    configuration.proxy = configuration.proxy or _proxy_for(configuration.host)
    return configuration


def _proxy_for(host: str) -> str | None:
    """The proxy that the environment names for a host.

    Asked for once: aiohttp's own `trust_env` reads it, and ~/.netrc in a thread, before every request.
    """
    parts = urlsplit(host)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def api_client(configuration: Configuration) -> ApiClient:
    """A client for the operator's own requests."""
    configuration.client_session_kwargs = {"trust_env": False}
    return ApiClient(configuration)


def kopf_session(configuration: Configuration, clock: WatchClock) -> kopf.AiohttpSession:
    """A session for kopf with the same credentials, whose watch is heard by `clock`."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=_tls(configuration)),
        headers={"User-Agent": USER_AGENT},
        middlewares=(_Authorize(configuration), _BearRefusals(clock), _HearWatch(clock)),
        proxy=configuration.proxy,
    )
    return kopf.AiohttpSession(aiohttp_session=session, server=configuration.host)


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Authorize:
    """Adds the token as it is now, which in a pod changes every hour."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        settings = await self._configuration.auth_settings()
        token = settings.get("BearerToken")
        if token is not None and token["value"]:
            request.headers["Authorization"] = token["value"]
        return await handler(request)


class NamespaceRefusedError(aiohttp.ClientPayloadError):
    """A namespace cannot be watched now. For kopf a broken connection, after which it begins anew."""


class _BearRefusals:
    """Lets a namespace that is gone, or in which the operator has no rights, be tried again, slowly.

    kopf would end itself, and with that the work in all other namespaces.
    """

    def __init__(self, clock: WatchClock) -> None:
        self._refused = clock.refused
        self._tries: dict[str, int] = {}

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        path = request.url.path
        if request.method != "GET" or not path.endswith("/downloadjobs"):
            return response
        *_, place = path.removesuffix("/downloadjobs").partition("/namespaces/")
        namespace = place or EVERYWHERE
        if response.status not in REFUSALS:
            if self._refused.pop(namespace, None) is not None:
                log.info("the namespace is served again", namespace=namespace)
            self._tries.pop(namespace, None)
            return response
        tries = self._tries[namespace] = self._tries.get(namespace, 0) + 1
        problem = await _reason(response)
        if namespace not in self._refused:
            log.warning(
                "a namespace cannot be served: it is not there, or the operator has no rights in it. The"
                " others are served, and it is tried again",
                namespace=namespace,
                error=problem,
            )
        self._refused[namespace] = problem
        await asyncio.sleep(min(2.0**tries, LONGEST_REFUSAL_SECONDS))
        raise NamespaceRefusedError(problem)


async def _reason(response: ClientResponse) -> str:
    """What the API server's Status says."""
    try:
        return str((await response.json(content_type=None)).get("message", response.status))
    except (ValueError, AttributeError, aiohttp.ClientError):
        return str(response.status)


class _HearWatch:
    """Tells the clock of everything that comes on a watch.

    kopf keeps bookmarks to itself, so its handlers cannot tell a quiet cluster from a dead watch.
    """

    def __init__(self, clock: WatchClock) -> None:
        self._clock = clock

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        watched = request.url.query.get("watch") == "true" and request.url.path.endswith("/downloadjobs")
        if watched and response.status == 200:  # noqa: PLR2004 - HTTP's OK
            response.content = _HeardStream(response.content, self._clock)  # type: ignore[assignment]
        return response


class _HeardStream:
    """A response's body that tells the clock of each chunk."""

    def __init__(self, stream: aiohttp.StreamReader, clock: WatchClock) -> None:
        self._stream = stream
        self._clock = clock

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """As kopf reads it."""
        self._clock.open += 1
        self._clock.hear()
        try:
            async for chunk in self._stream.iter_chunked(size):
                self._clock.hear()
                yield chunk
        finally:
            self._clock.open -= 1
