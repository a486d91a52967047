"""What bounds a log: a line said seldom, and so many lines of a kind a second."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)

_MOST_KINDS: Final = 1_000


class Seldom:
    """Says whether it is time to say something again.

    Args:
        seconds: between two times.
        clock: seconds that only grow.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._said_at = -float("inf")

    def due(self) -> bool:
        """Whether the last time it was due is long enough ago; True the first time."""
        now = self._clock()
        if now - self._said_at < self._seconds:
            return False
        self._said_at = now
        return True


class PerSecond(Generic[Kind]):
    """Lets so many of a kind pass a second, and counts those it does not.

    Args:
        most: of a kind a second.
        clock: seconds that only grow.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.RLock()  # a signal may interrupt its holder and log
        self._kinds: dict[Kind, tuple[float, int, int]] = {}  # when its second began, passed in it, left out

    def admit(self, kind: Kind) -> int | None:
        """Whether one more passes.

        Returns:
            How many of the kind were left out since one passed last; None where this one is left out, too.
        """
        now = self._clock()
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            began, passed, left_out = self._kinds.get(kind, (now, 0, 0))
            if now - began >= 1:
                began, passed = now, 0
            if passed >= self._most:
                self._kinds[kind] = began, passed, left_out + 1
                return None
            self._kinds[kind] = began, passed + 1, 0
            return left_out

    def take_left_out(self) -> dict[Kind, int]:
        """By kind how many were left out and not told yet; they count as told."""
        with self._lock:
            found = {kind: left_out for kind, (_, _, left_out) in self._kinds.items() if left_out}
            self._kinds.clear()
        return found
