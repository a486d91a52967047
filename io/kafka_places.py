"""Where reading a topic starts and ends, and whether the topic is there while it is read."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final

from .errors import FanIdentityError, UsageError
from .kafka_address import KafkaSettings, offset_of
from .kafka_admin import KafkaAdmin

_log = logging.getLogger(__name__)

_PROBE_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.5


class StartingPlaces:
    """Offsets to start at and to end before.

    Args:
        settings: of the address.
        admin: asked for offsets.
        committed: gives a partition's committed position, "" where there is none.
        bounded: a bounded read with a start of its own does not go on where the group stopped: it is a backfill.
    """

    def __init__(
        self, settings: KafkaSettings, admin: KafkaAdmin, committed: Callable[[str], str], *, bounded: bool
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._committed = committed
        self._of_the_group = not (bounded and settings.has_start)

    def compare(self, positions: Mapping[str, str], partitions: Collection[int]) -> None:
        """Says which partitions of a checkpoint the topic does not have.

        Raises:
            UsageError: the checkpoint is another kind of stream's.
        """
        if not all(name.isascii() and name.isdigit() for name in positions):
            raise UsageError(
                f"--{self._settings.setting}: remembered positions are of no Kafka partition; "
                "were they another kind of stream's?"
            )
        if gone := {int(name) for name in positions} - set(partitions):
            _log.warning("%s: partitions to go on with are no longer there: %s", self._settings.name, sorted(gone))

    def of(
        self, partitions: Collection[int], positions: Mapping[str, str], seconds: float, *, new: bool
    ) -> dict[int, int]:
        """Where partitions start: position, else committed position, else the group's offset, else the address's start.

        Args:
            partitions: whose start is wanted.
            positions: a checkpoint's, by partition.
            seconds: how long an answer may take.
            new: the rest appeared after reading began and starts at its beginning, whatever the address says: nothing
                of it is to be lost.

        Raises:
            UsageError: a position is no offset, or the group may not be read.
            BackendUnavailableError: no answer.
        """
        places: dict[int, int] = {}
        for partition in partitions:
            position = positions.get(str(partition)) or self._committed(str(partition))
            if position:
                places[partition] = offset_of(position, self._settings.setting)
        if self._of_the_group:
            places |= self._admin.committed(_without(partitions, places), seconds)
        rest = _without(partitions, places)
        return places | (self._admin.earliest(rest, seconds) if new else self._start(rest, seconds))

    def _start(self, partitions: Collection[int], seconds: float) -> dict[int, int]:
        if self._settings.latest:
            return self._admin.latest(partitions, seconds)
        if (time_ms := self._settings.start_time_ms) is not None:
            found = self._admin.at_time(partitions, time_ms, seconds)
            return self._admin.latest(_without(partitions, found), seconds) | found
        first = self._admin.earliest(partitions, seconds)
        if (start := self._settings.start_offset) is None:
            return first
        last = self._admin.latest(partitions, seconds)
        return {partition: max(first[partition], min(start, last[partition])) for partition in partitions}

    def ends(self, partitions: Collection[int], seconds: float) -> dict[int, int]:
        """Where a bounded read of partitions ends: as the address says, and never behind what is there now.

        What is there now are the records that are decided: a transaction still open is not waited for.
        """
        last = self._admin.latest(partitions, seconds)
        if (time_ms := self._settings.end_time_ms) is not None:
            return last | self._admin.at_time(partitions, time_ms, seconds)
        if (end := self._settings.end_offset) is not None:
            return {partition: min(end, offset) for partition, offset in last.items()}
        return last


def _without(partitions: Collection[int], known: Collection[int]) -> list[int]:
    return [partition for partition in partitions if partition not in known]


class TopicWatch:
    """Asks for a topic's partitions now and then, without making anyone wait; silence that lasts is an error.

    librdkafka itself goes on trying for ever and cannot be asked whether a broker is reachable.
    """

    def __init__(self, settings: KafkaSettings, admin: KafkaAdmin) -> None:
        self._admin = admin
        self._every = float(settings.discover_seconds)
        self._patience = float(settings.unreachable_seconds)
        self._asked: Future[Any] | None = None
        self._asked_at = 0.0
        self._answered_at: list[float] = []
        self._last_poll = time.monotonic()
        self._next = self._last_poll + self._every
        self._down_since: float | None = None

    def alive(self) -> None:
        """A broker gave records."""
        self._down_since = None

    def poll(self) -> list[int] | None:
        """The partitions, where an answer came since the last call; returns at once.

        Raises:
            UsageError: for ``unreachable_seconds`` the topic has been gone, or the credentials refused.
            BackendUnavailableError: for as long no broker answered.
        """
        now = time.monotonic()
        if now - self._last_poll > self._patience:
            self._down_since = None  # nobody watched
        self._last_poll = now
        if self._asked is None:
            if now >= self._next:
                self._ask(now)
            return None
        if not self._asked.done():
            return None
        asked, self._asked = self._asked, None
        try:
            partitions = self._admin.finish_partitions(asked)
        except FanIdentityError:
            self._next = now + _AGAIN_SECONDS
            if self._down_since is None:
                self._down_since = self._asked_at
            if self._answered_at[0] - self._down_since >= self._patience:
                raise
            return None
        self._next = now + self._every
        self._down_since = None
        return partitions

    def _ask(self, now: float) -> None:
        answered_at: list[float] = []
        self._asked_at, self._answered_at = now, answered_at
        self._asked = self._admin.begin_partitions(min(_PROBE_SECONDS, self._patience))
        self._asked.add_done_callback(lambda _: answered_at.append(time.monotonic()))
