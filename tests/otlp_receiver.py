"""An OTLP/HTTP collector in the process of a test: keeps what it is sent, decoded; can refuse, or hang.

``POST /v1/metrics`` and ``POST /v1/traces`` with protobuf bodies, gzipped or not, as the OTLP specification has them:
https://opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

import gzip
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class OtlpReceiver:
    """What was received.

    Attributes:
        endpoint: for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        status: what requests are answered with; 503 for a collector in trouble.
        hanging: while set, requests are kept without an answer.
    """

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.status = 200
        self.hanging = threading.Event()
        self.requests = 0
        self.bodies: list[bytes] = []
        self._metrics: list[Any] = []
        self._traces: list[Any] = []
        self._changed = threading.Condition()

    def received(self, path: str, body: bytes) -> None:
        """Keeps a request."""
        with self._changed:
            self.requests += 1
            self.bodies.append(body)
            if self.status == 200:
                kind, kept = {
                    "/v1/metrics": (ExportMetricsServiceRequest, self._metrics),
                    "/v1/traces": (ExportTraceServiceRequest, self._traces),
                }[path]
                kept.append(kind.FromString(body))
            self._changed.notify_all()

    def wait_for(self, holds: Callable[["OtlpReceiver"], object], seconds: float = 20.0) -> None:
        """Waits until something holds, looked at after each request; fails the test where it never does."""
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self), seconds), "the collector never received it"

    def metrics(self) -> Iterator[Any]:
        """Every metric received, the last ones last, as ``opentelemetry.proto.metrics.v1.Metric``."""
        for request in list(self._metrics):
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    yield from scope.metrics

    def points(self, name: str) -> list[tuple[dict[str, str], Any]]:
        """The points of a metric as last received, each with its attributes."""
        found: list[tuple[dict[str, str], Any]] = []
        for metric in self.metrics():
            if metric.name == name:
                points = getattr(metric, metric.WhichOneof("data")).data_points
                found = [(attributes_of(point), point) for point in points]
        return found

    def spans(self) -> list[Any]:
        """Every span received, as ``opentelemetry.proto.trace.v1.Span``."""
        return [
            span
            for request in list(self._traces)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self) -> list[dict[str, str]]:
        """The attributes of every resource received."""
        metrics = [one.resource for request in list(self._metrics) for one in request.resource_metrics]
        traces = [one.resource for request in list(self._traces) for one in request.resource_spans]
        return [attributes_of(resource) for resource in (*metrics, *traces)]


def attributes_of(holder: Any) -> dict[str, str]:
    """Attributes of a span, a point or a resource, their values as text."""
    return {
        attribute.key: str(getattr(attribute.value, attribute.value.WhichOneof("value") or "string_value"))
        for attribute in holder.attributes
    }


@contextmanager
def otlp_receiver() -> Generator[OtlpReceiver]:
    """A collector on a free port for the time of a ``with`` block."""
    receiver: OtlpReceiver
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            while receiver.hanging.is_set() and not closing.wait(0.05):
                pass
            receiver.received(self.path, body)
            self.send_response(receiver.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver = OtlpReceiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            closing.set()
            server.shutdown()
