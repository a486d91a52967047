"""Values of options that more than one command takes: times and rates."""

from ...domain.activity import MalformedRecordError, parse_time_ms
from ...io.errors import UsageError


def time_option(option: str, text: str | None) -> int | None:
    """A time as epoch milliseconds; None where it is not given.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    try:
        return parse_time_ms(text)
    except MalformedRecordError:
        raise UsageError(f"{option}: write a time as 2026-11-27T10:00:00Z") from None


def rate_option(option: str, text: str) -> int:
    """A rate, ``200/s`` or ``200``, in items a second.

    Raises:
        UsageError: it is none, or 0.
    """
    number = text.strip().removesuffix("/s")
    if not (number.isascii() and number.isdigit()) or int(number) < 1:
        raise UsageError(f"{option}: write a whole number a second, such as 200/s")
    return int(number)
