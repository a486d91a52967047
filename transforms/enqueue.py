"""The first half: what was read becomes messages in the queue.

``DecodeActivities → FilterScorable → ObserveActivities → EnqueueActivities``; then ``finish.py`` ends the batch.
Every step keeps the source's order, so a user's messages are queued in the order they were read.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.activity import MalformedRecordError, decode_activity, readable_activity_id
from ..domain.keys import deduplication_id, fifo_group_id
from ..domain.messages import encode_message, message_of, precedence
from ..domain.profile import ActivityFacts, facts_of
from ..domain.records import Batch, DeadLetter, DecodedRecord, RawRecord, dead_letter_id
from ..domain.scorable import ScorableRules, rejection
from ..io.backends import Backends
from ..io.ports import QueueEntry, SendOutcome
from .batches import BatchStep, BatchTransform, count, par_do


def decode_batch(batch: Batch[RawRecord], worker: str) -> Batch[DecodedRecord]:
    """Decodes a batch's records; those that are no activity become dead letters with their original bytes."""
    decoded: list[DecodedRecord] = []
    failed: list[DeadLetter] = []
    for record in batch.items:
        try:
            if record.body is None:
                raise MalformedRecordError(record.error or "unreadable")
            activity = decode_activity(record.body)
            decoded.append(DecodedRecord(record, activity, activity.time_ms))
        except MalformedRecordError as error:
            failed.append(
                DeadLetter(
                    dead_letter_id=dead_letter_id(worker, batch.source, record.position, record.payload),
                    worker=worker,
                    reason="malformed" if record.error is None else "unreadable",
                    error=str(error),
                    stack="",
                    attempts=1,
                    request_id=batch.request_id,
                    activity_id=None if record.body is None else readable_activity_id(record.body),
                    source=batch.source,
                    position=record.position,
                    payload=record.payload,
                )
            )
    return batch.with_items(decoded, failed)


@dataclass
class DecodeActivities(BatchTransform):
    """``Batch[RawRecord]`` to ``Batch[DecodedRecord]``; see ``decode_batch``."""

    worker: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Decode(self.worker))


class _Decode(BatchStep):
    def __init__(self, worker: str) -> None:
        self._worker = worker

    @override
    def step(self, batch: Batch[RawRecord]) -> Batch[DecodedRecord]:
        return decode_batch(batch, self._worker)


@dataclass
class FilterScorable(BatchTransform):
    """Drops activities that are not scorable and counts them as ``rejected.<reason>``.

    Attributes:
        rules: makes the rules anew for each batch, since a stream's clock moves on.
    """

    rules: Callable[[], ScorableRules]

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Filter(self.rules))


class _Filter(BatchStep):
    def __init__(self, rules: Callable[[], ScorableRules]) -> None:
        self._rules = rules

    @override
    def step(self, batch: Batch[DecodedRecord]) -> Batch[DecodedRecord]:
        rules = self._rules()
        kept: list[DecodedRecord] = []
        rejected: Counter[str] = Counter()
        for record in batch.items:
            reason = rejection(record.activity, record.time_ms, rules)
            if reason is None:
                kept.append(record)
            else:
                rejected[reason.value] += 1
        for reason, number in rejected.items():
            count(f"rejected.{reason}", number)
        return batch.with_items(kept)


@dataclass
class ObserveActivities(BatchTransform):
    """Tells the embedded ARAI source of activities, before their messages can be received."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Observe(self.backends))


def facts_with_user(record: DecodedRecord) -> tuple[str, ActivityFacts]:
    """What a profile needs of a scorable activity (whose user is set), with its user."""
    return record.activity.global_user_id or "", facts_of(record.activity, record.time_ms)


class _Observe(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def setup(self) -> None:
        self._arai = self._backends.open_arai()

    @override
    def step(self, batch: Batch[DecodedRecord]) -> Batch[DecodedRecord]:
        self._arai.observe([facts_with_user(record) for record in batch.items])
        return batch


def queue_entry(record: DecodedRecord, request_id: str, worker: str) -> QueueEntry:
    """The queue entry of a scorable activity: its user's group, its activity's deduplication id."""
    message = message_of(record, request_id, worker)
    return QueueEntry(
        group_id=fifo_group_id(message.global_user_id),
        deduplication_id=deduplication_id(worker, message.activity_id),
        body=encode_message(message),
        precedence=precedence(record),
    )


@dataclass
class EnqueueActivities(BatchTransform):
    """Sends a message per activity; counts ``enqueued`` and ``deduplicated``. Returns when all are in the queue."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Enqueue(self.worker, self.backends))


class _Enqueue(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    def setup(self) -> None:
        self._queue = self._backends.open_queue()

    @override
    def step(self, batch: Batch[DecodedRecord]) -> Batch[DecodedRecord]:
        entries = [queue_entry(record, batch.request_id, self._worker) for record in batch.items]
        outcomes = self._queue.send(entries)
        sent = outcomes.count(SendOutcome.SENT)
        count("enqueued", sent)
        count("deduplicated", len(outcomes) - sent)
        return batch
