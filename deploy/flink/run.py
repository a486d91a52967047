"""Fetches, starts and stops a Flink cluster, Beam's job servers and its Python workers.

``run.py start|stop|restart|status [NAME...]``: all of them without a name. One line for each on standard output; what
cannot be had is named on standard error. Exit code 0 if all went well, 1 if not, 2 for wrong usage. See
docs/running-on-flink.md.
"""

import argparse
import contextlib
import fcntl
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).resolve().parents[1] / "services"))

from fetching import UnavailableError, ensure, last_line
from parts import BY_NAME, PARTS, Part
from probes import listens
from processes import alive, end, running, spawn
from server_table import root

DEADLINE: Final = 180.0
"""Seconds a part has from its start until it serves."""


def start(parts: Sequence[Part]) -> bool:
    """Starts parts, one after another; leaves alone what runs already.

    Returns:
        Whether all of them serve.
    """
    with _only_one():
        states = [_start_one(part) for part in parts]  # all of them, whatever becomes of one
    return all(states)


def stop(parts: Sequence[Part]) -> bool:
    """Ends parts, the last first, and throws away what they stored, checkpoints too.

    Returns:
        Whether none of ours is left.
    """
    with _only_one():
        states = [_stop_one(part) for part in reversed(parts)]
    return all(states)


def restart(parts: Sequence[Part]) -> bool:
    """Ends parts and starts them again on what they stored.

    Returns:
        Whether all of them serve.
    """
    with _only_one():
        for part in reversed(parts):
            end(part.run, part.mark)
    return start(parts)


def status(parts: Sequence[Part]) -> bool:
    """Says of each part whether it serves.

    Returns:
        Whether all do.
    """
    serving = [part.probe(part.port) for part in parts]
    for part, serves in zip(parts, serving, strict=True):
        pid = running(part.run, part.mark)
        process = "not started here" if pid is None else f"process {pid}"
        taken = "its port is taken by something else" if pid is None and listens(part.port) else "stopped"
        _say(part, f"serves, {process}" if serves else taken if pid is None else f"does not answer, {process}")
    return all(serving)


def kill9(part: Part) -> bool:
    """Kills a part as a crash would; what it stored stays. Returns whether it ran."""
    return end(part.run, part.mark, signal.SIGKILL)


def _start_one(part: Part) -> bool:
    try:
        began = time.monotonic()
        pid = running(part.run, part.mark)
        if pid is None:
            if listens(part.port):
                raise UnavailableError(f"port {part.port} is taken by something else")
            part.run.mkdir(parents=True, exist_ok=True)
            if part.recipe is not None:
                ensure(part.recipe, part.folder, part.run / "fetch.log")
            part.data.mkdir(exist_ok=True)
            spawn(part.launch(part), part.run)
        _wait(part)
        _say(part, f"{time.monotonic() - began:5.1f} s" if pid is None else "serves already")
    except (UnavailableError, OSError) as error:
        sys.stderr.write(f"{part.name}: {error}\n")
        return False
    return True


def _wait(part: Part) -> None:
    deadline = time.monotonic() + DEADLINE
    log = part.run / "log"
    while not part.probe(part.port):
        if alive(part.run) is None:
            raise UnavailableError(f"ended as it started: {last_line(log)} (all of it: {log})")
        if time.monotonic() > deadline:
            end(part.run, part.mark, signal.SIGQUIT)  # Java writes what its threads do into the log
            raise UnavailableError(f"does not answer within {DEADLINE:.0f} s; see {log}")
        time.sleep(0.1)


def _stop_one(part: Part) -> bool:
    try:
        ended = end(part.run, part.mark)
        shutil.rmtree(part.data, ignore_errors=True)
    except (TimeoutError, OSError) as error:
        sys.stderr.write(f"{part.name}: {error}\n")
        return False
    _say(part, "stopped" if ended else "was not started here: left alone" if listens(part.port) else "did not run")
    return True


@contextlib.contextmanager
def _only_one() -> Generator[None]:
    """Keeps other starts and stops of the same folder waiting."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / "flink.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(part: Part, text: str) -> None:
    sys.stdout.write(f"{part.name:<21} localhost:{part.port}  {text:<24} {part.note}\n")
    sys.stdout.flush()


_COMMANDS: Final[dict[str, Callable[[Sequence[Part]], bool]]] = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "status": status,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="run.py", description="A Flink cluster and Beam's servers for it.")
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BY_NAME)}; all without one")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in BY_NAME]
    if unknown:
        parser.error(f"NAME: there is no {unknown[0]!r}; there are {', '.join(BY_NAME)}")
    parts = [part for part in PARTS if not given.names or part.name in given.names]
    return 0 if _COMMANDS[given.command](parts) else 1


if __name__ == "__main__":
    sys.exit(main())
