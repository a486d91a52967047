"""Where each shard of a reader starts, and where it ends if the read is bounded."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from .shard_cursor import ShardCursor
from .shards import (
    SHARD_END,
    TRIM_HORIZON,
    Lineage,
    Listing,
    ShardSource,
    Start,
    StartKind,
    mark_of,
    start_of,
)

_log = logging.getLogger(__name__)
_BOUND_MARGIN_MS: Final = 2_000
"""The service's clock is read to the second, and arrival times are approximate: rather a few more than one less."""


class ShardStarts:
    """Makes the cursors of one reader."""

    def __init__(
        self,
        source: ShardSource,
        given: Mapping[str, str],
        committed: Callable[[str], str],
        first: Listing,
        *,
        bounded: bool,
    ) -> None:
        """Notes when reading begins, and what was closed then.

        Args:
            source: the stream.
            given: positions of a checkpoint.
            committed: gives a shard's committed position, or "".
            first: the listing reading begins with.
            bounded: whether the read ends.
        """
        self._source = source
        self._given = given
        self._committed = committed
        self._bounded = bounded
        self._began_ms = first.at_ms
        self._closed = Lineage(first).closed()

    def cursor(self, shard_id: str, position: str, lineage: Lineage, *, is_first: bool) -> ShardCursor:
        """A shard's cursor.

        Args:
            shard_id: the shard.
            position: from the checkpoint or committed, or "".
            lineage: the shards known.
            is_first: whether the shard is in the first listing.
        """
        is_open = shard_id not in self._closed
        start, mark = self._start(shard_id, position, lineage, is_first)
        cursor = ShardCursor(
            self._source,
            shard_id,
            start,
            position,
            mark=mark if is_open else "",
            bound_ms=self._bound_ms(is_open),
            until_caught_up=self._bounded and is_open,
        )
        lost_end = position == SHARD_END and self._committed(shard_id) not in ("", SHARD_END)
        if lost_end or (mark and not is_open):
            # Nothing is to be read, but the end is to be committed: children, other readers' too, wait for it.
            cursor.end_now()
        return cursor

    def _start(self, shard_id: str, position: str, lineage: Lineage, is_first: bool) -> tuple[Start, str]:
        """Where to start, and a position to hand out for it before any record; "" for none."""
        if position and position != SHARD_END:
            start = start_of(position)
            if start is None:
                _log.warning("%s: shard %s has a position that is none; starting over", self._source.name, shard_id)
            return start or TRIM_HORIZON, ""
        if position or not is_first or self._source.start == TRIM_HORIZON or self._is_continued(shard_id, lineage):
            return TRIM_HORIZON, ""
        if self._source.start.kind is not StartKind.LATEST:
            return self._source.start, ""
        # A time stands for "latest" until a record is read: so what arrives before a restart is not lost.
        return Start(StartKind.AT_TIMESTAMP, time_ms=self._began_ms), mark_of(self._began_ms)

    def _is_continued(self, shard_id: str, lineage: Lineage) -> bool:
        """Whether a shard holds what comes after records this worker has read: then all of it is to be read."""
        return any(self._given.get(before) or self._committed(before) for before in lineage.ancestors(shard_id))

    def _bound_ms(self, is_open: bool) -> int | None:
        if not self._bounded:
            return None
        end = self._source.end_ms
        if not is_open:
            return end
        now = self._began_ms + _BOUND_MARGIN_MS
        return now if end is None else min(end, now)
