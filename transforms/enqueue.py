"""The first half: what was read becomes messages in the queue.

``DecodeActivities → FilterScorable → ObserveActivities → EnqueueActivities``; then ``finish.py`` ends the batch.
Every step keeps the source's order, so a user's messages are queued in the order they were read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.records import Batch, DecodedRecord, RawRecord
from ..domain.scorable import ScorableRules
from ..io import steps
from ..io.backends import Backends
from ..io.ports import ReceivedMessage
from ..io.telemetry.batch_traces import Phase
from .batches import BatchStep, BatchTransform, par_do


@dataclass
class OpenMessages(BatchTransform):
    """``Batch[ReceivedMessage]`` of a queue that carries activities to ``Batch[RawRecord]``, out of their envelopes."""

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_OpenMessages())


class _OpenMessages(BatchStep):
    phase = Phase.INPUT

    @override
    def step(self, batch: Batch[ReceivedMessage]) -> Batch[RawRecord]:
        self.count("read", len(batch.items))
        return batch.with_items([steps.raw_of(received) for received in batch.items])


@dataclass
class DecodeActivities(BatchTransform):
    """``Batch[RawRecord]`` to ``Batch[DecodedRecord]``; see ``steps.decode_activities``."""

    worker: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_DecodeActivities(self.worker))


class _DecodeActivities(BatchStep):
    phase = Phase.INPUT

    def __init__(self, worker: str) -> None:
        self._worker = worker

    @override
    def step(self, batch: Batch[RawRecord]) -> Batch[DecodedRecord]:
        return steps.decode_activities(batch, self._worker)


@dataclass
class FilterScorable(BatchTransform):
    """Drops activities that are not scorable and counts them as ``rejected.<reason>``.

    Attributes:
        rules: makes the rules anew for each batch, since a stream's clock moves on.
    """

    rules: Callable[[], ScorableRules]

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_FilterScorable(self.rules))


class _FilterScorable(BatchStep):
    def __init__(self, rules: Callable[[], ScorableRules]) -> None:
        self._rules = rules

    @override
    def step(self, batch: Batch[DecodedRecord]) -> Batch[DecodedRecord]:
        return steps.filter_scorable(batch, self._rules(), self.count)


@dataclass
class ObserveActivities(BatchTransform):
    """Tells the embedded ARAI source of activities, before their messages can be received."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_ObserveActivities(self.backends))


class _ObserveActivities(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    @override
    def setup(self) -> None:
        self._arai = self._backends.open_arai()

    @override
    def step(self, batch: Batch[DecodedRecord]) -> Batch[DecodedRecord]:
        if self._backends.builds_profiles:
            self._arai.observe([steps.facts_with_user(record) for record in batch.items])
        return batch


@dataclass
class EnqueueActivities(BatchTransform):
    """Sends a message per activity; counts ``enqueued`` and ``deduplicated``. Returns when all are in the queue."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_EnqueueActivities(self.worker, self.backends))


class _EnqueueActivities(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    @override
    def setup(self) -> None:
        self._queue = self._backends.open_queue()
        self._staging = self._backends.open_staging_queue()

    @override
    def step(self, batch: Batch[DecodedRecord]) -> Batch[DecodedRecord]:
        return steps.enqueue(batch, self._queue, self._staging, self._worker, self.count)
