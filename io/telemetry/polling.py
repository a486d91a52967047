"""Numbers that somebody else has to be asked for, such as a queue's depth: asked seldom, and waited for briefly.

A scrape must not hang because a queue does. So the question is asked in a thread of its own, at most once an interval;
who wants the number waits for a moment, and takes the last answer, or none where that is old.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from ..errors import FanIdentityError

INTERVAL_SECONDS: Final = 10.0
"""At most one question in this time."""

PATIENCE_SECONDS: Final = 0.5
"""What all questions of one collection together are waited for."""

KEPT_SECONDS: Final = 45.0
"""An older answer is none: a gap in a plot says more than a number that no longer holds."""

_log: Final = logging.getLogger("fan_identity.telemetry")


class Polled:
    """A number somebody else knows. Thread-safe.

    Args:
        ask: asks for it.
        clock: seconds, monotonic.
    """

    def __init__(self, ask: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._changed = threading.Condition()
        self._asked_at = float("-inf")
        self._answered_at = float("-inf")
        self._asking = False
        self._in_trouble = False
        self._answer = 0.0

    def begin(self) -> None:
        """Asks, unless that was done lately or the last question still hangs."""
        with self._changed:
            now = self._clock()
            if self._asking or now - self._asked_at < INTERVAL_SECONDS:
                return
            self._asking, self._asked_at = True, now
        threading.Thread(target=self._find_out, name="telemetry question", daemon=True).start()

    def value(self, patience: float) -> float | None:
        """The number; None where there is no answer of the last while.

        Args:
            patience: seconds to wait for a question that is under way.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._asking, patience)
            return self._answer if self._clock() - self._answered_at <= KEPT_SECONDS else None

    def _find_out(self) -> None:
        answer, problem = 0.0, ""
        try:
            answer = self._ask()
        except FanIdentityError as error:
            problem = str(error)
        except Exception as error:  # it costs a number, and nothing else; its text may hold anything
            problem = type(error).__name__
        with self._changed:
            self._asking = False
            if not problem:
                self._answer, self._answered_at = answer, self._clock()
            elif not self._in_trouble:  # told once, until it is over
                _log.warning("a number for telemetry cannot be had: %s", problem)
            self._in_trouble = bool(problem)
            self._changed.notify_all()


def values_of(polled: Mapping[str, Polled], patience: float = PATIENCE_SECONDS) -> dict[str, float]:
    """The numbers there are, by name; all are asked side by side and waited for ``patience`` seconds together."""
    until = time.monotonic() + patience
    for one in polled.values():
        one.begin()
    found = {name: one.value(max(0.0, until - time.monotonic())) for name, one in polled.items()}
    return {name: value for name, value in found.items() if value is not None}
