"""The clock on the wall."""

import time


def now_ms() -> int:
    """The time in milliseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1_000_000
