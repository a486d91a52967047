"""The change stream of a DynamoDB table: ``dynamodb-streams://table?region=…&endpoint=…&start=earliest|latest``.

The API is https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB_Streams.html.
A stream keeps its records for 24 hours.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

import msgspec

from ..domain.records import RawRecord
from .addresses import Address, check_options, int_option
from .aws import AWS_OPTIONS, client, translated_errors
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

OPTIONS: Final = AWS_OPTIONS | {"start", "discover_seconds", "poll_ms"}

_PAGE_RECORDS: Final = 1_000  # the most the service gives
_POLL_MS: Final = 100
_DISCOVER_SECONDS: Final = 5
_EMPTY_PAGES_TO_END: Final = 5
"""A read of an open shard ends after so many. Amazon's own adapter for the Kinesis library is content with one."""

_TIME_PRECISION_MS: Final = 60_000
"""Creation times are rounded down, to the second now, to the minute formerly and by DynamoDB Local."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}", re.ASCII)
_CHANGE_FIELDS: Final = ("Keys", "NewImage", "OldImage", "SequenceNumber", "StreamViewType")
_json = msgspec.json.Encoder(order="deterministic")  # binary values become base64


@dataclass(frozen=True)
class DynamoDbStream:
    """A table's stream; implements ``Stream``. Pickles as text.

    A record's body is canonical JSON of ``eventName``, ``eventID`` and ``dynamodb``, as Lambda shows change records:
    attributes with their types, binary values in base64, ``ApproximateCreationDateTime`` in epoch seconds.

    Attributes:
        address: its address.
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
            UsageError: no table could have that name, or an option is unknown or out of range.
        """
        check_options(address, setting, OPTIONS)
        if _NAME.fullmatch(address.target) is None:
            raise UsageError(f"--{setting}: write dynamodb-streams://table-name")
        stream = cls(address, setting, worker)
        _TableShards(stream)  # reads the options
        return stream

    def check(self) -> None:
        """Lists the shards once.

        Raises:
            UsageError: the table does not exist or has no stream, or region or credentials are missing or refused.
            BackendUnavailableError: out of reach.
        """
        _TableShards(self).list_shards()

    def list_shards(self) -> Listing:
        """All shards; raises as ``check``."""
        return _TableShards(self).list_shards()

    def peek(self, shard_id: str, start: Start) -> Page:
        """The first two records from a place on: what a lag is told by.

        Raises:
            ShardError, UsageError, BackendUnavailableError: as ``ShardSource.read``.
        """
        shards = _TableShards(self)
        return shards.read(shard_id, shards.iterator(shard_id, start), limit=2)

    def open(
        self, share: Share, positions: Mapping[str, str], committed: Callable[[str], str], *, bounded: bool
    ) -> ShardReader:
        """Starts reading the stream the table has now; see ``ShardReader`` for what is guaranteed.

        Raises:
            UsageError: as ``check``.
            BackendUnavailableError: out of reach.
        """
        return ShardReader(_TableShards(self), share, positions, committed, bounded=bounded)


class _TableShards:
    """The ``ShardSource`` of a table's stream."""

    def __init__(self, stream: DynamoDbStream) -> None:
        address, setting = stream.address, stream.setting
        self._address = address
        self._setting = setting
        self.name = f"dynamodb-streams://{address.target}"
        self.start = LATEST if earliest_or_latest(address, setting) else TRIM_HORIZON
        self.end_ms = None
        self.discover_seconds = float(int_option(address, setting, "discover_seconds", _DISCOVER_SECONDS, least=1))
        self.busy_seconds = 0.0
        self.idle_seconds = int_option(address, setting, "poll_ms", _POLL_MS) / 1_000
        self.time_precision_ms = _TIME_PRECISION_MS
        self.empty_pages_to_end = _EMPTY_PAGES_TO_END
        self._arn = ""
        self._finding = threading.Lock()

    @property
    def _client(self) -> Any:
        return client("dynamodbstreams", self._address, self._setting)

    def _stream_arn(self) -> str:
        with self._finding:
            if not self._arn:
                tables = client("dynamodb", self._address, self._setting)
                with translated_errors(self._setting, self._address):
                    table = tables.describe_table(TableName=self._address.target)["Table"]
                if not table.get("LatestStreamArn"):
                    raise UsageError(
                        f"--{self._setting}: table {self._address.target} has no stream; "
                        "enable one with view type NEW_AND_OLD_IMAGES"
                    )
                self._arn = table["LatestStreamArn"]
        return self._arn

    def list_shards(self) -> Listing:
        """All shards."""
        shards: dict[str, Shard] = {}
        asked = {"StreamArn": self._stream_arn()}
        try:
            while True:
                with shard_errors(self._setting, self._address):
                    answer = self._client.describe_stream(**asked)
                description = answer["StreamDescription"]
                for shard in description["Shards"]:
                    parent = shard.get("ParentShardId")
                    shards[shard["ShardId"]] = Shard(
                        shard["ShardId"],
                        (parent,) if parent else (),
                        closed=bool(shard["SequenceNumberRange"].get("EndingSequenceNumber")),
                    )
                last = description.get("LastEvaluatedShardId")
                if not last:
                    return Listing(shards, answered_at_ms(answer))
                asked["ExclusiveStartShardId"] = last
        except ShardGoneError:
            raise missing(self._setting, self._address) from None

    def iterator(self, shard_id: str, start: Start) -> str:
        """An iterator into a shard; the service cannot start at a time, so for one it is the oldest record's."""
        kind = StartKind.TRIM_HORIZON if start.kind is StartKind.AT_TIMESTAMP else start.kind
        at = {"SequenceNumber": start.sequence} if kind is StartKind.AT_SEQUENCE_NUMBER else {}
        with shard_errors(self._setting, self._address, start):
            answer = self._client.get_shard_iterator(
                StreamArn=self._stream_arn(), ShardId=shard_id, ShardIteratorType=kind.value, **at
            )
        return answer["ShardIterator"]

    def read(self, shard_id: str, iterator: str, limit: int = _PAGE_RECORDS) -> Page:
        """Reads a page."""
        with shard_errors(self._setting, self._address):
            answer = self._client.get_records(ShardIterator=iterator, Limit=limit)
        return Page([_entry(shard_id, record) for record in answer["Records"]], answer.get("NextShardIterator"))


def _entry(shard_id: str, record: Any) -> Entry:
    change = record["dynamodb"]
    sequence: str = change["SequenceNumber"]
    created: datetime | None = change.get("ApproximateCreationDateTime")
    shown = {name: change[name] for name in _CHANGE_FIELDS if name in change}
    if created is not None:
        shown["ApproximateCreationDateTime"] = int(created.timestamp())
    body = _json.encode({"eventName": record["eventName"], "eventID": record["eventID"], "dynamodb": shown})
    return Entry(
        sequence,
        0 if created is None else int(created.timestamp() * 1_000),
        [RawRecord(body, f"shard {shard_id} sequence {sequence}", body)],
    )
