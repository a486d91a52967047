"""Runs the API on uvicorn: one process, or several that share a listening socket."""

import asyncio
import errno
import gc
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from ...io.errors import UsageError
from ..settings import ServingSettings, load_serving_settings
from .app import Application, Open

_GC_THRESHOLDS: Final = (50_000, 50, 100)
_BACKLOG: Final = 2_048
_SHUTDOWN_SECONDS: Final = 10
_START_SECONDS: Final = 60
_FACTORY: Final = f"{__name__}:application_of_environment"


class _Server(uvicorn.Server):
    """uvicorn's server; a signal ends it in order, and with it nothing else: the command then exits with 0."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit  # a second signal does not wait for what is under way
        self.should_exit = True


def application_of_environment() -> Application:
    """The application with the settings of the environment: what each of several processes serves.

    Raises:
        UsageError: a setting does not fit.
    """
    from ...io.logs import configure_logging, switch_debug_on_signal  # noqa: PLC0415
    from ...io.telemetry import start as telemetry  # noqa: PLC0415
    from .parts import open_parts  # noqa: PLC0415

    settings = load_serving_settings()
    configure_logging(settings.log_level, "serve", "")
    switch_debug_on_signal()
    follow_flags(settings)
    telemetry.start("serve", settings)
    return Application(lambda: open_parts(settings), freeze_heap)


def follow_flags(settings: ServingSettings) -> None:
    """Looks at the flag server from now on, where there is one, so that its debug toggle is felt here too."""
    from ...io.backends import open_flags  # noqa: PLC0415 - with everything that streams need

    if settings.flags is not None:
        open_flags(settings.flags, settings.flags_default, settings.flags_folder).look()


def freeze_heap() -> None:
    """Leaves what lives as long as the process out of garbage collection, and collects less often.

    Else a collection looks at some hundred thousand objects of imported modules while requests wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: an address or name of this machine.
        port: 0 for a free one.

    Raises:
        UsageError: the port is taken, or the host is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        raise _listening_error(error, host, port) from None
    listening.setblocking(False)
    return listening


def address_of(listening: socket.socket) -> str:
    """``http://host:port`` of a socket that listens."""
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(open_parts: Open, listening: socket.socket, started: Callable[[], None]) -> None:
    """Serves in this process until SIGINT (Ctrl-C) or SIGTERM; requests under way are answered first.

    Args:
        open_parts: what is served.
        listening: where.
        started: is told once it answers.

    Raises:
        FanIdentityError: it does not start.
    """
    application = Application(open_parts, freeze_heap)
    await application.start()
    try:
        await _Server(_config(application, lifespan="off"), started).serve([listening])
    finally:
        with suppress(Exception):  # the process ends: there is nobody to tell
            await application.stop()


def run(open_parts: Open, listening: socket.socket, started: Callable[[], None]) -> None:
    """``serve`` on an event loop of its own: uvloop's, where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - not on Windows
    except ImportError:
        new_event_loop = asyncio.new_event_loop
    else:
        new_event_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(open_parts, listening, started))


class _Processes(Multiprocess):
    """uvicorn's supervisor, which tells when every process serves."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, started: Callable[[], None]) -> None:
        super().__init__(config, [listening])
        self._started = started

    def init_processes(self) -> None:
        super().init_processes()
        if all(process.wait_until_ready(_START_SECONDS, self.should_exit) for process in self.processes):
            self._started()


def serve_in_processes(workers: int, listening: socket.socket, started: Callable[[], None]) -> None:
    """Serves in processes of their own, which take turns at the socket, until SIGINT or SIGTERM.

    Their settings are the environment's. One that dies is started again.

    Args:
        workers: how many.
        listening: where.
        started: is told once all of them answer.
    """
    _Processes(_config(_FACTORY, lifespan="on", workers=workers), listening, started).run()


def _config(application: Application | str, *, lifespan: str, workers: int = 1) -> uvicorn.Config:
    return uvicorn.Config(
        application,  # pyright: ignore[reportArgumentType] - ASGI's types say TypedDict where any mapping does
        factory=isinstance(application, str),
        workers=workers,
        loop="auto",
        http="httptools",
        ws="none",
        lifespan=lifespan,  # pyright: ignore[reportArgumentType]
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        backlog=_BACKLOG,
    )


def _listening_error(error: Exception, host: str, port: int) -> UsageError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return UsageError(f"--port: {port} is in use on {host}; give another one, or 0 for any that is free")
    if number == errno.EACCES:
        return UsageError(f"--port: {port} may not be opened by this user; give one above 1023")
    return UsageError(f"--host: {host} is no address of this machine")
