"""The console's blocking calls on an event loop: in threads of its own, so that lookups never wait behind them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from ...io.errors import UnavailableError

DEADLINE_SECONDS: Final = 5.0
"""What a question to a table may take."""

_READERS: Final = 4
_MOST_WAITING: Final = 16
"""Questions that wait for a thread; what comes beyond is refused at once rather than answered late."""

T = TypeVar("T")


class Threads:
    """Runs blocking functions: questions in a few threads, and writes of the audit log one after the other."""

    def __init__(self) -> None:
        self._asked: set[Future[Any]] = set()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="fan-identity-console")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="fan-identity-audit")
        self._background = ThreadPoolExecutor(1, thread_name_prefix="fan-identity-console-background")

    async def ask(self, part: str, question: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Asks, for so long. A question nobody waits for any more is not begun; one that was has to end by itself.

        Args:
            part: whose answer it is, for the error.
            question: what to call.
            *arguments: its arguments.
            **named: likewise.

        Raises:
            UnavailableError: there is no answer in time, or too many wait for one.
        """
        if len(self._asked) >= _READERS + _MOST_WAITING:
            raise UnavailableError(part, "too many questions wait")
        future = self._readers.submit(question, *arguments, **named)
        self._asked.add(future)
        future.add_done_callback(self._asked.discard)  # also where it is cancelled
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await asyncio.wrap_future(future)  # given up, it is cancelled
        except TimeoutError:
            raise UnavailableError(part, "no answer in time") from None

    async def write(self, write: Callable[..., T], *arguments: Any) -> T:
        """Writes, however long that takes, also where the request is given up: what was begun is ended."""
        return await asyncio.shield(asyncio.wrap_future(self._writer.submit(write, *arguments)))

    async def behind(self, work: Callable[..., T], *arguments: Any) -> T:
        """Does what no request waits for."""
        return await asyncio.wrap_future(self._background.submit(work, *arguments))

    async def close(self) -> None:
        """Ends the threads once what they do is done."""
        for pool in (self._readers, self._writer, self._background):
            pool.shutdown(wait=False, cancel_futures=pool is not self._writer)
