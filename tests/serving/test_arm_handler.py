"""getArmScore as a Lambda: AppSync's events by their recorded shapes, batches, the reference's plain event."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fan_identity.domain.keys import arm_cache_key, user_pk
from fan_identity.io.errors import UsageError
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteArmCache, SqliteTable
from fan_identity.serving import arm_handler, lambda_entry
from fan_identity.serving.arm_handler import MOST_EVENTS, ArmRules, handler
from fan_identity.serving.context import FunctionError
from fan_identity.serving.resolver_handlers import HANDLERS, handler_named
from fan_identity.serving.settings import load_serving_settings
from fan_identity.serving.tokens.rules import split_list

from ..io.embedded_metrics import checked

EVENTS = Path(__file__).with_name("events")
COGNITO = {"sub": "fan-1", "claims": {"sub": "fan-1"}, "sourceIp": ["203.0.113.7"]}
IAM = {"userArn": "arn:aws:sts::1:assumed-role/resolver/session", "accountId": "1", "cognitoIdentityId": None}
LAMBDA = {"resolverContext": {"kind": "user", "subject": "fan-1", "scopes": ""}}
SERVICE = {"resolverContext": {"kind": "service", "subject": "backend", "scopes": "fanscore:read"}}
GET = {"parentTypeName": "Query", "fieldName": "getArmScore"}
OF_FAN = {"parentTypeName": "Fan", "fieldName": "armScore"}


def direct(user, identity=IAM, **more):
    return {"arguments": {"globalUserId": user}, "identity": identity, "source": None, "info": GET, **more}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """A store with fan-1 (2) and fan-2 (5) in the cache, an entry that cannot be used, and the environment for it."""
    opened = SqliteStore(tmp_path / "fans.db")
    cache = SqliteArmCache(opened)
    for user, risk in (("fan-1", 2), ("fan-2", 5), ("broken", 6)):
        value = {"global_user_id": user, "arm_risk": risk, "timestamp": 1_718_355_600_000, "modelVersion": "m1"}
        cache.put_if_newer([(arm_cache_key(user), "1", value)])
    cache.put_if_newer([(arm_cache_key("mixed-up"), "1", {"global_user_id": "fan-1", "arm_risk": 1})])
    SqliteTable(opened, "fanIdentityTable").put({"PK": user_pk("fan-1"), "SK": "LATEST", "armRisk": 3})
    monkeypatch.setenv("FAN_IDENTITY_STORE", f"sqlite:///{tmp_path}/fans.db")
    monkeypatch.setenv("FAN_IDENTITY_ARM_DEADLINE", "30s")
    arm_handler._opened.cache_clear()
    yield opened
    arm_handler._opened.cache_clear()


def test_a_direct_resolver_is_answered_by_the_fields_value():
    assert handler(direct("fan-1")) == 2
    assert handler(direct("nobody")) is None
    of_fan = handler({"arguments": {}, "identity": IAM, "source": {"globalUserId": "fan-2"}, "info": OF_FAN})
    assert of_fan.pop("ageSeconds") > 0
    assert of_fan == {"score": 5, "modelVersion": "m1", "stale": False}


def test_the_references_plain_event_is_answered_in_its_shape():
    assert handler({"globalUserId": "fan-1"}) == {"data": {"armScore": 2}}
    assert handler({"arguments": {"globalUserId": "nobody"}}) == {"data": {"armScore": None}}
    detail = handler({"arguments": {"globalUserId": "fan-1", "detail": True}})["data"]
    assert (detail["armScore"], detail["modelVersion"], detail["stale"]) == (2, "m1", False)


@pytest.mark.parametrize(
    ("identity", "own", "other"),
    [
        (COGNITO, 2, "403"),
        (LAMBDA, 2, "403"),
        (SERVICE, 2, 5),
        (IAM, 2, 5),
        (None, "403", "403"),  # an API key of AppSync's: nobody says whose
        ({**IAM, "cognitoIdentityId": "eu-west-1:guest"}, "401", "401"),
        ({}, "401", "401"),
        ({"resolverContext": {"kind": "user", "subject": ""}}, "401", "401"),
    ],
)
def test_a_fan_asks_for_themselves_and_a_service_for_any(identity, own, other):
    def ask(user):
        try:
            return handler(direct(user, identity))
        except FunctionError as error:
            return error.error_type

    assert (ask("fan-1"), ask("fan-2")) == (own, other)


def test_an_api_key_is_not_taken_for_an_invocation_because_its_identity_is_null():
    with pytest.raises(FunctionError, match="that fan only"):
        handler({"arguments": {"globalUserId": "fan-1"}, "identity": None})
    event = direct("fan-1")
    del event["identity"]
    with pytest.raises(FunctionError):
        handler(event)


def test_a_batch_has_an_answer_for_each_event_in_their_order():
    events = [
        direct("fan-2"),
        direct("fan-2", COGNITO),
        direct("nobody"),
        direct("broken"),
        direct("mixed-up"),
        {"arguments": None, "identity": IAM, "info": GET},
        "no event",
        direct(" "),
        direct("\ud800"),
        direct("fan-1", COGNITO),
        direct("fan-1"),
    ]
    answers = handler(events)
    assert [answer["data"] for answer in answers] == [5, None, None, None, None, None, None, None, None, 2, 2]
    assert [answer.get("errorType") for answer in answers] == [
        *(None, "403", None, "503", "503", "400", "400", "400", "400", None, None)
    ]
    assert all(("errorMessage" in answer) == ("errorType" in answer) for answer in answers)
    assert handler([]) == []
    with pytest.raises(UsageError, match="2,000"):
        handler([direct("fan-1")] * (MOST_EVENTS + 1))


RECORDED = [path for path in sorted(EVENTS.glob("resolver-*.json")) if "fanscore" not in path.stem]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_events_are_read(path):
    event = json.loads(path.read_text())
    try:
        assert handler(event) is None  # user123 is unknown here
    except FunctionError as error:
        assert error.error_type in ("401", "403")


def test_a_recorded_batch_is_read():
    events = json.loads((EVENTS / "batch-invoke.json").read_text())
    answers = handler(events)
    assert len(answers) == len(events)
    assert answers[0] == {"data": None}


def test_while_the_cache_is_away_the_table_answers_or_nobody(monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_CACHE", "redis://127.0.0.1:9/0")
    assert handler({"globalUserId": "fan-1"}) == {"data": {"armScore": 3, "stale": True}}
    assert handler(direct("fan-1")) == 3
    assert handler([direct("fan-1"), direct("nobody")]) == [{"data": 3}, {"data": None}]
    arm_handler._opened.cache_clear()
    monkeypatch.setenv("FAN_IDENTITY_ARM_FALLBACK", "off")
    answers = handler([direct("fan-1"), direct("nobody")])
    assert [answer["errorType"] for answer in answers] == ["503", "503"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"FAN_IDENTITY_ARM_FALLBACK": "off", "FAN_IDENTITY_ARM_DEADLINE": "50ms", "FAN_IDENTITY_STORE": "sqlite:///a"},
        {"FAN_IDENTITY_CACHE": "redis://h/0", "FAN_IDENTITY_TABLE": "dynamodb://t"},
        {
            "fan_identity_arm_fallback": "TRUE",
            "FAN_IDENTITY_TOKEN_USER_CLAIM": "custom:id",
            "FAN_IDENTITY_TOKEN_AUDIENCE": "a, b",
            "FAN_IDENTITY_TRUST_TRACEPARENT": "on",
        },
    ],
)
def test_the_light_settings_are_those_of_the_server(environment, monkeypatch):
    for name in ("FAN_IDENTITY_STORE", "FAN_IDENTITY_ARM_DEADLINE"):
        monkeypatch.delenv(name)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    rules, settings = ArmRules.from_environment(environment), load_serving_settings()
    assert rules == (
        settings.store,
        settings.cache,
        settings.table,
        settings.arm_fallback,
        settings.arm_deadline,
        settings.token_user_claim,
        split_list(settings.token_audience or ""),
        settings.trust_traceparent,
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("ARM_FALLBACK", "maybe"), ("ARM_DEADLINE", "soon"), ("ARM_DEADLINE", "0s"), ("TRUST_TRACEPARENT", "perhaps")],
)
def test_wrong_settings_are_named(name, text):
    with pytest.raises(UsageError, match=f"FAN_IDENTITY_{name}"):
        ArmRules.from_environment({f"FAN_IDENTITY_{name}": text})


def test_the_entry_chooses_by_app_name(monkeypatch):
    monkeypatch.setenv("APP_NAME", "getArmScore")
    assert lambda_entry.handler(direct("fan-1")) == 2
    monkeypatch.setenv("APP_NAME", "nope")
    with pytest.raises(UsageError, match="nope"):
        lambda_entry.handler({"Records": []})
    assert handler_named("scoreUsers") is None
    assert {"getArmScore", "validateToken"} <= set(HANDLERS)


def test_the_command_line_answers_captured_events(cli, tmp_path):
    path = tmp_path / "event.json"
    store = ("--store", f"sqlite:///{tmp_path}/fans.db")
    path.write_text(json.dumps([direct("fan-1"), direct("fan-2", COGNITO)]))
    batch = cli("lambda", "getArmScore", path, *store)
    assert [answer["data"] for answer in batch.json] == [2, None]
    path.write_text(json.dumps(direct("fan-2", COGNITO)))
    refused = cli("lambda", "getArmScore", path, *store)
    assert (refused.code, refused.json["errorType"]) == (0, "403")
    path.write_text(json.dumps({"authorizationToken": "x"}))
    keys = tmp_path / "jwks.json"
    keys.write_text('{"keys": []}')
    env = {
        f"FAN_IDENTITY_TOKEN_{name}": text
        for name, text in (("ISSUER", "https://i.invalid"), ("AUDIENCE", "a"), ("JWKS", str(keys)))
    }
    assert cli("lambda", "validateToken", path, env=env).json["isAuthorized"] is False


def test_the_handlers_import_little():
    program = (
        "import sys, fan_identity.serving.lambda_entry as entry; entry.handler_named('getArmScore'); "
        "entry.handler_named('validateToken'); import fan_identity.io.redis_lookup; "
        "print(*sorted({'apache_beam','boto3','botocore','redis','aiohttp','pydantic','graphql','starlette'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_on_lambda_an_invocation_is_one_line_of_metrics(monkeypatch, capsys):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "arm")
    handler([direct("fan-1"), direct("fan-2"), direct(7)])
    value = checked(capsys.readouterr().out.rstrip("\n"))
    assert (value["worker"], value["fields"], value["failed_fields"], value["errors"]) == ("getArmScore", 3, 1, 0)
    with pytest.raises(FunctionError):
        handler(direct(7))
    assert checked(capsys.readouterr().out.rstrip("\n"))["errors"] == 1
