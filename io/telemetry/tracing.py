"""Spans: what took how long, and inside of what. Nothing at all until ``start``, and then for sampled traces only.

The provider is ours alone, not the process's global one: what other libraries trace stays theirs. Errors are recorded
by their type: an exception's text may hold what a record or request brought.

Source: OpenTelemetry semantic conventions 1.38 (general, messaging, database, HTTP, FaaS); see docs/tracing.md.
"""

import os
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

from ...domain.traceparent import TraceParent, parse_traceparent
from ..errors import UsageError
from . import otlp
from .sampling import Sampling, sampling_of

_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP: Final = "http/protobuf"

Value = str | bool | int | float
Attributes = Mapping[str, Value]

CALLS: Final = "fan_identity.calls"
"""How many calls a service's span stands for."""

FAILED_CALLS: Final = "fan_identity.failed_calls"
"""How many of them had no answer that can be used."""


class Switch:
    """Whether spans are recorded, and how.

    Attributes:
        on: what code that does anything for tracing asks first.
        sampling: which traces.
        provider: OpenTelemetry's, and ``tracer`` its tracer of ours; None where nothing is recorded.
    """

    on: bool = False
    sampling: Sampling = Sampling()
    provider: Any = None
    tracer: Any = None


switch: Final = Switch()
"""This process's."""


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether OpenTelemetry's environment variables name a collector of traces, and a sampler that ever samples.

    Raises:
        UsageError: the sampler is none of OpenTelemetry's, or its argument no share.
    """
    return otlp.is_sent("TRACES", environment) and not sampling_of(environment).never


def start(resource: Any) -> None:
    """Begins to record spans and to export them by OTLP over HTTP; does nothing where ``is_wanted`` says no.

    Args:
        resource: the process, an OpenTelemetry ``Resource``.

    Raises:
        UsageError: a protocol other than http/protobuf is wanted, or as ``is_wanted``.
    """
    if switch.on or not is_wanted():
        return
    for name in _PROTOCOLS:
        if os.environ.get(name, _HTTP).strip() not in ("", _HTTP):
            raise UsageError(f"{name}: {_HTTP} is what is spoken here")
    from .span_export import new_provider  # noqa: PLC0415 - the SDK takes a tenth of a second to import

    use(new_provider(resource), sampling_of(os.environ))


def use(provider: Any, sampling: Sampling) -> None:
    """Records spans by a provider of OpenTelemetry's SDK that samples always; ``start`` makes one, tests their own."""
    switch.provider = provider
    switch.tracer = provider.get_tracer("fan_identity")
    switch.sampling = sampling
    switch.on = True


def flush() -> None:
    """Exports what was recorded. For a Lambda, which is frozen once it answered."""
    if switch.on:
        switch.provider.force_flush()


def shutdown() -> None:
    """Exports what is left and records no more."""
    if switch.on:
        switch.on = False
        switch.provider.shutdown()


class Span:
    """A span, open until ``end``; as a context manager it is the current one, and ends with the block.

    Args:
        span: OpenTelemetry's; None for one that is not recorded, on which everything does nothing.
    """

    __slots__ = ("_span", "_tokens")

    def __init__(self, span: Any) -> None:
        self._span = span
        self._tokens: Any = None

    @property
    def place(self) -> TraceParent | None:
        """Names it to others; None where it is not recorded."""
        return None if self._span is None else _place_of(self._span)

    @property
    def stands_for_one(self) -> bool:
        """Whether it is about one call alone."""
        return self._span is not None and self._span.attributes.get(CALLS, 1) == 1

    def set(self, attributes: Attributes) -> None:
        """Adds attributes: never a user's id, a key or a value of a record."""
        if self._span is not None:
            self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        """Gives it another name."""
        if self._span is not None:
            self._span.update_name(name)

    def link(self, to: TraceParent | None) -> None:
        """Links it to a span of this or another trace."""
        if self._span is not None and to is not None:
            self._span.add_link(_context(to))

    def fail(self, error_type: str) -> None:
        """Marks it as failed, by an error's type or a reason's code."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - recorded, so imported long since

            self._span.set_attribute("error.type", error_type)
            self._span.set_status(StatusCode.ERROR)

    def describe(self, failures: list[str], calls: int) -> None:
        """Notes which of several calls failed, by their reasons; where all did, it failed itself."""
        if self._span is not None and failures:
            self._span.set_attribute(FAILED_CALLS, len(failures))
            if len(failures) == calls:
                self.fail(failures[0])

    def child(
        self,
        name: str,
        kind: str = "internal",
        attributes: Attributes | None = None,
        *,
        began_ns: int | None = None,
    ) -> "Span":
        """A part of it; arguments as with ``new_span``."""
        if self._span is None:
            return NOTHING
        from opentelemetry import trace  # noqa: PLC0415

        context = trace.set_span_in_context(self._span)
        opened = switch.tracer.start_span(name, context, trace.SpanKind[kind.upper()], attributes, start_time=began_ns)
        return Span(opened)

    def end(self, error: BaseException | None = None) -> None:
        """Ends it, as failed where there is an error."""
        if self._span is not None:
            if error is not None:
                self.fail(type(error).__qualname__)
            self._span.end()

    def __enter__(self) -> "Span":
        if self._span is not None:
            from opentelemetry import context, trace  # noqa: PLC0415

            self._tokens = context.attach(trace.set_span_in_context(self._span)), _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is not None:
            from opentelemetry import context  # noqa: PLC0415

            of_context, of_ours = self._tokens
            context.detach(of_context)
            _current.reset(of_ours)
            self.end(error)


NOTHING: Final = Span(None)
"""The span of what is not recorded."""

_current: Final[ContextVar[Span]] = ContextVar("current span", default=NOTHING)
# OpenTelemetry's own context knows it too, for other libraries; asking that takes ten times as long, and most requests
# are not recorded.


def new_span(
    name: str,
    kind: str = "internal",
    *,
    parent: TraceParent | None = None,
    links: tuple[TraceParent | None, ...] = (),
    began_ns: int | None = None,
    attributes: Attributes | None = None,
) -> Span:
    """A span of a chosen trace; begins one where there is no parent. Only where ``switch.on``.

    Args:
        name: of what it stands for, from a short list.
        kind: ``internal``, ``server``, ``client``, ``producer`` or ``consumer``.
        parent: the span it is a part of.
        links: other spans it has to do with.
        began_ns: when it began, nanoseconds since the epoch; now where None.
        attributes: as with ``Span.set``.
    """
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.context import Context  # noqa: PLC0415

    context = Context()
    if parent is not None:
        context = trace.set_span_in_context(trace.NonRecordingSpan(_context(parent)), context)
    return Span(
        switch.tracer.start_span(
            name,
            context,
            trace.SpanKind[kind.upper()],
            attributes,
            [trace.Link(_context(link)) for link in links if link is not None],
            began_ns,
        )
    )


def child_span(name: str, kind: str = "internal", attributes: Attributes | None = None) -> Span:
    """A part of the current span; nothing where that is not recorded."""
    if not switch.on:
        return NOTHING
    return current_span().child(name, kind, attributes)


def service_span(name: str, attributes: Attributes | None = None) -> Span:
    """A call to a service, or several of one kind together (``CALLS``), as part of the current span."""
    return child_span(name, "client", attributes) if switch.on else NOTHING


def current_span() -> Span:
    """The current span, for what is learned on the way; whoever opened it ends it."""
    return _current.get() if switch.on else NOTHING


def in_recorded_span() -> bool:
    """Whether the current span is recorded: what has to be found out for a span of its own is not, where it is not."""
    return switch.on and _current.get() is not NOTHING


def describe_current(name: str, attributes: Attributes) -> None:
    """Says what the current span is about, where only the code inside of it knows."""
    span = current_span()
    span.rename(name)
    span.set(attributes)


def outgoing() -> dict[str, str]:
    """The header that lets a service continue the current span's trace; none where that is not recorded."""
    place = current_span().place if switch.on else None
    return {} if place is None else {"traceparent": str(place)}


def note_http(method: str, host: str, port: int, status: int) -> None:
    """Tells the current span of an HTTP request: never the path, which may hold a user's id.

    Where the span stands for several calls, their statuses are as many; then none is told.
    """
    if not switch.on:
        return
    span = current_span()
    span.set({"http.request.method": method, "server.address": host, "server.port": port})
    if span.stands_for_one:
        span.set({"http.response.status_code": status})


def link_current(traceparent: object) -> None:
    """Links the current span to what a stored thing names as its trace, where it does."""
    if switch.on and (span := _current.get()) is not NOTHING:  # inline: asked at every ARM lookup
        span.link(parse_traceparent(traceparent))


def database(system: str, collection: str) -> dict[str, Value]:
    """Attributes of a table.

    Args:
        system: ``aws.dynamodb``, ``sqlite``.
        collection: its name.
    """
    return {"db.system.name": system, "db.collection.name": collection}


def _context(parent: TraceParent) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)


def _place_of(span: Any) -> TraceParent:
    context = span.get_span_context()
    return TraceParent(context.trace_id, context.span_id, context.trace_flags.sampled)
