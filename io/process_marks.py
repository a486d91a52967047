"""Tells whether a process that left its mark somewhere is still there, where that can be told: on one Linux machine."""

import os
import socket
from pathlib import Path
from typing import Final

_STATE: Final = 0
_START_TIME: Final = 19
"""Of the fields behind the name in ``/proc/PID/stat`` (proc(5) counts them as 3 and 22)."""


def process_mark() -> str:
    """Names this process among all there ever were: machine and boot, process namespace, number and start; or ""."""
    found = _state_and_start(os.getpid())
    return "" if found is None else f"{_here()} {os.getpid()} {found[1]}"


def is_gone(mark: str) -> bool:
    """Whether the process of a mark has ended. False where nobody can tell from here.

    The process namespace is part of the mark: in two containers of one machine, a number means two processes. So is the
    machine's boot: cloned machines have one host name, and the number of the first namespace is the same on all.
    """
    place, _, rest = mark.rpartition(" ")[0].rpartition(" ")
    start = mark.rpartition(" ")[2]
    if not rest.isdecimal() or place != _here():
        return False
    found = _state_and_start(int(rest))
    # A killed process that its parent has not asked about yet is a zombie.
    return found is None or found[1] != start or found[0] in ("Z", "X")


def _here() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, str] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[_STATE], fields[_START_TIME]
