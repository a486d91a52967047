"""Reading a share of a stream's shards, each shard's parents before it."""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any, Final

from .errors import BackendUnavailableError
from .ports import Share, StreamRecords
from .shard_cursor import ShardCursor
from .shard_starts import ShardStarts
from .shards import (
    LATEST,
    SHARD_END,
    Lineage,
    Listing,
    Shard,
    ShardSource,
    StartKind,
    ThrottledError,
    is_of_share,
    is_sequence,
)

_log = logging.getLogger(__name__)
_THREADS: Final = 32
_POLL_SECONDS: Final = 0.05
_PAUSE_SECONDS: Final = 0.005
_ASK_SECONDS: Final = 0.2
_LONG_WAIT_SECONDS: Final = 60.0

_NONE: Final = Share(-1, 1)


@cache
def _pool_of(process: int) -> ThreadPoolExecutor:
    del process  # a forked process has none of its parent's threads
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="shards")


def _listing(source: ShardSource) -> Listing:
    try:
        return source.list_shards()
    except ThrottledError:
        raise BackendUnavailableError(f"{source.name}: listing the shards is throttled") from None


class ShardReader:
    """A ``StreamReader`` over shards. Delivery is at least once, in order within a shard and from parents to children.

    A shard is not read before every parent of it that still exists has been read to its end and the effects of that
    are done, which ``committed(parent) == "SHARD_END"`` says, whichever reader of the stream read it. Where nothing at
    all is committed for a parent, it is enough that this reader handed out the parent's end and was polled again (a
    pipeline that polls again is done with what it got before), or was opened with it as a position.

    A bounded read covers the shards there are when it begins, all of them by the first reader, whatever the number of
    shares: the others may not run beside it, so none may wait for another's shards. A closed shard is read to its end,
    exactly. An open one up to the first record that arrived two seconds after the beginning, or until the service says
    that nothing is behind; where it does not say (DynamoDB Streams), until some pages in a row came empty. So records
    written meanwhile may be among those read, and none that were there are left out as long as the service does not
    answer that many empty pages in the middle of a shard.

    Not safe for use by several threads at once.
    """

    def __init__(
        self,
        source: ShardSource,
        share: Share,
        positions: Mapping[str, str],
        committed: Callable[[str], str],
        *,
        bounded: bool,
        pool: Any = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Lists the shards, and takes the iterators of those that start at their latest record.

        Args:
            source: the stream.
            share: which shards to read.
            positions: by shard, from a checkpoint.
            committed: gives a shard's committed position, or "".
            bounded: end where the stream ends now, or at the source's ``end_ms``.
            pool: runs the reads; None for the process's own threads.
            clock: seconds that never go back; tests pass their own.
            pause: waits; tests pass their own.

        Raises:
            UsageError: the stream does not exist, or region or credentials are wrong.
            BackendUnavailableError: out of reach.
        """
        self._source = source
        # The readers of a bounded read may run one after another: none could wait for another one's shards.
        self._share = share if not bounded else Share(0, 1) if share.index == 0 else _NONE
        self._given = dict(positions)
        self._committed = committed
        self._bounded = bounded
        self._pool = _pool_of(os.getpid()) if pool is None else pool
        self._clock = clock
        self._pause = pause
        self._cursors: dict[str, ShardCursor] = {}
        self._turns: deque[ShardCursor] = deque()
        self._blocked: dict[str, float] = {}  # and since when
        self._finished: set[str] = set()  # parents known to be
        self._settled = {shard_id for shard_id, position in positions.items() if position == SHARD_END}
        self._handed_end: str | None = None
        self._ask_at = 0.0
        self._listing: Future[Listing] | None = None
        listing = _listing(source)
        self._lineage = Lineage(listing)
        self._list_at = clock() + source.discover_seconds
        self._starts = ShardStarts(source, self._given, committed, listing, bounded=bounded)
        for shard in listing.shards.values():
            self._add(shard, is_first=True)
        self._take_latest_iterators()

    def _add(self, shard: Shard, *, is_first: bool) -> None:
        shard_id = shard.shard_id
        if shard_id in self._cursors or not is_of_share(shard_id, self._share):
            return
        position = self._given.get(shard_id) or self._committed(shard_id)
        cursor = self._starts.cursor(shard_id, position, self._lineage, is_first=is_first)
        self._cursors[shard_id] = cursor
        self._turns.append(cursor)
        if position != SHARD_END and not is_sequence(position) and not cursor.is_at_end:
            self._blocked[shard_id] = self._clock()
            self._ask_at = 0.0

    def _take_latest_iterators(self) -> None:
        """Takes the iterators now, not at the first poll: what is written after opening is to be read."""
        if self._source.start.kind is not StartKind.LATEST:
            return
        taken: list[tuple[ShardCursor, Future[str]]] = [
            (cursor, self._pool.submit(self._source.iterator, cursor.shard_id, LATEST))
            for cursor in self._cursors.values()
            if cursor.starts_at_mark
        ]
        for cursor, future in taken:
            try:
                cursor.start_from(future.result())
            except Exception as error:  # the time stands in for it
                _log.debug("%s: no latest iterator (%s)", self._source.name, type(error).__name__)

    def poll(self, limit: int) -> StreamRecords | None:
        """Up to ``limit`` records of one shard (more where one record of the shard packs more), or None after 50 ms.

        A closed shard's end comes once, as ``StreamRecords(shard, (), "SHARD_END")``.

        Raises:
            UsageError: the stream was deleted.
            BackendUnavailableError: out of reach, after retries.
        """
        if self._handed_end is not None:
            self._settled.add(self._handed_end)
            self._handed_end = None
            self._ask_at = 0.0
        until = self._clock() + _POLL_SECONDS
        while True:
            now = self._clock()
            self._discover(now)
            self._admit(now)
            for cursor in self._turns:
                cursor.collect(now)
            batch = self._take(limit)
            under_way = self._submit(self._clock())
            if batch is not None:
                return batch
            left = until - self._clock()
            if left <= 0:
                return None
            if not under_way:
                self._pause(_PAUSE_SECONDS)
                return None
            wait(under_way, timeout=left, return_when=FIRST_COMPLETED)

    def _discover(self, now: float) -> None:
        """Lists the shards now and then, beside the reading."""
        gone = [cursor for cursor in self._turns if cursor.gone]
        if self._listing is None:
            if now >= self._list_at or gone:
                self._list_at = now + self._source.discover_seconds
                self._listing = self._pool.submit(self._source.list_shards)
            return
        if not self._listing.done():
            return
        future, self._listing = self._listing, None
        try:
            listing = future.result()
        except ThrottledError:
            return
        self._lineage.update(listing)
        for cursor in gone:
            if cursor.shard_id in listing.shards:
                cursor.still_there(now)
            else:
                cursor.give_up()
        if not self._bounded:
            for shard in listing.shards.values():
                self._add(shard, is_first=False)
            self._drop_vanished()

    def _drop_vanished(self) -> None:
        """Forgets shards that ended and that retention has taken."""
        for shard_id in [name for name, cursor in self._cursors.items() if cursor.done]:
            if not self._lineage.exists(shard_id):
                self._turns.remove(self._cursors.pop(shard_id))
                self._given.pop(shard_id, None)
                self._settled.discard(shard_id)

    def _admit(self, now: float) -> None:
        """Lets shards be read whose parents are finished."""
        if not self._blocked or now < self._ask_at:
            return
        self._ask_at = now + _ASK_SECONDS
        for shard_id, since in list(self._blocked.items()):
            parents = self._lineage.parents(shard_id)
            if any(parent in self._cursors and self._cursors[parent].reached for parent in parents):
                # A bounded read came to its bound in the parent, so all that is here lies behind it.
                self._cursors[shard_id].reached = True
                del self._blocked[shard_id]
                self._ask_at = 0.0
                continue
            unfinished = [parent for parent in parents if not self._is_finished(parent)]
            if not unfinished:
                del self._blocked[shard_id]
            elif now - since > _LONG_WAIT_SECONDS and not all(self._is_being_read(parent) for parent in unfinished):
                self._blocked[shard_id] = now
                _log.warning(
                    "%s: shard %s waits until the end of %s is committed by whoever reads that",
                    self._source.name,
                    shard_id,
                    " and ".join(unfinished),
                )

    def _is_being_read(self, shard_id: str) -> bool:
        own = self._cursors.get(shard_id)
        return own is not None and not own.done

    def _is_finished(self, parent: str) -> bool:
        if parent in self._finished:
            return True
        if self._is_being_read(parent):
            return False
        committed = self._committed(parent)
        if committed != SHARD_END and (committed or parent not in self._settled):
            return False
        self._finished.add(parent)
        return True

    def _take(self, limit: int) -> StreamRecords | None:
        for _ in range(len(self._turns)):
            cursor = self._turns[0]
            self._turns.rotate(-1)
            if not cursor.is_deliverable or (cursor.shard_id in self._blocked and not cursor.has_mark):
                continue
            batch = cursor.take(limit)
            if batch is not None and batch.position == SHARD_END:
                self._handed_end = cursor.shard_id
                self._list_at = 0.0
            return batch
        return None

    def _submit(self, now: float) -> list[Future[Any]]:
        under_way: list[Future[Any]] = [] if self._listing is None else [self._listing]
        for cursor in self._turns:
            if cursor.is_due(now) and cursor.shard_id not in self._blocked:
                cursor.submit(self._pool, now)
            if cursor.pending is not None:
                under_way.append(cursor.pending)
        return under_way

    def positions(self) -> dict[str, str]:
        """By shard of the share, the position behind what ``poll`` returned: sequence number, SHARD_END, or a time."""
        return {shard_id: cursor.position for shard_id, cursor in self._cursors.items() if cursor.position}

    def ended(self) -> bool:
        """True where a bounded read has come to its end."""
        return self._bounded and all(cursor.done or cursor.reached for cursor in self._cursors.values())

    def close(self) -> None:
        """Stops; reads under way end by themselves."""
        self._turns.clear()
        self._blocked.clear()
