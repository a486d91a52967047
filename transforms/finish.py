"""The last steps of both halves: dead letters are written, then the source is told that the batch is done."""

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.records import Batch
from ..io import steps
from ..io.backends import Backends
from ..io.telemetry.batch_traces import Phase
from .batches import BatchStep, BatchTransform, par_do


@dataclass
class WriteDeadLetters(BatchTransform):
    """Writes a batch's dead letters durably and counts them as ``dead_lettered.<reason>``."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_WriteDeadLetters(self.backends))


class _WriteDeadLetters(BatchStep):
    phase = Phase.RESULT

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    @override
    def setup(self) -> None:
        self._dead_letters = self._backends.open_dead_letters()

    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        steps.write_dead_letters(batch, self._dead_letters, self.count)
        return batch


@dataclass
class Acknowledge(BatchTransform):
    """Deletes a batch's messages from the queue: what they caused, a score or a dead letter, is written.

    What could not be done now goes back to the queue and is counted as ``returned``.
    """

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Acknowledge(self.backends))


class _Acknowledge(BatchStep):
    phase = Phase.RESULT
    ends_batch = True

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    @override
    def setup(self) -> None:
        self._queue = self._backends.open_source_queue()

    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        steps.acknowledge(batch, self._queue, self.count)
        return batch


@dataclass
class CommitPosition(BatchTransform):
    """Remembers how far a source was read: everything before had its effect."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_CommitPosition(self.worker, self.backends))


class _CommitPosition(BatchStep):
    phase = Phase.RESULT
    ends_batch = True

    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    @override
    def setup(self) -> None:
        self._positions = self._backends.open_positions()

    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        if batch.position:
            self._positions.commit(self._worker, batch.source, batch.position)
        return batch
