"""The ARM cache in Redis or a Redis cluster: ``user:{id}`` → JSON, newer wins in one atomic script.

The value is the JSON object readers of the reference expect, with the version as its last field. A value that is no
JSON object, has no version, or is no string at all was not written here; it counts as older than any.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
import redis.exceptions as errors
import stamina
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from .addresses import Address
from .errors import BackendUnavailableError, UsageError
from .redis_address import PASSWORD_VARIABLE, SCHEMES, RedisServer, redis_server_of
from .telemetry.doors import database_call
from .telemetry.tracing import Attributes

_VERSION: Final = "version"
_CHUNK: Final = 500
_SOCKET_SECONDS: Final = 2.0
_DEADLINE_SECONDS: Final = 30.0
_CHECK_SECONDS: Final = 5.0
_QUICK_RETRIES: Final = 2

# Versions are compared byte by byte: Lua's < goes by the server's locale.
_SCRIPT: Final = """
local function newer(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end
local current = redis.pcall('GET', KEYS[1])
if type(current) == 'string' then
  local good, value = pcall(cjson.decode, current)
  if good and type(value) == 'table' and type(value.version) == 'string' and not newer(ARGV[1], value.version) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

__all__ = ["PASSWORD_VARIABLE", "SCHEMES", "RedisArmCache"]

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode

Result = TypeVar("Result")
_Write = tuple[str, str, bytes]

_REFUSED: Final = (errors.AuthenticationError, errors.AuthorizationError, errors.NoPermissionError)
_PASSING: Final = (
    errors.ConnectionError,  # a server that loads its data (LOADING) is one too
    errors.TimeoutError,
    errors.ReadOnlyError,
    errors.OutOfMemoryError,
    errors.TryAgainError,
    errors.AskError,  # a cluster that moves keys
    errors.ClusterError,
    errors.RedisClusterException,
    OSError,
)
_PASSING_CODES: Final = re.compile(r"(MISCONF|NOREPLICAS|BUSY|UNKILLABLE)\b")


class _PassingError(BackendUnavailableError):
    """Out of reach for now; tried again until the deadline."""


class RedisArmCache:
    """The ARM cache at ``redis://host:port/db``, ``rediss://`` (TLS), ``redis-cluster://`` or ``rediss-cluster://``.

    Holds the address only: it pickles, and connects when first used, once a process. A server that is away, loads its
    data, is out of memory or was made a replica is tried again until the deadline, with exponential backoff and jitter;
    writing twice does no harm, since newer wins.

    Every method raises UsageError where the password is refused or the server is not what the address says, and
    BackendUnavailableError where it is out of reach until the deadline.
    """

    def __init__(self, server: RedisServer, setting: str, deadline_seconds: float = _DEADLINE_SECONDS) -> None:
        self._server = server
        self._setting = setting
        self._deadline_seconds = deadline_seconds

    @classmethod
    def of(cls, address: Address, setting: str, *, deadline_seconds: float = _DEADLINE_SECONDS) -> "RedisArmCache":
        """The cache of an address.

        Args:
            address: ``scheme://[user[:password]@]host[:port][/db]``; option ``ca`` is a file of certificates that TLS
                trusts in place of the system's. The password is better given in ``FAN_IDENTITY_REDIS_PASSWORD``, which
                goes first.
            setting: where the address came from, for errors.
            deadline_seconds: how long a call is tried, give or take a socket's timeouts.

        Raises:
            UsageError: it is no such address.
        """
        return cls(redis_server_of(address, setting), setting, deadline_seconds)

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return {"db.system.name": "redis", "db.namespace": str(self._server.db)}

    @database_call("EVALSHA")
    def put_if_newer(self, entries: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Writes each (key, version, value) unless the key has that version or a greater one, by UTF-8 bytes.

        One atomic script an entry, up to 500 in one request.

        Args:
            entries: the value is a JSON object without a field ``version``, where the version is kept.
        """
        writes = [(key, version, _stored(version, value)) for key, version, value in entries]
        for start in range(0, len(writes), _CHUNK):
            self._write(writes[start : start + _CHUNK])

    def _write(self, writes: Sequence[_Write]) -> None:
        pending = writes

        def write(client: Any) -> None:
            nonlocal pending
            pending, failures = _run_script(client, "EVALSHA", _SHA, pending)
            if any(isinstance(failure, errors.NoScriptError) for failure in failures):
                # The server, or one of the cluster's, does not know the script yet, or not any more.
                pending, failures = _run_script(client, "EVAL", _SCRIPT, pending)
            if failures:
                raise failures[0]

        self._retried(write, self._deadline_seconds)

    @database_call("GET")
    def get(self, key: str) -> Mapping[str, Any] | None:
        """The value of a key, or None where there is none or no JSON object."""

        def read(client: Any) -> bytes | None:
            try:
                return client.get(key)
            except errors.ResponseError as error:
                if str(error).startswith("WRONGTYPE"):
                    return None
                raise

        text = self._retried(read, self._deadline_seconds)
        if text is None:
            return None
        try:
            value = _decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        value.pop(_VERSION, None)
        return value

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes keys, each by a command of its own: in a cluster they are on different nodes."""

        def remove(client: Any) -> None:
            for key in keys:
                client.delete(key)

        self._retried(remove, self._deadline_seconds)

    def check(self) -> None:
        """Connects and asks for an answer; gives up after about five seconds."""
        self._retried(_ping, _CHECK_SECONDS)

    def check_once(self) -> None:
        """As ``check``, but does not try again for long; in a cluster, every primary has to answer."""
        asked = {"target_nodes": RedisCluster.PRIMARIES} if self._server.cluster else {}
        self._once(lambda client: client.ping(**asked))

    def server_version(self) -> str:
        """The server's version; of a cluster one of its nodes'."""

        def ask(client: Any) -> str:
            found: Mapping[str, Any] = client.info("server")
            node = found if "redis_version" in found else next(iter(found.values()))  # a cluster answers by node
            return str(node["redis_version"])

        return self._retried(ask, _CHECK_SECONDS)

    def _retried(self, do: Callable[[Any], Result], seconds: float) -> Result:
        for attempt in stamina.retry_context(
            on=_PassingError, attempts=None, timeout=seconds, wait_initial=0.05, wait_max=2.0, wait_jitter=0.2
        ):
            with attempt:
                return self._once(do)
        raise AssertionError("a retry loop ends with an answer or an error")

    def _once(self, do: Callable[[Any], Result]) -> Result:
        server = self._server
        try:
            return do(_client(server, os.environ.get(PASSWORD_VARIABLE) or server.password))
        except (errors.RedisError, errors.RedisClusterException, OSError) as error:
            # redis-py's errors quote commands, and with them user ids: only their kind is told, here and in logs.
            raise _translated(error, server, f"--{self._setting}: {server}") from None


def _ping(client: Any) -> None:
    client.ping()


def _translated(error: Exception, server: RedisServer, name: str) -> UsageError | BackendUnavailableError:
    kind, text = type(error).__name__, str(error)
    mistake: str | None = None
    if isinstance(error, _REFUSED):
        mistake = f"refuses the user or password ({kind}); set {PASSWORD_VARIABLE}, and the user as redis://user@host"
    elif isinstance(error, errors.MovedError) and not server.cluster:
        mistake = f"is a cluster; write {server.scheme}-cluster://"
    elif "Cluster mode is not enabled" in text:
        mistake = f"is no cluster; write {server.scheme.removesuffix('-cluster')}://"
    elif "certificate verify failed" in text:
        mistake = "has a certificate that is not trusted; ?ca=file names the authority that signed it"
    elif "DB index is out of range" in text:
        mistake = "has no database of that number"
    if mistake is not None:
        return UsageError(f"{name} {mistake}")
    if isinstance(error, _PASSING) or _PASSING_CODES.match(text):
        return _PassingError(f"{name} is out of reach ({kind})")
    return BackendUnavailableError(f"{name} answers with an error ({kind})")


def _run_script(
    client: Any, command: str, script: str, writes: Sequence[_Write]
) -> tuple[Sequence[_Write], Sequence[Exception]]:
    """Runs the script for each write in one request; returns those that failed, and why."""
    with client.pipeline(transaction=False) as pipeline:
        for key, version, text in writes:
            # Not the method: redis-py's cluster pipelines refuse it, though they route the command well.
            pipeline.execute_command(command, script, 1, key, version, text)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
    failed = [(write, answer) for write, answer in zip(writes, answers, strict=True) if isinstance(answer, Exception)]
    failures = [failure for _, failure in failed]
    if any(isinstance(failure, errors.ReadOnlyError) for failure in failures):
        # The connections lead to what is a replica now; the name may lead to the new primary.
        client.connection_pool.disconnect(inuse_connections=False)
    return [write for write, _ in failed], failures


def _stored(version: str, value: Mapping[str, Any]) -> bytes:
    if _VERSION in value:
        raise ValueError(f"a cached value has no field {_VERSION!r} of its own")
    return _encode({**value, _VERSION: version})


@cache
def _client(server: RedisServer, password: str | None) -> Any:
    """The client of a server, one a process. A forked process may go on using it."""
    parameters: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "username": server.user,
        "password": password,
        "socket_timeout": _SOCKET_SECONDS,
        "socket_connect_timeout": _SOCKET_SECONDS,
        "retry": Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), _QUICK_RETRIES),
    }
    if server.tls:
        parameters |= {"ssl": True, "ssl_ca_certs": server.ca}
    if server.cluster:
        return RedisCluster(**parameters)
    return Redis(db=server.db, **parameters)
