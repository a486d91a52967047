"""What is in queues, of the queues' addresses: more than ``queue_state`` tells of one that is open."""

import msgspec

from .addresses import parse_address
from .backends import sqlite_store
from .probe_calls import sqs_counts
from .sqlite.queue import SqliteQueue


class QueueContents(msgspec.Struct, frozen=True, rename="camel"):
    """What is in a queue.

    Attributes:
        name: the queue's.
        waiting: messages that can be received; of SQS about. None where the queue does not say (Pub/Sub).
        in_flight: received and not deleted; None where that is not counted apart (SQLite: among ``waiting``).
        delayed: sent, and to be received later.
        oldest_ms: how long the oldest has waited, milliseconds; None where the queue does not say. SQLite knows five
            minutes back: what waits longer is told as five minutes.
    """

    name: str
    waiting: int | None = None
    in_flight: int | None = None
    delayed: int | None = None
    oldest_ms: int | None = None


def queue_contents(text: str, setting: str, seconds: float) -> list[QueueContents]:
    """What is in the queue of an address, or in all queues of a store.

    Args:
        text: of a queue; of an SQLite store without option ``queue``, all that are in it.
        setting: where it came from.
        seconds: for an answer.

    Raises:
        UsageError, BackendUnavailableError: it does not exist, or is out of reach.
    """
    address = parse_address(text, setting)
    if address.scheme == "sqs":
        counts = sqs_counts(address, setting, seconds)
        waiting, in_flight, delayed = counts.values()
        return [QueueContents(address.target, waiting, in_flight, delayed)]
    if address.scheme == "sqlite":
        store = sqlite_store(text.partition("?")[0], setting, create=False)
        own = address.options.get("queue")
        names = [own] if own is not None else store.queue_names()
        queues = [(name, SqliteQueue(store, name)) for name in names]
        return [QueueContents(name, queue.depth(), oldest_ms=queue.oldest_ms()) for name, queue in queues]
    return [QueueContents(address.target.rpartition("/")[2])]
