"""The last steps of both halves: dead letters are written, then the source is told that the batch is done."""

import logging
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.keys import loggable_id
from ..domain.records import Batch
from ..io.backends import Backends
from .batches import BatchStep, BatchTransform, count_dead_letters, par_do
from .score import ScoredActivity

_log = logging.getLogger("fan_identity.dead_letters")


@dataclass
class WriteDeadLetters(BatchTransform):
    """Writes a batch's dead letters durably and counts them as ``dead_lettered.<reason>``."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_WriteDeadLetters(self.backends))


class _WriteDeadLetters(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def setup(self) -> None:
        self._dead_letters = self._backends.open_dead_letters()

    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        if batch.dead_letters:
            self._dead_letters.write(batch.dead_letters)
            count_dead_letters(batch.dead_letters)
            for letter in batch.dead_letters:
                _log.info(
                    "record became a dead letter",
                    extra={
                        "requestId": letter.request_id,
                        "worker": letter.worker,
                        "activityId": None if letter.activity_id is None else loggable_id(letter.activity_id),
                        "reason": letter.reason,
                        "deadLetterId": letter.dead_letter_id,
                    },
                )
        return batch


@dataclass
class Acknowledge(BatchTransform):
    """Deletes a batch's messages from the queue: what they caused, a score or a dead letter, is written."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Acknowledge(self.backends))


class _Acknowledge(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def setup(self) -> None:
        self._queue = self._backends.open_queue()

    @override
    def step(self, batch: Batch[ScoredActivity]) -> Batch[ScoredActivity]:
        receipts = [scored.receipt for scored in batch.items]
        receipts += [letter.receipt for letter in batch.dead_letters if letter.receipt is not None]
        self._queue.delete(receipts)
        return batch


@dataclass
class CommitPosition(BatchTransform):
    """Remembers how far a growing file was read: everything before is in the queue, rejected or a dead letter."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Commit(self.worker, self.backends))


class _Commit(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    def setup(self) -> None:
        self._positions = self._backends.open_positions()

    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        self._positions.commit(self._worker, batch.source, batch.position)
        return batch
