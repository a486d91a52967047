"""What the pipelines ask of the outside, whatever stands behind an address.

Each protocol is implemented once per system; ``backends.py`` picks the implementation by the address's scheme.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import msgspec

from ..domain.messages import ScoringMessage
from ..domain.profile import ActivityFacts, Profile
from ..domain.records import DeadLetter
from ..domain.scorecard import ModelScore

Item = Mapping[str, Any]
"""An item of a table: JSON values by attribute name, ``PK`` and ``SK`` among them."""


class QueueEntry(msgspec.Struct, frozen=True, gc=False):
    """A message to send.

    Attributes:
        group_id: messages of a group are received in the order sent, one receiver at a time.
        deduplication_id: an entry whose id was sent within the window is a duplicate.
        body: the message.
        precedence: of two entries with one deduplication id the lower one is kept while neither was received, where
            the queue can do that (SQLite); so shuffled input ends in the same scores even where one activity id
            stands for two different activities. Other queues keep the first.
    """

    group_id: str
    deduplication_id: str
    body: bytes
    precedence: bytes = b""


class SendOutcome(Enum):
    """What became of an entry."""

    SENT = "sent"
    DUPLICATE = "duplicate"


class ReceivedMessage(msgspec.Struct, frozen=True, gc=False):
    """A message in flight: invisible to other receivers until deleted or its visibility timeout ends.

    Attributes:
        receipt: deletes this delivery of the message.
        group_id: its group.
        body: as sent.
        receive_count: 1 at the first delivery.
        message_id: names the message in its queue, the same at every delivery.
    """

    receipt: str
    group_id: str
    body: bytes
    receive_count: int
    message_id: str


class MessageQueue(Protocol):
    """A queue: at-least-once delivery, in order within a group."""

    def send(self, entries: Sequence[QueueEntry]) -> list[SendOutcome]:
        """Sends entries in order; the outcomes are in the entries' order."""
        ...

    def receive(self, limit: int) -> list[ReceivedMessage]:
        """Receives up to ``limit`` messages without waiting; a group's messages are in order and together."""
        ...

    def delete(self, receipts: Sequence[str]) -> None:
        """Deletes received messages; a receipt that is no longer valid is ignored."""
        ...

    def depth(self) -> int:
        """How many messages wait or are in flight."""
        ...


class Table(Protocol):
    """A table with partition and sort key, as DynamoDB has them."""

    def put(self, item: Item) -> None:
        """Writes an item, replacing the one with the same keys."""
        ...

    def batch_put(self, items: Sequence[Item]) -> None:
        """Writes many items; all are written when it returns."""
        ...

    def put_if_newer(self, items: Sequence[tuple[str, Item]]) -> list[bool]:
        """Writes each (version, item) unless an item with the same keys has that version or a greater one.

        Returns:
            For each, whether it was written.
        """
        ...

    def get(self, pk: str, sk: str) -> Item | None:
        """The item with these keys, or None."""
        ...

    def query(
        self, pk: str, sk_prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Item]:
        """A partition's items in the order of their sort keys."""
        ...


class ArmCache(Protocol):
    """The ARM cache: one JSON value per user, newer wins."""

    def put_if_newer(self, entries: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Writes each (key, version, value) unless the key has that version or a greater one."""
        ...

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The value of a key, or None for an unknown one."""
        ...


class DeadLetterStore(Protocol):
    """Where dead letters are written; writing one again changes its attempts only."""

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Writes letters durably."""
        ...


class AraiSource(Protocol):
    """Account-activity profiles (ARAI) of users."""

    def observe(self, facts: Sequence[tuple[str, ActivityFacts]]) -> None:
        """Learns of activities, each with its user id; a source that has its own knowledge ignores them."""
        ...

    def fetch(self, messages: Sequence[ScoringMessage]) -> list[Profile]:
        """For each message the profile of its user as of the message's activity, in the messages' order."""
        ...


class ScoringModel(Protocol):
    """A model that scores profiles."""

    def score(self, profiles: Sequence[Profile]) -> list[ModelScore]:
        """One score per profile, in order."""
        ...


class PositionStore(Protocol):
    """How far a worker has read a source, where the runner itself remembers nothing across restarts."""

    def load(self, worker: str, source: str) -> str:
        """The committed position, or "" where there is none."""
        ...

    def commit(self, worker: str, source: str, position: str) -> None:
        """Remembers that everything up to ``position`` had its effect."""
        ...
