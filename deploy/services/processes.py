"""Starts servers that outlive the shell, and ends them by process id, never anything that is not ours.

A server's pid file holds its process id and the time it started, in clock ticks since boot. A process is ours only if
both agree with ``/proc`` and its command line holds the server's mark: a process id that was given to another program
in the meantime is never signalled. Linux only.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ASKED_PATIENCE: Final = 20.0
"""Seconds a server has to end by itself."""

_KILLED_PATIENCE: Final = 60.0
"""Seconds it may take the system to be rid of one that was killed."""

_REAPED_PATIENCE: Final = 5.0
"""Seconds for the parent of one that ended to take note; in some containers nothing ever does."""

_children: Final[list["subprocess.Popen[bytes]"]] = []
"""What this process started and must reap, should it live on as a test run does."""


@dataclass(frozen=True)
class Launch:
    """How a server's process is started.

    Args:
        argv: the command.
        environment: added to this process's.
        uid: the user to become, with ``gid``; None to stay.
        gid: the group to become.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    uid: int | None = None
    gid: int | None = None


def spawn(launch: Launch, folder: Path) -> int:
    """Starts a process in a session of its own and writes its pid file.

    Args:
        launch: what to start.
        folder: where it runs; ``pid`` and ``log`` are written there. The log before is kept as ``log.old``.

    Returns:
        Its process id.

    Raises:
        OSError: it cannot be started.
    """
    log = folder / "log"
    if log.exists():
        log.replace(folder / "log.old")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - commands of our own table
            launch.argv,
            cwd=folder,
            env={**os.environ, **launch.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=launch.uid,
            group=launch.gid,
            extra_groups=None if launch.uid is None else [],
        )
    _children.append(process)
    new = folder / "pid.new"
    new.write_text(f"{process.pid} {_started(process.pid)}\n")
    new.replace(folder / "pid")
    while process.poll() is None and not _command_line(process.pid):
        time.sleep(0.001)  # for an instant a program that begins has no command line, and would not be known as ours
    return process.pid


def running(folder: Path, mark: str) -> int | None:
    """The process id of the server that runs in a folder, or None where none of ours does."""
    pid = alive(folder)
    return pid if pid is not None and mark in _command_line(pid) else None


def alive(folder: Path) -> int | None:
    """As ``running``, but without a look at the command line: some servers rewrite theirs as they start."""
    _reap()
    try:
        pid, started = map(int, (folder / "pid").read_text().split())
    except (OSError, ValueError):
        return None
    return pid if _started(pid) == started else None


def end(folder: Path, mark: str, first: signal.Signals = signal.SIGTERM) -> bool:
    """Ends the server of a folder, if it is ours: a signal, and SIGKILL where that is not enough.

    Args:
        folder: where it runs.
        mark: text that its command line in ``/proc`` holds while it runs.
        first: the signal that asks it to end; SIGKILL to kill it at once.

    Returns:
        Whether there was one.

    Raises:
        TimeoutError: it lives on though killed.
    """
    pid = running(folder, mark)
    if pid is None:
        return False
    for number, patience in ((first, _ASKED_PATIENCE), (signal.SIGKILL, _KILLED_PATIENCE)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)  # a session leader: its own group, and what it started
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if alive(folder) is None:
                _await_reaping(pid)
                (folder / "pid").unlink(missing_ok=True)
                return True
            time.sleep(0.02)
    raise TimeoutError(f"process {pid} lives on though killed")


def _await_reaping(pid: int) -> None:
    """Waits a little until an ended process is off the table: PostgreSQL takes its old number for another server."""
    deadline = time.monotonic() + _REAPED_PATIENCE
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        _reap()
        time.sleep(0.005)


def _reap() -> None:
    """Lets processes that this one started and that ended go."""
    for child in list(_children):
        child.poll()


def _started(pid: int) -> int | None:
    """When a process started, in ticks since boot; None for one that is gone or only waits to be reaped.

    While threads of a dead process are still ending, it is not gone: they may hold its port.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    return None if state in "ZX" and threads <= 1 else started


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
