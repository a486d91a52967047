"""The rescore worker: users are scored again though nothing new happened."""

from typing import Any

import apache_beam as beam

from ..io.backends import Backends
from ..transforms.batches import BatchTransform
from ..transforms.finish import Acknowledge, WriteDeadLetters
from ..transforms.rescore import RescoreUsers


def build(pipeline: beam.Pipeline, worker: str, source: BatchTransform, backends: Backends) -> Any:
    """Lays out the rescore worker's pipeline.

    Args:
        pipeline: to add to.
        worker: the worker's name, in scores and dead letters.
        source: yields ``Batch[ReceivedMessage]`` of rescore requests.
        backends: profiles, model, imports, table, cache, dead letters, and the queue to acknowledge to.

    Returns:
        The finished batches.
    """
    start: Any = pipeline  # Beam's | has no types
    return (
        start
        | "Receive requests" >> source
        | "Rescore users" >> RescoreUsers(worker, backends)
        | "Write dead letters" >> WriteDeadLetters(backends)
        | "Acknowledge messages" >> Acknowledge(backends)
    )
