"""Reading one shard: pages fetched ahead in a thread, handed out in order, with everything that may happen to it."""

import logging
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from ..domain.records import RawRecord
from .ports import StreamRecords
from .shards import (
    SHARD_END,
    TRIM_HORIZON,
    Entry,
    IteratorExpiredError,
    Page,
    ShardError,
    ShardGoneError,
    ShardSource,
    Start,
    StartKind,
    ThrottledError,
    TrimmedError,
)

_log = logging.getLogger(__name__)
_FIRST_DELAY: Final = 0.2
_LONGEST_DELAY: Final = 5.0
_MANY_FAILURES: Final = 5


class Pool(Protocol):
    """Runs reads; an Executor is one."""

    def submit(self, fn: Callable[[ShardSource, str, str | None, Start], Page], /, *args: object) -> Future[Page]:
        """Runs a call later."""
        ...


class ShardCursor:
    """One shard's reading state. At most one page is held: either it is being fetched or handed out.

    Attributes:
        shard_id: the shard.
        position: behind what ``take`` returned last.
        pending: the read under way.
        gone: the service knows no such shard; ``give_up`` or ``still_there`` decides.
        reached: a bounded read has come to its bound.
        done: the shard's end has been handed out.
    """

    def __init__(
        self,
        source: ShardSource,
        shard_id: str,
        start: Start,
        position: str,
        *,
        mark: str = "",
        bound_ms: int | None = None,
        until_caught_up: bool = False,
    ) -> None:
        """Prepares; nothing is read yet.

        Args:
            source: the stream.
            shard_id: the shard.
            start: where it starts.
            position: the position that stands for that, or "".
            mark: a position to hand out before any record, so that it is committed; "" for none.
            bound_ms: records that arrived later are not read.
            until_caught_up: end at what is there.
        """
        self.shard_id = shard_id
        self.position = position
        self.pending: Future[Page] | None = None
        self.gone = False
        self.reached = False
        self.done = position == SHARD_END
        self._source = source
        self._start = start
        self._mark = mark
        self._bound_ms = bound_ms
        self._until_caught_up = until_caught_up
        self._iterator: str | None = None
        self._expected = ""  # the sequence number the first record read should have
        self._not_older_ms = 0  # until a record is as new, records are passed over
        self._entries: Sequence[Entry] = ()
        self._next = 0
        self._at_end = False
        self._reached_behind = False  # the bound is behind the entries that are held
        self._empty_pages = 0
        self._failures = 0
        self._not_before = 0.0

    def start_from(self, iterator: str) -> None:
        """Starts at an iterator taken already. Where it expires unused, ``start`` counts."""
        self._iterator = iterator

    def end_now(self) -> None:
        """Nothing is to be read; the shard's end is handed out all the same."""
        self.done = False
        self._at_end = True

    def give_up(self) -> None:
        """The shard was taken by retention while it was read."""
        _log.warning("%s: shard %s is gone, and what was left to read of it", self._source.name, self.shard_id)
        self.gone = False
        self._at_end = True

    def still_there(self, now: float) -> None:
        """The shard is listed: try again."""
        self.gone = False
        self._wait(now)

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left to fetch, the shard being closed."""
        return self._at_end

    @property
    def starts_at_mark(self) -> bool:
        """Whether it starts at a time that stands for the latest record, and has no iterator yet."""
        return bool(self._mark) and self._iterator is None

    @property
    def has_mark(self) -> bool:
        """Whether a position is to be handed out before any record."""
        return bool(self._mark)

    def is_due(self, now: float) -> bool:
        """Whether a read should be started."""
        return (
            self.pending is None
            and now >= self._not_before
            and self._next >= len(self._entries)
            and not (self._at_end or self.done or self.reached or self.gone)
        )

    def submit(self, pool: Pool, now: float) -> None:
        """Starts a read."""
        if self._iterator is None:
            self._expected = self._start.sequence
            if self._start.kind is StartKind.AT_TIMESTAMP:
                self._not_older_ms = self._start.time_ms - self._source.time_precision_ms
        self._not_before = now + self._source.busy_seconds
        self.pending = pool.submit(_fetch, self._source, self.shard_id, self._iterator, self._start)

    def collect(self, now: float) -> None:
        """Takes what a read brought, if it is done.

        Raises:
            UsageError: the stream is gone, or credentials are refused.
            BackendUnavailableError: out of reach.
        """
        future = self.pending
        if future is None or not future.done():
            return
        self.pending = None
        try:
            page = future.result()
        except ShardError as error:
            self._recover(error, now)
        except Exception:
            self._wait(now)
            raise
        else:
            self._failures = 0
            if not page.entries:
                self._not_before = max(self._not_before, now + self._source.idle_seconds)
            self._accept(page)

    def _recover(self, error: ShardError, now: float) -> None:
        if isinstance(error, ShardGoneError):
            self.gone = True
            return
        if isinstance(error, ThrottledError):
            self._wait(now)
            return
        self._iterator = None
        if isinstance(error, IteratorExpiredError):
            return
        if isinstance(error, TrimmedError) and self._start.kind is StartKind.AT_SEQUENCE_NUMBER:
            self._warn_of_gap()
            self._start = TRIM_HORIZON
            self._expected = ""
        else:  # retention overtook the iterator
            self._wait(now)

    def _wait(self, now: float) -> None:
        """Lets this shard alone for a while, longer each time; the others go on."""
        self._failures += 1
        if self._failures == _MANY_FAILURES:
            _log.warning("%s: shard %s failed %d reads in a row", self._source.name, self.shard_id, self._failures)
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(self._failures - 1, 10))
        self._not_before = now + delay * (0.5 + random.random())  # noqa: S311 - jitter

    def _warn_of_gap(self) -> None:
        _log.warning(
            "%s: shard %s no longer has the record reading had come to; going on with the oldest one there is, "
            "records in between are lost",
            self._source.name,
            self.shard_id,
        )

    def _accept(self, page: Page) -> None:
        entries = list(page.entries)
        if entries:
            last = entries[-1]
            if self._expected:
                expected, self._expected = int(self._expected), ""
                if int(entries[0].sequence) > expected:
                    self._warn_of_gap()
                entries = [entry for entry in entries if int(entry.sequence) > expected]
            if self._not_older_ms:
                entries = self._passed_over(entries)
            self._start = Start(StartKind.AT_SEQUENCE_NUMBER, sequence=last.sequence)
        self._iterator = page.next_iterator
        self._at_end = page.next_iterator is None
        self._find_bound(page, entries)
        self._entries = entries
        self._next = 0
        self.reached = self._reached_behind and not entries

    def _passed_over(self, entries: list[Entry]) -> list[Entry]:
        """Empties entries that are too old, for services that cannot start at a time; they only move the position."""
        for index, entry in enumerate(entries):
            if entry.arrived_ms >= self._not_older_ms:
                self._not_older_ms = 0
                return entries[index:] if index == 0 else [_emptied(entries[index - 1]), *entries[index:]]
        return [_emptied(entries[-1])]

    def _find_bound(self, page: Page, entries: list[Entry]) -> None:
        bound = self._bound_ms
        if bound is not None:
            for index, entry in enumerate(entries):
                if entry.arrived_ms > bound:
                    del entries[index:]
                    self._at_end = False
                    self._reached_behind = True
                    return
        if not self._until_caught_up or self._at_end:
            return
        self._empty_pages = 0 if page.entries else self._empty_pages + 1
        if page.caught_up or (page.caught_up is None and self._empty_pages >= self._source.empty_pages_to_end):
            self._reached_behind = True

    @property
    def is_deliverable(self) -> bool:
        """Whether ``take`` would return something."""
        return bool(self._mark) or self._next < len(self._entries) or (self._at_end and not self.done)

    def take(self, limit: int) -> StreamRecords | None:
        """The next records: up to ``limit`` of ours, and at least one whole record of the shard; or its end, once."""
        if self._mark:
            self.position, self._mark = self._mark, ""
            return StreamRecords(self.shard_id, (), self.position)
        if self._next < len(self._entries):
            return self._take_entries(limit)
        if self._at_end and not self.done:
            self.done = True
            self.position = SHARD_END
            return StreamRecords(self.shard_id, (), SHARD_END)
        return None

    def _take_entries(self, limit: int) -> StreamRecords:
        records: list[RawRecord] = []
        end = self._next
        while end < len(self._entries):
            entry = self._entries[end]
            if end > self._next and entry.records and len(records) + len(entry.records) > limit:
                break
            records += entry.records
            end += 1
        self.position = self._entries[end - 1].sequence
        self._next = end
        if end == len(self._entries):
            self._entries = ()
            self._next = 0
            self.reached = self._reached_behind
        return StreamRecords(self.shard_id, records, self.position)


def _emptied(entry: Entry) -> Entry:
    return Entry(entry.sequence, entry.arrived_ms, ())


def _fetch(source: ShardSource, shard_id: str, iterator: str | None, start: Start) -> Page:
    return source.read(shard_id, source.iterator(shard_id, start) if iterator is None else iterator)
