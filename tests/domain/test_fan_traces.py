"""What speaks of a fan: the fan's own records in every writing, and no other's whose id only looks like it."""

import base64
import csv
import io
import json

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fan_identity.domain.fan_traces import Fan, speaks_of, without
from fan_identity.domain.keys import user_pk

HOSTILE = [
    "fan-1",
    "fan-1#LATEST",
    "fan-1 ",
    " fan-1",
    "fan-1,fan-1b",
    "a,fan-1,b",
    'x"fan-1"y',
    "fan-10",
    "xfan-1",
    "FAN-1",
    "fan-1\n",
    "fan-1;x",
    "fan-1\\",
    "*",
    "%",
    "fan-%",
    "fan_1",
    "[f]an-1",
    "sha256:" + "0" * 64,
    "é\u0301\U0001f3ab",
    "\x00",
    "'; DROP TABLE items; --",
    "{fan-1}",
    '{"globalUserId":"fan-1x"}',
    "f" * 10_000,
    "f" * 9_999,
    "12345",
    "1234",
]


def csv_row(*cells: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


WRITINGS = {
    "json": lambda user: json.dumps({"activityId": "a", "globalUserId": user}).encode(),
    "json as it is": lambda user: json.dumps({"globalUserId": user}, ensure_ascii=False).encode(),
    "json deep inside": lambda user: json.dumps({"a": [{"b": [0, {"c": user}]}]}).encode(),
    "json as a name": lambda user: json.dumps({"by": {user: 3}}).encode(),
    "json in json": lambda user: json.dumps({"Message": json.dumps({"detail": {"user": user}})}).encode(),
    "a key": lambda user: json.dumps({"Keys": {"PK": {"S": user_pk(user)}}}).encode(),
    "a half object": lambda user: (json.dumps({"globalUserId": user, "b": 1})[:-3]).encode(),
    "a missing quote": lambda user: ('{"a": "b, "globalUserId":' + json.dumps(user) + "}").encode(),
    "bytes of no encoding": lambda user: b'{"a":"\xff","globalUserId":' + json.dumps(user).encode() + b"}",
    "a row of csv": lambda user: csv_row("a-1", user, "login"),
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_a_record_speaks_of_its_fan_and_of_nobody_else(writing):
    for user in HOSTILE:
        payload = WRITINGS[writing](user)
        found = [other for other in HOSTILE if speaks_of(payload, Fan(other))]
        assert found == [user], (writing, user[:80])


IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(IDS, IDS, st.sampled_from([name for name in WRITINGS if name != "bytes of no encoding"]))
def test_any_two_fans_are_told_apart(one, other, writing):
    assume(one != other)
    assert speaks_of(WRITINGS[writing](one), Fan(one))
    if writing.startswith(("json", "a key")) and other not in (
        "activityId",
        "globalUserId",
        "a",
        "b",
        "c",
        "by",
        "user",
    ):
        assume(other not in ("Message", "detail", "Keys", "PK", "S") and not one.lstrip().startswith(("{", "[")))
        assert not speaks_of(WRITINGS[writing](one), Fan(other))


@given(st.binary(max_size=80))
def test_any_bytes_are_looked_into(payload):
    assert not speaks_of(payload, Fan("a fan nobody has"))


def test_deep_and_huge_records_are_looked_into():
    assert not speaks_of(b"[" * 100_000, Fan("f"))
    nested = "f"
    for _ in range(900):
        nested = [nested]
    assert speaks_of(json.dumps(nested).encode(), Fan("f"))
    assert speaks_of(b"x," * 200_000 + b'"' + b"y" * 200_000 + b",f,", Fan("f")), "a cell of 200 KB"


@pytest.mark.parametrize("user", ["fan-1", "a/b", 'q"q', "b\\s", "\u00e9", "t\tt"])
def test_a_name_is_found_however_json_writes_it(user):
    escaped = "".join(f"\\u{ord(char):04x}" for char in user)
    writings = [
        f'"{escaped}"',
        json.dumps(user),
        json.dumps(user, ensure_ascii=False),
        json.dumps(user).replace("/", "\\/"),
    ]
    for written in writings:
        once = f'{{"globalUserId":{written}}}'
        for payload in (once, json.dumps({"Message": once}), json.dumps([json.dumps({"a": once})]), once[:-1]):
            assert speaks_of(payload.encode(), Fan(user)), payload
            assert not speaks_of(payload.encode(), Fan(user + "x"))


def test_numbers_count_where_a_fan_stands():
    assert speaks_of(b'{"globalUserId": 12345}', Fan("12345"))
    assert speaks_of(b'{"x": {"member_ID": 1, "memberId": 77}}', Fan("12345", "77"))
    assert not speaks_of(b'{"occurredAt": 12345, "size": 77}', Fan("12345", "77"))


def test_a_fan_is_known_by_member_id_too():
    assert speaks_of(b'{"memberId": "m-1"}', Fan("f", "m-1"))
    assert speaks_of(b'{"PK": "MEMBER#m-1"}', Fan("f", "m-1"))
    assert not speaks_of(b'{"memberId": "m-1"}', Fan("f"))


def test_what_is_packed_otherwise_is_not_opened():
    """Stated in docs/erasing.md: bytes in base64 inside a record are not looked into."""
    assert not speaks_of(json.dumps({"data": base64.b64encode(b'{"globalUserId":"f"}').decode()}).encode(), Fan("f"))


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"rescoreId": "r", "users": ["a", "f", "b", "f"]}, {"rescoreId": "r", "users": ["a", "b"]}),
        ({"detail-type": "x", "detail": {"users": ["f", "a"]}}, {"detail-type": "x", "detail": {"users": ["a"]}}),
        ({"Message": '{"users":["f","a"],"n":1.50}'}, {"Message": '{"users":["a"],"n":1.5}'}),
        ({"rescoreId": "r", "users": ["f"]}, None),
        ({"Message": '{"users":["f"]}'}, None),
        ({"rescoreId": "f", "users": ["f", "a"]}, None),
        ({"globalUserId": "f"}, None),
        ({"users": ["a"], "empty": None}, {"users": ["a"], "empty": None}),
    ],
)
def test_a_request_of_many_keeps_the_others(body, left):
    rest = without(json.dumps(body).encode(), Fan("f"))
    assert (None if rest is None else msgspec.json.decode(rest)) == left


def test_what_is_no_json_is_the_fans_own():
    assert without(b'{"users": ["f", ', Fan("f")) is None
