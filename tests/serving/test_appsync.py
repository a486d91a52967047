"""AppSync's events as the developer guide shows them, answered by the resolvers of the standalone server."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fan_identity.domain.access import READ_ANY_SCOPE, CallerKind
from fan_identity.io.errors import UsageError
from fan_identity.serving.appsync import Api, resolver_event
from fan_identity.serving.appsync_identity import identity_of_event
from fan_identity.serving.context import FunctionError
from fan_identity.serving.data_sources import ArmScore
from fan_identity.serving.resolvers import RESOLVERS
from fan_identity.serving.settings import ServingSettings

from .fakes import MemoryArm, memory_sources

EVENTS = Path(__file__).parent / "events"
TEMPLATE = Path(__file__).parents[2] / "deploy" / "appsync" / "lambda-response.js"


def event(name: str):
    return json.loads((EVENTS / f"{name}.json").read_text())


@pytest.fixture
def appsync(filled) -> Api:
    return Api(filled.sources, ServingSettings())


def answer(appsync: Api, captured, way: str = "answer"):
    return asyncio.run(getattr(appsync, way)(resolver_event(captured), "invocation-1"))


def test_the_identity_of_a_cognito_user():
    identity = identity_of_event(event("resolver-cognito")["identity"])
    assert (identity.kind, identity.subject, identity.member_id) == (CallerKind.USER, "user123", "member-1")
    assert identity.source_ip == ("203.0.113.7",)


def test_the_identity_of_a_client_of_cognito():
    claims = {"sub": "client-1", "client_id": "client-1", "scope": f"https://api.example.com/{READ_ANY_SCOPE} other"}
    identity = identity_of_event({"sub": "client-1", "claims": claims}, audiences=("https://api.example.com",))
    assert (identity.kind, identity.subject, identity.reads_any_fan) == (CallerKind.SERVICE, "client-1", True)
    elsewhere = identity_of_event({"sub": "client-1", "claims": claims}, audiences=("https://fans.example.com",))
    assert (elsewhere.kind, elsewhere.reads_any_fan) == (CallerKind.SERVICE, False)


def test_the_identity_of_iam_an_open_id_user_a_lambda_and_a_key():
    iam = identity_of_event(event("resolver-iam")["identity"])
    assert iam.kind is CallerKind.SERVICE and iam.reads_any_fan
    assert identity_of_event(event("resolver-oidc")["identity"]).user_id == "user123"
    assert identity_of_event(event("resolver-lambda")["identity"]).user_id == "user123"
    key = identity_of_event(None)
    assert key.kind is CallerKind.API_KEY and key.is_known and not key.reads_any_fan


@pytest.mark.parametrize(
    "form",
    [
        {},
        event("resolver-iam-guest")["identity"],
        {"claims": {}},
        {"claims": {"sub": " "}},
        {"claims": {"sub": 7}},
        {"resolverContext": {}},
        {"resolverContext": {"kind": "api_key", "subject": "x"}},
        {"userArn": "not an arn"},
        {"sub": "user123"},
    ],
    ids=str,
)
def test_a_form_that_names_nobody_is_nobody(form):
    assert not identity_of_event(form).is_known


@pytest.mark.parametrize("form", ["cognito", "iam", "oidc", "lambda"])
def test_arm_score_for_each_form_of_identity(appsync, form):
    assert answer(appsync, event(f"resolver-{form}")) == 1


@pytest.mark.parametrize(("form", "error_type"), [("api-key", "403"), ("iam-guest", "401")])
def test_arm_score_is_refused_to_who_may_not_see_it(appsync, filled, form, error_type):
    with pytest.raises(FunctionError) as refused:
        answer(appsync, event(f"resolver-{form}"))
    assert refused.value.error_type == error_type
    assert filled.sources.arm.calls == 0


def test_an_unknown_fan_is_null(appsync):
    captured = event("resolver-iam")
    captured["arguments"]["globalUserId"] = "nobody"
    assert answer(appsync, captured) is None


def test_the_references_example(appsync):
    assert answer(appsync, event("resolver-account-fanscore")) == {
        "score": 87,
        "rawScore": 75,
        "boosts": {"arm": 5, "event": 4, "model": 3},
    }


def test_batch_invoke_answers_in_order_and_keeps_errors_apart(appsync):
    events = [resolver_event(one) for one in event("batch-invoke")]
    answers = asyncio.run(appsync.answer_batch(events, "invocation-1"))
    scores = [one["data"] and one["data"]["score"] for one in answers]
    assert scores == [1, None, 1, None]
    assert answers[1] == {"data": None}
    assert answers[3] == {
        "data": None,
        "errorMessage": "a fan's data is shown to that fan only",
        "errorType": "403",
    }


def test_the_template_keeps_type_and_code(appsync):
    assert answer(appsync, event("template-not-logged-in"), "answer_template") == {
        "data": None,
        "error": {"message": "User not logged in", "errorType": "401", "errorInfo": {"code": "NOT_LOGGED_IN"}},
        "degraded": [],
    }


def test_the_template_names_what_was_away(appsync, filled):
    filled.sources.arm.down = True
    done = answer(appsync, event("resolver-account-fanscore"), "answer_template")
    assert (done["error"], done["degraded"]) == (None, ["arm"])
    assert done["data"]["boosts"]["arm"] == 0


def test_a_defect_of_ours_in_a_batch_leaves_the_others_alone():
    class Broken(MemoryArm):
        async def get(self, global_user_id):
            if global_user_id == "user123":
                raise ValueError
            return ArmScore(2)

    appsync = Api(memory_sources(arm=Broken("arm")), ServingSettings())
    events = [resolver_event(one) for one in event("batch-invoke")[:2]]
    first, second = asyncio.run(appsync.answer_batch(events, "invocation-1"))
    assert first == {"data": None, "errorMessage": "an error of ours; it is in the log", "errorType": "500"}
    assert second["data"]["score"] == 2


def test_a_field_nobody_resolves(appsync):
    captured = event("resolver-iam")
    captured["info"]["fieldName"] = "__proto__"
    with pytest.raises(FunctionError, match="no such field"):
        answer(appsync, captured)


@pytest.mark.parametrize("captured", [{}, [], None, {"info": {}}, {"info": {"parentTypeName": 1, "fieldName": "x"}}])
def test_what_is_no_event(captured):
    with pytest.raises(UsageError, match="not the event of an AppSync resolver"):
        resolver_event(captured)


def test_every_field_with_a_resolver_is_in_the_schema(production_engine):
    schema = production_engine._schema
    for name in RESOLVERS:
        type_name, field_name = name.split(".")
        assert field_name in schema.get_type(type_name).fields


NODE = """
const util = { error(...given) { throw { given } }, http: { addResponseHeader(...given) { headers.push(given) } } };
const headers = [];
%s
const payload = request({ args: {a: 1}, identity: null, source: null, request: {headers: {}}, info: {fieldName: 'x'} });
const ended = (ctx) => { try { return { data: response(ctx) } } catch (error) { return error } };
console.log(JSON.stringify([
  payload,
  ended({ result: { data: 7, error: null, degraded: ['arm'] } }),
  ended({ result: { data: null, error: { message: 'm', errorType: '401', errorInfo: { code: 'C' } }, degraded: [] } }),
  ended({ error: { message: 'gone', type: 'Lambda:Unhandled' } }),
  headers,
]));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here to run deploy/appsync/lambda-response.js")
def test_the_template_in_javascript():
    script = TEMPLATE.read_text().replace("import { util } from '@aws-appsync/utils'\n", "").replace("export ", "")
    done = subprocess.run(["node", "-e", NODE % script], capture_output=True, text=True, check=True)
    payload, good, refused, failed, headers = json.loads(done.stdout)
    assert payload["operation"] == "Invoke" and payload["payload"]["template"] == "lambdaResponse"
    assert resolver_event({**payload["payload"], "info": {"parentTypeName": "Query", "fieldName": "x"}}).arguments == {
        "a": 1
    }
    assert good == {"data": 7} and headers == [["x-degraded", "arm"]]
    assert refused == {"given": ["m", "401", None, {"code": "C"}]}
    assert failed == {"given": ["gone", "Lambda:Unhandled"]}


def test_captured_events_on_the_command_line(cli, store):
    """``fan-identity lambda`` over a store with a fan in it."""
    source = store.path.parent / "activities.jsonl"
    login = {"activityId": "a", "globalUserId": "user123", "activityType": "login", "occurredAt": 1718355600000}
    source.write_text(json.dumps(login) + "\n")
    store.score(source)
    (score,) = [item for item in map(json.loads, store.dump().splitlines()) if item.get("SK", "").startswith("SCORE#")]
    for form in ("cognito", "iam", "oidc", "lambda"):
        done = cli("lambda", "resolveField", EVENTS / f"resolver-{form}.json", *store.flag)
        assert done.json == score["armRisk"], done
    done = cli("lambda", "resolveField", EVENTS / "resolver-account-fanscore.json", *store.flag)
    assert done.json["rawScore"] == score["accountScore"]
    done = cli("lambda", "resolveField", EVENTS / "batch-invoke.json", *store.flag)
    assert [one["data"] and one["data"]["score"] for one in done.json] == [
        score["armRisk"],
        None,
        score["armRisk"],
        None,
    ]
