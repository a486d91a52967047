"""The event worker: events are consumed by their type. IDV results are stored and told, entries become profiles."""

from typing import Any

import apache_beam as beam

from ..io.backends import Backends
from ..io.idv_secrets import idv_secrets
from ..transforms.batches import BatchTransform
from ..transforms.finish import Acknowledge, WriteDeadLetters
from ..transforms.verify import ConsumeEvents, DecodeEvents, KeepEventsOfShare


def build(pipeline: beam.Pipeline, worker: str, source: BatchTransform, backends: Backends) -> Any:
    """Lays out the event worker's pipeline.

    Args:
        pipeline: to add to.
        worker: the worker's name, in dead letters.
        source: yields ``Batch[ReceivedMessage]`` of events.
        backends: verification table, fan identity table, Identity Service, flags, dead letters, and the queue to
            acknowledge to.

    Returns:
        The finished batches.

    Raises:
        UsageError: the secrets of IDV results are set and empty.
    """
    idv_secrets()  # a variable that was set and left empty is said before anything runs
    start: Any = pipeline  # Beam's | has no types
    return (
        start
        | "Receive events" >> source
        | "Decode events" >> DecodeEvents(worker)
        | "Keep users of share" >> KeepEventsOfShare(backends)
        | "Consume events" >> ConsumeEvents(worker, backends)
        | "Write dead letters" >> WriteDeadLetters(backends)
        | "Acknowledge messages" >> Acknowledge(backends)
    )
