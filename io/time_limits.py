"""A time limit for what has none of its own: who hangs is left behind."""

import threading
from collections.abc import Callable
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
