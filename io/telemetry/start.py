"""Turns telemetry on: Prometheus at ``metrics_port``, and OTLP where OpenTelemetry's own variables name a collector.

Where neither is set nothing is imported and nothing runs.
"""

import os
import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from ... import __version__
from ..ending import at_end
from ..settings import Settings
from ..time_limits import side_by_side
from . import metrics, otlp, tracing
from .flushes import Flushes, quietly

if TYPE_CHECKING:
    from .readers import Readers

ANSWER_SECONDS: Final = 0.2
"""What somebody who waits for an answer waits for a flush, at most."""

BATCH_SECONDS: Final = 1.0
"""What a batch nobody waits for does."""

_END_SECONDS: Final = 2.0
_readers: Final[dict[int, "Readers | None"]] = {}  # by process: a forked one starts its own
_lock = threading.Lock()  # every step of a pipeline starts telemetry, in threads of their own
_flushes = Flushes()


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
    if os.getpid() in _readers:
        return
    metered = otlp.is_sent("METRICS") or (settings.metrics_port is not None and not otlp.is_disabled())
    if not (metered or tracing.is_wanted()):
        return
    with _lock:
        if os.getpid() not in _readers:
            _start(service, settings, metered=metered)


def _start(service: str, settings: Settings, *, metered: bool) -> None:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - only where it is used

    process = os.getpid()
    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", f"fan-identity.{service}"),
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
            "process.pid": process,
        }
    )
    tracing.start(resource)
    at_end(shutdown)
    _readers[process] = None  # also where there is no port to be had: that is told once, and traces are ended
    if metered:
        from .readers import Readers  # noqa: PLC0415 - only where it is used

        _readers[process] = Readers(service, settings, resource, otlp=otlp.is_sent("METRICS"))
        metrics.switch.on = True


def metrics_port() -> int | None:
    """Where this process answers Prometheus, or None."""
    readers = _readers.get(os.getpid())
    return None if readers is None else readers.port


def flush(seconds: float = BATCH_SECONDS) -> None:
    """Sends what is there, for a process that may be frozen any time (Lambda); waits so long at most.

    Where a collector did not answer in time, nothing is flushed until it does, and not in the half minute after.
    """
    sends: list[Callable[[], object]] = [tracing.flush] if tracing.switch.on else []
    readers = _readers.get(os.getpid())
    if readers is not None:
        sends.append(partial(readers.flush, seconds))
    if sends:
        _flushes.flush(seconds, sends)


def shutdown() -> None:
    """Tells what is left, within a deadline, and ends; nothing happens where it was not started."""
    with _lock:
        process = os.getpid()
        if process not in _readers:
            return
        readers = _readers.pop(process)
        metrics.switch.on = False
    ends: list[Callable[[], object]] = [tracing.shutdown]
    if readers is not None:
        ends.append(partial(readers.shutdown, _END_SECONDS))
    side_by_side(_END_SECONDS, [partial(quietly, end) for end in ends], "telemetry end")


def _forget() -> None:
    global _lock, _flushes
    _lock, _flushes = threading.Lock(), Flushes()
    for readers in _readers.values():
        if readers is not None:
            readers.forget()
    _readers.clear()


os.register_at_fork(after_in_child=_forget)
