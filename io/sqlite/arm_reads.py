"""Reads of the ARM cache in an SQLite store for code on an event loop: in a thread of their own."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..errors import BackendUnavailableError
from .store import SqliteStore

T = TypeVar("T")


class SqliteArmReads:
    """Reads of a store; methods and errors as ``io.redis_lookup.RedisLookup``.

    Args:
        store: the store.
        deadline_seconds: after which a lookup gives up; the thread goes on, and later ones wait for it.
    """

    def __init__(self, store: SqliteStore, deadline_seconds: float) -> None:
        self._store = store
        self._deadline_seconds = deadline_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fan-identity-arm")

    async def get(self, key: str) -> bytes | None:
        """The value of a key, or None where there is none."""
        return await self._run(lambda: self._value(key))

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys in their order."""
        return await self._run(lambda: [self._value(key) for key in keys])

    async def check(self) -> None:
        """Opens the store, however long that takes, and reads of it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._value, "")

    async def close(self) -> None:
        """Ends the thread, and its connection."""
        self._thread.submit(self._store.close)
        self._thread.shutdown(wait=False)

    def _value(self, key: str) -> bytes | None:
        with self._store.translated_errors():
            row = self._store.connection.execute("SELECT value FROM arm_cache WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    async def _run(self, read: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._thread, read)
        except TimeoutError:
            raise BackendUnavailableError(
                f"store {self._store.path}: no answer in {self._deadline_seconds * 1_000:.0f} ms"
            ) from None
