"""handleEvent's steps, from one batch to the next: events are decoded, each by its consumer, and consumed.

Both what Beam's transforms and the Lambda handler run.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from ..domain.activity import MalformedRecordError
from ..domain.envelopes import envelope_types, opened
from ..domain.events import Consumed, RefusedEventError
from ..domain.keys import fifo_group_id, loggable_id
from ..domain.records import Batch, DeadLetter, Failure, Returned
from .clock import now_ms
from .event_consumers import BARE, CONSUMERS, EventConsumer, EventStores
from .ports import ReceivedMessage
from .steps import MAX_RECEIVES, Count, UserFlags, dead_message, retry_delay_ms


class ReceivedEvent(msgspec.Struct, frozen=True):
    """A received event, decoded.

    Attributes:
        received: as the queue delivered it.
        kind: its detail type; whose it is.
        record: what its consumer made of it.
    """

    received: ReceivedMessage
    kind: str
    record: Any


def decode_events(
    batch: Batch[ReceivedMessage], worker: str, consumers: Mapping[str, EventConsumer] = CONSUMERS
) -> Batch[ReceivedEvent]:
    """Decodes events, out of their envelopes; one that nobody consumes, or that its consumer refuses, is a dead letter.

    Raises:
        UsageError: the secrets of IDV results are set and empty.
    """
    decoded: list[ReceivedEvent] = []
    failed: list[DeadLetter] = []
    for received in batch.items:
        outcome = _decoded(received, consumers)
        if isinstance(outcome, Failure):
            failed.append(dead_message(batch, received, worker, outcome, None))
        else:
            decoded.append(outcome)
    return batch.with_items(decoded, failed)


def _decoded(received: ReceivedMessage, consumers: Mapping[str, EventConsumer]) -> ReceivedEvent | Failure:
    event = opened(received.body)
    kind = BARE if event.detail_type is None else event.detail_type
    if kind not in consumers:
        return Failure("unknown_event", f"nobody consumes events of the type {loggable_id(kind)}")
    if len(envelope_types(received.body)) > 1:
        return Failure("forged", "an envelope of one type holds one of another")
    if received.receive_count > MAX_RECEIVES:
        return Failure("too_many_receives", f"received {received.receive_count} times without success")
    try:
        return ReceivedEvent(received, kind, consumers[kind].decode(event, received.sent_at_ms or now_ms()))
    except RefusedEventError as error:
        return Failure(error.reason, str(error))
    except MalformedRecordError as error:
        return Failure("malformed", str(error))


def event_group(body: bytes, letter_id: str) -> str:
    """The FIFO group of an event that is sent again: its user's; one that nobody can read is a group of its own.

    Args:
        body: as the queue delivered it.
        letter_id: names it where it cannot be read.

    Raises:
        UsageError: the secrets of IDV results are set and empty.
    """
    outcome = _decoded(ReceivedMessage("", "", body, 1, letter_id), CONSUMERS)
    return letter_id if isinstance(outcome, Failure) else fifo_group_id(outcome.record.global_user_id)


def keep_events_of_share(
    batch: Batch[ReceivedEvent], flags: UserFlags, worker: str, count: Count
) -> Batch[ReceivedEvent]:
    """Drops events of users the worker is off for, and counts them as ``rejected.flagged_off``."""
    kept = [event for event in batch.items if flags.includes(worker, event.record.global_user_id)]
    count("rejected.flagged_off", len(batch.items) - len(kept))
    return batch.with_items(kept)


def consume_events(
    batch: Batch[ReceivedEvent],
    stores: EventStores,
    worker: str,
    count: Count,
    consumers: Mapping[str, EventConsumer] = CONSUMERS,
) -> Batch[ReceivedEvent]:
    """Lets each consumer have its events of the batch; counts ``stored``, ``stale`` and ``deduplicated``.

    An event that cannot have its effect for now goes back to its queue, and with it the user's later ones of its kind,
    all for the same time, so that they come again in order. Any other failure, and what no queue would deliver again,
    becomes a dead letter. Kinds do not wait for one another.

    Raises:
        BackendUnavailableError: a table is out of reach.
    """
    outcomes = _outcomes(batch, stores, consumers)
    done: list[ReceivedEvent] = []
    failed: list[DeadLetter] = []
    returned: list[Returned] = []
    counts: Counter[str] = Counter()
    waiting: dict[tuple[str, str], int] = {}
    for event, outcome in zip(batch.items, outcomes, strict=True):
        received, line = event.received, (event.kind, event.record.global_user_id)
        if line in waiting and received.receipt:
            returned.append(Returned(received.receipt, waiting[line]))
        elif isinstance(outcome, Consumed):
            done.append(event)
            counts[outcome.value] += 1
        elif outcome.retryable and received.receipt and received.receive_count < MAX_RECEIVES:
            waiting[line] = retry_delay_ms(received.receive_count)
            returned.append(Returned(received.receipt, waiting[line]))
        else:
            failed.append(dead_message(batch, received, worker, outcome, None))
    for name, number in counts.items():
        count(name, number)
    return batch.with_items(done, failed, returned)


def _outcomes(
    batch: Batch[ReceivedEvent], stores: EventStores, consumers: Mapping[str, EventConsumer]
) -> list[Consumed | Failure]:
    """What became of each event of a batch, in its order."""
    outcomes: dict[int, Consumed | Failure] = {}
    of_kind: dict[str, list[int]] = {}
    for number, event in enumerate(batch.items):
        of_kind.setdefault(event.kind, []).append(number)
    for kind, numbers in of_kind.items():
        records = [batch.items[number].record for number in numbers]
        consumed = consumers[kind].consume(records, stores, batch.request_id)
        outcomes.update(zip(numbers, consumed, strict=True))
    return [outcomes[number] for number in range(len(batch.items))]
