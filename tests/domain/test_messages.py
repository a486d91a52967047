"""The queue's message: it keeps the activity's bytes, is read back, and refuses what it is not."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import MIN_EPOCH_MS, MalformedRecordError, decode_activity
from fan_identity.domain.messages import ScoringMessage, decode_message, encode_message, message_of, precedence
from fan_identity.domain.records import DecodedRecord, RawRecord

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.integers(MIN_EPOCH_MS, 253_402_300_799_999)


ACTIVITY = b'{"activityId":"a1","activityType":"login","occurredAt":5}'


def message(*, user="u1", activity_id="a1", time_ms=5, activity=ACTIVITY):
    return ScoringMessage(
        global_user_id=user,
        activity_id=activity_id,
        activity_type="login",
        occurred_at=time_ms,
        request_id="r1",
        worker="w",
        activity=msgspec.Raw(activity),
    )


def decoded(body, payload=b"row 7"):
    activity = decode_activity(body)
    return DecodedRecord(raw=RawRecord(payload, "row 7", body), activity=activity, time_ms=activity.time_ms)


def test_a_message_carries_the_activity_byte_for_byte():
    body = (
        '{"activityId":"a1", "activityType":"login","occurredAt":"1970-01-01T00:00:05Z","globalUserId":"ü","new":[1]}'
    )
    made = message_of(decoded(body.encode()), "r1", "enqueueFromStream")
    assert bytes(made.activity) == body.encode()
    assert (made.global_user_id, made.activity_id, made.activity_type) == ("ü", "a1", "login")
    assert (made.occurred_at, made.request_id, made.worker) == (5_000, "r1", "enqueueFromStream")


def test_the_wire_format_is_json_in_camel_case():
    assert json.loads(encode_message(message(activity=b'{"x":1}'))) == {
        "globalUserId": "u1",
        "activityId": "a1",
        "activityType": "login",
        "occurredAt": 5,
        "requestId": "r1",
        "worker": "w",
        "activity": {"x": 1},
    }


@pytest.mark.parametrize("user", [None])
def test_a_message_needs_a_user(user):
    record = decoded(
        json.dumps({"activityId": "a", "activityType": "x", "occurredAt": 1, "globalUserId": user}).encode()
    )
    with pytest.raises(ValueError, match="filter before enqueueing"):
        message_of(record, "r", "w")


def test_a_message_needs_a_body():
    record = decoded(b'{"activityId":"a","activityType":"x","occurredAt":1,"globalUserId":"u"}')
    unread = DecodedRecord(raw=RawRecord(b"", "row 1", None), activity=record.activity, time_ms=1)
    with pytest.raises(ValueError, match="filter before enqueueing"):
        message_of(unread, "r", "w")


@given(TEXT.filter(str.strip), TEXT, TIMES, st.dictionaries(TEXT.map("x-".__add__), TEXT, max_size=3))
def test_a_message_is_read_back(user, activity_id, time_ms, content):
    body = json.dumps({**content, **json.loads(ACTIVITY)}, ensure_ascii=False).encode()
    sent = message(user=user, activity_id=activity_id, time_ms=time_ms, activity=body)
    received = decode_message(encode_message(sent))
    assert bytes(received.activity) == body
    assert msgspec.structs.replace(received, activity=sent.activity) == sent


def test_a_message_of_a_blank_user_is_none():
    with pytest.raises(MalformedRecordError, match="globalUserId is blank"):
        decode_message(encode_message(message(user=" ")))


def test_fields_of_a_later_version_are_ignored():
    body = encode_message(message())[:-1] + b',"later":1}'
    assert decode_message(body).activity_id == "a1"


SECRET = "jane.doe@example.org"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({"globalUserId": [SECRET]}).encode(),
        encode_message(message()).replace(b'"occurredAt":5', b'"occurredAt":"' + SECRET.encode() + b'"'),
        encode_message(message()).replace(b'"activity":', b'"later":'),
        encode_message(message()) + b"{}",
        encode_message(message(time_ms=2**63)),
        encode_message(message(time_ms=MIN_EPOCH_MS - 1)),
        encode_message(message(activity=b"{}")),
        encode_message(message(activity=ACTIVITY.replace(b"login", SECRET.encode()))),
        encode_message(message(activity=ACTIVITY.replace(b"5", b"[]"))),
    ],
)
def test_what_is_no_message_is_malformed_and_not_repeated(body):
    with pytest.raises(MalformedRecordError, match="not a scoring message") as caught:
        decode_message(body)
    assert SECRET not in str(caught.value)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_malformed(body):
    with pytest.raises(MalformedRecordError):
        decode_message(body)


@given(TIMES, TIMES, TEXT, TEXT)
def test_the_earlier_activity_precedes_and_content_decides_a_tie(one_ms, other_ms, one, other):
    def record(time_ms, user):
        body = json.dumps(
            {"activityId": "a", "activityType": "login", "occurredAt": time_ms, "globalUserId": user},
            ensure_ascii=False,
        )
        return decoded(body.encode())

    first, second = precedence(record(one_ms, one)), precedence(record(other_ms, other))
    assert len(first) == 16
    if one_ms != other_ms:
        assert (first < second) == (one_ms < other_ms)
    else:
        assert (first == second) == (one == other)


def test_however_its_time_is_written_an_activity_takes_the_same_place():
    texts = ('"2024-06-14T10:00:00Z"', '"2024-06-14T12:00:00.000+02:00"', "1718359200000", '"1718359200000"')
    places = {
        precedence(decoded(f'{{ "occurredAt":{text},"activityType":"login","activityId":"a"}}'.encode()))
        for text in texts
    }
    assert len(places) == 1
