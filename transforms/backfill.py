"""Backfills: a source read in parts, each remembered as done once its effects are durable.

A part is a range of a file (done or not) or a partition of a stream (done up to a position). Steps are fused from
reading to ``CommitParts``, so when a part's last batch comes there, all batches before it had their effect. What was
killed in between is read again, and everything downstream is idempotent.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import apache_beam as beam
from typing_extensions import override

from ..domain.keys import fifo_group_id
from ..domain.messages import encode_message, message_of
from ..domain.records import Batch, DecodedRecord, RawRecord
from ..io.addresses import partition_source
from ..io.backends import Backends
from ..io.errors import BackendUnavailableError
from ..io.files import FileRange, read_range
from ..io.ports import PositionStore, ReceivedMessage, Share
from ..io.steps import Queued
from ..io.telemetry.batch_traces import Phase
from .batches import BatchStep, BatchTransform, count, new_request_id, par_do
from .draining import draining
from .flags import kill_switch

Item = TypeVar("Item", covariant=True)

DONE: Final = "done"
"""The position of a part of a file: all or nothing."""

_REST_SECONDS: Final = 0.05
_OUTAGE_RECORDS: Final = 10


@dataclass(frozen=True)
class PartBatch(Batch[Item]):
    """A batch of a part.

    Attributes:
        part: its name in the job.
        reached: what to remember of the part once the batch is done; "" for nothing.
    """

    part: str = ""
    reached: str = ""


@dataclass(frozen=True)
class Job:
    """A backfill's memory: which parts are done, kept under the job's id in the positions' store.

    Attributes:
        job_id: the same for the same arguments.
        phase: of several passes over one source each has its own parts.
        backends: whose store.
    """

    job_id: str
    phase: str
    backends: Backends

    def open(self) -> PositionStore:
        """The store: never the live worker's own place, which for Kafka is the consumer group's offsets."""
        return replace(self.backends, source=None).open_positions()

    def part(self, name: str) -> str:
        """A part's name in the store."""
        return f"{self.phase}:{name}"


def part_of(file_range: FileRange) -> str:
    """Names a part of a file: another size or other first bytes are another file, and its parts are not done."""
    told = (file_range.path, file_range.format, file_range.size_at_start, file_range.fingerprint)
    digest = hashlib.sha256("\0".join(map(str, told)).encode(errors="surrogateescape")).hexdigest()[:32]
    return f"{digest}:{file_range.start}-{file_range.end}"


records_taken: int = 0
"""Records this process has read so far, for a progress bar; pipelines in other processes count in theirs."""


def _taken(records: Sequence[RawRecord]) -> None:
    global records_taken  # noqa: PLW0603 - one reader of it, a progress bar
    records_taken += len(records)
    count("read", len(records))


@dataclass
class ReadFileParts(BatchTransform):
    """Reads file ranges to their end: ``PartBatch[RawRecord]``. A range's last batch is empty and says that it is done.

    Attributes:
        ranges: those not done yet, from ``plan_ranges``.
        job: names the parts.
        batch_records: records a batch.
    """

    ranges: Sequence[FileRange]
    job: Job
    batch_records: int

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return (
            input_or_inputs
            | "Ranges" >> beam.Create(list(self.ranges))
            | "Share among workers" >> beam.Reshuffle()
            | "Read" >> par_do(_ReadFilePart(self.job, self.batch_records))
        )


class _ReadFilePart(beam.DoFn):
    def __init__(self, job: Job, batch_records: int) -> None:
        self._job = job
        self._batch_records = batch_records

    def process(self, element: FileRange) -> Iterator[PartBatch[RawRecord]]:
        part, switch = self._job.part(part_of(element)), kill_switch(self._job.backends)
        for records in read_range(element, self._batch_records):
            if draining.is_set() or not switch.wait():
                return
            _taken(records)
            yield PartBatch(new_request_id(), element.path, records, part=part)
        yield PartBatch(new_request_id(), element.path, (), part=part, reached=DONE)


@dataclass
class ReadStreamParts(BatchTransform):
    """Reads a stream's range, each partition from where the job was: ``PartBatch[RawRecord]``.

    Attributes:
        backends: whose source; its address has the range.
        job: where it was.
        batch_records: records a batch, at most.
        splits: how many readers share the partitions.
    """

    backends: Backends
    job: Job
    batch_records: int
    splits: int = 1

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return (
            input_or_inputs
            | "Shares" >> beam.Create([Share(index, self.splits) for index in range(self.splits)])
            | "Share among workers" >> beam.Reshuffle()
            | "Read" >> par_do(_ReadStreamShare(self.backends, self.job, self.batch_records))
        )


class _ReadStreamShare(beam.DoFn):
    def __init__(self, backends: Backends, job: Job, batch_records: int) -> None:
        self._backends = backends
        self._job = job
        self._batch_records = batch_records

    def process(self, element: Share) -> Iterator[PartBatch[RawRecord]]:
        source = self._backends.source or ""
        positions = self._job.open()
        resumed: set[str] = set()

        def reached(partition: str) -> str:
            position = positions.load(self._job.job_id, self._job.part(partition))
            if position and partition not in resumed:
                resumed.add(partition)
                count("partitions_resumed", 1)
            return position

        reader = self._backends.open_stream().open(element, {}, reached, bounded=True)
        switch = kill_switch(self._backends)
        try:
            while not draining.is_set() and not reader.ended() and switch.wait():
                found = reader.poll(self._batch_records)
                if found is None:
                    draining.wait(_REST_SECONDS)
                    continue
                _taken(found.records)
                yield PartBatch(
                    new_request_id(),
                    partition_source(source, found.partition),
                    found.records,
                    part=self._job.part(found.partition),
                    reached=found.position,
                )
        finally:
            reader.close()


@dataclass
class CommitParts(BatchTransform):
    """Remembers how far the parts are: the last step, since all of a batch had its effect then."""

    job: Job

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_CommitParts(self.job))


class _CommitParts(BatchStep):
    phase = Phase.RESULT
    ends_batch = True

    def __init__(self, job: Job) -> None:
        self._job = job

    @override
    def setup(self) -> None:
        self._positions = self._job.open()

    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        if isinstance(batch, PartBatch) and batch.reached:
            self._positions.commit(self._job.job_id, batch.part, batch.reached)
        return batch


@dataclass
class PastTheQueue(BatchTransform):
    """``Batch[DecodedRecord]`` to ``Batch[Queued]``: the messages a queue would carry, handed on without one.

    The live traffic's queue is left alone. Identical copies of an activity end in one score item, as they have one
    key; no queue tells which of two different activities under one id came first, so both are scored.
    """

    worker: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_HandOn(self.worker))


class _HandOn(BatchStep):
    phase = Phase.INPUT

    def __init__(self, worker: str) -> None:
        self._worker = worker

    @override
    def step(self, batch: Batch[DecodedRecord]) -> Batch[Queued]:
        return batch.with_items([_handed_on(record, batch.request_id, self._worker) for record in batch.items])


def _handed_on(record: DecodedRecord, request_id: str, worker: str) -> Queued:
    message = message_of(record, request_id, worker, record.raw.trace)
    group, body = fifo_group_id(message.global_user_id), encode_message(message)
    return Queued(ReceivedMessage("", group, body, 1, record.raw.position, trace=record.raw.trace), message)


@dataclass
class StopOnOutage(BatchTransform):
    """Fails where nobody of a batch could be scored because a server is away.

    Without a queue to give records back to, an outage would turn the rest of a backfill into dead letters; so it ends,
    and the same command goes on later.
    """

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_StopOnOutage())


class _StopOnOutage(BatchStep):
    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        away = [letter for letter in batch.dead_letters if letter.reason.endswith("_unavailable")]
        if len(away) >= _OUTAGE_RECORDS and not batch.items:
            raise BackendUnavailableError(f"{away[0].error}; run the same command again, and it goes on where it was")
        return batch
