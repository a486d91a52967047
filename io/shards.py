"""Shards, as Kinesis and DynamoDB Streams have them: lists that end, split and merge.

Both services have the same shape: list the shards and their parents, get an iterator into one, read pages from it.
Here is what they share and who may read what when; ``shard_cursor.py`` reads one shard, ``shard_reader.py`` many.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, Protocol
from zlib import crc32

import msgspec

from ..domain.records import RawRecord
from .ports import Share

SHARD_END: Final = "SHARD_END"
"""The position behind a closed shard's last record, as Amazon's own client library calls it."""

_MARK: Final = "@"
_MAX_DIGITS: Final = 128  # a sequence number's, by both services' API references


class StartKind(Enum):
    """Where an iterator starts; the services' own names."""

    TRIM_HORIZON = "TRIM_HORIZON"
    LATEST = "LATEST"
    AT_TIMESTAMP = "AT_TIMESTAMP"
    AT_SEQUENCE_NUMBER = "AT_SEQUENCE_NUMBER"


class Start(msgspec.Struct, frozen=True):
    """Where to start in a shard.

    Attributes:
        kind: how it is said.
        time_ms: for AT_TIMESTAMP, epoch milliseconds.
        sequence: for AT_SEQUENCE_NUMBER. The record that has it is read again and dropped: so it is seen whether it
            is still there, or whether retention took it and others behind it.
    """

    kind: StartKind
    time_ms: int = 0
    sequence: str = ""


TRIM_HORIZON: Final = Start(StartKind.TRIM_HORIZON)
LATEST: Final = Start(StartKind.LATEST)


def mark_of(time_ms: int) -> str:
    """The position of a shard that is read from a time on and of which nothing was read yet."""
    return f"{_MARK}{time_ms}"


def start_of(position: str) -> Start | None:
    """Where a position, other than a shard's end, lets a shard start; None for what is no position."""
    if is_sequence(position):
        return Start(StartKind.AT_SEQUENCE_NUMBER, sequence=position)
    if position.startswith(_MARK) and is_sequence(position[1:]):
        return Start(StartKind.AT_TIMESTAMP, time_ms=int(position[1:]))
    return None


def is_sequence(position: str) -> bool:
    """Whether a position is a sequence number: then something of its shard has been read."""
    return position.isascii() and position.isdigit() and len(position) <= _MAX_DIGITS


class Shard(msgspec.Struct, frozen=True):
    """A shard as listed.

    Attributes:
        shard_id: its id.
        parents: of which shards it holds the later records: none, one (split), or two (merge).
        closed: nothing is written to it any more.
    """

    shard_id: str
    parents: tuple[str, ...] = ()
    closed: bool = False


class Listing(msgspec.Struct, frozen=True):
    """All shards a stream had, and when: epoch milliseconds by the service's clock, rounded down."""

    shards: Mapping[str, Shard]
    at_ms: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record of a shard; several records of ours where a producer packed them together.

    Attributes:
        sequence: its sequence number.
        arrived_ms: when it was written, about; epoch milliseconds.
        records: what it holds, in order.
    """

    sequence: str
    arrived_ms: int
    records: Sequence[RawRecord]


class Page(msgspec.Struct, frozen=True):
    """What one read brought.

    Attributes:
        entries: in the shard's order; may be empty where there are more.
        next_iterator: reads on; None at a closed shard's end.
        caught_up: whether nothing was behind these entries when they were read; None where the service does not say.
        behind_ms: how far these entries are behind the shard's end, milliseconds; None where the service does not say.
    """

    entries: Sequence[Entry]
    next_iterator: str | None
    caught_up: bool | None = None
    behind_ms: int | None = None


class ShardError(Exception):
    """What can happen while reading one shard and does not end the reading."""


class IteratorExpiredError(ShardError):
    """The iterator was not used for minutes."""


class ThrottledError(ShardError):
    """Slower."""


class TrimmedError(ShardError):
    """The record to start at is not there any more, or never was."""


class ShardGoneError(ShardError):
    """The shard, or the stream, does not exist any more."""


class ShardSource(Protocol):
    """One stream of one service. Its methods are called from several threads."""

    @property
    def name(self) -> str:
        """Names the stream in logs and errors."""
        ...

    @property
    def start(self) -> Start:
        """Where shards without a position start that exist when reading begins."""
        ...

    @property
    def end_ms(self) -> int | None:
        """Where a bounded read ends, epoch milliseconds; None: at what is there when it begins."""
        ...

    @property
    def discover_seconds(self) -> float:
        """How often shards are listed."""
        ...

    @property
    def busy_seconds(self) -> float:
        """The least time between two reads of a shard."""
        ...

    @property
    def idle_seconds(self) -> float:
        """The least time between two reads of a shard that brought nothing."""
        ...

    @property
    def empty_pages_to_end(self) -> int:
        """After how many empty pages in a row a shard counts as read up, where pages do not say ``caught_up``."""
        ...

    @property
    def time_precision_ms(self) -> int:
        """How much earlier than it was a record may be said to have arrived."""
        ...

    def list_shards(self) -> Listing:
        """All shards.

        Raises:
            ThrottledError: try later.
            UsageError: the stream does not exist, or region or credentials are wrong.
            BackendUnavailableError: out of reach.
        """
        ...

    def iterator(self, shard_id: str, start: Start) -> str:
        """An iterator into a shard.

        Raises:
            TrimmedError, ShardGoneError, ThrottledError, UsageError, BackendUnavailableError: as they say.
        """
        ...

    def read(self, shard_id: str, iterator: str) -> Page:
        """Reads from an iterator.

        Raises:
            IteratorExpiredError, TrimmedError, ShardGoneError, ThrottledError, UsageError, BackendUnavailableError:
                as they say.
        """
        ...


def is_of_share(shard_id: str, share: Share) -> bool:
    """Whether a shard is a share's; the same in every process."""
    return crc32(shard_id.encode()) % share.count == share.index


class Lineage:
    """Which shards there are and which come before which.

    A shard exists as long as one of the last two listings has it: listings of a stream that is being resharded are
    not always complete.
    """

    def __init__(self, listing: Listing) -> None:
        self._shards: Mapping[str, Shard] = listing.shards
        self._before: Mapping[str, Shard] = {}

    def update(self, listing: Listing) -> None:
        """Takes a newer listing."""
        self._before, self._shards = self._shards, listing.shards

    def exists(self, shard_id: str) -> bool:
        """Whether a shard is there."""
        return shard_id in self._shards or shard_id in self._before

    def parents(self, shard_id: str) -> list[str]:
        """A shard's parents that still exist: those to be finished before it."""
        shard = self._shards.get(shard_id) or self._before.get(shard_id)
        return [] if shard is None else [parent for parent in shard.parents if self.exists(parent)]

    def ancestors(self, shard_id: str) -> list[str]:
        """Every shard known to come before one, the nearest first; the last ones may not exist any more."""
        found: dict[str, None] = {}
        todo = [shard_id]
        for current in todo:
            shard = self._shards.get(current) or self._before.get(current)
            for parent in () if shard is None else shard.parents:
                if parent not in found:
                    found[parent] = None
                    todo.append(parent)
        return list(found)

    def closed(self) -> set[str]:
        """The shards nothing is written to any more: listed as closed, or with children already."""
        parents = {parent for shard in self._shards.values() for parent in shard.parents}
        return {shard_id for shard_id, shard in self._shards.items() if shard.closed or shard_id in parents}
