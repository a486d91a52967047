"""Records the Kinesis Producer Library packed together: taken apart here, whoever wrote the bytes.

The format is the library's, https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md: four
magic bytes, a protobuf message ``AggregatedRecord``, its MD5. Only what is needed of protobuf is read, each length is
checked against the bytes that are there, and nothing is allocated for what a length merely claims.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

MAGIC: Final = b"\xf3\x89\x9a\xc2"
"""What an aggregate begins with. No JSON text does: these bytes are not UTF-8."""

MAX_USER_RECORDS: Final = 250_000
"""More are refused: one record of Kinesis has 10 MiB at most, and no activity fits into 40 bytes."""

_MD5_BYTES: Final = 16
_VARINT_BYTES: Final = 10
_MAX_VARINT: Final = 2**64 - 1

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5

_PARTITION_KEYS: Final = 1  # of AggregatedRecord
_RECORDS: Final = 3
_KEY_INDEX: Final = 1  # of Record
_DATA: Final = 3


class MalformedAggregateError(ValueError):
    """Bytes that begin as an aggregate and are none; the message says why and quotes nothing of them."""


def is_aggregate(data: bytes) -> bool:
    """Whether a Kinesis record's data claims to be an aggregate."""
    return data.startswith(MAGIC)


def user_records(data: bytes) -> list[bytes]:
    """What the user records of an aggregate hold, in the order they were put in.

    All of them, whatever shard their hash keys belong to now: after a reshard the library may send some again, and
    who drops those in between by their keys loses the records of producers that do not.

    Args:
        data: a Kinesis record's data, for which ``is_aggregate`` is true.

    Raises:
        MalformedAggregateError: it is damaged, cut off, or no aggregate.
    """
    if not is_aggregate(data) or len(data) < len(MAGIC) + _MD5_BYTES:
        raise MalformedAggregateError("KPL aggregate is cut off")
    body = memoryview(data)[len(MAGIC) : -_MD5_BYTES]
    if hashlib.md5(body, usedforsecurity=False).digest() != data[-_MD5_BYTES:]:
        raise MalformedAggregateError("KPL aggregate does not match its MD5")
    keys = 0
    largest_index = -1
    records: list[bytes] = []
    for field, value in _fields(body):
        if field == _PARTITION_KEYS:
            _bytes_of(value)
            keys += 1
        elif field == _RECORDS:
            if len(records) >= MAX_USER_RECORDS:
                raise MalformedAggregateError(f"KPL aggregate has more than {MAX_USER_RECORDS} user records")
            index, content = _record(_bytes_of(value))
            largest_index = max(largest_index, index)
            records.append(content)
    if largest_index >= keys:
        raise MalformedAggregateError("KPL aggregate lacks a partition key")
    return records


def _record(body: memoryview) -> tuple[int, bytes]:
    """A user record's index into the partition keys, and its data; both are required, the last one of each counts."""
    index: int | None = None
    content: memoryview | None = None
    for field, value in _fields(body):
        if field == _DATA:
            content = _bytes_of(value)
        elif field == _KEY_INDEX:
            if not isinstance(value, int):
                raise MalformedAggregateError("KPL aggregate has a field of the wrong type")
            index = value
    if index is None or content is None:
        raise MalformedAggregateError("KPL aggregate has a user record without key or data")
    return index, bytes(content)


def _bytes_of(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise MalformedAggregateError("KPL aggregate has a field of the wrong type")
    return value


def _fields(body: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """A message's fields: number, and value (fixed-width ones as their bytes). Groups are refused."""
    at = 0
    end = len(body)
    while at < end:
        tag, at = _varint(body, at)
        field, kind = tag >> 3, tag & 7
        if field == 0:
            raise MalformedAggregateError("KPL aggregate has a field without a number")
        if kind == _VARINT:
            value, at = _varint(body, at)
            yield field, value
            continue
        if kind == _BYTES:
            size, at = _varint(body, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise MalformedAggregateError("KPL aggregate has a field of unknown type")
        if size > end - at:
            raise MalformedAggregateError("KPL aggregate has a field that ends behind it")
        yield field, body[at : at + size]
        at += size


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    """The whole number (of at most 64 bits) at an offset, and the offset behind it."""
    value = 0
    for count in range(_VARINT_BYTES):
        if at >= len(body):
            raise MalformedAggregateError("KPL aggregate ends inside a number")
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says there is more
            if value > _MAX_VARINT:
                break
            return value, at
    raise MalformedAggregateError("KPL aggregate has a number of more than 64 bits")
