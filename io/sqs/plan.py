"""Which messages of a send may travel next, so that none overtakes an earlier one of its group.

SQS answers a batch entry by entry: the first message of a group can fail and the second of the same batch be taken,
and what was taken cannot be called back. So a batch holds at most one message a group, and a group's next message
travels once the one before it was taken or refused for good. Batches stay full as long as many groups wait; a single
group's messages go one by one.
"""

from collections import deque
from collections.abc import Hashable, Iterator

import msgspec

from ..batching import batches
from .endpoint import MOST_BYTES, MOST_ENTRIES


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A message on its way.

    Attributes:
        index: its place among the entries of the send.
        key: its group; a key of its own where the queue has no order.
        size: bytes, as SQS counts them.
        entry: the fields of its batch entry, but for ``Id``.
    """

    index: int
    key: Hashable
    size: int
    entry: dict[str, str]


class Plan:
    """The messages of one send that have not been settled."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Outgoing]] = {}  # by key, the one that is ready or travels first
        self._ready: deque[Hashable] = deque()

    def add(self, outgoing: Outgoing) -> None:
        """Queues a message behind those of its group."""
        if outgoing.key not in self._waiting:
            self._waiting[outgoing.key] = deque()
            self._ready.append(outgoing.key)
        self._waiting[outgoing.key].append(outgoing)

    @property
    def ready(self) -> int:
        """How many messages may travel now."""
        return len(self._ready)

    def next_batch(self, *, partial: bool) -> list[Outgoing]:
        """The next messages to travel together; [] where none are ready, or too few for a full batch.

        Args:
            partial: take also a batch that is not full.
        """
        if not partial and len(self._ready) < MOST_ENTRIES:
            return []
        nothing: list[Outgoing] = []
        batch = next(batches(self._heads(), lambda outgoing: outgoing.size, MOST_ENTRIES, MOST_BYTES), nothing)
        for _ in batch:
            self._ready.popleft()
        return batch

    def _heads(self) -> Iterator[Outgoing]:
        return (self._waiting[key][0] for key in self._ready)

    def settle(self, outgoing: Outgoing) -> None:
        """Notes that a message was taken or refused for good: the next of its group is ready."""
        waiting = self._waiting[outgoing.key]
        waiting.popleft()
        if waiting:
            self._ready.append(outgoing.key)
        else:
            del self._waiting[outgoing.key]
