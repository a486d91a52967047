"""What holds for every event that handleEvent consumes: the time it may be of, why it is refused, what became of it."""

from enum import Enum
from typing import Final

from .activity import MalformedRecordError

MOST_FUTURE_MS: Final = 5 * 60_000
"""How far an event may be ahead of our clock: clocks differ, but one from tomorrow would win over all of today's."""

HORIZON_MS: Final = 30 * 24 * 60 * 60_000
"""How old an event may be. Longer than any queue keeps one (SQS: 14 days), so what is older was kept by somebody."""


class RefusedEventError(MalformedRecordError):
    """An event that can be read and is not to be trusted.

    Args:
        reason: a short code, counted: ``forged``, ``out_of_time``.
        message: one line that repeats nothing of the event.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason: Final = reason


class Consumed(Enum):
    """What became of an event. The value is the counter's name."""

    STORED = "stored"
    """It was news."""

    STALE = "stale"
    """Something newer was there: the newest stays as it is."""

    DEDUPLICATED = "deduplicated"
    """The same event was consumed before."""


def check_event_time(time_ms: int, now_ms: int) -> None:
    """Holds an event's time against the clock.

    Raises:
        RefusedEventError: ``out_of_time``: over 5 minutes ahead, or over 30 days old.
    """
    if time_ms - now_ms > MOST_FUTURE_MS:
        raise RefusedEventError("out_of_time", "occurredAt is more than 5 minutes ahead")
    if now_ms - time_ms > HORIZON_MS:
        raise RefusedEventError("out_of_time", "occurredAt is more than 30 days ago")
