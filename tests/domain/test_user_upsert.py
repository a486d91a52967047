"""What a fan entered: only known fields of the right types, keys of their own whatever the ids, newer by time, id."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import MalformedRecordError
from fan_identity.domain.keys import user_pk
from fan_identity.domain.user_upsert import PROFILE_SK, decode_upsert, profile_item, version_of_profile

NOW = 1_795_780_800_000
FIELDS = {"eventId": "e", "saleId": "s", "email": "f@example.com", "phoneNumber": "1", "postalCode": "2"}


def detail(**more):
    return json.dumps({"globalUserId": "u", "messageId": "m1", "occurredAt": NOW, **more}).encode()


def test_what_is_listed_is_kept_and_nothing_else():
    sent = detail(
        **FIELDS,
        memberId="m",
        marketingConsent=False,
        PK="USER#other",
        SK="LATEST",
        type="score",
        isAdmin=True,
        armRisk=1,
    )
    assert profile_item(decode_upsert(sent), NOW + 1) == {
        "PK": "USER#u",
        "SK": PROFILE_SK,
        "type": "profile",
        "globalUserId": "u",
        "messageId": "m1",
        **FIELDS,
        "memberId": "m",
        "marketingConsent": False,
        "occurredAt": "2026-11-27T12:00:00.000Z",
        "dateUpdated": "2026-11-27T12:00:00.001Z",
    }
    assert "email" not in profile_item(decode_upsert(detail()), NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        detail(globalUserId=" "),
        detail(messageId=""),
        detail(messageId=None),
        detail(occurredAt=None),
        detail(occurredAt="soon"),
        detail(occurredAt=10**40),
        detail(email=["a"]),
        detail(email={"a": 1}),
        detail(marketingConsent="yes"),
        detail(marketingConsent=1),
        detail(memberId=1),
        b'{"globalUserId":"u","messageId":"m","occurredAt":1,"email":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_anything_else_is_malformed(body):
    with pytest.raises(MalformedRecordError) as caught:
        decode_upsert(body)
    assert "soon" not in str(caught.value)


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_ids_are_data(user):
    for hostile in (user, user + "\0", "#" + user, user * 2_000):
        item = profile_item(decode_upsert(detail(globalUserId=hostile)), NOW)
        assert (item["PK"], item["SK"]) == (user_pk(hostile), PROFILE_SK)


@given(st.lists(st.tuples(st.integers(NOW, NOW + 2), st.text(min_size=1).filter(str.strip)), min_size=2, max_size=2))
def test_newer_is_by_time_then_id_and_an_item_remembers_it(moments):
    first, second = (decode_upsert(detail(occurredAt=at, messageId=name)) for at, name in moments)
    assert version_of_profile(profile_item(first, NOW)) == first.version
    if moments[0][0] != moments[1][0]:
        assert (first.version < second.version) == (moments[0][0] < moments[1][0])
    assert (first.version == second.version) == (moments[0] == moments[1])
