"""AppSync's Lambda authorizer: its event and answer, an outage, and how little it imports."""

import asyncio
import compileall
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.access import NOBODY, CallerKind, Identity
from fan_identity.io.errors import UnavailableError
from fan_identity.serving import authorizer as module
from fan_identity.serving.authorizer import (
    MAX_TTL_SECONDS,
    Authorizer,
    handler,
    identity_of_resolver_context,
    resolver_context_of,
)
from fan_identity.serving.tokens.problems import TokenProblem

ROOT = Path(__file__).parents[2]


def event(token: object) -> dict[str, Any]:
    """As AppSync sends it (developer guide, "AWS_LAMBDA authorization")."""
    return {
        "authorizationToken": token,
        "requestContext": {
            "apiId": "aaaaaa123123123example123",
            "accountId": "111122223333",
            "requestId": "f4081827-1111-4444-5555-5cf4695f339f",
            "queryString": "query { api { accountFanscore(globalUserId: \"fan-1\") { score } } }",
            "operationName": None,
            "variables": {},
        },
        "requestHeaders": {"x-forwarded-for": "203.0.113.7, 10.0.0.1", "content-type": "application/json"},
    }  # fmt: skip


@pytest.fixture
def authorizer(verifier, clock) -> Authorizer:
    return Authorizer(verifier, clock)


@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer "])
def test_a_good_token_is_authorised(authorizer, signer, claims, prefix):
    answer = authorizer.decide(event(prefix + signer.sign(claims(memberId="m-1"))))
    assert answer == {
        "isAuthorized": True,
        "resolverContext": {"kind": "user", "subject": "fan-1", "memberId": "m-1", "scopes": ""},
        "deniedFields": [],
        "ttlOverride": MAX_TTL_SECONDS,
    }
    assert json.loads(json.dumps(answer)) == answer


def test_a_service_is_authorised_with_its_scopes(make_verifier, signer, claims, clock):
    token = signer.sign(claims(sub="partner", client_id="partner", aud="partner", scope="fanscore:read b"))
    answer = Authorizer(make_verifier(audiences=("partner",)), clock).decide(event(token))
    assert answer["resolverContext"] == {"kind": "service", "subject": "partner", "scopes": "b fanscore:read"}


def test_the_answer_is_not_remembered_for_longer_than_the_token_lives(authorizer, signer, clock, claims):
    token = signer.sign(claims(exp=int(clock()) + 100))
    first = authorizer.decide(event(token))["ttlOverride"]
    assert 98 <= first <= 100
    clock.ahead += 40
    assert authorizer.decide(event(token))["ttlOverride"] == first - 40


def test_a_token_that_lives_on_the_leeway_is_not_remembered(authorizer, signer, clock, claims):
    answer = authorizer.decide(event(signer.sign(claims(exp=int(clock()) - 2))))
    assert (answer["isAuthorized"], answer["ttlOverride"]) == (True, 0)


@pytest.mark.parametrize("token", [None, "", "Bearer", "Basic Zm9v", "a.b.c", "da2-abc", 7, ["x"], {"a": 1}, "\ud800"])
def test_what_is_no_token_is_refused(authorizer, issuer, token):
    refused = {"isAuthorized": False, "resolverContext": {}, "deniedFields": [], "ttlOverride": 0}
    assert authorizer.decide(event(token)) == refused
    assert authorizer.decide({}) == refused
    assert issuer.asked == []


def test_why_is_told_to_the_log_alone(authorizer, signer, claims, caplog):
    with caplog.at_level("INFO", "fan_identity"):
        answer = authorizer.decide(event(signer.sign(claims(aud="other", sub="canary@example.com"))))
    assert answer == {"isAuthorized": False, "resolverContext": {}, "deniedFields": [], "ttlOverride": 0}
    assert [vars(record)["problem"] for record in caplog.records] == ["WRONG_AUDIENCE"]
    assert "canary" not in caplog.text


def test_an_outage_of_the_keys_raises_and_never_authorises(authorizer, issuer, signer, claims):
    issuer.keys = None
    with pytest.raises(UnavailableError, match="jwks"):
        authorizer.decide(event(signer.sign(claims())))
    with pytest.raises(UnavailableError, match="jwks"):
        authorizer.decide(event(signer.sign(claims(aud="other"))))


# What resolvers see


ids = st.text(min_size=1, max_size=200)


@given(
    user=ids,
    member=st.none() | ids,
    kind=st.sampled_from([CallerKind.USER, CallerKind.SERVICE]),
    scopes=st.frozensets(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)),
)
def test_resolvers_see_the_caller_that_the_authorizer_saw(user, member, kind, scopes):
    caller = Identity(kind, user, member, scopes, source_ip=("10.0.0.1",))
    context = json.loads(json.dumps(resolver_context_of(caller)))
    assert all(isinstance(value, str) for value in context.values())
    assert identity_of_resolver_context(context, ("10.0.0.1",)) == caller


def test_claims_do_not_travel(signer, verifier, claims):
    """AppSync's own log would show them."""
    caller = verifier.verify_blocking(signer.sign(claims(email="canary@example.com")))
    assert "canary" not in json.dumps(resolver_context_of(caller))


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"kind": "user"},
        {"kind": "user", "subject": ""},
        {"kind": "user", "subject": 7},
        {"kind": "admin", "subject": "fan-1"},
        {"kind": "nobody", "subject": "fan-1"},
        {"kind": "api_key", "subject": "fan-1", "scopes": "fanscore:read"},
        {"kind": ["user"], "subject": "fan-1"},
        {"kind": "user", "subject": "fan-1", "scopes": ["a"]},
        {"kind": "user", "subject": "fan-1", "memberId": 7},
    ],
    ids=str,
)
def test_a_context_that_is_none_of_ours_is_nobody(context):
    assert identity_of_resolver_context(context) == NOBODY


# As a Lambda


@pytest.fixture
def environment(issuer, monkeypatch) -> None:
    module._authorizer.cache_clear()
    for name, text in {"ISSUER": "https://issuer.example", "AUDIENCE": "web-client", "JWKS": issuer.url}.items():
        monkeypatch.setenv(f"FAN_IDENTITY_TOKEN_{name}", text)


def test_the_handler_reads_the_environment_and_keeps_keys(environment, issuer, signer, claims):
    for number in range(3):
        assert handler(event(signer.sign(claims(jti=str(number)))), None)["isAuthorized"]
    assert not handler(event("x"), None)["isAuthorized"]
    assert len(issuer.asked) == 1


def test_the_same_token_gets_the_same_answer_from_the_server(verifier, authorizer, signer, claims):
    for changed in ({}, {"memberId": "m"}, {"sub": "a b\n#"}, {"aud": ["x", "web-client"]}):
        token = signer.sign(claims(**changed))
        context = authorizer.decide(event(token))["resolverContext"]
        caller = asyncio.run(verifier.verify(token))
        assert identity_of_resolver_context(context).subject == caller.subject == claims(**changed)["sub"]


MEASURE = """
import json, sys, time
began = time.process_time()
if sys.argv[1:]:
    import fan_identity.serving.authorizer
took = time.process_time() - began
# Not getrusage: its maximum counts what the parent held before exec.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([took, peak / 1024, sorted(sys.modules)]))
"""
HEAVY = {"aiohttp", "apache_beam", "ariadne", "asyncio", "boto3", "botocore", "graphql", "httpx", "opentelemetry",
         "pydantic", "pydantic_core", "pydantic_settings", "redis", "starlette", "yarl"}  # fmt: skip


def measured(*arguments: str) -> tuple[float, float, list[str]]:
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_the_lambda_starts_light(capsys):
    """Nothing slow is imported, and memory stays under 80 MB; the CPU it takes is printed."""
    for folder in ("domain", "io", "serving"):
        compileall.compile_dir(ROOT / folder, quiet=2)
    loaded, bare = [measured("authorizer") for _ in range(3)], [measured() for _ in range(3)]
    modules = {name.partition(".")[0] for name in loaded[0][2]}
    assert "jwt" in modules, "the measurement imports what it says"
    assert modules & HEAVY == set()
    assert max(memory for _, memory, _ in loaded) < 80
    with capsys.disabled():
        took = statistics.median(seconds for seconds, _, _ in loaded) * 1_000
        print(f"\nvalidateToken: {took:.0f} ms of CPU, {loaded[0][1]:.0f} MB; Python alone: {bare[0][1]:.0f} MB")  # noqa: T201


def test_refusals_have_codes_for_metrics():
    assert all(problem.value == problem.name for problem in TokenProblem)
