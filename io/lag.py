"""How far workers are behind the end of their source: records in Kafka, time in Kinesis and DynamoDB Streams."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from .addresses import parse_address, partition_source
from .backends import STREAMS, scheme_of
from .clock import now_ms
from .dynamodb_streams import DynamoDbStream
from .errors import FanIdentityError
from .kafka_address import kafka_settings
from .kafka_admin import admin_of
from .kafka_lag import kafka_lag
from .kinesis import KinesisStream
from .ports import PositionStore
from .shards import SHARD_END, TRIM_HORIZON, Shard, ShardError, TrimmedError, start_of

_MOST_SHARDS: Final = 64
_AT_ONCE: Final = 8


class PartitionLag(msgspec.Struct, frozen=True, rename="camel"):
    """How far one partition or shard is behind.

    Attributes:
        partition: its name.
        position: committed, as the source has it; "" where nothing is committed.
        records: not committed yet; None where the source cannot say.
        behind_ms: age of the oldest record not committed yet, milliseconds, 0 where there is none; None likewise.
        problem: why nothing is known of it, or that records were lost; "" where all is well.
    """

    partition: str
    position: str = ""
    records: int | None = None
    behind_ms: int | None = None
    problem: str = ""


class WorkerLag(msgspec.Struct, frozen=True, rename="camel"):
    """How far a worker is behind.

    Attributes:
        worker: whose.
        source: its source, without options.
        partitions: each of them; of a stream with more than 64 open shards, the first.
    """

    worker: str
    source: str
    partitions: tuple[PartitionLag, ...]

    @property
    def records(self) -> int | None:
        """Records not committed yet, over all partitions; None where the source cannot say."""
        known = [one.records for one in self.partitions if one.records is not None]
        return sum(known) if known else None

    @property
    def behind_ms(self) -> int | None:
        """Age of the oldest record not committed yet; None where the source cannot say."""
        return max((one.behind_ms for one in self.partitions if one.behind_ms is not None), default=None)

    @property
    def has_begun(self) -> bool:
        """Whether the worker ever committed a position."""
        return any(one.position for one in self.partitions)


def can_tell(source: str) -> bool:
    """Whether a source is one whose lag can be told."""
    return scheme_of(source) in STREAMS


def worker_lag(text: str, worker: str, positions: PositionStore | None, seconds: float) -> WorkerLag:
    """How far a worker is behind; reads two records of each shard, and none of Kafka.

    Args:
        text: the source, one of ``STREAMS``.
        worker: whose positions count.
        positions: where they are, unless in Kafka; None where nowhere.
        seconds: what a question may take.

    Raises:
        UsageError: the source does not exist, or the address is wrong.
        BackendUnavailableError: it is out of reach.
    """
    source = text.partition("?")[0]
    if scheme_of(text) == "kafka":
        settings = kafka_settings(parse_address(text, "source"), "source", worker)
        lags = kafka_lag(text, worker, seconds)
        committed = admin_of(settings).committed(list(lags), seconds)
        found = [PartitionLag(str(number), str(committed.get(number, "")), records) for number, records in lags.items()]
        return WorkerLag(worker, source, tuple(found))
    stream = _stream_of(text, worker)
    listing = stream.list_shards()
    committed = {
        name: "" if positions is None else positions.load(worker, partition_source(text, name))
        for name in list(listing.shards)
    }
    unread = [shard for name, shard in listing.shards.items() if committed[name] != SHARD_END]

    def of_shard(shard: Shard) -> PartitionLag:
        return _shard_lag(stream, shard, committed[shard.shard_id])

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lag") as pool:
        found = pool.map(of_shard, unread[:_MOST_SHARDS])
        return WorkerLag(worker, source, tuple(found))


def _stream_of(text: str, worker: str) -> KinesisStream | DynamoDbStream:
    address = parse_address(text, "source")
    kind = KinesisStream if address.scheme == "kinesis" else DynamoDbStream
    return kind.of(address, "source", worker)


def _shard_lag(stream: KinesisStream | DynamoDbStream, shard: Shard, position: str) -> PartitionLag:
    name = shard.shard_id
    start = start_of(position) if position else TRIM_HORIZON
    if start is None:
        return PartitionLag(name, position, problem="the position is none of this stream's")
    try:
        page = stream.peek(name, start)
    except TrimmedError:
        return PartitionLag(name, position, problem="the committed record is gone: what came after it may be lost")
    except ShardError as error:
        return PartitionLag(name, position, problem=f"it could not be read ({type(error).__name__})")
    except FanIdentityError as error:
        return PartitionLag(name, position, problem=str(error))
    ages = [now_ms() - entry.arrived_ms for entry in page.entries if entry.sequence != position and entry.arrived_ms]
    # An empty page of a sparse shard may still be behind its end.
    behind = max(ages[0] if ages else 0, page.behind_ms or 0 if not page.entries else 0, 0)
    return PartitionLag(name, position, behind_ms=behind)


def lags_of(text: str, workers: Sequence[str], positions: PositionStore | None, seconds: float) -> list[WorkerLag]:
    """The lags of those workers that ever committed a position; that of the first where none did.

    Raises:
        UsageError, BackendUnavailableError: as ``worker_lag``.
    """
    grouped = {parse_address(text, "source").options.get("group", worker): worker for worker in reversed(workers)}
    found = [worker_lag(text, worker, positions, seconds) for worker in reversed(grouped.values())]
    return [one for one in found if one.has_begun] or found[:1]
