"""A time limit for what has none of its own: who hangs is left behind."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from .errors import BackendUnavailableError

T = TypeVar("T")


def within(seconds: float, do: Callable[[], T], name: str) -> T:
    """Does something in a thread of its own and waits no longer than ``seconds`` for it.

    Args:
        seconds: to wait.
        do: what; where it takes longer it goes on unwatched, in a thread that does not keep the process from ending.
        name: of the thread and in the error.

    Raises:
        BackendUnavailableError: it took longer.
        Exception: what ``do`` raised.
    """
    results: list[T] = []
    errors: list[Exception] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(do())
        except Exception as error:  # raised again by who waits
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name=name, daemon=True).start()
    if not done.wait(seconds):
        raise BackendUnavailableError(f"{name}: no answer in {seconds:.3g} s")
    if errors:
        raise errors[0]
    return results[0]


def side_by_side(seconds: float, calls: Iterable[Callable[[], object]], name: str) -> list[threading.Thread]:
    """Does several things at once, and waits no longer than ``seconds`` for all of them together.

    Args:
        seconds: to wait.
        calls: what; errors are theirs to handle.
        name: of the threads, which do not keep the process from ending.

    Returns:
        The threads of what has not come to its end; they go on unwatched.
    """
    threads = [threading.Thread(target=call, name=name, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()]
