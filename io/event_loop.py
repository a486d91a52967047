"""One asyncio event loop a process, in a daemon thread, for the calls of every service.

Pipelines are synchronous and run in threads of Beam's; what makes them fast is many calls in flight, and those need a
loop. It is made when first used, and made again in a process that was forked: a fork copies no threads.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

_CLOSING_SECONDS: Final = 2.0


class _Background:
    """The loop, its thread, and what is to be closed before it ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self.thread = threading.Thread(target=self._run, name="fan-identity-calls", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def close(self) -> None:
        async def close_all() -> None:
            for closer in self.closers:
                await closer()

        closing = asyncio.run_coroutine_threadsafe(close_all(), self.loop)
        with suppress(Exception):  # the process ends: there is nobody to tell
            closing.result(_CLOSING_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(_CLOSING_SECONDS)


class _Process:
    """This process's loop.

    A forked child starts anew; it keeps the parent's loop so that nothing of it is finalized: its sockets are the
    parent's.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.background: _Background | None = None
        self.inherited: list[_Background] = []

    def forget(self) -> None:
        self.lock = threading.Lock()  # another thread of the parent's may have held it
        if self.background is not None:
            self.inherited.append(self.background)
            self.background = None

    def started(self) -> _Background:
        with self.lock:
            if self.background is None:
                self.background = _Background()
            return self.background

    def close(self) -> None:
        with self.lock:
            background, self.background = self.background, None
        if background is not None:
            background.close()


_process: Final = _Process()
os.register_at_fork(after_in_child=_process.forget)
atexit.register(_process.close)


def run_in_background(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the process's loop and waits for it; interrupted (Ctrl-C), it is cancelled.

    Raises:
        RuntimeError: called from the loop's own thread, which would wait for itself.
    """
    background = _process.started()
    if threading.current_thread() is background.thread:
        coroutine.close()
        raise RuntimeError("a coroutine of the background loop cannot wait for another one; await it")
    future = asyncio.run_coroutine_threadsafe(coroutine, background.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def close_at_end(closer: Callable[[], Awaitable[None]]) -> None:
    """Registers what is to run on the loop before this process ends. For code on the loop; ignored on other loops."""
    background = _process.background
    if background is not None and asyncio.get_running_loop() is background.loop:
        background.closers.append(closer)
