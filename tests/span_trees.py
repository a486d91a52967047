"""Spans as a tree, for tests and docs: what a trace looks like, drawn as text."""

from collections.abc import Iterable, Sequence
from typing import Any

from tests.otlp_receiver import attributes_of


class Traces:
    """Spans as OTLP has them, by their ids.

    Args:
        spans: ``opentelemetry.proto.trace.v1.Span``.
    """

    def __init__(self, spans: Iterable[Any]) -> None:
        self.spans = sorted(spans, key=lambda span: (span.start_time_unix_nano, -span.end_time_unix_nano))
        self._by_id = {span.span_id: span for span in self.spans}

    def named(self, name: str) -> list[Any]:
        """Spans of a name, the earliest first."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Any:
        """The one span of a name."""
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans {name!r} in\n{self}"
        return found[0]

    def of(self, trace_id: bytes) -> "Traces":
        """The spans of one trace."""
        return Traces(span for span in self.spans if span.trace_id == trace_id)

    def parent(self, span: Any) -> Any:
        """A span's parent, or None where it is not among these."""
        return self._by_id.get(span.parent_span_id)

    def children(self, span: Any) -> list[Any]:
        """A span's children, the earliest first."""
        return [one for one in self.spans if one.parent_span_id == span.span_id]

    def path(self, span: Any) -> list[str]:
        """Names from the outermost span down to this one."""
        parent = self.parent(span)
        return [*([] if parent is None else self.path(parent)), span.name]

    def linked(self, span: Any) -> list[Any]:
        """The spans a span links to, of those that are here."""
        return [self._by_id[link.span_id] for link in span.links if link.span_id in self._by_id]

    def __str__(self) -> str:
        roots = [span for span in self.spans if self.parent(span) is None]
        return "\n".join(line for root in roots for line in self._lines(root, "", ""))

    def _lines(self, span: Any, first: str, rest: str) -> Sequence[str]:
        took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        kind = span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
        failed = f" failed: {attributes_of(span).get('error.type', '?')}" if span.status.code == 2 else ""
        links = f" links: {', '.join(link.span_id.hex()[:4] for link in span.links)}" if span.links else ""
        shown = f"{span.name} [{kind} {span.span_id.hex()[:4]}] {took:.1f} ms{failed}{links}"
        if not first:
            shown += f" trace {span.trace_id.hex()[:6]}"
        children = self.children(span)
        lines = [first + shown]
        for number, child in enumerate(children):
            last = number == len(children) - 1
            lines += self._lines(child, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "))
        return lines
