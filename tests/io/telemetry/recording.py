"""Spans recorded in the test's own process."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from fan_identity.io.telemetry import tracing
from fan_identity.io.telemetry.sampling import Sampling


class Recorded:
    """Ended spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def spans(self) -> Any:
        """All of them, in the order they ended."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[Any]:
        """Those of a name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Any:
        """The one of a name."""
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans {name!r} among {[span.name for span in self.spans]}"
        return found[0]

    def parent(self, span: Any) -> Any:
        """Its parent's name, or None."""
        if span.parent is None:
            return None
        return next((one.name for one in self.spans if one.context.span_id == span.parent.span_id), None)


@contextmanager
def recording(ratio: float = 1.0, *, by_parent: bool = True) -> Generator[Recorded]:
    """Records spans while in the block."""
    recorded = Recorded()
    provider = TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(recorded.exporter))
    tracing.use(provider, Sampling(ratio, by_parent))
    try:
        yield recorded
    finally:
        tracing.shutdown()
