"""What a process's telemetry asks others for: depths of its queues, and how far its worker is behind its stream."""

from collections.abc import Callable
from functools import partial
from typing import Final

from ..backends import milliseconds, open_queue, scheme_of
from ..registry import WORKERS, Kind
from ..settings import Settings
from .polling import Polled

_COUNTED: Final = ("sqlite", "sqs")  # Pub/Sub does not say how many wait
_LAG_SECONDS: Final = 5.0


def queues_of(service: str, settings: Settings) -> dict[str, Polled]:
    """The depths of the queues a process works with, by the setting that names each.

    A worker tells of its own queue and of staging's where it feeds it; any other process, such as ``serve``, of every
    queue that has a setting.
    """
    worker = WORKERS.get(service)
    wanted: dict[str, str] = {}
    if worker is None:
        every = {one.queue_setting: one.queue_name for one in WORKERS.values()}
        wanted = {setting: name for setting, name in every.items() if getattr(settings, setting) is not None}
    else:
        wanted[worker.queue_setting] = worker.queue_name
        if worker.feeds_staging and settings.staging_queue is not None:
            wanted["staging_queue"] = WORKERS["stagingScoreUsers"].queue_name
    found: dict[str, Polled] = {}
    for setting, name in wanted.items():
        address: str | None = getattr(settings, setting) or settings.store
        if address is not None and scheme_of(address) in _COUNTED:
            found[setting] = Polled(_depth(address, setting, name, milliseconds(settings.visibility_timeout)))
    if worker is not None and settings.source is not None and scheme_of(settings.source) in _COUNTED:
        timeout = milliseconds(settings.visibility_timeout)
        found["source"] = Polled(_depth(settings.source, "source", worker.queue_name, timeout))
    return found


def lag_of(service: str, settings: Settings) -> dict[str, Polled]:
    """How many records a worker's stream holds behind its committed positions, by the worker; Kafka can tell."""
    worker = WORKERS.get(service)
    source = settings.source
    if worker is None or worker.kind is not Kind.ENQUEUE or source is None or scheme_of(source) != "kafka":
        return {}

    def ask() -> float:
        from ..kafka_lag import recent_lag  # noqa: PLC0415 - only where there is Kafka

        return float(recent_lag(source, service, _LAG_SECONDS))

    return {service: Polled(ask)}


def _depth(address: str, setting: str, name: str, visibility_ms: int) -> Callable[[], float]:
    open_it = partial(open_queue, address, setting.replace("_", "-"), name, visibility_ms)
    return lambda: float(open_it().depth())
