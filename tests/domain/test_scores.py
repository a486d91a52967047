"""Stored scores: they add up exactly, have stable keys, and the cache keeps the reference's fields."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.keys import score_sk
from fan_identity.domain.messages import ScoringMessage
from fan_identity.domain.profile import FEATURES, Profile
from fan_identity.domain.scorecard import ModelScore, Reason
from fan_identity.domain.scores import (
    STORED_REASONS,
    cache_entry,
    latest_item,
    score_item,
    stored_reasons,
    version_of,
)
from fan_identity.io.model import EmbeddedModel

SCORECARD = EmbeddedModel.packaged().scorecard
NOON = 1_718_366_400_000
VALUES = st.one_of(
    st.none(), st.integers(0, 1_000), st.integers(0, 1_000).map(lambda mille: mille / 1_000), st.floats(0, 1e6)
)
PROFILES = st.tuples(*[VALUES for _ in FEATURES]).map(lambda values: Profile(NOON, values))


def message(user="fan-1", activity_id="a1", time_ms=NOON):
    return ScoringMessage(
        global_user_id=user,
        activity_id=activity_id,
        activity_type="login",
        occurred_at=time_ms,
        request_id="r1",
        worker="enqueueFromStream",
        activity=msgspec.Raw(b"{}"),
    )


def reasons(number):
    return tuple(Reason(f"CODE_{at}", f"feature{at}", float(at), (number - at) / 100) for at in range(number))


def score(number=7):
    return ModelScore(
        account_score=round(50 + sum(reason.points for reason in reasons(number)), 2),
        arm_risk=3,
        bon_score=0.25,
        base_score=50.0,
        reasons=reasons(number),
        model_version="m-1",
    )


@given(PROFILES)
def test_base_reasons_and_others_add_up_exactly(profile):
    item = score_item(message(), SCORECARD.score(profile), "scoreUsers", NOON)
    hundredths = [round(100 * reason["points"]) for reason in item["reasons"]]
    whole = round(100 * item["baseScore"]) + sum(hundredths) + round(100 * item["otherPoints"])
    assert whole == round(100 * item["accountScore"])
    # Nothing was rounded away: every number stored is a whole number of hundredths.
    for number in (item["baseScore"], item["otherPoints"], item["accountScore"]):
        assert number == round(100 * number) / 100
    assert len(item["reasons"]) <= STORED_REASONS
    sizes = [abs(points) for points in hundredths]
    assert sizes == sorted(sizes, reverse=True)


def test_an_item_says_all_of_a_score():
    assert score_item(message(), score(), "scoreUsers", NOON + 60_000) == {
        "PK": "USER#fan-1",
        "SK": score_sk(NOON, "a1"),
        "type": "score",
        "globalUserId": "fan-1",
        "activityId": "a1",
        "activityType": "login",
        "occurredAt": "2024-06-14T12:00:00.000Z",
        "accountScore": 50.28,
        "armRisk": 3,
        "bonScore": 0.25,
        "clusterId": None,
        "modelVersion": "m-1",
        "reasons": [{"code": f"CODE_{at}", "value": float(at), "points": (7 - at) / 100} for at in range(5)],
        "baseScore": 50.0,
        "otherPoints": 0.03,
        "requestId": "r1",
        "worker": "scoreUsers",
        "dateUpdated": "2024-06-14T12:01:00.000Z",
    }


@pytest.mark.parametrize("number", [0, 1, STORED_REASONS])
def test_where_all_reasons_are_stored_nothing_is_left(number):
    item = score_item(message(), score(number), "w", NOON)
    assert len(item["reasons"]) == number
    assert item["otherPoints"] == 0


def test_only_what_names_the_run_changes_when_scored_again():
    first = score_item(message(), score(), "w", NOON)
    again = score_item(msgspec.structs.replace(message(), request_id="r2"), score(), "w", NOON + 1)
    assert {name for name in first if first[name] != again[name]} == {"requestId", "dateUpdated"}


def test_the_latest_item_is_the_score_under_a_fixed_key():
    item = score_item(message(), score(), "w", NOON)
    latest = latest_item(item)
    assert (latest["PK"], latest["SK"], latest["scoreSK"]) == ("USER#fan-1", "LATEST", item["SK"])
    rest = {name: value for name, value in latest.items() if name not in {"SK", "scoreSK"}}
    assert rest == {name: value for name, value in item.items() if name != "SK"}
    assert item["SK"] == score_sk(NOON, "a1"), "the score itself is left alone"


def test_the_cache_value_has_the_references_four_fields_first():
    entry = cache_entry(score_item(message(), score(), "w", NOON), version_of(message()), NOON)
    assert entry.key == "user:fan-1"
    assert entry.version == version_of(message())
    assert list(entry.value.items()) == [
        ("global_user_id", "fan-1"),
        ("arm_risk", 3),
        ("timestamp", NOON),
        ("score_date", "2024-06-14"),
        ("modelVersion", "m-1"),
        ("reasons", ["CODE_0", "CODE_1", "CODE_2", "CODE_3", "CODE_4"]),
    ]


def test_a_hashed_user_keeps_its_own_id_in_the_values():
    long = "x" * 2_000
    item = score_item(message(long), score(), "w", NOON)
    assert item["globalUserId"] == long
    entry = cache_entry(item, version_of(message(long)), NOON)
    assert entry.value["global_user_id"] == long
    assert len(entry.key) < 100


def test_a_later_activity_has_the_greater_version():
    assert version_of(message()) < version_of(message(time_ms=NOON + 1, activity_id="a0"))
    assert version_of(message()) < version_of(message(activity_id="a2"))


@given(PROFILES)
def test_stored_reasons_are_read_back(profile):
    result = SCORECARD.score(profile)
    stored = msgspec.json.decode(msgspec.json.encode(score_item(message(), result, "w", NOON)))
    assert stored_reasons(stored) == list(result.reasons[:STORED_REASONS])


def test_a_reason_of_another_model_is_named_by_its_code():
    item = {"reasons": [{"code": "NEW_CODE", "value": None, "points": -1.5}]}
    assert stored_reasons(item) == [Reason("NEW_CODE", "NEW_CODE", None, -1.5)]
