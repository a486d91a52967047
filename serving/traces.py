"""Spans of what somebody asked this program, over HTTP or through a Lambda.

Callers are outside of a trust boundary: whether a request is recorded is not theirs to say, unless setting
``trust_traceparent`` says so. Then as W3C Trace Context has it ("restart"): the request begins a trace of its own, and
is linked to the caller's.
"""

from collections.abc import Sequence

from ..domain.traceparent import parse_traceparent
from ..io.telemetry.tracing import NOTHING, Attributes, Span, new_span, switch


def request_span(name: str, traceparents: Sequence[object], attributes: Attributes, *, trusts: bool) -> Span:
    """The span of a request, where it is recorded. Only where ``tracing.switch.on``.

    Args:
        name: of a short list.
        traceparents: those it brought; of several, none counts.
        attributes: without anything that could name a fan.
        trusts: whether the caller's trace is continued.
    """
    caller = parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None
    if not switch.sampling.chooses(caller if trusts else None):
        return NOTHING
    if trusts:
        return new_span(name, "server", parent=caller, attributes=attributes)
    return new_span(name, "server", links=(caller,), attributes=attributes)
