"""Turns telemetry on: Prometheus at ``metrics_port``, and OTLP where OpenTelemetry's own variables name a collector.

Where neither is set nothing is imported and nothing runs.
"""

import atexit
import os
import uuid
from typing import TYPE_CHECKING, Final

from ... import __version__
from ..settings import Settings
from . import metrics, tracing
from .deadline import within

if TYPE_CHECKING:
    from .readers import Readers

_END_SECONDS: Final = 3.0
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_readers: Final[dict[int, "Readers | None"]] = {}  # by process: a forked one starts its own


def start(service: str, settings: Settings) -> None:
    """Begins to tell what this process does, once; in a forked or spawned process again. Where all is off, nothing.

    Args:
        service: the worker's name, or ``serve``: ``service.name`` is ``fan-identity.<service>`` unless
            OTEL_SERVICE_NAME says otherwise.
        settings: ``metrics_port`` and ``metrics_host``; OTLP's settings are OpenTelemetry's environment variables.

    Raises:
        UsageError: ``metrics_port`` and the ports behind it are taken, ``metrics_host`` is not this machine's, or as
            ``tracing.start``.
    """
    process = os.getpid()
    metered = _sends_metrics() or (settings.metrics_port is not None and not _is_disabled())
    if process in _readers or not (metered or tracing.is_wanted()):
        return
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - only where it is used

    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", f"fan-identity.{service}"),
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
            "process.pid": process,
        }
    )
    tracing.start(resource)
    _readers[process] = None
    if metered:
        from .readers import Readers  # noqa: PLC0415 - only where it is used

        _readers[process] = Readers(service, settings, resource, otlp=_sends_metrics())
        metrics.switch.on = True
    atexit.register(shutdown)


def metrics_port() -> int | None:
    """Where this process answers Prometheus, or None."""
    readers = _readers.get(os.getpid())
    return None if readers is None else readers.port


def flush(seconds: float = _END_SECONDS) -> None:
    """Sends what is there, for a process that may be frozen any time (Lambda); waits so long at most."""
    within(seconds, tracing.flush)
    readers = _readers.get(os.getpid())
    if readers is not None:
        readers.flush(seconds)


def shutdown() -> None:
    """Tells what is left, within a deadline, and ends; nothing happens where it was not started."""
    process = os.getpid()
    if process not in _readers:
        return
    readers = _readers.pop(process)
    metrics.switch.on = False
    within(_END_SECONDS, tracing.shutdown)
    if readers is not None:
        readers.shutdown(_END_SECONDS)


def _sends_metrics() -> bool:
    """Whether OpenTelemetry's own variables name a collector of metrics, and do not turn them off."""
    if _is_disabled() or os.environ.get("OTEL_METRICS_EXPORTER", "otlp").strip().lower() not in ("", "otlp"):
        return False
    return any(os.environ.get(name, "").strip() for name in _ENDPOINTS)


def _is_disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _forget() -> None:
    for readers in _readers.values():
        if readers is not None:
            readers.forget()
    _readers.clear()


os.register_at_fork(after_in_child=_forget)
