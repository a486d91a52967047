"""A table in an SQLite store for code on an event loop: reads and writes in threads of their own."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from ..dynamodb.values import UnsupportedItemError, key_problem
from ..errors import FanIdentityError, UnavailableError
from ..ports import Item
from .store import SqliteStore
from .table import SqliteTable

_READERS: Final = 4
_MOST_TOGETHER: Final = 500
_encode: Final = msgspec.json.Encoder().encode
_decode_revision: Final = msgspec.json.Decoder(dict[str, Any]).decode

T = TypeVar("T")


@dataclass
class _Write:
    """A write that waits: what it does with the connection, and who is told."""

    do: Callable[[Any], bool]
    done: Future[bool] = field(default_factory=Future[bool])


class SqliteAsyncTable:
    """A named table of a store; reads and writes the items ``SqliteTable`` does, beside workers that write.

    Writes that wait for the disk at the same moment share one transaction: with a commit each they would take turns.

    Every method raises UnavailableError, named by ``name``, where the store gives no answer in time. A write that was
    given up may still be made, as the answer of a server may be lost.

    Args:
        store: the store.
        table: the table's name in it.
        name: its name in errors, ``demand``.
        deadline_seconds: what a call waits at most, locks of other processes included.
        durable: whether a write survives a power cut too (``synchronous=FULL``), not only the end of the process.
    """

    def __init__(
        self, store: SqliteStore, table: str, name: str, deadline_seconds: float, *, durable: bool = False
    ) -> None:
        self._store = store
        self._table = table
        self._name = name
        self._deadline_seconds = deadline_seconds
        self._durable = durable
        self._rows = SqliteTable(store, table)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix=f"fan-identity-{name}-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"fan-identity-{name}-write")
        self._writes: deque[_Write] = deque()

    async def get(self, pk: str, sk: str) -> Item | None:
        """The item with these keys, or None."""
        if key_problem(pk, sk) is not None:
            return None  # nothing can have such keys
        return await self._in_time(self._readers.submit(self._rows.get, pk, sk))

    async def query(
        self, pk: str, sk_prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Item]:
        """A partition's items in the order of their sort keys or the reverse."""
        if key_problem(pk, sk_prefix or "any") is not None:
            return []
        return await self._in_time(
            self._readers.submit(self._rows.query, pk, sk_prefix, newest_first=newest_first, limit=limit)
        )

    async def put_revision(self, item: Item, revision: int) -> bool:
        """Writes an item as its next revision, in one transaction; False where somebody else was faster.

        Raises:
            UnsupportedItemError: its keys are no keys, or it holds a value that is none of JSON's.
        """
        problem = key_problem(item.get("PK"), item.get("SK"))
        if problem is not None:
            raise UnsupportedItemError(problem)
        key = (self._table, item["PK"], item["SK"])
        try:
            body = _encode({**item, "revision": revision + 1})
        except (TypeError, ValueError, RecursionError):
            raise UnsupportedItemError("the item holds a value that is none of JSON's") from None

        def put(connection: Any) -> bool:
            row = connection.execute(
                "SELECT body FROM items WHERE table_name = ? AND pk = ? AND sk = ?", key
            ).fetchone()
            stored = 0 if row is None else _decode_revision(row[0]).get("revision", 0)
            if stored != revision:
                return False
            connection.execute(
                "INSERT INTO items (table_name, pk, sk, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET version = NULL, body = excluded.body",
                (*key, body),
            )
            return True

        return await self._written(put)

    async def delete(self, pk: str, sk: str) -> None:
        """Deletes the item with these keys, if there is one."""

        def remove(connection: Any) -> bool:
            key = (self._table, pk, sk)
            return bool(
                connection.execute("DELETE FROM items WHERE table_name = ? AND pk = ? AND sk = ?", key).rowcount
            )

        await self._written(remove)

    async def check(self) -> None:
        """Opens the store and reads of it.

        Raises:
            UnavailableError: it cannot be read.
        """
        await self.get("-", "-")

    async def close(self) -> None:
        """Ends the threads, once what they do is done, and their connections (each closed with its thread)."""
        self._writer.submit(self._store.close)
        self._writer.shutdown(wait=False)
        self._readers.shutdown(wait=False)

    async def _written(self, do: Callable[[Any], bool]) -> bool:
        write = _Write(do)
        self._writes.append(write)
        self._writer.submit(self._write_waiting)
        return await self._in_time(write.done)

    def _write_waiting(self) -> None:
        """Makes the writes that wait now, all or none; what comes meanwhile has a turn of its own."""
        waiting = [self._writes.popleft() for _ in range(min(len(self._writes), _MOST_TOGETHER))]
        batch = [write for write in waiting if write.done.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            connection = self._store.connection
            connection.execute(f"PRAGMA busy_timeout = {int(self._deadline_seconds * 1_000)}")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            with self._store.transaction():
                results = [write.do(connection) for write in batch]
        except BaseException as error:
            for write in batch:
                write.done.set_exception(error)
        else:
            for write, result in zip(batch, results, strict=True):
                write.done.set_result(result)

    async def _in_time(self, future: Future[T]) -> T:
        answer = asyncio.wrap_future(future)
        answer.add_done_callback(_seen)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await asyncio.shield(answer)
        except TimeoutError:
            raise UnavailableError(self._name, "the store gives no answer in time") from None
        except FanIdentityError as error:
            raise UnavailableError(self._name, str(error)) from None


def _seen(answer: asyncio.Future[Any]) -> None:
    """What comes too late has nobody to tell."""
    if not answer.cancelled():
        answer.exception()
