"""Connections to Redis or Valkey: one server, or the master that Sentinels name."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from downloadjobs_core.primary_connections import ASYNC, BLOCKING

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0
"""Longer than the longest blocking read (one second), shorter than a client waits for an answer."""

RETRIES: Final = 2
"""Tries after a broken connection. The scripts accept a call that comes twice: a job changes or ends once, a
lease whose answer was lost is given again (pop.lua), and only a request may be counted twice."""

CALL_SECONDS: Final = 8.0
"""How long a call on an event loop takes at most, all tries together: time for one answer that does not come
and a new connection to who took over. redis-py tries to connect within each try, and both wait: with a server
that is frozen they take 45 s."""


NO_ANSWER: Final = f"it gave no answer in {CALL_SECONDS:g} s"


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Where Redis is.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`, with the login. With Sentinels, only its login counts.
        ca_file: certificates to trust instead of the system's (PEM).
        sentinels: host and port of each; they say where the master is, also after a failover.
        sentinel_master: the name they know it by.
    """

    url: str = field(repr=False)
    ca_file: str | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_master: str = ""

    @property
    def scheme(self) -> str:
        """The URL's: redis, rediss or unix."""
        return self.url.partition(":")[0].lower()


def _options(config: RedisConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        # No ping before commands: it is tried as often within each try, and a frozen server would be noticed
        # after a minute. A connection that a load balancer dropped fails, and the next try has a new one.
        "health_check_interval": 0,
        "client_name": "downloadjobs",
    }
    if config.scheme == "rediss":
        options |= {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": config.ca_file}
    return options


def _sentinel_options(config: RedisConfig) -> dict[str, Any]:
    """What the URL says beside its host, which the Sentinels give."""
    parsed = redis.connection.parse_url(config.url)  # type: ignore[no-untyped-call]
    login = {name: parsed[name] for name in ("username", "password", "db") if parsed.get(name)}
    return {**_options(config), **login, "ssl": config.scheme == "rediss"}


def connect(config: RedisConfig) -> Redis:
    """A blocking client with one pool. Opens no connection yet."""
    retry = Retry(
        ExponentialWithJitterBackoff(cap=0.5, base=0.05),
        RETRIES,
        supported_errors=(RedisConnectionError, RedisTimeoutError),
    )
    if config.sentinels:
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            config.sentinels, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=CONNECT_SECONDS
        )
        master: Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
            config.sentinel_master, retry=retry, **_sentinel_options(config)
        )
        return master
    return redis.Redis.from_url(
        config.url, retry=retry, connection_class=BLOCKING[config.scheme], **_options(config)
    )


class BoundedPipeline(Pipeline):
    """Commands sent together, whose answers come within `CALL_SECONDS`."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - as redis-py has it
        """Send them. Raises `redis.TimeoutError` besides what redis-py raises."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await super().execute(raise_on_error)
        except TimeoutError:
            raise RedisTimeoutError(NO_ANSWER) from None


class BoundedRedis(redis.asyncio.Redis):
    """A client each of whose calls ends within `CALL_SECONDS`."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """Send a command. Raises `redis.TimeoutError` besides what redis-py raises."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except TimeoutError:
            raise RedisTimeoutError(NO_ANSWER) from None

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> BoundedPipeline:  # noqa: FBT001, FBT002 - as redis-py has it
        """Commands to be sent together."""
        return BoundedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


def connect_async(config: RedisConfig, *, max_connections: int) -> AsyncRedis:
    """A client for an event loop, with one pool whose callers wait for a free connection."""
    retry = AsyncRetry(
        ExponentialWithJitterBackoff(cap=0.5, base=0.05),
        RETRIES,
        supported_errors=(RedisConnectionError, RedisTimeoutError),
    )
    if config.sentinels:
        sentinel = AsyncSentinel(  # type: ignore[no-untyped-call]
            config.sentinels, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=CONNECT_SECONDS
        )
        master: AsyncRedis = sentinel.master_for(
            config.sentinel_master,
            redis_class=BoundedRedis,
            max_connections=max_connections,
            retry=retry,
            **_sentinel_options(config),
        )
        return master
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        config.url,
        max_connections=max_connections,
        timeout=ANSWER_SECONDS,
        retry=retry,
        connection_class=ASYNC[config.scheme],
        **_options(config),
    )
    return BoundedRedis.from_pool(pool)
