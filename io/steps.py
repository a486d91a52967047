"""The steps of both halves, from one batch to the next: what Beam's transforms and the Lambda handler both run.

Business rules are in ``domain``; here they meet the backends. Nothing here knows Beam or AWS.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec

from ..domain.activity import MalformedRecordError, decode_activity, readable_activity_id
from ..domain.arai import Arai
from ..domain.arai_changes import select_arai_response
from ..domain.envelopes import opened
from ..domain.import_effects import NOTHING_IMPORTED, ImportedValues
from ..domain.keys import deduplication_id, fifo_group_id, loggable_id
from ..domain.messages import ScoringMessage, decode_message, decode_request, encode_message, message_of, precedence
from ..domain.profile import ActivityFacts, facts_of
from ..domain.records import Batch, DeadLetter, DecodedRecord, Failure, RawRecord, Returned, dead_letter_id
from ..domain.scorable import ScorableRules, rejection
from ..domain.scorecard import ModelScore
from ..domain.verification import Verification
from .clock import now_ms
from .ports import (
    AraiSource,
    DeadLetterStore,
    MessageQueue,
    QueueEntry,
    ReceivedMessage,
    ScoringModel,
    ScoringRequest,
    SendOutcome,
)
from .telemetry.message_traces import Sending

Count = Callable[[str, int], None]
"""Adds to a counter by name."""

MAX_RECEIVES: Final = 10
"""A message received this often without success is given up on."""

_FIRST_DELAY_MS: Final = 1_000
_LONGEST_DELAY_MS: Final = 300_000

_log = logging.getLogger("fan_identity.dead_letters")


class Queued(msgspec.Struct, frozen=True, gc=False):
    """A message to score, with the delivery it came by (its receipt is "" where no queue delivered it)."""

    received: ReceivedMessage
    message: ScoringMessage


class Profiled(msgspec.Struct, frozen=True, gc=False):
    """A message with what is known of its user.

    ``verification`` is None where no identity check says anything; ``results`` is how many results of checks are known.
    """

    received: ReceivedMessage
    message: ScoringMessage
    arai: Arai
    verification: Verification | None = None
    results: int = 0


class Scored(msgspec.Struct, frozen=True, gc=False):
    """A message with its user's score, and what the active imports say of the user as of their generation."""

    received: ReceivedMessage
    message: ScoringMessage
    score: ModelScore
    imported: ImportedValues = NOTHING_IMPORTED
    generation: int = 0
    verification: Verification | None = None
    results: int = 0


Done = TypeVar("Done")


def decode_activities(batch: Batch[RawRecord], worker: str) -> Batch[DecodedRecord]:
    """Decodes records, out of their envelope where they have one; those that are no activity become dead letters."""
    decoded: list[DecodedRecord] = []
    failed: list[DeadLetter] = []
    for record in batch.items:
        try:
            if record.body is None:
                raise MalformedRecordError(record.error or "unreadable")
            activity = decode_activity(record.body)
            decoded.append(DecodedRecord(record, activity, activity.time_ms))
        except MalformedRecordError as error:
            reason = "malformed" if record.error is None else "unreadable"
            name = None if record.body is None else readable_activity_id(record.body)
            failed.append(dead_record(batch, record, worker, Failure(reason, str(error)), name))
    return batch.with_items(decoded, failed)


def raw_of(received: ReceivedMessage) -> RawRecord:
    """A queue's message as a record to decode: what its envelope holds."""
    position = f"message {received.message_id}"
    return RawRecord(received.body, position, opened(received.body).body, trace=received.trace)


def dead_record(
    batch: Batch[object], record: RawRecord, worker: str, failure: Failure, activity_id: str | None
) -> DeadLetter:
    """The dead letter of a record a source delivered."""
    return DeadLetter(
        dead_letter_id=dead_letter_id(worker, batch.source, record.position, record.payload),
        worker=worker,
        reason=failure.reason,
        error=failure.error,
        stack=failure.stack,
        attempts=failure.attempts,
        request_id=batch.request_id,
        activity_id=activity_id,
        source=batch.source,
        position=record.position,
        payload=record.payload,
    )


def filter_scorable(batch: Batch[DecodedRecord], rules: ScorableRules, count: Count) -> Batch[DecodedRecord]:
    """Drops activities that are not scorable and counts them as ``rejected.<reason>``."""
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


class UserFlags(Protocol):
    """Which users a worker is on for."""

    def includes(self, worker: str, global_user_id: str) -> bool:
        """Whether the worker is on for a user; the same user always gets the same answer at the same share."""
        ...


def keep_users_of_share(
    batch: Batch[DecodedRecord | Queued | Profiled], flags: UserFlags, worker: str, count: Count
) -> Batch[DecodedRecord | Queued | Profiled]:
    """Drops what belongs to users the worker is off for, and counts it as ``rejected.flagged_off``."""
    kept = [item for item in batch.items if flags.includes(worker, _user_of(item))]
    count("rejected.flagged_off", len(batch.items) - len(kept))
    return batch.with_items(kept)


def _user_of(item: DecodedRecord | Queued | Profiled) -> str:
    return item.message.global_user_id if not isinstance(item, DecodedRecord) else item.activity.global_user_id or ""


def facts_with_user(record: DecodedRecord) -> tuple[str, ActivityFacts]:
    """What a profile needs of a scorable activity (whose user is set), with its user."""
    return record.activity.global_user_id or "", facts_of(record.activity, record.time_ms)


def queue_entry(record: DecodedRecord, request_id: str, worker: str, traceparent: str = "") -> QueueEntry:
    """The queue entry of a scorable activity: its user's group, its activity's deduplication id."""
    message = message_of(record, request_id, worker, traceparent)
    return QueueEntry(
        group_id=fifo_group_id(message.global_user_id),
        deduplication_id=deduplication_id(worker, message.activity_id),
        body=encode_message(message),
        precedence=partial(precedence, record),
    )


def enqueue(
    batch: Batch[DecodedRecord], queue: MessageQueue, staging: MessageQueue | None, worker: str, count: Count
) -> Batch[DecodedRecord]:
    """Sends a message per activity, also to the staging worker's queue; counts ``enqueued`` and ``deduplicated``.

    A message the queue will never take becomes a dead letter; the staging copy of it is left out.

    Raises:
        BackendUnavailableError: a queue is out of reach: nothing of the batch is acknowledged, so it is read again.
    """
    with Sending([record.raw.trace for record in batch.items], queue) as sending:
        entries = [
            queue_entry(record, batch.request_id, worker, trace)
            for record, trace in zip(batch.items, sending.traces, strict=True)
        ]
        outcomes = queue.send(entries)
        refused = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Failure)}
        for index, failure in refused.items():
            sending.failed(index, failure.reason)
    failed = [
        dead_record(batch, record.raw, worker, failure, record.activity.activity_id)
        for index, failure in refused.items()
        for record in [batch.items[index]]
    ]
    if staging is not None:
        staging.send(
            [entry for entry, outcome in zip(entries, outcomes, strict=True) if not isinstance(outcome, Failure)]
        )
    count("enqueued", outcomes.count(SendOutcome.SENT))
    count("deduplicated", outcomes.count(SendOutcome.DUPLICATE))
    return batch.with_items(batch.items, failed)


def decode_messages(batch: Batch[ReceivedMessage], worker: str) -> Batch[Queued]:
    """Decodes received messages; a malformed one, or one received too often, becomes a dead letter."""
    decoded: list[Queued] = []
    failed: list[DeadLetter] = []
    for received in batch.items:
        try:
            body = opened(received.body).body
            message = decode_request(body, received.message_id, received.sent_at_ms or now_ms(), batch.request_id)
        except MalformedRecordError as error:
            failed.append(dead_message(batch, received, worker, Failure("malformed", str(error)), None))
            continue
        if received.receive_count > MAX_RECEIVES:
            why = f"received {received.receive_count} times without success"
            failed.append(dead_message(batch, received, worker, Failure("too_many_receives", why), message))
            continue
        decoded.append(Queued(received, traced(message, received.trace)))
    return batch.with_items(decoded, failed)


def traced(message: ScoringMessage, trace: str) -> ScoringMessage:
    """The message as of the trace it is worked on under here."""
    return msgspec.structs.replace(message, traceparent=trace) if trace else message


def group_of(body: bytes) -> str:
    """The FIFO group a message's body belongs to; one group for all bodies that are no messages."""
    try:
        return fifo_group_id(decode_message(body).global_user_id)
    except MalformedRecordError:
        return "malformed"


def dead_message(
    batch: Batch[object], received: ReceivedMessage, worker: str, failure: Failure, message: ScoringMessage | None
) -> DeadLetter:
    """The dead letter of a message, or of a change record."""
    position = f"message {received.message_id}"  # the same at every delivery, as the receipt is not
    # A message of ours is named by its content: redriven, it comes back under another number as the same letter.
    named_by = position if message is None else ""
    return DeadLetter(
        dead_letter_id=dead_letter_id(worker, batch.source, named_by, received.body),
        worker=worker,
        reason=failure.reason,
        error=failure.error,
        stack=failure.stack,
        attempts=max(received.receive_count, failure.attempts),
        request_id=batch.request_id if message is None else message.request_id,
        activity_id=None if message is None else message.activity_id,
        source=batch.source,
        position=position,
        payload=received.body,
    )


def select_arai_changes(batch: Batch[RawRecord], worker: str, count: Count) -> Batch[Profiled]:
    """Picks ARAI responses out of change records; other changes are counted as ``rejected.other_change``."""
    selected: list[Profiled] = []
    failed: list[DeadLetter] = []
    for record in batch.items:
        try:
            if record.body is None:
                raise MalformedRecordError(record.error or "unreadable")
            change = select_arai_response(record.body, batch.request_id)
        except MalformedRecordError as error:
            failed.append(dead_record(batch, record, worker, Failure("malformed", str(error)), None))
            continue
        if change is None:
            count("rejected.other_change", 1)
            continue
        group = fifo_group_id(change.message.global_user_id)
        received = ReceivedMessage("", group, record.payload, 1, record.position, trace=record.trace)
        selected.append(Profiled(received, traced(change.message, record.trace), change.arai))
    return batch.with_items(selected, failed)


def fetch_arai(batch: Batch[Queued], source: AraiSource, worker: str) -> Batch[Profiled]:
    """Adds to each message what is known of its user as of the message's activity."""
    found = source.fetch([queued.message for queued in batch.items])
    outcomes = [
        arai if isinstance(arai, Failure) else Profiled(queued.received, queued.message, arai)
        for queued, arai in zip(batch.items, found, strict=True)
    ]
    return settle(batch, outcomes, worker)


def score_users(batch: Batch[Profiled], model: ScoringModel, worker: str) -> Batch[Scored]:
    """Scores each message's user with the model."""
    scores = model.score(
        [ScoringRequest(profiled.message, profiled.arai, profiled.verification) for profiled in batch.items]
    )
    outcomes = [
        score
        if isinstance(score, Failure)
        else Scored(
            profiled.received, profiled.message, score, verification=profiled.verification, results=profiled.results
        )
        for profiled, score in zip(batch.items, scores, strict=True)
    ]
    return settle(batch, outcomes, worker)


def settle(
    batch: Batch[Queued] | Batch[Profiled] | Batch[Scored], outcomes: Sequence[Done | Failure], worker: str
) -> Batch[Done]:
    """Parts a step's successes from its failures.

    A retryable failure goes back to its queue, and with it the later messages of its group, so that a user's messages
    stay in order; each delivery waits longer than the one before. Any other failure, and one no queue would deliver
    again, becomes a dead letter.
    """
    done: list[Done] = []
    failed: list[DeadLetter] = []
    returned: list[Returned] = []
    waiting: dict[str, int] = {}
    for item, outcome in zip(batch.items, outcomes, strict=True):
        received = item.received
        if received.group_id in waiting:
            returned.append(Returned(received.receipt, waiting[received.group_id]))
        elif not isinstance(outcome, Failure):
            done.append(outcome)
        elif outcome.retryable and received.receipt and received.receive_count < MAX_RECEIVES:
            waiting[received.group_id] = retry_delay_ms(received.receive_count)
            returned.append(Returned(received.receipt, waiting[received.group_id]))
        else:
            failed.append(dead_message(batch, received, worker, outcome, item.message))
    return batch.with_items(done, failed, returned)


def retry_delay_ms(receive_count: int) -> int:
    """How long a message waits when delivery ``receive_count`` failed: 1 s, doubled each time, at most 5 min."""
    return min(_FIRST_DELAY_MS << max(receive_count - 1, 0), _LONGEST_DELAY_MS)


def write_dead_letters(batch: Batch[object], store: DeadLetterStore, count: Count) -> None:
    """Writes a batch's dead letters durably, counts them as ``dead_lettered.<reason>`` and logs each."""
    if not batch.dead_letters:
        return
    store.write(batch.dead_letters)
    for letter in batch.dead_letters:
        count(f"dead_lettered.{letter.reason}", 1)
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


def acknowledge(batch: Batch[object], queue: MessageQueue, count: Count) -> None:
    """Deletes what the batch is done with from its queue, and gives back what is to be tried again.

    Deleted first: a group is free once none of its messages is in flight, and those given back are behind.
    """
    waiting = {returned.receipt for returned in batch.returned}
    queue.delete([receipt for receipt in batch.receipts if receipt not in waiting])
    by_delay: dict[int, list[str]] = {}
    for returned in batch.returned:
        by_delay.setdefault(returned.delay_ms, []).append(returned.receipt)
    for delay_ms, receipts in by_delay.items():
        queue.release(receipts, delay_ms)
    count("returned", len(batch.returned))
