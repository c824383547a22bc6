"""Connections that leave a server which has become a replica.

After a switch-over whose old primary keeps its connections open, as one behind a
Kubernetes Service does, every write on them is refused for as long as they live. Here such
a refusal ends the connection, so that redis-py's next try makes a new one, which leads to
the new primary. redis-py itself does so for Sentinel's alone (redis 8.1, sentinel.py,
`SentinelManagedConnection`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis.asyncio.connection
import redis.connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection as _Async
    from redis.connection import AbstractConnection as _Blocking
else:
    _Blocking = _Async = object

REPLICA: Final = "it is a replica, which takes no writes: REDIS_URL must lead to the primary"


class _ToPrimary(_Blocking):
    def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """Raises `redis.ConnectionError` for a replica's refusal, besides what redis-py raises."""
        try:
            return super().read_response(*args, **options)
        except ReadOnlyError as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError(REPLICA) from error


class _AsyncToPrimary(_Async):
    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """Raises `redis.ConnectionError` for a replica's refusal, besides what redis-py raises."""
        try:
            return await super().read_response(*args, **options)
        except ReadOnlyError as error:
            await self.disconnect()
            raise RedisConnectionError(REPLICA) from error


class Connection(_ToPrimary, redis.connection.Connection):
    """By TCP."""


class SSLConnection(_ToPrimary, redis.connection.SSLConnection):
    """By TLS."""


class UnixDomainSocketConnection(_ToPrimary, redis.connection.UnixDomainSocketConnection):
    """By a Unix socket."""


class AsyncConnection(_AsyncToPrimary, redis.asyncio.connection.Connection):
    """By TCP, on an event loop."""


class AsyncSSLConnection(_AsyncToPrimary, redis.asyncio.connection.SSLConnection):
    """By TLS, on an event loop."""


class AsyncUnixDomainSocketConnection(_AsyncToPrimary, redis.asyncio.connection.UnixDomainSocketConnection):
    """By a Unix socket, on an event loop."""


BLOCKING: Final = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}
"""The class by the URL's scheme."""

ASYNC: Final = {
    "redis": AsyncConnection,
    "rediss": AsyncSSLConnection,
    "unix": AsyncUnixDomainSocketConnection,
}
