"""Messages that no activity caused: on-demand requests, rescore requests, verification results."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import MalformedRecordError, format_time_ms
from fan_identity.domain.messages import Cause, caused_by, decode_message, decode_request, encode_message
from fan_identity.domain.rescoring import decode_rescore_request, request_for, rescore_message, rescore_time_ms, selects
from fan_identity.domain.verification import Status, decode_verification, newest_verification_item, verification_item

NOW = 1_764_064_800_000


def test_a_user_alone_is_a_request_to_score_now():
    message = decode_request(b'{"globalUserId":"u","why":"checkout"}', "m1", NOW, "r1")
    assert (message.cause, message.global_user_id, message.occurred_at) == (Cause.ON_DEMAND, "u", NOW)
    assert (message.activity_id, message.request_id) == ("onDemand:m1", "r1")
    assert decode_request(b'{"globalUserId":"u","requestId":"own"}', "m1", NOW, "r1").request_id == "own"


@given(
    st.text(min_size=1).filter(str.strip), st.sampled_from([cause for cause in Cause if cause is not Cause.ACTIVITY])
)
def test_a_message_without_an_activity_survives_the_queue(user, cause):
    message = caused_by(cause, user, "name", NOW, "r")
    assert decode_message(encode_message(message)) == message
    assert decode_request(encode_message(message), "m", 0, "other") == message


@pytest.mark.parametrize("body", [b"", b"{}", b'{"globalUserId":" "}', b'{"globalUserId":1}', b'{"activityId":"a"}'])
def test_what_is_neither_is_malformed(body):
    with pytest.raises(MalformedRecordError):
        decode_request(body, "m", NOW, "r")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}",
        b'{"rescoreId":"r"}',
        b'{"rescoreId":" ","users":["u"]}',
        b'{"rescoreId":"r","users":["u"],"clusterId":"c"}',
        b'{"rescoreId":"r","users":[" "]}',
        b'{"rescoreId":"r","users":"u"}',
        b'{"rescoreId":"r","users":["u"],"requestedAt":"soon"}',
        b'{"rescoreId":"r","users":["u"],"scoredFrom":0}',
        b'{"rescoreId":"r","modelVersion":"m","scoredTo":0}',
        b'{"rescoreId":"r","scoredFrom":"soon"}',
        b'{"rescoreId":"r","scoredFrom":2,"scoredTo":2}',
        b'{"rescoreId":"r","scoredFrom":3,"scoredTo":2}',
    ],
)
def test_a_request_names_its_users_in_one_way(body):
    with pytest.raises(MalformedRecordError):
        decode_rescore_request(body)


def test_users_are_selected_by_cluster_or_model():
    latest = {"clusterId": "c", "modelVersion": "m"}
    by_cluster = decode_rescore_request(b'{"rescoreId":"r","clusterId":"c"}')
    by_model = decode_rescore_request(b'{"rescoreId":"r","modelVersion":"other"}')
    assert (selects(by_cluster, latest), selects(by_model, latest)) == (True, False)
    assert selects(by_cluster, {"clusterId": None}) is False


def test_a_time_that_is_none_is_called_by_its_name():
    with pytest.raises(MalformedRecordError, match="scoredTo is neither"):
        decode_rescore_request(b'{"rescoreId":"r","scoredTo":"later"}')


@given(st.integers(0, 10), st.none() | st.integers(0, 10), st.none() | st.integers(0, 10))
def test_users_are_selected_by_the_time_of_their_latest_score(scored, begin, end):
    bounds = {"scoredFrom": begin, "scoredTo": end}
    given_bounds = {name: value for name, value in bounds.items() if value is not None}
    body = json.dumps({"rescoreId": "r", **given_bounds}).encode()
    if not given_bounds or (len(given_bounds) == 2 and begin >= end):
        with pytest.raises(MalformedRecordError):
            decode_rescore_request(body)
        return
    expected = (begin is None or scored >= begin) and (end is None or scored < end)
    assert selects(decode_rescore_request(body), {"occurredAt": format_time_ms(scored)}) is expected
    assert selects(decode_rescore_request(body), {}) is False


def test_one_users_share_of_a_request_is_a_request_with_the_same_score():
    request = decode_rescore_request(b'{"rescoreId":"r","clusterId":"c"}')
    time_ms = rescore_time_ms(request, NOW)
    alone = decode_rescore_request(request_for(request, "u", time_ms))
    assert alone.users == ("u",)
    assert rescore_message(alone, "u", rescore_time_ms(alone, 0), "x") == rescore_message(request, "u", time_ms, "x")


def event(**more):
    fields = {"verificationId": "v", "globalUserId": "u", "status": "PASSED", "occurredAt": NOW, **more}
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def test_a_verification_is_the_same_item_each_time_and_newer_by_its_time():
    first = decode_verification(event(), 0)
    assert first.status is Status.PASSED
    assert decode_verification(event(occurredAt=None), NOW) == first
    assert decode_verification(event(status="passed"), 0) == first
    item = verification_item(first, 1)
    assert {**item, "dateUpdated": 0} == {**verification_item(first, 2), "dateUpdated": 0}
    assert newest_verification_item([item])[1]["SK"] == "VERIFICATION"
    later = decode_verification(event(occurredAt=NOW + 1, status="FAILED"), 0)
    assert later.version > first.version


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        event(verificationId=" "),
        event(globalUserId=""),
        event(status="MAYBE"),
        event(occurredAt="soon"),
        event(status=1),
    ],
)
def test_an_unknown_status_or_a_broken_result_is_malformed(body):
    with pytest.raises(MalformedRecordError):
        decode_verification(body, NOW)
