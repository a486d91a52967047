"""Reading partitioned logs: Kafka, Kinesis, DynamoDB Streams, for ever or over a range.

Each batch is of one partition, in its order. Delivery is at least once: a position is in the runner's checkpoint, and
is committed besides once the batch had its effect, so a run that is killed reads the batches after it again, and
everything downstream is idempotent.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.io.unbounded_source import CheckpointMark, UnboundedReader, UnboundedSource
from typing_extensions import override

from ..domain.records import Batch, RawRecord
from ..io.addresses import parse_address, partition_source
from ..io.backends import Backends
from ..io.ports import PositionStore, Share, StreamReader
from .batches import BatchTransform, begin, begin_process, par_do
from .draining import draining
from .flags import kill_switch
from .sources import (
    ON_CLUSTER,
    Pace,
    PollingReader,
    PollingSource,
    Position,
    read_unbounded,
)

_REST_SECONDS = 0.05
_RANGE_OPTIONS = frozenset({"start_time", "start_offset", "end_time", "end_offset"})


def reads_range(source: str) -> bool:
    """Whether an address names a range: such a read is a backfill, neither resumed nor remembered."""
    return not _RANGE_OPTIONS.isdisjoint(parse_address(source, "source").options)


@dataclass
class ReadStreamRange(BatchTransform):
    """Reads a stream up to where it was when reading began, or over the address's range: ``Batch[RawRecord]``.

    Attributes:
        backends: whose source.
        batch_records: records a batch, at most.
        splits: how many readers share the partitions.
    """

    backends: Backends
    batch_records: int
    splits: int = 1

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return (
            input_or_inputs
            | "Shares" >> beam.Create([Share(index, self.splits) for index in range(self.splits)])
            | "Share among workers" >> beam.Reshuffle()
            | "Read" >> par_do(_ReadShare(self.backends, self.batch_records))
        )


class _ReadShare(beam.DoFn):
    def __init__(self, backends: Backends, batch_records: int) -> None:
        self._backends = backends
        self._batch_records = batch_records

    def process(self, element: Share) -> Iterator[Batch[RawRecord]]:
        begin_process(self._backends)
        source = _source_of(self._backends)
        positions = self._backends.open_positions()
        fresh = reads_range(source)

        def committed(partition: str) -> str:
            return "" if fresh else positions.load(self._backends.worker, partition_source(source, partition))

        reader = self._backends.open_stream().open(element, {}, committed, bounded=True)
        switch = kill_switch(self._backends)
        try:
            while not draining.is_set() and not reader.ended() and switch.wait():
                batch = _poll(reader, source, self._batch_records, self._backends.worker)
                if batch is not None:
                    # Without a position nothing is committed: a backfill does not move the live worker's place.
                    yield batch if not fresh else replace(batch, position="")
                else:
                    draining.wait(_REST_SECONDS)
        finally:
            reader.close()


@dataclass
class ReadFromStream(BatchTransform):
    """Reads a stream for ever, from the checkpoint, else the committed position, else the address's ``start``.

    Yields ``Batch[RawRecord]``.

    Attributes:
        backends: whose source.
        batch_records: records a batch, at most.
        splits: how many readers share the partitions.
        pace: how each shares its time with the runner.
    """

    backends: Backends
    batch_records: int
    splits: int = 1
    pace: Pace = ON_CLUSTER

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        source = _StreamSource(self.backends, self.batch_records, Share(0, 1), self.splits, self.pace)
        return input_or_inputs | "Read" >> read_unbounded(source)


class _StreamSource(PollingSource):
    def __init__(self, backends: Backends, limit: int, share: Share, splits: int, pace: Pace) -> None:
        super().__init__(pace)
        self.backends = backends
        self.limit = limit
        self.share = share
        self.splits = splits

    @override
    def split(self, desired_num_splits: int, options: Any = None) -> list[UnboundedSource]:
        return [
            _StreamSource(self.backends, self.limit, Share(index, self.splits), self.splits, self.pace)
            for index in range(self.splits)
        ]

    @override
    def create_reader(self, options: Any, checkpoint_mark: CheckpointMark | None) -> UnboundedReader:
        text = checkpoint_mark.position if isinstance(checkpoint_mark, Position) else ""
        return _StreamReader(self, msgspec.json.decode(text, type=dict[str, str]) if text else {})


_parked: dict[tuple[Backends, Share], StreamReader] = {}
_parking = threading.Lock()
"""Runners make a reader anew for every bundle; connecting and listing shards each time would cost more than reading."""


def _take(source: _StreamSource, positions: dict[str, str], committed: PositionStore) -> StreamReader:
    """The reader parked by the bundle before where it stands at the checkpoint, else a new one."""
    with _parking:
        parked = _parked.pop((source.backends, source.share), None)
    if parked is not None:
        if parked.positions() == positions:
            return parked
        parked.close()
    name, address = source.backends.worker, _source_of(source.backends)
    return source.backends.open_stream().open(
        source.share,
        positions,
        lambda partition: committed.load(name, partition_source(address, partition)),
        bounded=False,
    )


class _StreamReader(PollingReader):
    """Hands the stream's reader back at every checkpoint: whoever resumes from there, this or another, takes it up."""

    def __init__(self, source: _StreamSource, positions: dict[str, str]) -> None:
        super().__init__(source.pace)
        begin_process(source.backends)
        self._source = source
        self._address = _source_of(source.backends)
        self._switch = kill_switch(source.backends)
        self._committed = source.backends.open_positions()
        self._positions = positions
        self._reader: StreamReader | None = None

    @override
    def poll(self) -> Batch[RawRecord] | None:
        if not self._switch.is_on():
            return None  # the log keeps what comes
        if self._reader is None:
            self._reader = _take(self._source, self._positions, self._committed)
        return _poll(self._reader, self._address, self._source.limit, self._source.backends.worker)

    @override
    def get_checkpoint_mark(self) -> CheckpointMark:
        self._park()
        return Position(msgspec.json.encode(self._positions, order="sorted").decode())

    @override
    def close(self) -> None:
        self._park()

    def _park(self) -> None:
        if self._reader is None:
            return
        self._positions = self._reader.positions()
        key = (self._source.backends, self._source.share)
        with _parking:
            replaced = _parked.get(key)
            _parked[key] = self._reader
        self._reader = None
        if replaced is not None:
            replaced.close()


def _source_of(backends: Backends) -> str:
    if backends.source is None:
        raise ValueError("a stream is read from a source")
    return backends.source


def _poll(reader: StreamReader, source: str, limit: int, worker: str) -> Batch[RawRecord] | None:
    found = reader.poll(limit)
    if found is None:
        return None
    place = partition_source(source, found.partition)
    return begin(worker, "read", place, found.records, position=found.position)
