"""Who reads this process's metrics: Prometheus, which asks at a port, and a collector, which is sent them over OTLP.

Imported only where one of them is wanted: it brings OpenTelemetry's SDK.
"""

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, Final
from wsgiref.simple_server import WSGIServer

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric as Family
from typing_extensions import override

from ..errors import UsageError
from ..settings import Settings
from . import instruments, metrics, watched

_PORTS_TRIED: Final = 16
_log: Final = logging.getLogger("fan_identity.telemetry")


class _Prometheus(PrometheusMetricReader):
    """What is read when somebody asks at the port."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Who scrapes labels its targets itself; the scope would be the same label on every series.
        super().__init__(scope_info_enabled=False, registry=registry)
        self._began_ns = time.time_ns()

    @override
    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        parent: Any = super()  # the SDK leaves **kwargs without types; likewise below
        parent._receive_metrics(instruments.with_distributions(metrics_data, self._began_ns), timeout_millis)


class _Registry(CollectorRegistry):
    """One scrape at a time: two at once would find the numbers of both in the reader."""

    def __init__(self) -> None:
        super().__init__(auto_describe=False)
        self._scraping = threading.Lock()

    @override
    def collect(self) -> Iterable[Family]:
        with self._scraping:
            return list(super().collect())


class _Otlp(OTLPMetricExporter):
    """Sends to a collector. What a failed export held is in the next one too: the numbers are sums."""

    def __init__(self) -> None:
        super().__init__()  # of the environment
        self._began_ns = time.time_ns()

    @override
    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        parent: Any = super()
        sent = parent.export(instruments.with_distributions(metrics_data, self._began_ns), timeout_millis)
        if sent is not MetricExportResult.SUCCESS:
            metrics.observe_export_failure("metrics")
        return sent


class _Periodic(PeriodicExportingMetricReader):
    """Exports in a thread of its own, so that a collector that hangs holds up nothing but the next export."""

    @override
    def _at_fork_reinit(self) -> None:
        """A forked process starts telemetry of its own."""


class Readers:
    """The readers of this process.

    Args:
        service: the worker's name, or ``serve``.
        settings: where Prometheus asks.
        resource: who tells.
        otlp: whether a collector is sent metrics.

    Raises:
        UsageError: no port could be had.
    """

    def __init__(self, service: str, settings: Settings, resource: Resource, *, otlp: bool) -> None:
        self._server: WSGIServer | None = None
        readers: list[Any] = []
        registry = _Registry()
        if settings.metrics_port is not None:
            readers.append(_Prometheus(registry))
        if otlp:
            readers.append(_Periodic(_Otlp()))
        self._provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        meter = self._provider.get_meter(instruments.SCOPE)
        instruments.register(meter, watched.queues_of(service, settings), watched.lag_of(service, settings))
        if settings.metrics_port is not None:
            self._server = _listen(settings.metrics_host, settings.metrics_port, registry)

    @property
    def port(self) -> int | None:
        """Where Prometheus asks, or None."""
        return None if self._server is None else int(self._server.server_port)

    def flush(self, seconds: float) -> None:
        """Sends what is there; the caller bounds the time, since the exporter does not keep to ``seconds``."""
        self._provider.force_flush(seconds * 1_000)

    def shutdown(self, seconds: float) -> None:
        """As ``flush``, and ends."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._provider.shutdown(seconds * 1_000)

    def forget(self) -> None:
        """For a forked process: the port is its parent's."""
        if self._server is not None:
            self._server.socket.close()


def _listen(host: str, port: int, registry: CollectorRegistry) -> WSGIServer:
    """Answers Prometheus at a port, or the next free one: several workers of one machine share a setting.

    Raises:
        UsageError: they are all taken, or the host is none of this machine's.
    """
    tried = [0] if port == 0 else range(port, min(port + _PORTS_TRIED, 65_536))
    for number in tried:
        try:
            server, _ = start_http_server(number, host, registry)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(f"--metrics-host: {host} is no address of this machine") from None
            raise UsageError(f"--metrics-port: {number} cannot be opened: {error.strerror}") from None
        level = logging.INFO if number and number == port else logging.WARNING  # else nobody could know it
        _log.log(level, "metrics are at http://%s:%d/metrics", host, server.server_port)
        return server
    raise UsageError(
        f"--metrics-port: {port} and the {len(tried) - 1} ports behind it are taken on {host}; "
        "give another one, or 0 for any that is free"
    )
