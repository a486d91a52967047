"""Reads of Redis for code on an event loop: one connection, on which any number of lookups are under way at once.

What is asked for in one turn of the loop leaves in one write, and answers come back in the order of the questions
(RESP, redis.io/docs/latest/develop/reference/protocol-spec: pipelining). A pool would wake one task a connection and
make one system call a lookup. Commands are built by hiredis, every argument with its length in front of it: whatever a
key contains, it stays one argument.
"""

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, cast

import hiredis

from .addresses import Address
from .errors import BackendUnavailableError, UsageError
from .redis_address import PASSWORD_VARIABLE, RedisServer, redis_server_of
from .telemetry.doors import async_database_call
from .telemetry.tracing import Attributes

DEADLINE_SECONDS: Final = 0.1
"""What a lookup waits at most, where nothing else is said."""

NO_TEXT: Final = b""
"""What a key of another type (a hash, a list) reads as: an entry, and not one that anybody can use."""

_CONNECT_SECONDS: Final = 1.0
_GRACE_SECONDS: Final = 0.001
_SILENCE_SECONDS: Final = 1.0  # a connection that was silent for so long while answers were due is given up


_pack: Final[Callable[[tuple[str | bytes, ...]], bytes]] = cast("Any", hiredis).pack_command


class ConnectionLostError(Exception):
    """The connection ended before the answer came."""


class RedisConnection(asyncio.Protocol):
    """One connection; answers go to the askers in order.

    Args:
        loop: the loop it lives on.
        deadline_seconds: after which an asker gets TimeoutError; the answer, should it come, is dropped.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline_seconds: float) -> None:
        self.deadline_seconds = deadline_seconds
        self._loop = loop
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._asked = 0
        self._answered = 0
        self._heard_at = loop.time()

    @property
    def alive(self) -> bool:
        """Whether more may be asked."""
        return self._transport is not None

    def ask(self, command: bytes) -> "asyncio.Future[Any]":
        """Asks; the command leaves at the end of this turn of the loop.

        Args:
            command: packed.

        Returns:
            What gives the reply: a ``hiredis.ReplyError`` is a result too. Raises TimeoutError after the deadline and
            ConnectionLostError where the connection ended.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport is None:
            future.set_exception(ConnectionLostError())
            return future
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(command)
        self._waiting.append(future)
        self._asked += 1
        return future

    def close(self) -> None:
        """Ends the connection; who still waits gets ConnectionLostError."""
        if self._transport is not None:
            self._transport.abort()
        self._lost()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._heard_at = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                future = self._waiting.popleft()
                self._answered += 1
                if not future.done():
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):  # no Redis, or more answers than questions
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        del exc
        self._lost()

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and outgoing:
            self._transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))
            self._loop.call_later(self.deadline_seconds, self._due, self._asked)

    def _due(self, asked: int) -> None:
        """Looks once more at what came in: a process that was kept from running takes that for no late answer."""
        if asked > self._answered:
            self._loop.call_later(_GRACE_SECONDS, self._expire, asked)

    def _expire(self, asked: int) -> None:
        """Ends the waiting for what was asked up to this number."""
        late = asked - self._answered
        if late <= 0 or self._transport is None:
            return
        for future in islice(self._waiting, late):
            if not future.done():
                future.set_exception(TimeoutError())
        if self._loop.time() - self._heard_at >= _SILENCE_SECONDS:
            self.close()

    def _lost(self) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(ConnectionLostError())


class RedisLookup:
    """Reads of a server at ``redis://host:port/db`` or ``rediss://`` (TLS); for one event loop.

    Connects when first asked and again when asked after the connection was lost. Credentials are those of
    ``io.redis_cache``. A lookup whose connection is lost is asked once more: reading twice does no harm.

    Every method raises UsageError where the password is refused or the server is not what the address says, and
    BackendUnavailableError where it gives no answer within the deadline; neither names a key.

    Args:
        server: where it is.
        setting: where the address came from, for errors.
        deadline_seconds: of a lookup, connecting included.
    """

    def __init__(self, server: RedisServer, setting: str, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._server = server
        self._name = f"--{setting}: {server}"
        self._deadline_seconds = deadline_seconds
        self._connection: RedisConnection | None = None
        self._opening: asyncio.Task[RedisConnection] | None = None

    @classmethod
    def of(cls, address: Address, setting: str, deadline_seconds: float = DEADLINE_SECONDS) -> "RedisLookup":
        """The server of an address; errors as ``redis_server_of``."""
        return cls(redis_server_of(address, setting), setting, deadline_seconds)

    @property
    def place(self) -> Attributes:
        """As spans name it."""
        return {"db.system.name": "redis", "db.namespace": str(self._server.db)}

    @async_database_call("GET")
    async def get(self, key: str) -> bytes | None:
        """The value of a key, None where there is none, ``NO_TEXT`` where it is no string."""
        reply = await self._ask(_pack(("GET", key)))
        return reply if reply is None or type(reply) is bytes else self._no_text(reply)

    @async_database_call("MGET")
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys in their order, by one MGET.

        Redis answers it with nil for a key of another type too, so those of nil are asked for once more, one by one
        and together in one write.
        """
        if not keys:
            return []
        reply = await self._ask(_pack(("MGET", *keys)))
        if not isinstance(reply, list):
            raise self._error(reply)
        values = cast("list[bytes | None]", reply)
        missing = [number for number, value in enumerate(values) if value is None]
        for number, value in zip(missing, await asyncio.gather(*(self.get(keys[one]) for one in missing)), strict=True):
            values[number] = value
        return values

    async def check(self) -> None:
        """Connects, for which it takes its time, and asks for an answer."""
        reply = await self._ask(_pack(("PING",)), _CONNECT_SECONDS)
        if isinstance(reply, Exception) and not _is_denied(reply):
            raise self._error(reply)

    async def close(self) -> None:
        """Ends the connection."""
        if self._opening is not None:
            self._opening.cancel()
        if self._connection is not None:
            self._connection.close()

    async def _ask(self, command: bytes, connect_seconds: float | None = None) -> Any:
        connection = self._connection
        try:
            if connection is not None and connection.alive:
                with suppress(ConnectionLostError):
                    return await connection.ask(command)
            return await (await self._connected(connect_seconds)).ask(command)
        except TimeoutError:
            raise self._away(f"no answer in {self._deadline_seconds * 1_000:.0f} ms") from None
        except ssl.SSLCertVerificationError:
            raise UsageError(
                f"{self._name} has a certificate that is not trusted; ?ca=file names the authority that signed it"
            ) from None
        except (ConnectionLostError, OSError) as error:
            raise self._away(type(error).__name__) from None

    async def _connected(self, seconds: float | None) -> RedisConnection:
        connection = self._connection
        if connection is not None and connection.alive:
            return connection
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            self._opening.add_done_callback(self._opened)
        async with asyncio.timeout(seconds or self._deadline_seconds):
            return await asyncio.shield(self._opening)

    def _opened(self, opening: "asyncio.Task[RedisConnection]") -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._connection = opening.result()

    async def _open(self) -> RedisConnection:
        loop, server = asyncio.get_running_loop(), self._server
        tls = ssl.create_default_context(cafile=server.ca) if server.tls else None
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, connection = await loop.create_connection(
                lambda: RedisConnection(loop, _CONNECT_SECONDS), server.host, server.port, ssl=tls
            )
            try:
                await self._greet(connection)
            except BaseException:
                connection.close()
                raise
        connection.deadline_seconds = self._deadline_seconds
        return connection

    async def _greet(self, connection: RedisConnection) -> None:
        server = self._server
        password = os.environ.get(PASSWORD_VARIABLE) or server.password
        commands: list[tuple[str, ...]] = [("PING",)]
        if server.db:
            commands.insert(0, ("SELECT", str(server.db)))
        if password is not None:
            commands.insert(0, ("AUTH", server.user, password) if server.user else ("AUTH", password))
        replies = await asyncio.gather(*(connection.ask(_pack(command)) for command in commands))
        for (name, *_), reply in zip(commands, replies, strict=True):
            # A reader may be allowed to read and no more; then it is refused a PING, and is there.
            if isinstance(reply, Exception) and not (name == "PING" and _is_denied(reply)):
                raise self._error(reply)

    def _no_text(self, reply: Any) -> bytes:
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("WRONGTYPE"):
            return NO_TEXT
        raise self._error(reply)

    def _away(self, why: str) -> BackendUnavailableError:
        return BackendUnavailableError(f"{self._name} is out of reach ({why})")

    def _error(self, reply: Any) -> UsageError | BackendUnavailableError:
        """What an error reply means. Its text may quote the command, so only its first word is told."""
        text = str(reply) if isinstance(reply, Exception) else "not Redis"
        code = text.partition(" ")[0][:32]
        if code in ("NOAUTH", "WRONGPASS", "NOPERM") or "without any password" in text or "invalid password" in text:
            return UsageError(
                f"{self._name} refuses the user or password ({code}); set {PASSWORD_VARIABLE}, "
                "and the user as redis://user@host"
            )
        if code == "MOVED":
            return UsageError(f"{self._name} is a cluster; write {self._server.scheme}-cluster://")
        if "DB index is out of range" in text:
            return UsageError(f"{self._name} has no database of that number")
        return self._away(code if code.isupper() else "an error")


def _is_denied(reply: Exception) -> bool:
    return str(reply).startswith("NOPERM")
