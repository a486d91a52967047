"""Durations as settings have them."""

import re
from datetime import timedelta

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds"}
_DURATION = re.compile(r"([0-9]{1,6})(d|h|ms|m|s)")


def duration(text: str) -> timedelta:
    """Reads ``7d``, ``12h``, ``30m``, ``45s`` or ``500ms``.

    Raises:
        ValueError: it is written differently.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("write a number and a unit, such as 7d, 12h, 30m, 45s or 500ms")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
