"""Who may work on an SQLite store at the same time.

A bounded run counts what is in the queue before and after, so it works alone; streaming workers share.
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .errors import BackendUnavailableError


@contextmanager
def store_lock(path: Path, *, exclusive: bool) -> Generator[None]:
    """Holds a store for a run; the system releases it when the process ends, however it ends.

    Args:
        path: the store's file; the lock is a file beside it, since locks on the file itself are SQLite's.
        exclusive: alone, or beside other shared holders.

    Raises:
        BackendUnavailableError: another process holds it in a way that excludes this one.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BackendUnavailableError(
            f"store {path}: cannot make {lock_path.name} beside it: {error.strerror}"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackendUnavailableError(
                f"store {path} is in use by another fan-identity process; wait for it, stop it, or use another file"
            ) from None
        yield
    finally:
        os.close(descriptor)
