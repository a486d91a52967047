"""Kinesis data streams: ``kinesis://name-or-ARN?region=…&endpoint=…&start=earliest|latest&start_time=…&end_time=…``.

The API is https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html. A shard allows five reads a
second, for all its readers together; option ``poll_ms`` is the least time between two of ours.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Self

from ..domain.kpl import MalformedAggregateError, is_aggregate, user_records
from ..domain.records import RawRecord
from .addresses import Address, check_options, int_option, time_option_ms
from .aws import AWS_OPTIONS, client
from .clock import now_ms
from .errors import UsageError
from .ports import Share
from .shard_reader import ShardReader
from .shard_service import answered_at_ms, earliest_or_latest, missing, shard_errors
from .shards import (
    LATEST,
    TRIM_HORIZON,
    Entry,
    Listing,
    Page,
    Shard,
    ShardGoneError,
    Start,
    StartKind,
)

OPTIONS: Final = AWS_OPTIONS | {"start", "start_time", "end_time", "discover_seconds", "poll_ms"}

_PAGE_RECORDS: Final = 2_000  # of at most 10,000: what is fetched ahead is held in memory, for each shard
_POLL_MS: Final = 200
_DISCOVER_SECONDS: Final = 5
_CLOCK_SKEW_MS: Final = 60_000
_ARN: Final = re.compile(r"arn:aws[a-z-]*:kinesis:([a-z0-9-]+):[0-9]{12}:stream/([A-Za-z0-9_.-]{1,128})", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)


@dataclass(frozen=True)
class KinesisStream:
    """A data stream; implements ``Stream``. Pickles as text.

    Records are what producers put in, aggregates of the Kinesis Producer Library taken apart; a damaged aggregate is
    one record with an error. A position is always of a whole Kinesis record.

    Attributes:
        address: its address, the region in it if the ARN has one.
        setting: where the address came from, for errors.
        worker: who reads.
    """

    address: Address
    setting: str
    worker: str

    @classmethod
    def of(cls, address: Address, setting: str, worker: str) -> Self:
        """The stream of an address.

        Raises:
            UsageError: no stream could have that name, or an option is unknown or out of range.
        """
        check_options(address, setting, OPTIONS)
        arn = _ARN.fullmatch(address.target)
        if arn is None and _NAME.fullmatch(address.target) is None:
            raise UsageError(
                f"--{setting}: write kinesis://stream-name or kinesis://arn:aws:kinesis:region:account:stream/name"
            )
        if arn is not None and "region" not in address.options:
            address = replace(address, options=address.options | {"region": arn[1]})
        stream = cls(address, setting, worker)
        _KinesisShards(stream)  # reads the options
        return stream

    def check(self) -> None:
        """Lists the shards once.

        Raises:
            UsageError: the stream does not exist, or region or credentials are missing or refused.
            BackendUnavailableError: out of reach.
        """
        _KinesisShards(self).list_shards()

    def list_shards(self) -> Listing:
        """All shards; raises as ``check``."""
        return _KinesisShards(self).list_shards()

    def peek(self, shard_id: str, start: Start) -> Page:
        """The first two records from a place on: what a lag is told by. Takes one of the shard's five reads a second.

        Raises:
            ShardError, UsageError, BackendUnavailableError: as ``ShardSource.read``.
        """
        shards = _KinesisShards(self)
        return shards.read(shard_id, shards.iterator(shard_id, start), limit=2)

    def open(
        self, share: Share, positions: Mapping[str, str], committed: Callable[[str], str], *, bounded: bool
    ) -> ShardReader:
        """Starts reading; see ``ShardReader`` for what is guaranteed.

        Raises:
            UsageError: as ``check``; or an ``end_time`` where the read is not bounded.
            BackendUnavailableError: out of reach.
        """
        if not bounded and "end_time" in self.address.options:
            raise UsageError(f"--{self.setting}: option end_time ends a bounded read; leave it out to read for ever")
        return ShardReader(_KinesisShards(self), share, positions, committed, bounded=bounded)


class _KinesisShards:
    """The ``ShardSource`` of a data stream."""

    def __init__(self, stream: KinesisStream) -> None:
        address, setting = stream.address, stream.setting
        self._address = address
        self._setting = setting
        self.name = f"kinesis://{address.target}"
        self.start = _start(address, setting)
        self.end_ms = time_option_ms(address, setting, "end_time")
        self.discover_seconds = float(int_option(address, setting, "discover_seconds", _DISCOVER_SECONDS, least=1))
        self.busy_seconds = int_option(address, setting, "poll_ms", _POLL_MS) / 1_000
        self.idle_seconds = self.busy_seconds
        self.time_precision_ms = 0
        self.empty_pages_to_end = 1  # pages do say whether they caught up
        arn = _ARN.fullmatch(address.target)
        self._arn = {} if arn is None else {"StreamARN": address.target}
        self._named = {"StreamName": address.target} if arn is None else {"StreamName": arn[2], **self._arn}

    @property
    def _client(self) -> Any:
        return client("kinesis", self._address, self._setting)

    def list_shards(self) -> Listing:
        """All shards."""
        shards: dict[str, Shard] = {}
        asked: dict[str, str] = self._named
        try:
            while True:
                with shard_errors(self._setting, self._address):
                    answer = self._client.list_shards(**asked)
                for shard in answer["Shards"]:
                    parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
                    shards[shard["ShardId"]] = Shard(
                        shard["ShardId"],
                        tuple(parent for parent in parents if parent),
                        closed=bool(shard["SequenceNumberRange"].get("EndingSequenceNumber")),
                    )
                if not answer.get("NextToken"):
                    return Listing(shards, answered_at_ms(answer))
                asked = {"NextToken": answer["NextToken"], **self._arn}
        except ShardGoneError:
            raise missing(self._setting, self._address) from None

    def iterator(self, shard_id: str, start: Start) -> str:
        """An iterator into a shard."""
        at: dict[str, Any] = {}
        if start.kind is StartKind.AT_SEQUENCE_NUMBER:
            at["StartingSequenceNumber"] = start.sequence
        elif start.kind is StartKind.AT_TIMESTAMP:
            at["Timestamp"] = datetime.fromtimestamp(start.time_ms / 1_000, UTC)
        with shard_errors(self._setting, self._address, start):
            answer = self._client.get_shard_iterator(
                **self._named, ShardId=shard_id, ShardIteratorType=start.kind.value, **at
            )
        return answer["ShardIterator"]

    def read(self, shard_id: str, iterator: str, limit: int = _PAGE_RECORDS) -> Page:
        """Reads a page."""
        with shard_errors(self._setting, self._address):
            answer = self._client.get_records(ShardIterator=iterator, Limit=limit, **self._arn)
        records = answer["Records"]
        return Page(
            [_entry(shard_id, record) for record in records],
            answer.get("NextShardIterator"),
            # A full page may have more behind it: kinesalite, for one, always says that it is not behind.
            caught_up=answer.get("MillisBehindLatest") == 0 and len(records) < limit,
            behind_ms=answer.get("MillisBehindLatest"),
        )


def _start(address: Address, setting: str) -> Start:
    time_ms = time_option_ms(address, setting, "start_time")
    latest = earliest_or_latest(address, setting)
    if time_ms is None:
        return LATEST if latest else TRIM_HORIZON
    if "start" in address.options:
        raise UsageError(f"--{setting}: start and start_time exclude each other; leave one out")
    if time_ms > now_ms() + _CLOCK_SKEW_MS:
        raise UsageError(f"--{setting}: option start_time lies in the future; start=latest begins with what comes")
    return Start(StartKind.AT_TIMESTAMP, time_ms=max(1, time_ms))


def _entry(shard_id: str, record: Any) -> Entry:
    data: bytes = record["Data"]
    sequence: str = record["SequenceNumber"]
    arrived: datetime | None = record.get("ApproximateArrivalTimestamp")
    return Entry(
        sequence,
        0 if arrived is None else int(arrived.timestamp() * 1_000),
        _records(data, f"shard {shard_id} sequence {sequence}"),
    )


def _records(data: bytes, position: str) -> list[RawRecord]:
    if not is_aggregate(data):
        return [RawRecord(data, position, data)]
    try:
        return [RawRecord(user, f"{position} record {n}", user) for n, user in enumerate(user_records(data))]
    except MalformedAggregateError as error:
        return [RawRecord(data, position, None, str(error))]
