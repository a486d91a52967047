"""How stores, queues and streams are asked whether they are there: one harmless call each, that takes no message.

Every function makes a ``Question`` of an address, checking the address, and makes the client that asks, which takes its
time: not of the probe's. Clients are imported with the address that needs them. What an address names may be gone,
refuse the credentials or be out of reach: all of it is an outage.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from .addresses import Address, check_options, parse_address
from .errors import BackendUnavailableError, UsageError

Question = Callable[[float], None]
"""Asks a part, given seconds for an answer; raises UsageError or BackendUnavailableError where there is no good one."""

_FULL_BYTES: Final = 1_000_000


def ask_dynamodb(address: Address, setting: str, seconds: float) -> Question:
    """Reads one key that is not there: half a read unit."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    from .aws import client, error_code, translated_errors  # noqa: PLC0415
    from .dynamodb.calls import TableCalls  # noqa: PLC0415

    TableCalls(address, setting)  # reads the address
    service = client("dynamodb", address, setting, once=seconds)

    def ask(_: float) -> None:
        with translated_errors(setting, address):
            try:
                service.get_item(
                    TableName=address.target,
                    Key={"PK": {"S": "LIVENESS#PROBE"}, "SK": {"S": "PROBE"}},
                    ProjectionExpression="PK",
                )
            except ClientError as error:
                if error_code(error) != "ValidationException":
                    raise
                wrong = f"--{setting}: dynamodb://{address.target} has other keys than PK and SK"
            else:
                return
        raise UsageError(wrong)

    return ask


def ask_sqs(address: Address, setting: str, seconds: float) -> Question:
    """Asks for the queue's URL and how many messages it holds."""
    from .aws import client  # noqa: PLC0415
    from .sqs.queue import OPTIONS  # noqa: PLC0415

    check_options(address, setting, OPTIONS)
    client("sqs", address, setting, once=seconds)  # made before the clock runs

    def ask(_: float) -> None:
        sqs_counts(address, setting, seconds)

    return ask


def sqs_counts(address: Address, setting: str, seconds: float) -> dict[str, int]:
    """How many messages wait, are in flight and delayed, about, by SQS's names of these counts.

    Raises:
        UsageError, BackendUnavailableError: as ``io.aws.translated_errors``.
    """
    from .aws import client, translated_errors  # noqa: PLC0415

    account = address.options.get("account")
    owner = {"QueueOwnerAWSAccountId": account} if account is not None else {}
    sqs = client("sqs", address, setting, once=seconds)
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    names.append("ApproximateNumberOfMessagesDelayed")
    with translated_errors(setting, address):
        url = sqs.get_queue_url(QueueName=address.target, **owner)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return {name: int(found.get(name, 0)) for name in names}


def ask_pubsub(address: Address, setting: str, seconds: float) -> Question:
    """Asks for the topic, or the subscription."""
    from .pubsub.endpoint import Endpoint  # noqa: PLC0415

    del seconds
    return Endpoint(address, setting).check_once


def ask_kafka(address: Address, setting: str, seconds: float) -> Question:
    """Asks for the topic's partitions."""
    from .kafka_address import kafka_settings  # noqa: PLC0415
    from .kafka_admin import admin_of  # noqa: PLC0415

    del seconds
    settings = kafka_settings(address, setting, "checkLiveness")

    def ask(seconds: float) -> None:
        admin_of(settings).partitions(seconds)

    return ask


def ask_kinesis(address: Address, setting: str, seconds: float) -> Question:
    """Lists one shard."""
    from .aws import client  # noqa: PLC0415
    from .kinesis import KinesisStream  # noqa: PLC0415
    from .shard_service import missing, shard_errors  # noqa: PLC0415
    from .shards import ShardError, ShardGoneError  # noqa: PLC0415

    stream = KinesisStream.of(address, setting, "checkLiveness").address
    named = {"StreamARN" if stream.target.startswith("arn:") else "StreamName": stream.target}
    service = client("kinesis", stream, setting, once=seconds)

    def ask(_: float) -> None:
        try:
            with shard_errors(setting, stream):
                service.list_shards(**named, MaxResults=1)
        except ShardGoneError:
            raise missing(setting, stream) from None
        except ShardError:
            pass  # throttled: it is there

    return ask


def ask_dynamodb_stream(address: Address, setting: str, seconds: float) -> Question:
    """Asks for the table's stream, and one shard of it."""
    from .aws import client  # noqa: PLC0415
    from .dynamodb_streams import DynamoDbStream  # noqa: PLC0415
    from .shard_service import missing, shard_errors  # noqa: PLC0415
    from .shards import ShardError, ShardGoneError  # noqa: PLC0415

    DynamoDbStream.of(address, setting, "checkLiveness")  # reads the address

    tables = client("dynamodb", address, setting, once=seconds)
    streams = client("dynamodbstreams", address, setting, once=seconds)

    def ask(_: float) -> None:
        try:
            with shard_errors(setting, address):
                arn = tables.describe_table(TableName=address.target)["Table"].get("LatestStreamArn")
                if arn:
                    streams.describe_stream(StreamArn=arn, Limit=1)
        except ShardGoneError:
            raise missing(setting, address) from None
        except ShardError:
            return  # throttled: it is there
        if not arn:
            raise UsageError(f"--{setting}: table {address.target} has no stream; enable one with NEW_AND_OLD_IMAGES")

    return ask


def ask_eventbridge(address: Address, setting: str, seconds: float) -> Question:
    """Asks for the bus."""
    from .aws import client, translated_errors  # noqa: PLC0415
    from .eventbridge import EventBridgeBus  # noqa: PLC0415

    EventBridgeBus.of(address, setting)  # reads the address

    events = client("events", address, setting, once=seconds)

    def ask(_: float) -> None:
        with translated_errors(setting, address):
            events.describe_event_bus(Name=address.target)

    return ask


def ask_redis(address: Address, setting: str, seconds: float) -> Question:
    """PING; in a cluster, of every primary."""
    from .redis_cache import RedisArmCache  # noqa: PLC0415

    del seconds
    cache = RedisArmCache.of(address, setting)
    return lambda _: cache.check_once()


def ask_sqlite(address: Address, setting: str, seconds: float) -> Question:
    """Opens the store and reads; it must be writable, with room on its disk. Never makes one."""
    from .sqlite.store import SqliteStore  # noqa: PLC0415

    del seconds
    path = Path(address.target[1:])
    if address.scheme != "sqlite" or not address.target.startswith("/") or not path.name:
        raise UsageError(f"--{setting}: write sqlite:///file.db")

    def ask(_: float) -> None:
        store = SqliteStore(path, create=False)
        try:
            with store.translated_errors():
                store.connection.execute("SELECT count(*) FROM positions").fetchone()
        finally:
            with suppress(Exception):
                store.close()
        if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
            raise BackendUnavailableError(
                f"store {path}: it cannot be written; check the file's and folder's permissions"
            )
        if shutil.disk_usage(path.parent).free < _FULL_BYTES:
            raise BackendUnavailableError(f"store {path}: the disk is full")

    return ask


QUESTIONS: Final[dict[str, Callable[[Address, str, float], Question]]] = {
    "dynamodb": ask_dynamodb,
    "sqs": ask_sqs,
    "pubsub": ask_pubsub,
    "kafka": ask_kafka,
    "kinesis": ask_kinesis,
    "dynamodb-streams": ask_dynamodb_stream,
    "eventbridge": ask_eventbridge,
    "sqlite": ask_sqlite,
    **dict.fromkeys(("redis", "rediss", "redis-cluster", "rediss-cluster"), ask_redis),
}
"""By an address's scheme."""


def question_of(text: str, setting: str, seconds: float) -> Question:
    """How the part of an address is asked, by its scheme.

    Args:
        text: the address.
        setting: where it came from.
        seconds: what one call waits at most, where its client is told once and for all.

    Raises:
        UsageError: nothing of that scheme can be asked, or the address is wrong.
    """
    address: Any = parse_address(text, setting)
    ask = QUESTIONS.get(address.scheme)
    if ask is None:
        raise UsageError(f"--{setting}: {address.scheme}:// is not supported here")
    return ask(address, setting, seconds)
