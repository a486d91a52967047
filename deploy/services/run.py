"""Fetches, starts and stops the real servers that tests use: ``run.py start|stop|restart|status [NAME...]``.

All of them without a name. One line for each on standard output; what cannot be had is named on standard error, the
others go on. Exit code 0 if all went well, 1 if not, 2 for wrong usage. See docs/services.md.
"""

import argparse
import contextlib
import fcntl
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import postgresql
from fetching import UnavailableError, ensure, last_line
from probes import listens
from processes import alive, end, running, spawn
from server_table import BY_NAME, SERVERS, Server, root

DEADLINE: Final = 120.0
"""Seconds a server has from its start until it serves. One that does not, or ends, is started once more."""


def start(servers: Sequence[Server]) -> bool:
    """Starts servers, and those they need; leaves alone what runs already.

    Returns:
        Whether all of them serve.
    """
    wanted = {name: BY_NAME[name] for server in servers for name in server.after}
    wanted |= {server.name: server for server in servers}
    started: dict[str, Future[bool]] = {}
    with _only_one(), ThreadPoolExecutor(len(wanted)) as pool:
        for name in BY_NAME:  # in the table's order: what a server needs stands before it
            if name in wanted:
                needed = [started[other] for other in wanted[name].after]
                started[name] = pool.submit(_start_one, wanted[name], needed)
    return all(future.result() for future in started.values())


def stop(servers: Sequence[Server]) -> bool:
    """Ends servers and throws away what they stored. What was not started here is left alone.

    Returns:
        Whether none of ours is left.
    """
    with _only_one():
        left = [server for server in reversed(servers) if not _stop_one(server)]
    return not left


def restart(servers: Sequence[Server]) -> bool:
    """Ends servers and starts them again on what they stored, which is nothing for those that store in memory.

    Returns:
        Whether all of them serve.
    """
    with _only_one():
        for server in reversed(servers):
            end(server.run, server.mark, server.first_signal)
    return start(servers)


def kill9(server: Server) -> bool:
    """Kills a server as a crash would; what it stored stays. Returns whether it ran."""
    return end(server.run, server.mark, signal.SIGKILL)


def status(servers: Sequence[Server]) -> bool:
    """Says of each server whether it serves.

    Returns:
        Whether all do.
    """
    states = [(server, state(server)) for server in servers]
    for server, text in states:
        _say(server, text)
    return all("serves" in text for _, text in states)


def state(server: Server) -> str:
    """In a few words: one that serves is said to serve."""
    pid = running(server.run, server.mark)
    if server.probe(server.port):
        return "serves, not started here" if pid is None else f"serves, process {pid}"
    if pid is not None:
        return f"does not answer, process {pid}"
    return "its port is taken by something else" if listens(server.port) else "stopped"


def _start_one(server: Server, needed: Sequence[Future[bool]]) -> bool:
    try:
        began = time.monotonic()
        pid = running(server.run, server.mark)
        if pid is None and listens(server.port):
            if not server.probe(server.port):
                raise UnavailableError(f"port {server.port} is taken by something else")
            _say(server, "serves already, not started here")
            return True
        if pid is None:
            server.run.mkdir(parents=True, exist_ok=True)
            if server.recipe is not None:
                ensure(server.recipe, server.program, server.run / "fetch.log")
            if not all(future.result() for future in needed):
                raise UnavailableError(f"needs {' and '.join(server.after)}")
            server.data.mkdir(exist_ok=True)
            launch = server.launch(server)
            spawn(launch, server.run)
            try:
                _await(server)
            except UnavailableError:  # once more: a process of the one before may still have held something
                spawn(launch, server.run)
        _await(server)
        _say(server, f"{time.monotonic() - began:5.1f} s" if pid is None else "serves already")
    except (UnavailableError, OSError) as error:
        _complain(server, str(error))
        return False
    return True


def _await(server: Server) -> None:
    """Waits until a server serves; ends one that does not within the deadline.

    Raises:
        UnavailableError: it does not, or it ended by itself.
    """
    deadline, log = time.monotonic() + DEADLINE, server.run / "log"
    while not server.probe(server.port):
        if alive(server.run) is None:
            raise UnavailableError(f"ended as it started: {last_line(log)} (all of it: {log})")
        if time.monotonic() > deadline:
            end(server.run, server.mark, signal.SIGQUIT)  # Java and Go write what their threads do into the log
            raise UnavailableError(f"does not answer within {DEADLINE:.0f} s; see {log}")
        time.sleep(0.1)


def _stop_one(server: Server) -> bool:
    try:
        ended = end(server.run, server.mark, server.first_signal)
        shutil.rmtree(server.data, ignore_errors=True)
        if server.name == "postgresql":
            shutil.rmtree(postgresql.data_folder(server.run), ignore_errors=True)
    except (TimeoutError, OSError) as error:
        _complain(server, str(error))
        return False
    foreign = not ended and listens(server.port)
    _say(server, "was not started here: left alone" if foreign else "stopped" if ended else "did not run")
    return True


@contextlib.contextmanager
def _only_one() -> Generator[None]:
    """Keeps other starts and stops of the same folder waiting."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_speaking: Final = threading.Lock()


def _say(server: Server, text: str) -> None:
    with _speaking:
        sys.stdout.write(f"{server.name:<11} {server.address:<27} {text}\n")
        sys.stdout.flush()


def _complain(server: Server, text: str) -> None:
    with _speaking:
        sys.stderr.write(f"{server.name}: {text}\n")
        sys.stderr.flush()


_COMMANDS: Final[dict[str, Callable[[Sequence[Server]], bool]]] = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "status": status,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="run.py", description="The real servers that tests use.")
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BY_NAME)}; all without one")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in BY_NAME]
    if unknown:
        parser.error(f"NAME: no server {unknown[0]!r}; there are {', '.join(BY_NAME)}")
    servers = [server for server in SERVERS if not given.names or server.name in given.names]
    return 0 if _COMMANDS[given.command](servers) else 1


if __name__ == "__main__":
    sys.exit(main())
