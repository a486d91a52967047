"""What makes and sends spans: OpenTelemetry's SDK with its OTLP exporter. Imported only where spans are recorded.

Its settings are OpenTelemetry's environment variables, see docs/tracing.md.
"""

from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from typing_extensions import override

from .metrics import observe_export_failure


class CountingExporter(OTLPSpanExporter):
    """Exports over HTTP, and counts where that failed: the spans are lost then."""

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        outcome = SpanExportResult.FAILURE
        try:
            outcome = super().export(spans)
        finally:  # also where it raises
            if outcome is not SpanExportResult.SUCCESS:
                observe_export_failure("traces")
        return outcome


def new_provider(resource: Resource) -> TracerProvider:
    """A provider that sends spans in batches from a thread of its own, also in a forked process.

    It records whatever it is asked for: ``sampling.py`` chose before. Who made it shuts it down.
    """
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(CountingExporter()))
    return provider
