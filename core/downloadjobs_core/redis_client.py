"""Connections to Redis or Valkey."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 5.0
"""Longer than the longest blocking read (one second), shorter than a client waits for an answer."""

HEALTH_CHECK_SECONDS: Final = 15
"""A connection unused for longer is pinged first: load balancers drop idle ones silently."""

RETRIES: Final = 2
"""Tries after a broken connection. The scripts accept a call that comes twice."""


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Where Redis is: a `redis://` or `rediss://` URL, and how to trust its certificate."""

    url: str
    ca_file: str | None = None


def _options(config: RedisConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "client_name": "downloadjobs",
    }
    if config.url.startswith("rediss://"):
        options |= {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": config.ca_file}
    return options


def connect(config: RedisConfig) -> Redis:
    """A blocking client with one pool. Opens no connection yet."""
    retry = Retry(
        ExponentialWithJitterBackoff(cap=0.5, base=0.05),
        RETRIES,
        supported_errors=(RedisConnectionError, RedisTimeoutError),
    )
    return redis.Redis.from_url(config.url, retry=retry, **_options(config))


def connect_async(config: RedisConfig, *, max_connections: int) -> AsyncRedis:
    """A client for an event loop, with one pool whose callers wait for a free connection."""
    retry = AsyncRetry(
        ExponentialWithJitterBackoff(cap=0.5, base=0.05),
        RETRIES,
        supported_errors=(RedisConnectionError, RedisTimeoutError),
    )
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        config.url,
        max_connections=max_connections,
        timeout=ANSWER_SECONDS,
        retry=retry,
        **_options(config),
    )
    return redis.asyncio.Redis.from_pool(pool)
