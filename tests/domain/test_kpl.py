"""Aggregates of the Kinesis Producer Library: taken apart rightly, and never trusted."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain import kpl
from fan_identity.domain.kpl import MAGIC, MalformedAggregateError, is_aggregate, user_records


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def user_record(data: bytes, key: int = 0, more: bytes = b"") -> bytes:
    return field(3, varint(1 << 3) + varint(key) + field(3, data) + more)


def sealed(body: bytes) -> bytes:
    return MAGIC + body + hashlib.md5(body, usedforsecurity=False).digest()


def aggregate(*data: bytes) -> bytes:
    return sealed(field(1, b"key") + b"".join(user_record(one) for one in data))


# Made with protobuf's own encoder from the schema on the format's page: two partition keys, an explicit hash key, three
# user records, one of them with a tag and one empty.
MADE_BY_PROTOBUF = bytes.fromhex(
    "f3899ac20a0566616e2d310a0566616e2d321227313730313431313833343630343639323331373331363837333033373135"
    "3838343130353732381a1808001a147b2261637469766974794964223a22612d31227d1a2a080110001a147b226163746976"
    "6974794964223a22612d32227d220e0a06736f75726365120473616c651a0408001a00ecf84fffd2fc267fd0775b44672a1b"
    "52"
)


def test_aggregate_of_another_encoder_is_read() -> None:
    assert user_records(MADE_BY_PROTOBUF) == [b'{"activityId":"a-1"}', b'{"activityId":"a-2"}', b""]


def test_user_records_come_in_order() -> None:
    assert user_records(aggregate(b"one", b"", b"three")) == [b"one", b"", b"three"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=50))
def test_whatever_was_put_in_comes_out(data: list[bytes]) -> None:
    assert user_records(aggregate(*data)) == data


def test_parts_nobody_needs_are_passed_over() -> None:
    tag = field(4, field(1, b"name") + field(2, b"value"))
    body = (
        field(2, b"123")  # explicit hash key
        + field(1, b"a")
        + user_record(b"x", 1, varint(2 << 3) + varint(0) + tag)
        + field(1, b"b")  # fields of a message may come in any order
        + varint(99 << 3 | 1)
        + b"8 bytes."
        + varint(98 << 3 | 5)
        + b"4 b."
        + varint(97 << 3)
        + varint(2**64 - 1)
    )
    assert user_records(sealed(body)) == [b"x"]


def test_what_is_json_is_no_aggregate() -> None:
    assert not is_aggregate(b'{"a": 1}')
    assert not is_aggregate(b"")
    assert not is_aggregate(MAGIC[:3])
    with pytest.raises(UnicodeDecodeError):
        MAGIC.decode()


def test_an_aggregate_may_be_empty() -> None:
    assert user_records(sealed(b"")) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (MAGIC, "cut off"),
        (MAGIC + b"x" * 15, "cut off"),
        (aggregate(b"one")[:-1], "MD5"),
        (aggregate(b"one")[:-1] + b"x", "MD5"),
        (sealed(field(1, b"k") + field(3, varint(8) + varint(0))), "without key or data"),
        (sealed(field(1, b"k") + field(3, field(3, b"data"))), "without key or data"),
        (sealed(user_record(b"x")), "lacks a partition key"),
        (sealed(field(1, b"k") + user_record(b"x", 1)), "lacks a partition key"),
        (sealed(varint(3 << 3 | 2) + varint(5) + b"four"), "ends behind it"),
        (sealed(varint(3 << 3 | 2) + varint(2**63)), "ends behind it"),
        (sealed(varint(9 << 3 | 1) + b"seven.."), "ends behind it"),
        (sealed(b"\x80"), "inside a number"),
        (sealed(b"\x1a"), "inside a number"),
        (sealed(varint(9 << 3) + b"\xff" * 10), "more than 64 bits"),
        (sealed(varint(9 << 3) + b"\xff" * 9 + b"\x02"), "more than 64 bits"),
        (sealed(varint(3 << 3 | 3)), "unknown type"),
        (sealed(varint(3 << 3 | 7)), "unknown type"),
        (sealed(varint(2)), "without a number"),
        (sealed(varint(1 << 3) + varint(1)), "wrong type"),
        (sealed(varint(3 << 3) + varint(1)), "wrong type"),
        (sealed(field(1, b"k") + field(3, field(1, b"0") + field(3, b"x"))), "wrong type"),
        (sealed(field(1, b"k") + field(3, varint(8) + varint(0) + varint(24) + varint(1))), "wrong type"),
    ],
)
def test_damage_is_named(data: bytes, why: str) -> None:
    assert is_aggregate(data)
    with pytest.raises(MalformedAggregateError, match=why):
        user_records(data)


def test_more_user_records_than_could_be_activities_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpl, "MAX_USER_RECORDS", 3)
    assert len(user_records(aggregate(*[b"x"] * 3))) == 3
    with pytest.raises(MalformedAggregateError, match="more than 3 user records"):
        user_records(aggregate(*[b"x"] * 4))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_taken_apart_or_refused(body: bytes) -> None:
    try:
        records = user_records(sealed(body))
    except MalformedAggregateError as error:
        assert str(error).startswith("KPL aggregate ")
    else:
        assert sum(map(len, records)) <= len(body)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_one_changed_byte_is_seen(data: st.DataObject, content: list[bytes]) -> None:
    whole = bytearray(aggregate(*content))
    at = data.draw(st.integers(len(MAGIC), len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MalformedAggregateError, match="MD5"):
        user_records(bytes(whole))


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_sealed_again_a_changed_byte_does_no_harm(data: st.DataObject, content: list[bytes]) -> None:
    body = bytearray(aggregate(*content)[len(MAGIC) : -16])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        records = user_records(sealed(bytes(body)))
    except MalformedAggregateError:
        return
    assert sum(map(len, records)) <= len(body)
