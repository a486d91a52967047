import json
import logging
from pathlib import Path

import pytest
from graphql import build_ast_schema, get_introspection_query, parse

from fan_identity.domain.access import NOBODY
from fan_identity.domain.keys import LATEST_SK, user_pk
from fan_identity.serving.data_sources import ArmScore
from fan_identity.serving.graphql import engine as engine_module
from fan_identity.serving.graphql.executable import plain_schema, printed_schema

from ..fakes import API_KEY, KEY_WITHOUT_SCOPE, SERVICE, fan

ROOT = Path(__file__).parents[3]
ARM = "query ($u: ID!) { getArmScore(globalUserId: $u) }"
FAN = "query ($u: ID!) { fan(globalUserId: $u) { globalUserId armScore { score ageSeconds modelVersion stale } } }"


def test_the_exported_schema_is_the_one_in_the_documentation():
    assert printed_schema() == (ROOT / "docs" / "schema.graphql").read_text()


def test_arm_score(filled):
    assert filled.query(ARM, variables={"u": "user123"}) == {"status": 200, "data": {"getArmScore": 1}}


def test_an_unknown_fan_is_null_and_an_outage_an_error(filled):
    assert filled.query(ARM, variables={"u": "nobody"}) == {"status": 200, "data": {"getArmScore": None}}
    filled.sources.arm.down = True
    answer = filled.query(ARM, variables={"u": "nobody"})
    assert answer["data"] == {"getArmScore": None}
    assert answer["errors"][0]["errorInfo"] == {"code": "UNAVAILABLE"}


def test_age_and_model_on_request(filled):
    arm = filled.query(FAN, variables={"u": "user123"})["data"]["fan"]["armScore"]
    assert arm["ageSeconds"] > 0
    assert (arm["score"], arm["modelVersion"], arm["stale"]) == (1, "model-7", False)


@pytest.mark.parametrize("query", [ARM, FAN], ids=["getArmScore", "fan"])
@pytest.mark.parametrize(
    ("identity", "error_type", "code"),
    [
        (NOBODY, "401", "NOT_LOGGED_IN"),
        (fan("thief"), "403", "FORBIDDEN"),
        (KEY_WITHOUT_SCOPE, "403", "FORBIDDEN"),
    ],
    ids=["nobody", "another fan", "a key without the scope"],
)
def test_who_may_not_ask(filled, query, identity, error_type, code):
    answer = filled.query(query, identity, {"u": "user123"})
    (error,) = answer["errors"]
    assert (error["errorType"], error["errorInfo"]) == (error_type, {"code": code})
    assert filled.sources.arm.calls == 0


@pytest.mark.parametrize("identity", [fan(), SERVICE, API_KEY], ids=["the fan", "a service", "a key with the scope"])
def test_who_may_ask(filled, identity):
    assert filled.query(ARM, identity, {"u": "user123"})["data"] == {"getArmScore": 1}


THEFTS = {
    "alias": '{ mine: getArmScore(globalUserId: "thief") theirs: getArmScore(globalUserId: "user123") }',
    "fragment": '{ ...F } fragment F on Query { theirs: getArmScore(globalUserId: "user123") }',
    "inline fragment": '{ ... on Query { theirs: getArmScore(globalUserId: "user123") } }',
    "entities": '{ theirs: _entities(representations: [{__typename: "Fan", globalUserId: "user123"}])'
    " { ... on Fan { armScore { score } } } }",
    "fan": '{ theirs: fan(globalUserId: "user123") { armScore { score } } }',
    "fan score": '{ theirs: api { s: accountFanscore(globalUserId: "user123") { score } } }',
    "phone score of another": '{ theirs: api { phoneScore(phoneNumber: "1", globalUserId: "user123") { score } } }',
    "eligibility of another": '{ theirs: api { eligibility(eventId: "e", globalUserId: "user123") { eligible } } }',
    "other spellings": '{ a: getArmScore(globalUserId: "user123\\u0000") b: getArmScore(globalUserId: "USER123") }',
}


@pytest.mark.parametrize("way", THEFTS)
def test_another_fans_score_stays_theirs(filled, way):
    filled.query(ARM, fan(), {"u": "user123"})  # whatever could be cached is
    calls = filled.sources.arm.calls
    answer = filled.query(THEFTS[way], fan("thief"))
    assert any(error["errorType"] == "403" for error in answer["errors"])
    stolen = (answer["data"] or {}).get("theirs")
    assert stolen is None or not any(stolen.values())
    assert filled.sources.arm.calls <= calls + 1  # the thief's own
    assert all(name == "thief" or name not in str(answer["data"]) for name in ("user123",))


def test_another_fans_score_in_a_batch(filled):
    status, answers = filled.post(
        [{"query": ARM, "variables": {"u": name}} for name in ("thief", "user123")], fan("thief")
    )
    assert status == 200
    assert answers[0] == {"data": {"getArmScore": None}}
    assert answers[1]["data"] == {"getArmScore": None} and answers[1]["errors"][0]["errorType"] == "403"


def test_the_kept_document_does_not_carry_an_answer_to_the_next_caller(filled):
    assert filled.query(ARM, fan(), {"u": "user123"})["data"] == {"getArmScore": 1}
    answer = filled.query(ARM, fan("thief"), {"u": "user123"})
    assert answer["data"] == {"getArmScore": None} and answer["errors"][0]["errorType"] == "403"


def test_event_details_are_shared_but_not_with_strangers(filled):
    query = '{ demand(eventId: "evt456") { eventId discoEventId demandLevel eventDetails { name } } }'
    filled.sources.event_details.find = lambda asked: {"eventId": asked["eventId"], "name": "The Concert"}
    assert filled.query(query, KEY_WITHOUT_SCOPE)["data"]["demand"] == {
        "eventId": "evt456",
        "discoEventId": "disco-1",
        "demandLevel": "high",
        "eventDetails": {"name": "The Concert"},
    }
    calls = filled.sources.demand.calls
    assert filled.query(query, NOBODY)["errors"][0]["errorType"] == "401"
    assert filled.sources.demand.calls == calls


UPSTREAMS = {
    "campaigns": ('{ campaign(campaignId: "c") { campaignId name } }', {"campaignId": "c", "name": "n"}),
    "phone_scores": ('{ phoneScore(phoneNumber: "+1") { score riskLevel } }', {"score": 80.0, "riskLevel": "low"}),
    "eligibility": ('{ eligibility(eventId: "e") { eligible reason } }', {"eligible": True, "reason": None}),
    "lnaa": ('{ artist(artistId: "a") { artistId name } }', {"artistId": "a", "name": "n"}),
}


@pytest.mark.parametrize("name", UPSTREAMS)
def test_upstreams(filled, name):
    query, answer = UPSTREAMS[name]
    query = "{ api " + query + " }"
    source = getattr(filled.sources, name)
    source.find = lambda _: {**answer, "secret": "not asked for"}
    (shown,) = filled.query(query, fan())["data"]["api"].values()
    assert shown == answer
    source.find = lambda _: None
    assert list(filled.query(query, fan())["data"]["api"].values()) == [None]
    source.down = True
    down = filled.query(query, fan())
    assert down["errors"][0]["errorType"] == "503" and name in down["errors"][0]["message"]
    assert filled.query(query, NOBODY)["errors"][0]["errorType"] == "401"


def test_one_upstream_that_is_away_leaves_the_others(filled):
    filled.sources.campaigns.down = True
    filled.sources.lnaa.find = lambda _: {"artistId": "a", "name": "n"}
    answer = filled.query('{ api { campaign(campaignId: "c") { name } artist(artistId: "a") { name } } }', fan())
    assert answer["data"] == {"api": {"campaign": None, "artist": {"name": "n"}}}
    assert [error["path"] for error in answer["errors"]] == [["api", "campaign"]]


def test_introspection_is_for_development(api, development):
    for query in (get_introspection_query(), "{ __schema { types { name } } }", '{ __type(name: "Fan") { name } }'):
        assert api.query(query)["status"] == 400
        assert "data" in development.query(query) and "errors" not in development.query(query)
    assert api.query("{ __typename }")["data"] == {"__typename": "Query"}


def test_errors_do_not_suggest_names_in_production(api, development):
    assert "getArmScore" not in json.dumps(api.query('{ getArmScor(globalUserId: "a") }'))
    assert "getArmScore" in json.dumps(development.query('{ getArmScor(globalUserId: "a") }'))


def test_the_subgraph_schema_is_shown_to_services(api, development):
    sdl = api.query("{ _service { sdl } }", SERVICE)["data"]["_service"]["sdl"]
    assert "type Fan @key" in sdl
    assert api.query("{ _service { sdl } }", fan())["errors"][0]["errorType"] == "403"
    assert development.query("{ _service { sdl } }", fan())["data"]["_service"]["sdl"] == sdl


def test_entities_of_a_gateway(filled):
    query = "query ($r: [_Any!]!) { _entities(representations: $r) { ... on Fan { globalUserId armScore { score } } } }"
    users = [{"__typename": "Fan", "globalUserId": name} for name in ("user123", "nobody")]
    assert filled.query(query, SERVICE, {"r": users})["data"]["_entities"] == [
        {"globalUserId": "user123", "armScore": {"score": 1}},
        {"globalUserId": "nobody", "armScore": None},
    ]
    calls = filled.sources.arm.calls
    refused = filled.query(query, SERVICE, {"r": users * 26})
    assert refused["errors"][0]["errorInfo"] == {"code": "TOO_MANY_ENTITIES"} and filled.sources.arm.calls == calls
    odd = filled.query(query, SERVICE, {"r": [{"__typename": "Fan", "globalUserId": {"a": 1}}]})
    assert odd["errors"][0]["errorInfo"] == {"code": "BAD_INPUT"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b'{"query": 1}',
        b"{}",
        b'{"query": "{a}", "variables": []}',
        b"\xff",
        b"[" * 50_000,
    ],
)
def test_a_body_that_is_no_request(api, body):
    status, answer = api.post(body)
    assert status == 400 and answer["errors"][0]["errorInfo"]["code"] in ("BAD_REQUEST", "BAD_QUERY")


@pytest.mark.parametrize(
    "query", ["", "{", "query", "{ nothing }", "subscription { a }", "query { fan }", "type A { b: C }"]
)
def test_a_query_that_is_none(api, query):
    assert api.query(query)["status"] == 400


def test_a_variables_value_is_not_repeated(filled):
    answer = filled.query(ARM, variables={"u": {"email": "canary@example.com"}})
    assert answer["errors"][0]["errorInfo"] == {"code": "BAD_INPUT"}
    assert "canary" not in json.dumps(answer)


def test_an_unknown_operation_name(filled):
    status, answer = filled.post({"query": "query A { __typename } query B { __typename }", "operationName": "C"})
    assert status == 200 and answer["errors"][0]["errorInfo"] == {"code": "BAD_INPUT"}


def test_what_nobody_expected_is_told_to_the_log_alone(filled, caplog):
    class Broken:
        async def get(self, global_user_id):
            raise ValueError("".join(("can", "ary", global_user_id)))

    object.__setattr__(filled.sources, "arm", Broken())
    with caplog.at_level(logging.ERROR):
        answer = filled.query(ARM, variables={"u": "user123"}, correlation_id="r-9")
    assert answer["errors"][0]["errorInfo"] == {"code": "INTERNAL"}
    assert "canary" not in json.dumps(answer)
    (record,) = [record for record in caplog.records if record.name == "fan_identity.serving.problems"]
    assert (record.error, record.correlation) == ("ValueError", "r-9")
    assert "canary" not in caplog.text


def test_documents_are_parsed_once_and_kept_within_bounds(production_engine, monkeypatch):
    from fan_identity.serving.graphql.executable import build_schema  # noqa: PLC0415

    engine = engine_module.Engine(build_schema())
    parsed = []
    real = engine_module.parse
    monkeypatch.setattr(engine_module, "parse", lambda query, **more: parsed.append(query) or real(query, **more))
    for _ in range(3):
        engine.prepare("{ api { __typename } }")
    assert parsed == ["{ api { __typename } }"]
    for number in range(300):
        engine.prepare(f"query Q{number} {{ __typename }}")
    assert len(engine._prepared) == engine_module._DOCUMENTS_KEPT
    long = "{ __typename }" + " " * 5_000
    engine.prepare(long)
    engine.prepare(long)
    assert parsed.count(long) == 2


@pytest.mark.parametrize(
    ("query", "cost"),
    [
        ("{ __typename }", 1),
        ('{ api { accountFanscore(globalUserId: "a") { score } } }', 7),
        ('{ a: getArmScore(globalUserId: "a") b: getArmScore(globalUserId: "b") }', 2),
        (
            '{ ...F b: fan(globalUserId: "b") { ...G } } fragment F on Query { a: fan(globalUserId: "a") { ...G } }'
            " fragment G on Fan { armScore { score } }",
            2,
        ),
    ],
)
def test_costs(production_engine, query, cost):
    assert production_engine.prepare(query).cost == cost


@pytest.mark.parametrize(
    ("identity", "shown"), [(SERVICE, True), (API_KEY, True), (fan(), False)], ids=["service", "key", "fan"]
)
def test_who_was_asked_is_told_to_services_that_want_to_know(filled, identity, shown):
    query = '{ api { accountFanscore(globalUserId: "user123") { score } } }'
    _, answer = filled.post({"query": query}, identity)
    assert "extensions" not in answer
    _, answer = filled.post({"query": query, "extensions": {"asked": True}}, identity)
    if not shown:
        assert "extensions" not in answer
        return
    asked = answer["extensions"]["asked"]
    assert [one["function"] for one in asked][:3] == [
        "getAccountFanscoreGlobalUserId",
        "getAccountFanscoreMemberId",
        "getArmScore",
    ]
    assert {one["outcome"] for one in asked} == {"ok", "skipped"}


def test_a_fans_history(filled):
    for number in range(3):
        filled.sources.fan_identity.add(
            user_pk("user123"),
            f"SCORE#2026-11-26T10:0{number}:00.000Z#aa",
            occurredAt=f"2026-11-26T10:0{number}:00.000Z",
            accountScore=70 + number,
            armRisk=2,
            reasons=[{"code": "R1", "value": 3, "points": -4.5}],
            globalUserId="user123",
        )
    filled.sources.fan_identity.add(user_pk("user123"), "SCORE#odd", note="no score")
    query = '{ fan(globalUserId: "user123") { history(limit: 3) { accountScore armRisk reasons { code points } } } }'
    history = filled.query(query, fan())["data"]["fan"]["history"]
    assert [one["accountScore"] for one in history] == [72, 71]
    assert history[0]["reasons"] == [{"code": "R1", "points": -4.5}]
    assert filled.query(query, fan("thief"))["errors"][0]["errorType"] == "403"


def test_the_plain_schema_is_the_same_without_federation(production_engine):
    plain = build_ast_schema(parse(plain_schema()))
    assert "@" not in plain_schema()
    for name, kind in plain.type_map.items():
        if not name.startswith("__") and hasattr(kind, "fields"):
            whole = production_engine._schema.type_map[name]
            assert set(kind.fields) == {field for field in whole.fields if not field.startswith("_")}


ODD_IDS = [
    "a#b",
    "a:b",
    "a\r\nb",
    "a\0b",
    "a\0",
    "a",
    "a ",
    "caf\u00e9",
    "cafe\u0301",
    "USER#a",
    "user:a",
    "sha256:abc",
    "\u202ea",
    "A",
    "x" * 3_000,
    "x" * 3_001,
]


@pytest.mark.parametrize("mine", ODD_IDS, ids=ascii)
def test_an_id_reaches_its_own_key_alone(api, mine):
    """Each fan has a score only they have; nobody reaches another's, by any door."""
    for number, name in enumerate(ODD_IDS):
        api.sources.arm.scores[name] = ArmScore(number % 5 + 1, None, f"of {number}")
        api.sources.fan_identity.add(user_pk(name), LATEST_SK, accountScore=number)
    number = ODD_IDS.index(mine)
    query = (
        "query ($u: ID!) { fan(globalUserId: $u) "
        "{ globalUserId armScore { modelVersion } accountFanscore { rawScore } } }"
    )
    assert api.query(query, fan(mine), {"u": mine})["data"]["fan"] == {
        "globalUserId": mine,
        "armScore": {"modelVersion": f"of {number}"},
        "accountFanscore": {"rawScore": number},
    }
    for other in ODD_IDS:
        if other != mine:
            assert api.query(query, fan(mine), {"u": other})["errors"][0]["errorType"] == "403"
