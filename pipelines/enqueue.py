"""The enqueue workers: activities are read, filtered and queued in order per user."""

from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from ..domain.scorable import ScorableRules
from ..io.backends import Backends
from ..io.clock import now_ms
from ..transforms.batches import BatchTransform
from ..transforms.enqueue import DecodeActivities, EnqueueActivities, FilterScorable, ObserveActivities
from ..transforms.finish import Acknowledge, CommitPosition, WriteDeadLetters
from ..transforms.flags import KeepUsersOfShare


@dataclass(frozen=True)
class RulesOfNow:
    """Makes a worker's scorable rules at the time they are applied.

    Attributes:
        horizon_ms: how far back an activity may lie; None for no limit.
        internal_accounts: users that are never scored.
        as_of_ms: a fixed clock for a replay of the past, or None for the clock on the wall.
    """

    horizon_ms: int | None = None
    internal_accounts: frozenset[str] = frozenset()
    as_of_ms: int | None = None

    def __call__(self) -> ScorableRules:
        """The rules now."""
        return ScorableRules(
            now_ms=now_ms() if self.as_of_ms is None else self.as_of_ms,
            horizon_ms=self.horizon_ms,
            internal_accounts=self.internal_accounts,
        )


def build(pipeline: beam.Pipeline, worker: str, source: BatchTransform, rules: RulesOfNow, backends: Backends) -> Any:
    """Lays out an enqueue worker's pipeline.

    Args:
        pipeline: to add to.
        worker: the worker's name, in messages and dead letters.
        source: yields ``Batch[RawRecord]``.
        rules: what is scorable.
        backends: queue, profiles, flags, dead letters, and the source's positions.

    Returns:
        The finished batches.
    """
    start: Any = pipeline  # Beam's | has no types
    return (
        start
        | "Read activities" >> source
        | "Decode activities" >> DecodeActivities(worker)
        | "Filter scorable" >> FilterScorable(rules)
        | "Keep users of share" >> KeepUsersOfShare(backends)
        | "Observe activities" >> ObserveActivities(backends)
        | "Enqueue activities" >> EnqueueActivities(worker, backends)
        | "Write dead letters" >> WriteDeadLetters(backends)
        | "Finish" >> (Acknowledge(backends) if backends.reads_queue else CommitPosition(worker, backends))
    )
