"""The scoring workers: messages, or ARAI changes, are profiled, scored and persisted, then acknowledged."""

from typing import Any

import apache_beam as beam

from ..io.backends import Backends
from ..transforms.batches import BatchTransform
from ..transforms.finish import Acknowledge, CommitPosition, WriteDeadLetters
from ..transforms.flags import KeepUsersOfShare
from ..transforms.score import (
    AddVerifications,
    ApplyImports,
    DecodeMessages,
    FetchArai,
    PersistScores,
    ScoreUsers,
    SelectAraiChanges,
)


def build(pipeline: beam.Pipeline, worker: str, source: BatchTransform, backends: Backends) -> Any:
    """Lays out a scoring worker's pipeline over its queue.

    Args:
        pipeline: to add to.
        worker: the worker's name, in scores and dead letters.
        source: yields ``Batch[ReceivedMessage]``.
        backends: profiles, verifications, model, imports, table, cache, flags, dead letters, and the queue to
            acknowledge to.

    Returns:
        The finished batches.
    """
    start: Any = pipeline  # Beam's | has no types
    return (
        start
        | "Receive messages" >> source
        | "Decode messages" >> DecodeMessages(worker)
        | "Keep users of share" >> KeepUsersOfShare(backends)
        | "Fetch ARAI" >> FetchArai(worker, backends)
        | "Add verifications" >> AddVerifications(backends)
        | "Score users" >> ScoreUsers(worker, backends)
        | "Apply imports" >> ApplyImports(backends)
        | "Persist scores" >> PersistScores(worker, backends)
        | "Write dead letters" >> WriteDeadLetters(backends)
        | "Acknowledge messages" >> Acknowledge(backends)
    )


def build_from_changes(pipeline: beam.Pipeline, worker: str, source: BatchTransform, backends: Backends) -> Any:
    """Lays out a scoring worker's pipeline over the ARAI changes of a table.

    Args:
        pipeline: to add to.
        worker: the worker's name, in scores and dead letters.
        source: yields ``Batch[RawRecord]`` of change records.
        backends: verifications, model, imports, table, cache, flags, dead letters, and the source's positions.

    Returns:
        The finished batches.
    """
    start: Any = pipeline  # Beam's | has no types
    return (
        start
        | "Read changes" >> source
        | "Select ARAI changes" >> SelectAraiChanges(worker)
        | "Keep users of share" >> KeepUsersOfShare(backends)
        | "Add verifications" >> AddVerifications(backends)
        | "Score users" >> ScoreUsers(worker, backends)
        | "Apply imports" >> ApplyImports(backends)
        | "Persist scores" >> PersistScores(worker, backends)
        | "Write dead letters" >> WriteDeadLetters(backends)
        | "Commit position" >> CommitPosition(worker, backends)
    )
