"""Reading: activity files to their end, a growing file as it grows, a queue until it is empty or for ever.

Partitioned logs are read by ``streams.py``.

Each source yields batches. Delivery is at least once: a run that is killed reads some records again, and everything
downstream is idempotent.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.io.unbounded_source import (
    CheckpointMark,
    ReadFromUnboundedSource,
    UnboundedReader,
    UnboundedSource,
)
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from typing_extensions import override

from ..domain.records import Batch, RawRecord
from ..io.backends import Backends, scheme_of
from ..io.clock import now_ms
from ..io.files import FileFormat, FileRange, LineTail, read_range
from ..io.ports import MessageQueue, ReceivedMessage
from ..io.telemetry.totals import totals_of
from .batches import BatchCoder, BatchTransform, begin, begin_process, observe, par_do, received_from
from .draining import draining
from .flags import kill_switch
from .progress import tell_progress_as_fraction

tell_progress_as_fraction()  # here, since also worker processes import this module

_POLL_SECONDS = 0.01
"""How often a waiting source looks for data; bounds the latency it adds."""

_EMPTY_QUEUE_REST_SECONDS = 0.05
_EMPTY_LOOKS = 20


@dataclass(frozen=True)
class Pace:
    """How a streaming source shares its time with the runner.

    What a source yields has its effect at once, since the pipeline is fused; the pace only says how often the runner
    gets to commit a checkpoint, and each costs it time and (FnApiRunner) memory.

    Attributes:
        linger_seconds: how long to wait for data before giving the runner its turn.
        read_seconds: how long to read on while there is data before giving the runner its turn.
    """

    linger_seconds: float = 0.5
    read_seconds: float = 0.5


ON_CLUSTER = Pace()
"""For a runner that commits checkpoints."""

IN_PROCESS = Pace(linger_seconds=float("inf"), read_seconds=float("inf"))
"""For a runner that commits nothing across bundles: the source keeps its turn until it drains."""

_RESUME_SECONDS = 0.0
_NO_LIMIT = 2**62


@dataclass
class ReadActivityFiles(BatchTransform):
    """Reads file ranges to their end: ``Batch[RawRecord]``.

    Attributes:
        worker: whose batches they are.
        backends: of the worker, whose kill switch is honoured.
        ranges: of files planned by ``plan_ranges``; small, so they are part of the pipeline.
        batch_records: records a batch.
    """

    worker: str
    backends: Backends
    ranges: Sequence[FileRange]
    batch_records: int

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return (
            input_or_inputs
            | "Ranges" >> beam.Create(list(self.ranges))
            | "Share among workers" >> beam.Reshuffle()
            | "Read" >> par_do(_ReadRange(self.worker, self.backends, self.batch_records))
        )


class _ReadRange(beam.DoFn):
    def __init__(self, worker: str, backends: Backends, batch_records: int) -> None:
        self._worker = worker
        self._backends = backends
        self._batch_records = batch_records

    def setup(self) -> None:
        begin_process(self._backends)
        self._switch = kill_switch(self._backends)

    def process(self, element: FileRange) -> Iterator[Batch[RawRecord]]:
        for records in read_range(element, self._batch_records):
            if draining.is_set() or not self._switch.wait():
                return
            yield begin(self._worker, "read", element.path, records)


@dataclass
class DrainQueue(BatchTransform):
    """Receives until the queue is empty, in-flight messages of others included: ``Batch[ReceivedMessage]``.

    Attributes:
        backends: whose queue.
        batch_size: messages a batch, at most.
        receivers: how many receive side by side; groups keep each user's messages with one.
    """

    backends: Backends
    batch_size: int
    receivers: int = 1

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return (
            input_or_inputs
            | "Receivers" >> beam.Create(list(range(self.receivers)))
            | "Share among workers" >> beam.Reshuffle()
            | "Receive" >> par_do(_Drain(self.backends, self.batch_size))
        )


class _Drain(beam.DoFn):
    def __init__(self, backends: Backends, batch_size: int) -> None:
        self._backends = backends
        self._batch_size = batch_size
        self._looks = 1 if scheme_of(backends.source_queue) == "sqlite" else _EMPTY_LOOKS

    def setup(self) -> None:
        self._queue = _receive_from(self._backends)
        self._switch = kill_switch(self._backends)

    def process(self, element: int) -> Iterator[Batch[ReceivedMessage]]:
        del element
        empty_looks = 0
        while not draining.is_set() and self._switch.wait():
            messages = self._queue.receive(self._batch_size)
            if messages:
                empty_looks = 0
                yield _received(self._backends, messages)
                continue
            # A queue server's depth is approximate: it is believed when it has said so a few times.
            empty_looks = empty_looks + 1 if self._queue.depth() == 0 else 0
            if empty_looks >= self._looks:
                return
            draining.wait(_EMPTY_QUEUE_REST_SECONDS)


@dataclass
class FollowFile(BatchTransform):
    """Follows a growing file for ever, from its committed position: ``Batch[RawRecord]``.

    Attributes:
        path: of a JSONL file or an access log; it need not exist yet.
        format: of its lines.
        worker: whose position is resumed.
        backends: where positions are.
        batch_records: records a batch, at most.
        pace: how it shares its time with the runner.
    """

    path: str
    format: FileFormat
    worker: str
    backends: Backends
    batch_records: int
    pace: Pace = ON_CLUSTER

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        source = _FileSource(self.path, self.format, self.worker, self.backends, self.batch_records, self.pace)
        return input_or_inputs | "Follow" >> read_unbounded(source)


@dataclass
class ReadFromQueue(BatchTransform):
    """Receives from a queue for ever: ``Batch[ReceivedMessage]``, acknowledged by the pipeline's last step.

    Attributes:
        backends: whose queue.
        batch_size: messages a batch, at most.
        splits: how many readers receive side by side; groups keep each user's messages with one.
        pace: how each shares its time with the runner.
    """

    backends: Backends
    batch_size: int
    splits: int = 1
    pace: Pace = ON_CLUSTER

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | "Receive" >> read_unbounded(
            _QueueSource(self.backends, self.batch_size, self.splits, self.pace)
        )


def read_unbounded(source: "PollingSource") -> ReadFromUnboundedSource:
    """Reads a source for ever, at its pace."""
    return ReadFromUnboundedSource(
        source,
        poll_interval=_RESUME_SECONDS,
        max_records_per_bundle=_NO_LIMIT,
        max_read_time_seconds=source.pace.read_seconds,
    )


class Position(CheckpointMark):
    """Where a reader stopped; "" for a source that keeps its own place."""

    def __init__(self, position: str) -> None:
        self.position = position

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and other.position == self.position

    @override
    def __hash__(self) -> int:
        return hash(self.position)


class PollingReader(UnboundedReader):
    """Yields what each poll brings; ends when the process drains."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._current: Batch[Any] | None = None
        self._ended = False

    def poll(self) -> Batch[Any] | None:
        """What is there now, or None; never waits."""
        raise NotImplementedError

    @override
    def start(self) -> bool:
        return self.advance()

    @override
    def advance(self) -> bool:
        waited_since = time.monotonic()
        while not draining.is_set():
            self._current = self.poll()
            if self._current is not None:
                return True
            if time.monotonic() - waited_since >= self._pace.linger_seconds:
                return False
            draining.wait(_POLL_SECONDS)
        self._ended = True
        return False

    @override
    def get_current(self) -> Batch[Any]:
        if self._current is None:
            raise ValueError("nothing was read")
        return self._current

    @override
    def get_current_timestamp(self) -> Timestamp:
        return Timestamp.now()

    @override
    def get_watermark(self) -> Timestamp:
        return MAX_TIMESTAMP if self._ended else Timestamp.now()

    @override
    def get_checkpoint_mark(self) -> CheckpointMark:
        return Position("")


class PollingSource(UnboundedSource):
    """A source with one reader at a time."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace

    @override
    def split(self, desired_num_splits: int, options: Any = None) -> list[UnboundedSource]:
        return [self]

    @override
    def get_checkpoint_mark_coder(self) -> coders.Coder:
        return coders.PickleCoder()

    @override
    def default_output_coder(self) -> coders.Coder:
        return BatchCoder()


class _FileSource(PollingSource):
    def __init__(
        self, path: str, file_format: FileFormat, worker: str, backends: Backends, limit: int, pace: Pace
    ) -> None:
        super().__init__(pace)
        self.path = path
        self.format = file_format
        self.worker = worker
        self.backends = backends
        self.limit = limit

    @override
    def create_reader(self, options: Any, checkpoint_mark: CheckpointMark | None) -> UnboundedReader:
        position = checkpoint_mark.position if isinstance(checkpoint_mark, Position) else ""
        if not position:
            position = self.backends.open_positions().load(self.worker, self.path)
        begin_process(self.backends)
        return _FileReader(self, position)


class _FileReader(PollingReader):
    def __init__(self, source: _FileSource, position: str) -> None:
        super().__init__(source.pace)
        self._source = source
        self._position = position
        self._switch = kill_switch(source.backends)
        self._tail = LineTail(source.path, source.format, position)

    @override
    def poll(self) -> Batch[RawRecord] | None:
        if not self._switch.is_on():
            return None  # the file keeps what comes
        records, self._position = self._tail.poll(self._source.limit)
        if not records:
            return None
        return begin(self._source.worker, "read", self._source.path, records, position=self._position)

    @override
    def get_checkpoint_mark(self) -> CheckpointMark:
        return Position(self._position)

    @override
    def close(self) -> None:
        self._tail.close()


class _QueueSource(PollingSource):
    def __init__(self, backends: Backends, limit: int, splits: int, pace: Pace) -> None:
        super().__init__(pace)
        self.backends = backends
        self.limit = limit
        self.splits = splits

    @override
    def split(self, desired_num_splits: int, options: Any = None) -> list[UnboundedSource]:
        return [self] * self.splits

    @override
    def create_reader(self, options: Any, checkpoint_mark: CheckpointMark | None) -> UnboundedReader:
        return _QueueReader(self.backends, self)


class _QueueReader(PollingReader):
    def __init__(self, backends: Backends, source: _QueueSource) -> None:
        super().__init__(source.pace)
        self._backends = backends
        self._queue = _receive_from(backends)
        self._switch = kill_switch(backends)
        self._limit = source.limit

    @override
    def poll(self) -> Batch[ReceivedMessage] | None:
        if not self._switch.is_on():
            return None  # messages wait
        messages = self._queue.receive(self._limit)
        return _received(self._backends, messages) if messages else None


def _receive_from(backends: Backends) -> MessageQueue:
    begin_process(backends)
    queue = backends.open_source_queue()
    received_from[backends.source_queue] = queue
    return queue


def _received(backends: Backends, messages: Sequence[ReceivedMessage]) -> Batch[ReceivedMessage]:
    receipts = tuple(message.receipt for message in messages)
    oldest = min((message.sent_at_ms for message in messages if message.sent_at_ms), default=0)
    age_ms = totals_of(backends.worker).age_ms = max(now_ms() - oldest, 0) if oldest else 0
    if oldest:
        observe("age_ms", age_ms)
    return begin(backends.worker, "received", backends.source_queue, messages, receipts=receipts)
