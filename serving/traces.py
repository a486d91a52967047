"""Spans of what somebody asked this program, over HTTP or through a Lambda.

Callers are outside of a trust boundary: whether a request is recorded is not theirs to say, unless setting
``trust_traceparent`` says so. Then as W3C Trace Context has it ("restart"): the request begins a trace of its own, and
is linked to the caller's.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

from ..domain.traceparent import TraceParent, parse_traceparent
from ..io.telemetry.tracing import Attributes, Span, new_span, switch
from ..io.telemetry.unfailing import inside

_EXPORTERS = "OTEL_EXPORTER_OTLP_"


def chooses(traceparents: Sequence[object], *, trusts: bool) -> bool:
    """Whether a request is recorded; asked once for each, and first: most are not. Only where ``tracing.switch.on``.

    Args:
        traceparents: those it brought; of several, none counts.
        trusts: whether the caller's trace is continued.
    """
    return switch.sampling.chooses(_caller(traceparents) if trusts else None)


def request_span(name: str, traceparents: Sequence[object], attributes: Attributes, *, trusts: bool) -> Span:
    """The span of a request that is recorded.

    Args:
        name: of a short list.
        traceparents: as ``chooses``.
        attributes: without anything that could name a fan.
        trusts: as ``chooses``.
    """
    caller = _caller(traceparents)
    if trusts:
        return new_span(name, "server", parent=caller, attributes=attributes)
    return new_span(name, "server", links=(caller,), attributes=attributes)


def _caller(traceparents: Sequence[object]) -> TraceParent | None:
    return parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None


@contextmanager
def resolver_trace(worker: str, request_id: str, event: object, *, trusts: bool) -> Generator[None]:
    """The span of an invocation that answers AppSync; in the block it is the current one, and then it is sent.

    Args:
        worker: who answers; the span's name.
        request_id: of the invocation.
        event: of a resolver, or a list of them (BatchInvoke), which may each come from another caller.
        trusts: whether the caller's trace is continued.
    """
    _start(worker)
    if not switch.on:
        yield
        return
    attributes: Attributes = {"faas.invocation_id": request_id, "faas.trigger": "http"}
    brought = _traceparents(event)
    if not chooses(brought, trusts=trusts):
        yield
        return
    try:
        with inside(lambda: request_span(worker, brought, attributes, trusts=trusts)):
            yield
    finally:
        from ..io.telemetry.start import ANSWER_SECONDS, flush  # noqa: PLC0415 - it is on, so imported long since

        flush(ANSWER_SECONDS)  # AWS may freeze the process now


def _traceparents(event: object) -> list[object]:
    """What the request's headers say; nothing for a batch."""
    try:
        return [cast("Mapping[str, Any]", event)["request"]["headers"]["traceparent"]]
    except (KeyError, TypeError):
        return []


@cache
def _start(worker: str) -> None:
    """Turns telemetry on where a collector is named; else it is not even imported, as resolvers are to start soon."""
    if not any(name.startswith(_EXPORTERS) for name in os.environ):
        return
    from ..io.settings import load_settings  # noqa: PLC0415
    from ..io.telemetry.start import start  # noqa: PLC0415

    start(worker, load_settings())
