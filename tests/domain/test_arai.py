"""ARAI responses, and the change records that carry them."""

import json

import pytest

from fan_identity.domain.activity import MalformedRecordError, parse_time_ms
from fan_identity.domain.arai import arai_item, arai_of
from fan_identity.domain.arai_changes import select_arai_response
from fan_identity.domain.messages import Cause
from fan_identity.domain.profile import FEATURES

NOW = 1_764_064_800_000


def test_features_are_taken_by_their_names_and_the_rest_is_unknown():
    response = {"features": {"activityCount": 7, "failureShare": 0.25, "unheardOf": "x"}, "accountAge": 3}
    arai = arai_of(response, NOW)
    known = {name: value for name, value in zip(FEATURES, arai.profile.values, strict=True) if value is not None}
    assert known == {"activityCount": 7, "failureShare": 0.25}
    assert (arai.profile.as_of_ms, arai.response) == (NOW, response)
    assert set(arai_of({}, NOW).profile.values) == {None}


@pytest.mark.parametrize("value", ["7", True, float("nan"), float("inf"), [1], {}])
def test_a_feature_that_is_no_number_is_malformed(value):
    with pytest.raises(MalformedRecordError, match=r"features\.activityCount"):
        arai_of({"features": {"activityCount": value}}, NOW)


def test_features_that_are_no_object_are_malformed():
    with pytest.raises(MalformedRecordError, match="features is not an object"):
        arai_of({"features": [1]}, NOW)


def change(name="INSERT", **image):
    full = {
        "PK": {"S": "USER#u1"},
        "SK": {"S": "ARAI#2025-11-25T10:00:00.000Z"},
        "type": {"S": "arai"},
        "globalUserId": {"S": "u1"},
        "dateUpdated": {"S": "2025-11-25T10:00:00.000Z"},
        "araiResponse": {"M": {"features": {"M": {"activityCount": {"N": "7"}}}}},
        **image,
    }
    kept = {key: value for key, value in full.items() if value is not None}
    return json.dumps({"eventName": name, "eventID": "e", "dynamodb": {"NewImage": kept}}).encode()


@pytest.mark.parametrize("name", ["INSERT", "MODIFY"])
def test_a_new_arai_response_scores_its_user(name):
    selected = select_arai_response(change(name), "r1")
    message = selected.message
    assert (message.global_user_id, message.cause, message.activity_type) == ("u1", Cause.ARAI_CHANGE, "araiChange")
    assert (message.occurred_at, message.request_id) == (parse_time_ms("2025-11-25T10:00:00Z"), "r1")
    assert selected.arai.profile.values[FEATURES.index("activityCount")] == 7


def test_the_item_written_is_the_item_read():
    item = arai_item("u1", {"features": {"activityCount": 7}}, NOW)
    assert (item["PK"], item["SK"], item["type"]) == ("USER#u1", "ARAI#2025-11-25T10:00:00.000Z", "arai")


@pytest.mark.parametrize(
    "record",
    [
        change("REMOVE"),
        change(type={"S": "score"}),
        change(type=None),
        b'{"eventName":"INSERT","dynamodb":{}}',
        b'{"eventName":"INSERT","dynamodb":{"NewImage":null}}',
    ],
)
def test_other_changes_are_passed_over(record):
    assert select_arai_response(record, "r") is None


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b'{"eventName":"INSERT"}',
        change(globalUserId=None),
        change(globalUserId={"S": " "}),
        change(dateUpdated=None),
        change(dateUpdated={"S": "yesterday"}),
        change(araiResponse={"S": "x"}),
        change(araiResponse={"M": {"features": {"M": {"activityCount": {"S": "7"}}}}}),
        change(extra="not typed"),
    ],
)
def test_an_arai_item_that_cannot_be_read_is_malformed(record):
    with pytest.raises(MalformedRecordError):
        select_arai_response(record, "r")
