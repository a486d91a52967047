"""Runs the sandbox: until a signal for the command line, in a thread beside tests."""

import asyncio
import errno
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from aiohttp import web

from ...io.errors import BackendUnavailableError, UsageError
from .app import make_app

LOOPBACK: Final = "127.0.0.1"
_SHUTDOWN_SECONDS: Final = 0.2  # calls that hang are cut off
_START_SECONDS: Final = 60


async def serve(host: str, port: int, seed: int, started: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set.

    Args:
        host: to listen on.
        port: to listen on; 0 for a free one.
        seed: of the made-up users.
        started: is told the address, ``http://host:port``, once it answers.
        stop: ends it.

    Raises:
        UsageError: the port is taken, or the host is none of this machine's.
    """
    runner = web.AppRunner(
        make_app(seed), handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS, access_log=None
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise _listening_error(error, host, port) from None
        bound = runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        started(f"http://{shown}:{bound[1]}")
        await stop.wait()
    finally:
        await runner.cleanup()


async def serve_until_signal(host: str, port: int, seed: int, started: Callable[[str], None]) -> None:
    """Serves until SIGINT (Ctrl-C) or SIGTERM; arguments and errors as for ``serve``."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await serve(host, port, seed, started, stop)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class SandboxThread:
    """A sandbox on a free loopback port, in a thread, for the time of a ``with`` block.

    >>> with SandboxThread() as sandbox:
    ...     sandbox.address.startswith("http://127.0.0.1:")
    True

    Attributes:
        address: ``http://127.0.0.1:port``.
    """

    def __init__(self, *, seed: int = 0, port: int = 0) -> None:
        self.address = ""
        self._seed = seed
        self._port = port
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="fan-identity-sandbox", daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # raised where the thread was started
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await serve(LOOPBACK, self._port, self._seed, self._started, self._stop)

    def _started(self, address: str) -> None:
        self.address = address
        self._ready.set()

    def __enter__(self) -> "SandboxThread":
        self._thread.start()
        self._ready.wait(_START_SECONDS)
        if self._error is not None:
            raise self._error
        if not self.address:
            raise BackendUnavailableError("the sandbox did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)


def _listening_error(error: OSError, host: str, port: int) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"--port: {port} is in use on {host}; give another one, or 0 for any that is free")
    if error.errno == errno.EACCES:
        return UsageError(f"--port: {port} may not be opened by this user; give one above 1023")
    return UsageError(f"--host: {host} is no address of this machine")
