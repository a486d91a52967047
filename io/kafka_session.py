"""Reading a share of a Kafka topic: one librdkafka consumer, where it stands, and what it fetched and nobody took."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ..domain.records import RawRecord
from .errors import BackendUnavailableError
from .kafka_address import KafkaSettings
from .kafka_admin import KafkaAdmin, admin_of
from .kafka_consumer import new_consumer
from .kafka_places import StartingPlaces, TopicWatch
from .ports import Share, StreamRecords
from .telemetry import tracing

_log = logging.getLogger(__name__)

_BURST: Final = 10_000
_WAIT_SECONDS: Final = 0.005
_ANSWER_SECONDS: Final = 5.0
_CODE: Any = KafkaError  # whose codes with an underscore are librdkafka's own
_LOST: Final = frozenset(
    {_CODE._AUTO_OFFSET_RESET, _CODE._LOG_TRUNCATION, _CODE._NO_OFFSET, KafkaError.OFFSET_OUT_OF_RANGE}
)


def _trace_of(headers: Sequence[tuple[str, bytes | None]] | None) -> str:
    """A record's traceparent as its headers have it; of several, none."""
    found = [value for name, value in headers or () if name == "traceparent"]
    return found[0].decode("latin-1") if len(found) == 1 and found[0] is not None else ""


class _Run:
    """Consecutive records of one partition that were fetched and not yet returned."""

    __slots__ = ("after", "offsets", "partition", "records")

    def __init__(self, partition: int, after: int) -> None:
        self.partition = partition
        self.records: list[RawRecord] = []
        self.offsets: list[int] = []
        self.after = after
        """The offset after the run."""

    def split(self, limit: int) -> "_Run":
        """Takes the first ``limit`` records out."""
        first = _Run(self.partition, self.offsets[limit - 1] + 1)
        first.records, self.records = self.records[:limit], self.records[limit:]
        first.offsets, self.offsets = self.offsets[:limit], self.offsets[limit:]
        return first


class KafkaSession:
    """A consumer and where it stands; used by one reader at a time.

    Attributes:
        broken: an error left it in a state nobody should go on with.
    """

    def __init__(self, settings: KafkaSettings, share: Share, *, bounded: bool) -> None:
        self.broken = False
        self._settings = settings
        self._share = share
        self._bounded = bounded
        self._admin: KafkaAdmin = admin_of(settings)
        self._consumer = new_consumer(settings, bounded=bounded)
        self._watch = TopicWatch(settings, self._admin)
        self._starting: StartingPlaces | None = None
        self._places: dict[int, int] = {}  # after what was returned
        self._fetched: dict[int, int] = {}  # after what was taken from the consumer
        self._ends: dict[int, int] = {}  # of a bounded read
        self._ready: deque[_Run] = deque()
        self._untouched: set[int] = set()  # nothing of them was returned
        self._lost: set[int] = set()
        self._paused: set[int] = set()
        self._told: set[tuple[int, int]] = set()

    def start(self, positions: Mapping[str, str], committed: Callable[[str], str]) -> None:
        """Goes on from where it stands if that is what ``positions`` say, else moves there.

        Raises:
            UsageError: the topic cannot be read.
            BackendUnavailableError: no broker is reachable.
        """
        self._starting = StartingPlaces(self._settings, self._admin, committed, bounded=self._bounded)
        if self._stands_at(positions):
            return
        seconds = float(self._settings.unreachable_seconds)
        own = self._own(partitions := self._admin.partitions(seconds))
        self._starting.compare(positions, partitions)
        self._places = self._starting.of(own, positions, seconds, new=bool(positions))
        self._untouched = set(own)
        self._fetched = dict(self._places)
        self._ends = self._starting.ends(own, seconds) if self._bounded else {}
        self._ready.clear()
        self._lost.clear()
        self._told.clear()
        self._assign()

    def _stands_at(self, positions: Mapping[str, str]) -> bool:
        """Whether this is the read that ``positions`` are of, and it stands there.

        A bounded read that came to its end is not gone on with: opened again it sees whether there is more by now.
        """
        here = self.positions()
        return (
            bool(positions)
            and not self.ended()
            and positions.items() <= here.items()
            and all(int(name) in self._untouched for name in here.keys() - positions.keys())
        )

    def _own(self, partitions: Sequence[int]) -> list[int]:
        return [number for number in partitions if number % self._share.count == self._share.index]

    def _assign(self) -> None:
        """Has the consumer fetch all partitions from their places, new; nothing fetched before comes any more."""
        topic = self._settings.topic
        # librdkafka remembers pauses over assignments.
        self._consumer.resume([TopicPartition(topic, partition) for partition in self._paused])
        self._paused.clear()
        self._consumer.assign(
            [
                TopicPartition(topic, partition, offset)
                for partition, offset in self._fetched.items()
                if not self._at_end(partition) and partition not in self._lost
            ]
        )

    def _at_end(self, partition: int) -> bool:
        end = self._ends.get(partition)
        return end is not None and self._fetched[partition] >= end

    def positions(self) -> dict[str, str]:
        """By partition the position after what was returned, of those with nothing returned their start."""
        return {str(partition): str(offset) for partition, offset in self._places.items()}

    def ended(self) -> bool:
        """Whether a bounded read returned all there is to it."""
        return self._bounded and not self._ready and all(map(self._at_end, self._fetched))

    def poll(self, limit: int) -> StreamRecords | None:
        """As ``StreamReader.poll``."""
        if not self._ready:
            self._fill(min(limit, _BURST))
        if not self._ready:
            return None
        run = self._ready[0]
        run = run.split(limit) if len(run.records) > limit else self._ready.popleft()
        self._places[run.partition] = run.after
        self._untouched.discard(run.partition)
        return StreamRecords(str(run.partition), run.records, str(run.after))

    def _fill(self, limit: int) -> None:
        partitions = self._watch.poll()
        if partitions is not None and not self._bounded:
            self._add(self._own(partitions))
        if self._lost:
            self._recover()
        try:
            messages: list[Any] = self._consumer.consume(limit, 0)
            if not messages:
                first = self._consumer.poll(_WAIT_SECONDS)
                if first is None:
                    return
                messages = [first, *self._consumer.consume(limit - 1, 0)] if limit > 1 else [first]
        except KafkaException as error:
            text = f"--{self._settings.setting}: {self._settings.name} cannot be read ({error.args[0].name()})"
            raise BackendUnavailableError(text) from None
        self._sort(messages)
        if self._lost:
            self._recover()

    def _sort(self, messages: Sequence[Any]) -> None:
        """Sorts a burst into runs, one a partition, and heeds the errors among the messages."""
        runs: dict[int, _Run] = {}
        ends, fetched = self._ends, self._fetched
        traced = tracing.switch.on  # else nobody asks for headers, which cost as much as the rest of a record
        for message in messages:
            partition: int = message.partition()
            offset: int = message.offset()
            error: KafkaError | None = message.error()
            if error is not None:
                self._heed(error, partition, offset, runs)
                continue
            end = ends.get(partition)
            if end is not None and offset >= end:
                self._finish(partition, end, runs)
                continue
            run = runs.get(partition)
            if run is None:
                run = runs[partition] = _Run(partition, offset)
            value: bytes | None = message.value()
            position = f"offset {offset}"
            trace = _trace_of(message.headers()) if traced else ""
            run.records.append(
                RawRecord(b"", position, None, "tombstone", trace)
                if value is None
                else RawRecord(value, position, value, None, trace)
            )
            run.offsets.append(offset)
            run.after = fetched[partition] = offset + 1
            if offset + 1 == end:
                self._pause(partition)
        if runs:
            self._watch.alive()
            self._ready.extend(runs.values())

    def _finish(self, partition: int, end: int, runs: dict[int, _Run]) -> None:
        """Ends a bounded partition behind its last record: the offsets up to its end hold none."""
        if self._at_end(partition):
            return
        run = runs.get(partition)
        if run is None:
            run = runs[partition] = _Run(partition, end)
        run.after = self._fetched[partition] = end
        self._pause(partition)

    def _pause(self, partition: int) -> None:
        """Fetches no more of a partition that is at its end."""
        self._paused.add(partition)
        self._consumer.pause([TopicPartition(self._settings.topic, partition)])

    def _heed(self, error: KafkaError, partition: int, offset: int, runs: dict[int, _Run]) -> None:
        code = error.code()
        if code == _CODE._PARTITION_EOF:
            end = self._ends.get(partition)
            if end is not None and offset >= end:
                self._finish(partition, end, runs)
        elif code in _LOST:
            self._lost.add(partition)
        elif error.fatal():
            raise BackendUnavailableError(
                f"--{self._settings.setting}: {self._settings.name} cannot be read ({error.name()})"
            )
        elif (partition, code) not in self._told:
            self._told.add((partition, code))
            _log.warning("%s: partition %s: %s", self._settings.name, partition, error.name())

    def _recover(self) -> None:
        """Goes on at the first offset there is where the place to read at is gone, and says what was lost."""
        try:
            earliest = self._admin.earliest(self._lost, _ANSWER_SECONDS)
            latest = self._admin.latest(self._lost, _ANSWER_SECONDS)
        except BackendUnavailableError:
            return  # the watch raises if it lasts
        for partition, first in earliest.items():
            place = self._fetched[partition]
            if place < first:
                _log.warning(
                    "%s: partition %d: %d offsets from %d on were deleted before they were read; going on at %d",
                    *(self._settings.name, partition, first - place, place, first),
                )
                self._move(partition, first)
            elif place > latest[partition]:
                _log.warning(
                    "%s: partition %d ends at %d, before the place to go on at, %d: it was truncated or made anew; "
                    "reading it from its first offset, %d",
                    *(self._settings.name, partition, latest[partition], place, first),
                )
                self._move(partition, first)
        self._lost.clear()
        self._assign()

    def _move(self, partition: int, offset: int) -> None:
        self._fetched[partition] = offset
        self._ready.append(_Run(partition, offset))

    def _add(self, partitions: Sequence[int]) -> None:
        """Reads new partitions too, from their beginning."""
        new = [number for number in partitions if number not in self._places]
        if not new or self._starting is None:
            return
        try:
            places = self._starting.of(new, {}, _ANSWER_SECONDS, new=True)
        except BackendUnavailableError:
            return  # they are found again
        self._places |= places
        self._fetched |= places
        self._untouched |= places.keys()
        self._assign()

    def close(self) -> None:
        """Ends the connections."""
        self._consumer.close()
