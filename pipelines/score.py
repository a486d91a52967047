"""The scoring worker: messages are received, profiled, scored and persisted, then acknowledged."""

from typing import Any

import apache_beam as beam

from ..io.backends import Backends
from ..transforms.batches import BatchTransform
from ..transforms.finish import Acknowledge, WriteDeadLetters
from ..transforms.score import DecodeMessages, FetchArai, PersistScores, ScoreUsers


def build(pipeline: beam.Pipeline, worker: str, source: BatchTransform, backends: Backends) -> Any:
    """Lays out a scoring worker's pipeline.

    Args:
        pipeline: to add to.
        worker: the worker's name, in scores and dead letters.
        source: yields ``Batch[ReceivedMessage]``.
        backends: profiles, model, table, cache, dead letters, and the queue to acknowledge to.

    Returns:
        The finished batches.
    """
    start: Any = pipeline  # Beam's | has no types
    return (
        start
        | "Receive messages" >> source
        | "Decode messages" >> DecodeMessages(worker)
        | "Fetch ARAI" >> FetchArai(backends)
        | "Score users" >> ScoreUsers(backends)
        | "Persist scores" >> PersistScores(worker, backends)
        | "Write dead letters" >> WriteDeadLetters(backends)
        | "Acknowledge messages" >> Acknowledge(backends)
    )
