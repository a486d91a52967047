"""How many dead letters wait, and of what: counted in the background, and each number with the moment it is of."""

import asyncio
import contextlib
import logging
import time
from typing import Final

import msgspec

from ...domain.dead_letters import LetterFilter, LetterTally
from ...io.clock import now_ms
from ...io.errors import FanIdentityError
from ...io.ports import DeadLetterArchive
from .threads import Threads

_FIRST_SECONDS: Final = 2.0
_log: Final = logging.getLogger("fan_identity.console")


class Numbers(msgspec.Struct, frozen=True):
    """What was counted.

    Attributes:
        until_ms: letters first written before this moment were counted, and no later ones; epoch milliseconds.
        kinds: how many of each worker and reason wait.
    """

    until_ms: int
    kinds: list[LetterTally]


def bound() -> int:
    """The end of what is there now, as a filter's ``until_ms``: what comes later is of another number."""
    return now_ms() + 1


class Summary:
    """How many letters wait, by worker and reason: counted in the background while somebody asks.

    Args:
        letters: where they are.
        threads: where they are counted.
        fresh_seconds: between two counts, at least; it is never more than a tenth of the time that is spent counting.
    """

    def __init__(self, letters: DeadLetterArchive, threads: Threads, fresh_seconds: float) -> None:
        self._letters = letters
        self._threads = threads
        self._fresh_seconds = fresh_seconds
        self._asked = asyncio.Event()
        self._counted: Numbers | None = None
        self._first = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, *, count: bool) -> None:
        """Begins, on the running event loop.

        Args:
            count: whether to count at once, so that who asks first need not wait.
        """
        if count:
            self._asked.set()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ends."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def kinds(self) -> list[LetterTally]:
        """The numbers counted last; none before the first time."""
        return [] if self._counted is None else self._counted.kinds

    async def counted(self) -> Numbers | None:
        """What was counted last. None before the first time, which is waited for shortly."""
        self._asked.set()
        if self._counted is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_SECONDS):
                    await self._first.wait()
        return self._counted

    async def _follow(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            began = time.monotonic()
            try:
                until = bound()
                kinds = await self._threads.behind(self._letters.numbers, LetterFilter(until_ms=until))
                self._counted = Numbers(until, kinds)
                self._first.set()
            except FanIdentityError as error:
                _log.warning("dead letters cannot be counted: %s", error)
            except Exception:
                _log.exception("dead letters cannot be counted: this is a defect of fan-identity")
            await asyncio.sleep(max(self._fresh_seconds, 9 * (time.monotonic() - began)))
