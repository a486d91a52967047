"""The verification worker: IDV results are stored and the Identity Service is told."""

from typing import Any

import apache_beam as beam

from ..io.backends import Backends
from ..transforms.batches import BatchTransform
from ..transforms.finish import Acknowledge, WriteDeadLetters
from ..transforms.verify import DecodeVerifications, StoreVerifications


def build(pipeline: beam.Pipeline, worker: str, source: BatchTransform, backends: Backends) -> Any:
    """Lays out the verification worker's pipeline.

    Args:
        pipeline: to add to.
        worker: the worker's name, in dead letters.
        source: yields ``Batch[ReceivedMessage]`` of IDV results.
        backends: verification table, Identity Service, dead letters, and the queue to acknowledge to.

    Returns:
        The finished batches.
    """
    start: Any = pipeline  # Beam's | has no types
    return (
        start
        | "Receive results" >> source
        | "Decode verifications" >> DecodeVerifications(worker)
        | "Store verifications" >> StoreVerifications(worker, backends)
        | "Write dead letters" >> WriteDeadLetters(backends)
        | "Acknowledge messages" >> Acknowledge(backends)
    )
