"""Activities: what is one, what time it has, and that errors never repeat a value."""

import json
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fan_identity.domain.activity import (
    ACTIVITY_TYPES,
    MIN_EPOCH_MS,
    TYPE_INDEX,
    Activity,
    Context,
    MalformedRecordError,
    decode_activity,
    format_time_ms,
    parse_time_ms,
    readable_activity_id,
)

MAX_EPOCH_MS = 253_402_300_799_999
NOON = 1_718_366_400_000  # 2024-06-14T12:00:00Z
SECRET = "jane.doe@example.org"

TIMES = st.integers(MIN_EPOCH_MS, MAX_EPOCH_MS)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def record(**fields):
    whole = {"activityId": "a1", "activityType": "login", "occurredAt": NOON, **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def test_a_full_activity_is_read_field_by_field():
    activity = decode_activity(
        record(
            globalUserId="u1",
            memberId="m1",
            eventId="e1",
            saleId="s1",
            context={"ipAddress": "10.0.0.1", "deviceId": "d1", "userAgent": "Firefox"},
            attributes={"outcome": "failure", "seats": [1, 2]},
            unheardOf={"is": "allowed"},
        )
    )
    assert activity == Activity(
        "a1",
        "login",
        NOON,
        "u1",
        "m1",
        "e1",
        "s1",
        Context("10.0.0.1", "d1", "Firefox"),
        {"outcome": "failure", "seats": [1, 2]},
    )
    assert activity.time_ms == NOON


def test_three_fields_are_enough_and_null_is_unknown():
    bare = decode_activity(record())
    assert (bare.global_user_id, bare.context, bare.attributes) == (None, None, None)
    assert decode_activity(record(globalUserId=None, context=None, attributes=None, eventId=None)) == bare


@pytest.mark.parametrize(
    ("attributes", "failed"),
    [
        ({"outcome": "failure"}, True),
        ({"outcome": "success"}, False),
        ({"outcome": "Failure"}, False),
        ({"outcome": ["failure"]}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_the_outcome_failure_is_a_failure(attributes, failed):
    assert decode_activity(record(attributes=attributes)).failed is failed


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"not json", "JSON is malformed"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (record() + b" {}", "JSON is malformed"),
        (b'{"activityId":"\xff","activityType":"login","occurredAt":1}', "UTF-8"),
        (b'{"activityId":"\\ud800","activityType":"login","occurredAt":1}', "surrogate"),
        (record(activityId=...), "activityId"),
        (record(activityType=...), "activityType"),
        (record(occurredAt=...), "occurredAt"),
        (record(activityId=7), "activityId"),
        (record(activityId=" \t\n"), "activityId is blank"),
        (record(activityId=""), "activityId is blank"),
        (record(occurredAt=True), "occurredAt"),
        (record(occurredAt=None), "occurredAt"),
        (record(context={"ipAddress": 4}), "context.ipAddress"),
        (record(attributes=[]), "attributes"),
        (b'{"attributes":{"a":' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_activity_is_said_by_field(data, told):
    with pytest.raises(MalformedRecordError) as caught:
        decode_activity(data)
    assert told in str(caught.value)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_activity_or_malformed(data):
    with pytest.raises(MalformedRecordError):
        decode_activity(data)  # no 60 random bytes are an activity


@given(
    st.sampled_from(["activityId", "activityType", "occurredAt", "globalUserId", "context", "attributes", "eventId"]),
    JSON_VALUES,
)
def test_any_value_of_a_field_is_taken_or_malformed(field, value):
    try:
        activity = decode_activity(record(**{field: value}))
        time_ms = activity.time_ms
    except MalformedRecordError as error:
        assert field in str(error) or "malformed" in str(error)
    else:
        assert MIN_EPOCH_MS <= time_ms <= MAX_EPOCH_MS


@pytest.mark.parametrize(
    "fields",
    [
        {"occurredAt": SECRET},
        {"occurredAt": [SECRET]},
        {"activityId": {SECRET: SECRET}},
        {"globalUserId": [SECRET]},
        {"context": SECRET},
        {"context": {"ipAddress": {SECRET: 1}}},
        {"attributes": SECRET},
        {"activityType": [SECRET]},
    ],
)
def test_errors_never_repeat_the_value(fields):
    with pytest.raises(MalformedRecordError) as caught:
        _ = decode_activity(record(**fields)).time_ms
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_place_of_a_type_is_its_number():
    # Stored profiles refer to these numbers: appending is the only change this test may see.
    assert ACTIVITY_TYPES[:4] == ("signUp", "login", "passwordReset", "pageView")
    assert ACTIVITY_TYPES[10:] == ("purchase", "verifiedFanEntry", "journeyStep", "demandSignal")
    assert {ACTIVITY_TYPES[index]: index for index in range(len(ACTIVITY_TYPES))} == TYPE_INDEX


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (NOON, NOON),
        (float(NOON), NOON),
        (1.999, 1),
        (-0.5, -1),
        (str(NOON), NOON),
        (f"  {NOON}\n", NOON),
        ("-1", -1),
        ("0", 0),
        ("2024-06-14T12:00:00Z", NOON),
        ("2024-06-14T12:00:00", NOON),
        ("2024-06-14 12:00", NOON),
        ("2024-06-14T14:00:00+02:00", NOON),
        ("2024-06-14T06:30:00.000-05:30", NOON),
        ("2024-06-14T12:00:00.123999Z", NOON + 123),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2024-06-14", NOON - 12 * 3_600_000),
        ("20240614", NOON - 12 * 3_600_000),
        ("20240614T120000Z", NOON),
        ("2024061", 2_024_061),
        ("202406140", 202_406_140),
        ("0001-01-01T00:00:00Z", MIN_EPOCH_MS),
        ("9999-12-31T23:59:59.999Z", MAX_EPOCH_MS),
        (MIN_EPOCH_MS, MIN_EPOCH_MS),
        (MAX_EPOCH_MS, MAX_EPOCH_MS),
    ],
)
def test_times_are_read_as_epoch_milliseconds(value, milliseconds):
    assert parse_time_ms(value) == milliseconds


def test_a_time_without_offset_is_utc_wherever_the_program_runs(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        read = parse_time_ms("2024-06-14T12:00:00")
    time.tzset()
    assert read == NOON


@pytest.mark.parametrize(
    "value",
    [
        MIN_EPOCH_MS - 1,
        MAX_EPOCH_MS + 1,
        str(MAX_EPOCH_MS + 1),
        str(MIN_EPOCH_MS - 1),
        "9" * 5_000,  # int() of so many digits would be slow, and refuse with the digits in its message
        1e300,
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        10**30,
    ],
)
def test_times_outside_the_years_1_to_9999_are_malformed(value):
    with pytest.raises(MalformedRecordError, match="outside the years 1 to 9999"):
        parse_time_ms(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_time_that_is_no_finite_number_is_malformed(value):
    with pytest.raises(MalformedRecordError, match="not a finite number"):
        parse_time_ms(value)


@pytest.mark.parametrize(
    "value",
    ["", "  ", "yesterday", "20241314", "2024-02-30", "--5", "+5", "1_000", "1e3", "٢٠٢٤", "²", "12:00", "\x00"],
)
def test_a_text_that_is_no_time_is_malformed(value):
    with pytest.raises(MalformedRecordError, match="neither ISO 8601 nor epoch milliseconds"):
        parse_time_ms(value)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_malformed(text):
    try:
        assert MIN_EPOCH_MS <= parse_time_ms(text) <= MAX_EPOCH_MS
    except MalformedRecordError as error:
        # One of two fixed sentences: nothing of the text is in it.
        assert str(error) in {
            "occurredAt is neither ISO 8601 nor epoch milliseconds",
            "occurredAt is outside the years 1 to 9999",
        }


@given(TIMES)
@example(-1)
@example(MIN_EPOCH_MS)
@example(MAX_EPOCH_MS)
def test_what_is_written_is_read_back(milliseconds):
    written = format_time_ms(milliseconds)
    assert parse_time_ms(written) == milliseconds
    assert len(written) == len("2024-06-14T11:00:00.123Z")


@given(TIMES, TIMES)
def test_order_of_text_is_order_of_time(one, other):
    assert (format_time_ms(one) < format_time_ms(other)) == (one < other)


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),
    st.integers(-23 * 60, 23 * 60),
)
def test_an_offset_names_the_same_moment(moment, offset_minutes):
    here = moment.replace(tzinfo=UTC)
    there = here.astimezone(timezone(timedelta(minutes=offset_minutes)))
    assert parse_time_ms(there.isoformat()) == parse_time_ms(moment.isoformat()) == parse_time_ms(here.isoformat())


@given(TIMES)
def test_digits_and_numbers_mean_the_same(milliseconds):
    assert parse_time_ms(float(milliseconds)) == milliseconds  # 2**53 is beyond the year 9999
    digits = str(milliseconds)
    if len(digits.lstrip("-")) != 8:
        assert parse_time_ms(digits) == milliseconds


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (b'{"activityId":"a-1","globalUserId":7}', "a-1"),
        (b'{"activityId":7}', None),
        (b'{"activityId":"a-1"', None),
        (b"[" * 100_000, None),
        (b'{"activityId":"\xed\xa0\x80"}', None),
    ],
)
def test_the_id_of_a_malformed_record_is_read_where_it_can_be(record, name):
    assert readable_activity_id(record) == name
