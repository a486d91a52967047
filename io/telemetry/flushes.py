"""Sending telemetry before an answer, from a process that may be frozen once it answered (Lambda).

A collector that hangs holds up one answer for a moment, and the next ones not at all.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ..time_limits import side_by_side
from .metrics import observe_missed_flush

PAUSE_SECONDS: Final = 30.0
"""Nothing is flushed for so long after a flush that was late."""

_log: Final = logging.getLogger("fan_identity.telemetry")


class Flushes:
    """The flushes of a process: one at a time, and none for a while after one that was late. Thread-safe.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rests_until = float("-inf")
        self._hanging: list[threading.Thread] = []

    def flush(self, seconds: float, sends: Sequence[Callable[[], object]]) -> None:
        """Sends side by side and waits no longer than ``seconds``; what is late, and what is left out, is counted.

        Args:
            seconds: for all of them together.
            sends: what sends; an error of theirs is told to the log.
        """
        if not self._lock.acquire(blocking=False):
            observe_missed_flush("left_out")  # another thread flushes, and takes this one's along or not
            return
        try:
            self._hanging = [thread for thread in self._hanging if thread.is_alive()]
            if self._hanging or self._clock() < self._rests_until:
                observe_missed_flush("left_out")
                return
            self._hanging = side_by_side(seconds, [partial(quietly, send) for send in sends], "telemetry flush")
            if self._hanging:
                observe_missed_flush("late")
                self._rests_until = self._clock() + PAUSE_SECONDS
        finally:
            self._lock.release()


def quietly(send: Callable[[], object]) -> None:
    """Sends; telemetry is never a reason to fail."""
    try:
        send()
    except Exception as error:  # the text of others' errors may hold anything
        _log.info("telemetry could not be sent: %s", type(error).__name__)
