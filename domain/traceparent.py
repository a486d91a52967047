"""W3C trace context: the ``traceparent`` that a record or request brings, read with distrust, and written.

Source: W3C Trace Context (Recommendation, 2021), 3.2 "Traceparent Header".
"""

import re
from typing import Final, NamedTuple

_LENGTH: Final = 55
_LONGEST: Final = 256  # versions to come may append to it; what is longer is none of any version
_FORM: Final = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_VERSION: Final = "00"
_NO_VERSION: Final = "ff"
_SAMPLED: Final = 1


class TraceParent(NamedTuple):
    """A span somewhere, which others follow on.

    Attributes:
        trace_id: of its trace, 128 bits, not 0.
        span_id: its own, 64 bits, not 0.
        sampled: whether it is recorded.
    """

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        """As it travels: ``00-<trace id>-<span id>-<flags>``, 55 characters."""
        return f"{_VERSION}-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def parse_traceparent(value: object) -> TraceParent | None:
    """Reads what somebody sent as a traceparent; None for everything that is none.

    Args:
        value: text or ASCII bytes; anything else is no traceparent.

    >>> parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").sampled
    True
    >>> parse_traceparent("00-00000000000000000000000000000000-b7ad6b7169203331-01") is None
    True
    """
    if isinstance(value, bytes):
        value = value.decode("latin-1") if len(value) <= _LONGEST else ""
    if not isinstance(value, str) or not _LENGTH <= len(value) <= _LONGEST:
        return None
    found = _FORM.match(value)
    if found is None or found[1] == _NO_VERSION:
        return None
    # Version 00 ends here; a later one may go on behind another dash (3.2.4, "Versioning of traceparent").
    if len(value) > _LENGTH and (found[1] == _VERSION or value[_LENGTH] != "-"):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    return TraceParent(trace_id, span_id, bool(int(found[4], 16) & _SAMPLED))


def sampled_traceparent(value: object) -> str | None:
    """What somebody sent, written anew, where it is a traceparent of a trace that is recorded; else None."""
    found = parse_traceparent(value)
    return str(found) if found is not None and found.sampled else None
