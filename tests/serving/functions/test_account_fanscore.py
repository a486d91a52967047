import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.access import CallerKind, Identity
from fan_identity.domain.demand import DISCO_SK, EVENT_SK, event_pk
from fan_identity.domain.keys import ACTIVE_SK, BON_IMPORT_PK, LATEST_SK, MEMBER_SCORE_SK, bon_sk, member_pk, user_pk
from fan_identity.serving.context import FunctionError, Request
from fan_identity.serving.data_sources import ArmScore
from fan_identity.serving.resolvers import ACCOUNT_FANSCORE

from ..fakes import SERVICE, all_of, fan, memory_sources

QUERY = """
query ($user: ID!, $event: ID, $member: ID) {
  api {
    accountFanscore(globalUserId: $user, eventId: $event, memberId: $member) {
      score rawScore boosts { arm event model }
    }
  }
}
"""
EXAMPLE = {"user": "user123", "event": "evt456"}


def score_of(answer):
    return answer["data"]["api"]["accountFanscore"]


def test_the_references_example(filled):
    answer = filled.query(QUERY, variables=EXAMPLE)
    assert answer == {
        "status": 200,
        "data": {
            "api": {"accountFanscore": {"score": 87, "rawScore": 75, "boosts": {"arm": 5, "event": 4, "model": 3}}}
        },
    }


def test_a_score_found_by_user_spares_the_question_by_member(filled):
    filled.query(QUERY, variables=EXAMPLE | {"member": "member-1"})
    assert filled.sources.account_fanscore.calls == 0


def test_a_fan_without_a_score_of_their_own_has_the_members(filled):
    del filled.sources.fan_identity.items[user_pk("user123"), LATEST_SK]
    answer = filled.query(QUERY, variables=EXAMPLE | {"member": "member-1"})
    assert score_of(answer) == {"score": 67, "rawScore": 55, "boosts": {"arm": 5, "event": 4, "model": 3}}


def test_a_fan_cannot_have_another_members_score_by_naming_them(filled):
    del filled.sources.fan_identity.items[user_pk("user123"), LATEST_SK]
    answer = filled.query(QUERY, fan("user123", member_id="member-2"), EXAMPLE | {"member": "member-1"})
    assert score_of(answer) is None
    answer = filled.query(QUERY, fan("user123", member_id="member-1"), EXAMPLE)
    assert score_of(answer)["rawScore"] == 55


def test_without_an_active_import_the_bot_score_is_the_newest_score_of_the_fan(filled):
    del filled.sources.fan_identity.items[BON_IMPORT_PK, ACTIVE_SK]
    filled.sources.fan_identity.add(user_pk("user123"), "SCORE#2026-01-01", bonScore=0.05)
    filled.sources.fan_identity.add(user_pk("user123"), "SCORE#2026-01-02", bonScore=0.6)
    assert score_of(filled.query(QUERY, variables=EXAMPLE))["boosts"]["model"] == -10


def test_without_an_event_there_is_no_boost_for_one(filled):
    answer = filled.query(QUERY, variables={"user": "user123"})
    assert score_of(answer)["boosts"] == {"arm": 5, "event": 0, "model": 3}
    assert filled.sources.demand.calls == 0


def test_an_event_that_is_not_mapped_goes_by_its_own_id(filled):
    filled.sources.demand.add(event_pk("evt-9"), EVENT_SK, demandLevel="medium")
    answer = filled.query(QUERY, variables={"user": "user123", "event": "evt-9"})
    assert score_of(answer)["boosts"]["event"] == 2


def test_an_unknown_fan_is_null(api):
    assert api.query(QUERY, variables=EXAMPLE) == {"status": 200, "data": {"api": {"accountFanscore": None}}}


@pytest.mark.parametrize(
    ("away", "boosts"),
    [
        ("arm", {"arm": 0, "event": 4, "model": 3}),
        ("demand", {"arm": 5, "event": 0, "model": 3}),
    ],
)
def test_a_source_that_is_away_costs_its_boost_and_is_named(filled, away, boosts):
    getattr(filled.sources, away).down = True
    answer = filled.query(QUERY, variables=EXAMPLE)
    assert score_of(answer)["boosts"] == boosts
    assert answer["extensions"] == {"degraded": [away]}
    assert "errors" not in answer


def test_with_the_identity_table_away_the_members_score_answers(filled):
    filled.sources.fan_identity.down = True
    answer = filled.query(QUERY, fan("user123", member_id="member-1"), EXAMPLE)
    assert score_of(answer) == {"score": 64, "rawScore": 55, "boosts": {"arm": 5, "event": 4, "model": 0}}
    assert answer["extensions"] == {"degraded": ["fan_identity"]}


def test_no_score_and_a_table_away_is_an_error_not_null(filled):
    filled.sources.fan_identity.down = True
    answer = filled.query(QUERY, variables=EXAMPLE)
    assert answer["data"] == {"api": {"accountFanscore": None}}
    (error,) = answer["errors"]
    assert error == {
        "message": "fan_identity is not available at the moment; try again",
        "errorType": "503",
        "errorInfo": {"code": "UNAVAILABLE"},
        "path": ["api", "accountFanscore"],
    }


def test_data_sources_are_asked_at_once(filled):
    for source in all_of(filled.sources):
        source.seconds = 0.02
    filled.query(QUERY, variables=EXAMPLE)
    assert filled.sources.fan_identity.in_flight_max == 2
    asked = filled.requests[-1].asked
    assert sum(one.milliseconds for one in asked) > 1.5 * max(one.milliseconds for one in asked)


attributes = st.one_of(st.none(), st.just("text"), st.floats(0, 100), st.integers(-5, 200))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_identical_to_asking_one_after_the_other(data):
    """Whatever the tables hold and whoever is away."""
    sources = memory_sources()
    draw = data.draw
    if draw(st.booleans()):
        sources.fan_identity.add(user_pk("u"), LATEST_SK, accountScore=draw(attributes), bonScore=draw(attributes))
    if draw(st.booleans()):
        sources.fan_identity.add(BON_IMPORT_PK, ACTIVE_SK, importVersion=draw(st.sampled_from(["v1", None, 3])))
    sources.fan_identity.add(user_pk("u"), bon_sk("v1"), bonScore=draw(attributes))
    sources.fan_identity.add(user_pk("u"), "SCORE#1", bonScore=draw(attributes))
    if draw(st.booleans()):
        sources.account_fanscore.add(member_pk("m"), MEMBER_SCORE_SK, score=draw(attributes), rawScore=draw(attributes))
    if draw(st.booleans()):
        sources.demand.add(event_pk("e"), DISCO_SK, discoEventId=draw(st.sampled_from(["d", "", None])))
    level = draw(st.sampled_from(["low", "high", None, 7]))
    sources.demand.add(event_pk("d"), EVENT_SK, demandLevel=level)
    if draw(st.booleans()):
        sources.arm.scores["u"] = ArmScore(draw(st.integers(1, 5)))
    for source in all_of(sources):
        source.down = draw(st.sampled_from([False, False, False, True]))
    args = {"globalUserId": "u", "eventId": draw(st.sampled_from(["e", None])), "memberId": "m"}
    identity = draw(st.sampled_from([SERVICE, fan("u", member_id="m"), Identity(CallerKind.USER, "u")]))

    async def ended(side_by_side):
        request = Request(sources, identity)
        try:
            result = await ACCOUNT_FANSCORE.run(args, request, side_by_side=side_by_side)
        except FunctionError as error:
            result = error.shown()
        return result, request.degraded, [(one.function, one.outcome) for one in request.asked]

    assert asyncio.run(ended(True)) == asyncio.run(ended(False))
