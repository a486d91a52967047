"""How often an API key may ask: a token bucket a key, drained by each request's cost, filled evenly over a minute.

A bucket holds one minute's worth. With Redis all processes share it: one atomic script, by the server's clock. While
Redis gives no answer each process limits by itself, from a full bucket: a key is never locked out by that, and never
gets more than its limit for each process. Where the cache is SQLite there is one process, which limits by itself.

Amounts are whole numbers, exact in Lua's doubles: 60,000,000 parts make one request, and each microsecond gives back as
many parts as there are requests a minute.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from ..domain.access import CallerKind, Identity
from ..io.addresses import Address
from ..io.breaker import Admission, Breaker
from ..io.redis_address import PASSWORD_VARIABLE, redis_server_of
from .api_keys import ApiKeys
from .context import FunctionError

PARTS: Final = 60_000_000
"""Parts of a bucket that one request of cost 1 takes; also the microseconds of a minute."""

DEADLINE_SECONDS: Final = 0.1
"""What a request waits for Redis at most."""

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 10.0
_CONNECTIONS: Final = 16
_SECOND: Final = 1_000_000

_SCRIPT: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local rate, cost = tonumber(ARGV[1]), tonumber(ARGV[2]) * 60000000
local full = rate * 60000000
local used, at = 0, now
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'string' then
  local a, b = string.match(stored, '^(%d+) (%d+)$')
  if a then used, at = tonumber(a), tonumber(b) end
end
used = math.min(full, math.max(0, used - math.max(0, now - at) * rate))
if used + cost > full then
  return {0, math.floor((full - used) / 60000000), math.ceil((used + cost - full) / rate)}
end
used = used + cost
redis.call('SET', KEYS[1], string.format('%.0f %.0f', used, now), 'PX', math.ceil(used / rate / 1000) + 1000)
return {1, math.floor((full - used) / 60000000), 0}
"""
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_log = logging.getLogger("fan_identity.rate_limits")


class Taken(NamedTuple):
    """What came of taking from a bucket.

    Attributes:
        allowed: whether the request may go on; if not, nothing was taken.
        remaining: requests of cost 1 that could follow at once.
        retry_after: whole seconds, rounded up, after which the same request would be allowed; 0 where it is.
    """

    allowed: bool
    remaining: int
    retry_after: int


class RateLimiter(Protocol):
    """Keeps buckets by name."""

    async def take(self, name: str, per_minute: int, cost: int = 1) -> Taken:
        """Takes a request's cost out of a bucket, or nothing where there is not enough in it.

        Args:
            name: of the API key.
            per_minute: what the bucket holds, and what flows in a minute.
            cost: of the request, at least 1; more than ``per_minute`` counts as ``per_minute``.
        """
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


class Bucket(NamedTuple):
    """What is used of a bucket.

    Attributes:
        used: in parts.
        at: when that was, in microseconds.
    """

    used: int = 0
    at: int = 0


def take_from(bucket: Bucket, now: int, per_minute: int, cost: int) -> tuple[Bucket, Taken]:
    """Takes from a bucket; pure, and the same arithmetic as the script's.

    Args:
        bucket: as it was left.
        now: microseconds; earlier than ``bucket.at`` counts as that.
        per_minute: what it holds.
        cost: of the request.

    >>> take_from(Bucket(), 0, 2, 1)
    (Bucket(used=60000000, at=0), Taken(allowed=True, remaining=1, retry_after=0))
    """
    full = per_minute * PARTS
    price = _capped(cost, per_minute) * PARTS
    used = min(full, max(0, bucket.used - max(0, now - bucket.at) * per_minute))
    if used + price > full:
        wait = -((full - used - price) // per_minute)  # microseconds, rounded up
        return Bucket(used, now), Taken(False, (full - used) // PARTS, _seconds(wait))
    used += price
    return Bucket(used, now), Taken(True, (full - used) // PARTS, 0)


class LocalRateLimiter:
    """Keeps the buckets of this process.

    Args:
        clock: microseconds, monotonic.
    """

    def __init__(self, clock: Callable[[], int] = lambda: time.monotonic_ns() // 1_000) -> None:
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    async def take(self, name: str, per_minute: int, cost: int = 1) -> Taken:
        """As ``RateLimiter.take``."""
        self._buckets[name], taken = take_from(self._buckets.get(name, Bucket()), self._clock(), per_minute, cost)
        return taken

    async def close(self) -> None:
        """As ``RateLimiter.close``."""


class AsyncRedis(Protocol):
    """What is asked of a client: ``redis.asyncio.Redis`` and ``RedisCluster`` have it."""

    async def execute_command(self, *args: Any) -> Any:
        """Sends a command and returns the decoded answer."""
        ...

    async def aclose(self) -> None:
        """Ends connections."""
        ...


class RedisRateLimiter:
    """Keeps the buckets in Redis, under ``rate:<name>``, and in this process while Redis gives no answer.

    Args:
        client: of the server; errors of it are told in the log, once an outage.
        local: limits meanwhile.
    """

    def __init__(self, client: AsyncRedis, local: RateLimiter) -> None:
        from redis import exceptions as errors  # noqa: PLC0415 - slow to import, and not everybody has Redis

        self._away = (errors.RedisError, errors.RedisClusterException, OSError, TimeoutError)
        self._no_script = errors.NoScriptError
        self._client = client
        self._local = local
        self._breaker = Breaker(
            time.monotonic,
            failures_to_open=1,
            first_pause=_FIRST_PAUSE_SECONDS,
            longest_pause=_LONGEST_PAUSE_SECONDS,
        )

    @classmethod
    def of(cls, address: Address, setting: str) -> "RedisRateLimiter":
        """The limiter of a cache's address, as ``io.redis_cache`` reads it. Connects when first used.

        Raises:
            UsageError: it is no such address.
        """
        return cls(_client_of(address, setting), LocalRateLimiter())

    async def take(self, name: str, per_minute: int, cost: int = 1) -> Taken:
        """As ``RateLimiter.take``; raises nothing while Redis is away."""
        admission = self._breaker.admit()
        if admission not in (Admission.CALL, Admission.PROBE):
            return await self._local.take(name, per_minute, cost)
        probe = admission is Admission.PROBE
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await self._run(f"rate:{name}", per_minute, _capped(cost, per_minute))
            taken = Taken(answer[0] == 1, int(answer[1]), _seconds(int(answer[2])))
        except self._away as error:
            if not self._breaker.is_open:
                _log.warning("Redis gives no answer: rate limits are this process's own", extra=_kind(error))
            self._breaker.failed(probe=probe)
            return await self._local.take(name, per_minute, cost)
        except BaseException:
            if probe:  # the request was given up: that says nothing of Redis, but a probe must end
                self._breaker.failed(probe=True)
            raise
        self._breaker.succeeded(probe=probe)
        return taken

    async def close(self) -> None:
        """As ``RateLimiter.close``."""
        await self._client.aclose()

    async def _run(self, *arguments: str | int) -> Any:
        try:
            return await self._client.execute_command("EVALSHA", _SHA, 1, *arguments)
        except self._no_script:  # a server that was restarted, or another node
            return await self._client.execute_command("EVAL", _SCRIPT, 1, *arguments)


def open_rate_limiter(address: Address, setting: str) -> RateLimiter:
    """The limiter that goes with the ARM cache's address: Redis where that is, else this process.

    Raises:
        UsageError: an address of Redis is wrong.
    """
    return RedisRateLimiter.of(address, setting) if address.scheme.startswith("redis") else LocalRateLimiter()


class RateLimitedError(FunctionError):
    """429: an API key's limit is used up.

    Args:
        retry_after: seconds, for the header ``Retry-After``.
    """

    def __init__(self, retry_after: int) -> None:
        message = f"the API key's rate limit is used up; try again in {retry_after} s"
        super().__init__(message, "429", "RATE_LIMITED")
        self.retry_after = retry_after


class KeyLimits:
    """Applies the limits of API keys.

    Args:
        keys: the keys, with their limits.
        limiter: keeps the buckets.
    """

    def __init__(self, keys: ApiKeys, limiter: RateLimiter) -> None:
        self._keys = keys
        self._limiter = limiter

    async def admit(self, identity: Identity, cost: int = 1) -> Taken | None:
        """Takes a request's cost out of the caller's bucket; None for callers that have none.

        Raises:
            RateLimitedError: there is not enough in it, or the key was revoked meanwhile.
        """
        if identity.kind is not CallerKind.API_KEY:
            return None
        key = self._keys.named(identity.subject)
        if key is None:
            raise RateLimitedError(retry_after=60)
        taken = await self._limiter.take(key.name, key.per_minute, cost)
        if not taken.allowed:
            raise RateLimitedError(taken.retry_after)
        return taken


def _client_of(address: Address, setting: str) -> AsyncRedis:
    # Only processes that take API keys and have Redis need its client, which is slow to import.
    from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, SSLConnection  # noqa: PLC0415

    server = redis_server_of(address, setting)
    options: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "username": server.user,
        "password": os.environ.get(PASSWORD_VARIABLE) or server.password,
    }
    if server.cluster:
        if server.tls:
            options |= {"ssl": True, "ssl_ca_certs": server.ca}
        return RedisCluster(**options)
    if server.tls:
        options |= {"connection_class": SSLConnection, "ssl_ca_certs": server.ca}
    return Redis.from_pool(BlockingConnectionPool(max_connections=_CONNECTIONS, timeout=None, db=server.db, **options))


def _capped(cost: int, per_minute: int) -> int:
    if cost < 1:
        raise ValueError("a request's cost is at least 1")
    return min(cost, per_minute)


def _seconds(microseconds: int) -> int:
    return -(-microseconds // _SECOND)


def _kind(error: Exception) -> dict[str, str]:
    """Of an error its kind alone: redis-py's texts quote commands."""
    return {"error": type(error).__name__}
