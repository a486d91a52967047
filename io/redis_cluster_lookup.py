"""Reads of a Redis cluster for code on an event loop, through redis-py's client, which follows slots that move."""

import os
from collections.abc import Sequence
from typing import Any

import redis.exceptions as errors
from redis.asyncio.cluster import RedisCluster

from .errors import BackendUnavailableError, UsageError
from .redis_address import PASSWORD_VARIABLE, RedisServer
from .redis_lookup import DEADLINE_SECONDS, NO_TEXT
from .telemetry.doors import async_database_call
from .telemetry.tracing import Attributes

_REFUSED = (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError)


class RedisClusterLookup:
    """Reads of a cluster; methods and errors as ``io.redis_lookup.RedisLookup``. For one event loop.

    Args:
        server: one of its nodes.
        setting: where the address came from, for errors.
        deadline_seconds: of one request to a node.
    """

    def __init__(self, server: RedisServer, setting: str, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._name = f"--{setting}: {server}"
        tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": server.ca} if server.tls else {}
        self._client: Any = RedisCluster(
            host=server.host,
            port=server.port,
            username=server.user,
            password=os.environ.get(PASSWORD_VARIABLE) or server.password,
            socket_timeout=deadline_seconds,
            socket_connect_timeout=deadline_seconds,
            **tls,
        )

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return {"db.system.name": "redis"}

    @async_database_call("GET")
    async def get(self, key: str) -> bytes | None:
        """The value of a key, None where there is none, ``NO_TEXT`` where it is no string."""
        try:
            return await self._client.get(key)
        except errors.ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return NO_TEXT
            raise self._translated(error) from None
        except (errors.RedisError, errors.RedisClusterException, OSError) as error:
            raise self._translated(error) from None

    @async_database_call("MGET")
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys in their order, by one MGET a slot."""
        try:
            values: list[bytes | None] = await self._client.mget_nonatomic(keys) if keys else []
        except (errors.RedisError, errors.RedisClusterException, OSError) as error:
            raise self._translated(error) from None
        for number, value in enumerate(values):
            if value is None:  # nil, for a key of another type too
                values[number] = await self.get(keys[number])
        return values

    async def check(self) -> None:
        """Connects to the cluster and asks a node for an answer."""
        try:
            await self._client.ping()
        except (errors.RedisError, errors.RedisClusterException, OSError) as error:
            raise self._translated(error) from None

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.aclose()

    def _translated(self, error: Exception) -> UsageError | BackendUnavailableError:
        # redis-py's errors quote commands, and with them user ids: only their kind is told.
        kind = type(error).__name__
        if isinstance(error, _REFUSED):
            return UsageError(f"{self._name} refuses the user or password ({kind}); set {PASSWORD_VARIABLE}")
        if "Cluster mode is not enabled" in str(error):
            return UsageError(
                f"{self._name} is no cluster; write {self._name.partition(': ')[2].replace('-cluster', '')}"
            )
        return BackendUnavailableError(f"{self._name} is out of reach ({kind})")
