"""What the pipelines ask of the outside, whatever stands behind an address.

Each protocol is implemented once per system; ``backends.py`` picks the implementation by the address's scheme.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import msgspec

from ..domain.arai import Arai
from ..domain.dead_letters import WAITING, LetterFilter, LetterTally, RedriveAttempt
from ..domain.import_effects import ImportedValues
from ..domain.messages import ScoringMessage
from ..domain.profile import ActivityFacts
from ..domain.records import DeadLetter, Failure, RawRecord
from ..domain.scorecard import ModelScore
from ..domain.verification import Verification
from .telemetry.tracing import Attributes

Item = Mapping[str, Any]
"""An item of a table: JSON values by attribute name, ``PK`` and ``SK`` among them."""


class QueueEntry(msgspec.Struct, frozen=True, gc=False):
    """A message to send.

    Attributes:
        group_id: messages of a group are received in the order sent, one receiver at a time.
        deduplication_id: an entry whose id was sent within the window is a duplicate.
        body: the message.
        precedence: tells it when asked. Of two entries with one deduplication id that of the lower one is kept while
            neither was received, where the queue can do that (SQLite); so shuffled input ends in the same scores even
            where one activity id stands for two different activities. Other queues keep the first, and do not ask:
            to tell it costs two thirds of what the rest of the entry does.
    """

    group_id: str
    deduplication_id: str
    body: bytes
    precedence: Callable[[], bytes] = bytes


@runtime_checkable
class Checked(Protocol):
    """A client of a server: what it names may not exist or be out of reach."""

    def check(self) -> None:
        """Connects once.

        Raises:
            UsageError: what the address names does not exist, or credentials or region are wrong; names the setting.
            BackendUnavailableError: it is out of reach.
        """
        ...


@runtime_checkable
class OfTwoKinds(Protocol):
    """A queue service that has queues that keep order and queues that do not."""

    def expect_fifo(self, fifo: bool) -> None:
        """Checks which kind the queue is.

        Raises:
            UsageError: the other one; names the setting.
        """
        ...


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
        sent_at_ms: when it was sent, epoch milliseconds; 0 where the queue does not say.
        trace: the W3C traceparent it is worked on under; "" for none.
    """

    receipt: str
    group_id: str
    body: bytes
    receive_count: int
    message_id: str
    sent_at_ms: int = 0
    trace: str = ""


class ScoringRequest(msgspec.Struct, frozen=True, gc=False):
    """What a model is asked: the activity that causes the score, and what is known of its user."""

    message: ScoringMessage
    arai: Arai
    verification: Verification | None = None


class MessageQueue(Protocol):
    """A queue: at-least-once delivery, in order within a group."""

    @property
    def place(self) -> Attributes:
        """As spans name it: ``messaging.system`` and ``messaging.destination.name``."""
        ...

    def send(self, entries: Sequence[QueueEntry]) -> list[SendOutcome | Failure]:
        """Sends entries, a group's in their order; the outcomes are in the entries' order.

        An entry the queue will never take (too large) is a Failure; the others are sent.

        Raises:
            BackendUnavailableError: the queue is out of reach, after retries.
        """
        ...

    def receive(self, limit: int) -> list[ReceivedMessage]:
        """Receives up to ``limit`` messages without waiting; a group's messages are in order and together.

        Received messages stay invisible to others until deleted or released, as long as this process lives.
        """
        ...

    def delete(self, receipts: Sequence[str]) -> None:
        """Deletes received messages; a receipt that is no longer valid is ignored."""
        ...

    def release(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Gives received messages back: they can be received again after a delay. Invalid receipts are ignored."""
        ...

    def depth(self) -> int:
        """How many messages wait or are in flight."""
        ...


class Table(Protocol):
    """A table with partition and sort key, as DynamoDB has them."""

    def put(self, item: Item) -> None:
        """Writes an item, replacing the one with the same keys."""
        ...

    def batch_put(self, items: Sequence[Item]) -> list[Failure | None]:
        """Writes many items; all are written when it returns, but for those it names a Failure for (too large).

        Returns:
            For each, None or why the table will never take it.
        """
        ...

    def put_if_newer(self, items: Sequence[tuple[str, Item]]) -> list[bool | Failure]:
        """Writes each (version, item) unless an item with the same keys has that version or a greater one.

        Returns:
            For each, whether it was written, or why the table will never take it.
        """
        ...

    def latest_items(self) -> Iterator[Item]:
        """Every user's ``LATEST`` item, in no order; reads the whole table."""
        ...

    def get(self, pk: str, sk: str) -> Item | None:
        """The item with these keys, or None."""
        ...

    def batch_get(self, keys: Sequence[tuple[str, str]]) -> list[Item | None]:
        """The items of any number of (PK, SK), in their order; None for each that is not there. Keys may repeat."""
        ...

    def batch_delete(self, keys: Sequence[tuple[str, str]]) -> None:
        """Deletes the items of any number of (PK, SK); one that is not there is no error. Keys may repeat."""
        ...

    def query(
        self, pk: str, sk_prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Item]:
        """A partition's items in the order of their sort keys."""
        ...

    def query_many(self, pks: Sequence[str], sk_prefix: str = "") -> list[list[Item]]:
        """For each partition its items whose sort key begins with ``sk_prefix``, in the order of their sort keys."""
        ...


class ArmCache(Protocol):
    """The ARM cache: one JSON value per user, newer wins."""

    def put_if_newer(self, entries: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Writes each (key, version, value) unless the key has that version or a greater one."""
        ...

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The value of a key, or None for an unknown one."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes the values of keys, whatever their versions; one that is not there is no error."""
        ...


class DeadLetterStore(Protocol):
    """Where dead letters are written; writing one again changes its attempts only."""

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Writes letters durably."""
        ...


class StoredDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter with what became of it.

    Attributes:
        letter: as written.
        written_at_ms: when it was first written, epoch milliseconds.
        redriven_at_ms: when it was sent again, or None while it waits.
    """

    letter: DeadLetter
    written_at_ms: int
    redriven_at_ms: int | None


class LetterHead(msgspec.Struct, frozen=True):
    """A dead letter without its payload and stack, as lists show it. Times are epoch milliseconds, as stored."""

    dead_letter_id: str
    worker: str
    reason: str
    error: str
    attempts: int
    written_at_ms: int
    redriven_at_ms: int | None
    source: str
    position: str
    code_version: str


class LetterPage(msgspec.Struct, frozen=True):
    """A page of a list.

    Attributes:
        letters: of the page; there may be none though more follow.
        after: where the next page begins, or None after the last.
    """

    letters: list[LetterHead]
    after: str | None


class DeadLetterArchive(DeadLetterStore, Protocol):
    """Dead letters that can also be searched and marked."""

    def select(self, where: LetterFilter = WAITING, *, limit: int = -1) -> list[StoredDeadLetter]:
        """Letters that match, oldest first; ``limit`` -1 for all."""
        ...

    def pages(self, where: LetterFilter = WAITING, *, size: int = 100) -> Iterator[list[StoredDeadLetter]]:
        """As ``select``, ``size`` letters at a time; what is written or marked between pages may be in or not."""
        ...

    def page(self, where: LetterFilter = WAITING, *, after: str | None = None, limit: int = 50) -> LetterPage:
        """A page of the letters that match, the newest first where the store keeps an order (SQLite).

        Args:
            where: which.
            after: where the page before said it ends; None for the first.
            limit: how many at most.

        Raises:
            ValueError: ``after`` is nothing a page said.
        """
        ...

    def count(self, where: LetterFilter = WAITING) -> int:
        """How many letters match."""
        ...

    def count_up_to(self, most: int, where: LetterFilter = WAITING, *, seconds: float | None = None) -> int | None:
        """How many letters match, counted no further than ``most``.

        None where that takes longer than ``seconds``: where counting is reading (DynamoDB), it is given up then.
        """
        ...

    def numbers(self, where: LetterFilter = WAITING) -> list[LetterTally]:
        """As ``tally``, without examples: quicker."""
        ...

    def tally(self, where: LetterFilter = WAITING) -> list[LetterTally]:
        """The letters that match by worker and reason, most first."""
        ...

    def get(self, letter_id: str) -> StoredDeadLetter | None:
        """The letter whose id is ``letter_id`` or begins with it where only one does; else None."""
        ...

    def record(self, attempts: Sequence[RedriveAttempt]) -> None:
        """Adds attempts to letters' histories; what was queued or rejected no longer waits, and is kept.

        Each is counted in its letter's ``attempts``. A letter that is not there is no error.
        """
        ...

    def history(self, letter_id: str) -> list[RedriveAttempt]:
        """A letter's attempts, oldest first."""
        ...

    def each(self) -> Iterator[StoredDeadLetter]:
        """Every letter, redriven or not, in no order; reads all of them, a few at a time."""
        ...

    def delete(self, letter_ids: Sequence[str]) -> None:
        """Deletes letters, every byte of them; one that is not there is no error."""
        ...


class FanImports(Protocol):
    """What the active imports say of fans."""

    def values(self, users: Sequence[str]) -> tuple[int, list[ImportedValues]]:
        """The generation of the active imports, as known some seconds ago or later, and each user's values in it."""
        ...

    def generation(self) -> int:
        """The generation as of now; ``values`` answers as of it or a later one from here on."""
        ...


class AraiSource(Protocol):
    """Account-activity profiles (ARAI) of users."""

    def observe(self, facts: Sequence[tuple[str, ActivityFacts]]) -> None:
        """Learns of activities, each with its user id; a source that has its own knowledge ignores them."""
        ...

    def fetch(self, messages: Sequence[ScoringMessage]) -> list[Arai | Failure]:
        """For each message what is known of its user as of the message's activity, in the messages' order."""
        ...


class ScoringModel(Protocol):
    """A model that scores users."""

    def score(self, requests: Sequence[ScoringRequest]) -> list[ModelScore | Failure]:
        """One score per request, in order; a checked one, or why there is none."""
        ...


class PositionStore(Protocol):
    """How far a worker has read its sources, where the runner itself remembers nothing across restarts."""

    def load(self, worker: str, source: str) -> str:
        """The committed position, or "" where there is none."""
        ...

    def commit(self, worker: str, source: str, position: str) -> None:
        """Remembers that everything up to ``position`` had its effect."""
        ...


class Share(msgspec.Struct, frozen=True):
    """A reader's share of a stream's partitions: those whose number (or name's hash) modulo ``count`` is ``index``."""

    index: int = 0
    count: int = 1


class StreamRecords(msgspec.Struct, frozen=True):
    """What one poll of a stream brought, all of one partition.

    Attributes:
        partition: the partition's or shard's name.
        records: in the partition's order; may be empty where only the position moved (a shard's end).
        position: after these records; what ``StreamReader`` resumes from.
    """

    partition: str
    records: Sequence[RawRecord]
    position: str


class StreamReader(Protocol):
    """Reads a share of a partitioned log. Delivery is at least once: what is after the last position comes again."""

    def poll(self, limit: int) -> StreamRecords | None:
        """Up to ``limit`` records of one partition that are there now, or None; waits a few milliseconds at most.

        Raises:
            BackendUnavailableError: the stream is out of reach, after retries.
        """
        ...

    def positions(self) -> dict[str, str]:
        """By partition the position after what ``poll`` returned so far; given to ``Stream.open`` it resumes there."""
        ...

    def ended(self) -> bool:
        """True where the range asked for has been read to its end; never for an unbounded one."""
        ...

    def close(self) -> None:
        """Ends connections; nothing is committed."""
        ...


class Stream(Protocol):
    """A partitioned log: Kafka, Kinesis, DynamoDB Streams."""

    def check(self) -> None:
        """Connects once.

        Raises:
            UsageError: the stream does not exist, or credentials or region are wrong; names the setting.
            BackendUnavailableError: it is out of reach.
        """
        ...

    def open(
        self, share: Share, positions: Mapping[str, str], committed: Callable[[str], str], *, bounded: bool
    ) -> StreamReader:
        """Starts reading a share.

        A partition starts at its position in ``positions`` (a checkpoint), else at the position ``committed`` holds for
        it, else where the address says (``start``).

        Args:
            share: which partitions; new ones of the share are found while running.
            positions: by partition.
            committed: gives a partition's committed position, "" where there is none.
            bounded: end at the address's ``end``, or at what was there when reading began.
        """
        ...
