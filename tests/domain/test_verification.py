"""Verification results: hostile ones, their order, and which of them says who a fan is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import MalformedRecordError
from fan_identity.domain.event_signature import signature_of
from fan_identity.domain.events import RefusedEventError
from fan_identity.domain.keys import user_pk
from fan_identity.domain.verification import (
    CONSUMED_SK,
    MAX_AGE_MS,
    RESULT_PREFIX,
    VERIFIED_SK,
    Status,
    Verification,
    deciding,
    decode_verification,
    newest_verification_item,
    result_sk,
    verification_item,
    verification_of,
)

NOW = 1_795_780_800_000
DAY = 24 * 60 * 60_000

RESULTS = st.builds(
    Verification,
    st.sampled_from(["v1", "v2", "v3"]),
    st.just("fan-1"),
    st.sampled_from(Status),
    st.integers(NOW - 3, NOW + 3) | st.integers(NOW - 2 * MAX_AGE_MS, NOW + DAY),
)


def event(**more):
    fields = {"verificationId": "v", "globalUserId": "u", "status": "PASSED", "occurredAt": NOW, **more}
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def result(name, status, time_ms=NOW):
    return Verification(name, "fan-1", Status[status], time_ms)


@pytest.mark.parametrize(
    "status",
    [
        "pa\u00dfed",  # its upper case is PASSED
        "\u0420ASSED",  # a Cyrillic letter
        "PASSED\u200b",
        "\uff30ASSED",
        "PASSED\0",
        " PASSED",
        "PASSED " * 10_000,
        "",
        "UNKNOWN",
        "__class__",
        "name",
    ],
)
def test_a_status_that_only_looks_like_one_is_none(status):
    with pytest.raises(MalformedRecordError, match="status is none of"):
        decode_verification(event(status=status), 0)


@pytest.mark.parametrize(
    "body",
    [
        event(occurredAt=10**400),
        event(occurredAt=-(10**400)),
        event(occurredAt=True),
        event(occurredAt=[NOW]),
        event(occurredAt="9" * 10_000),
        event(occurredAt="1e3"),
        event().replace(str(NOW).encode(), b"1e999"),
        event().replace(str(NOW).encode(), b"NaN"),
        event(globalUserId={"a": 1}),
        event(globalUserId=" \t\n"),
        event(verificationId=7),
        event(provider={}),
        event(signature=1),
        b'{"globalUserId":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"verificationId":"v","globalUserId":"\\ud800","status":"PASSED"}',
        b'{"verificationId":"v","globalUserId":"\xff","status":"PASSED"}',
        b"\0",
        b"null",
        b'"PASSED"',
    ],
)
def test_what_is_broken_is_malformed_and_its_values_are_not_repeated(body):
    with pytest.raises(MalformedRecordError) as caught:
        decode_verification(body, NOW)
    assert len(str(caught.value)) < 200


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_ids_are_data(user, name):
    for hostile in (user, user + "\0", "#" + user, user * 2_000):
        read = decode_verification(event(globalUserId=hostile, verificationId=name), 0)
        item = verification_item(read, NOW)
        assert item["PK"] == user_pk(hostile) and len(item["PK"].encode()) <= 2_048
        assert item["SK"].startswith(RESULT_PREFIX) and item["SK"] not in (VERIFIED_SK, CONSUMED_SK)
        assert verification_of(newest_verification_item([item])[1]) == read


def test_a_signature_is_asked_for_where_there_are_secrets_and_only_there():
    signature = signature_of(("v", "u", "passed", NOW), "old")
    signed = event(status="passed", signature=signature)
    assert decode_verification(signed, 0, ["new", "old"]) == decode_verification(signed, 0)
    for body in (event(), event(signature=signature), event(status="passed", globalUserId="w", signature=signature)):
        with pytest.raises(RefusedEventError, match="sign"):
            decode_verification(body, 0, ["new", "old"])
    assert decode_verification(event(signature="whatever"), 0).status is Status.PASSED


def test_of_one_moment_a_check_that_began_is_older_than_its_end_and_doubt_is_newest():
    order = [result("v", name) for name in ("PENDING", "CANCELLED", "PASSED", "EXPIRED", "FAILED")]
    assert sorted(order, key=lambda each: each.version) == order
    assert result("z", "PENDING").version < result("a", "PASSED").version < result("a", "PENDING", NOW + 1).version
    assert len({result_sk(each) for each in order}) == len(order)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([("a", "PASSED", 1)], "PASSED"),
        ([("a", "PASSED", 1), ("b", "FAILED", 2)], "FAILED"),
        ([("a", "FAILED", 1), ("b", "PASSED", 2)], "PASSED"),
        ([("a", "FAILED", 1), ("b", "PENDING", 2)], "FAILED"),
        ([("a", "FAILED", 1), ("b", "PENDING", 2), ("b", "CANCELLED", 3)], "FAILED"),
        ([("a", "FAILED", 1), ("b", "EXPIRED", 2)], "FAILED"),
        ([("a", "PASSED", 1), ("a", "EXPIRED", 2)], None),
        ([("a", "PENDING", 1), ("a", "PASSED", 2)], "PASSED"),
        ([("b", "FAILED", 0), ("a", "PASSED", 1), ("a", "EXPIRED", 2)], "FAILED"),
        ([("a", "PENDING", 1)], None),
        ([("a", "CANCELLED", 1)], None),
        ([], None),
    ],
)
def test_which_result_says_who_a_fan_is(results, expected):
    found = deciding([result(name, status, NOW + at) for name, status, at in results], NOW + 10)
    assert (found and found.status.value) == expected


def test_later_results_are_not_known_yet_and_old_ones_count_no_more():
    old, new = result("a", "PASSED"), result("b", "FAILED", NOW + 5)
    assert deciding([old, new], NOW + 4) == old
    assert deciding([old, new], NOW + 5) == new
    assert deciding([old], NOW - 1) is None
    assert deciding([old], NOW + MAX_AGE_MS) == old
    assert deciding([old], NOW + MAX_AGE_MS + 1) is None


@given(st.lists(RESULTS, max_size=8), st.integers(NOW - 5, NOW + 5), st.randoms())
def test_which_result_decides_does_not_depend_on_order_duplicates_or_what_comes_later(results, as_of, random):
    found = deciding(results, as_of)
    mixed = results * 2
    random.shuffle(mixed)
    assert deciding(mixed, as_of) == found
    assert deciding([each for each in results if each.time_ms <= as_of], as_of) == found
    if found is not None:
        assert found.status in (Status.PASSED, Status.FAILED)
        same = [each for each in results if each.verification_id == found.verification_id and each.time_ms <= as_of]
        assert found.version == max(each.version for each in same)


@given(st.lists(RESULTS, max_size=8))
def test_a_check_begun_or_called_off_after_all_others_changes_nothing(results):
    as_of = NOW + 10 * DAY
    more = [result("another", status, as_of) for status in ("PENDING", "CANCELLED", "EXPIRED")]
    assert deciding([*results, *more], as_of) == deciding(results, as_of)
