"""Work held to a rate, so that what need not be done now leaves room to what must."""

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Final

_PORTION_SECONDS: Final = 0.05


class Pacer:
    """Lets so many items a second through, for all threads that share it.

    Virtual scheduling, the form of the token bucket that ATM calls GCRA: each taker reserves its place behind the one
    before, and waits for it. In any time there pass at most the rate times that time, and one portion. Time that nobody
    used is not saved up: after a pause no gust follows.

    Args:
        per_second: items a second.
        clock: seconds, only ever growing.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if per_second <= 0:
            raise ValueError("a rate is above 0")
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, number: int) -> None:
        """Returns when ``number`` items may be done."""
        with self._lock:
            now = self._clock()
            start = max(now, self._free_at)
            self._free_at = start + number / self._per_second
        if start > now:
            self._sleep(start - now)

    def portion(self, most: int) -> int:
        """How many items to take at once: a twentieth of a second's, at least 1 and at most ``most``."""
        return max(1, min(most, int(self._per_second * _PORTION_SECONDS)))


@cache
def pacer_of(per_second: float) -> Pacer:
    """The pacer of a rate that everything in this process shares."""
    return Pacer(per_second)
