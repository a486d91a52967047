"""The API's upstreams against the sandbox: what each answers, and what each fault comes to."""

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fan_identity.io.errors import UnavailableError, UsageError
from fan_identity.io.http_json import close_sessions
from fan_identity.serving.data_sources import AccountInfo
from fan_identity.serving.sandbox.server import SandboxThread
from fan_identity.serving.upstreams.account_info import AccountInfoClient
from fan_identity.serving.upstreams.campaigns import CampaignsClient
from fan_identity.serving.upstreams.eligibility import EligibilityClient
from fan_identity.serving.upstreams.event_details import EventDetailsClient
from fan_identity.serving.upstreams.identity_checks import HttpIdentityChecks
from fan_identity.serving.upstreams.lnaa import LnaaClient
from fan_identity.serving.upstreams.phone_scores import PhoneScoresClient
from fan_identity.serving.upstreams.upstream import Upstream

DEADLINE = 20.0
PHONE = "+15550100"

LOOKUPS: dict[str, tuple[Any, dict[str, str], dict[str, str]]] = {
    "campaigns": (CampaignsClient, {"campaignId": "c-1"}, {"campaignId": "unknown-c"}),
    "phone_scores": (
        PhoneScoresClient,
        {"globalUserId": "fan-1", "phoneNumber": PHONE},
        {"globalUserId": "fan-1", "phoneNumber": "unknown-1"},
    ),
    "eligibility": (
        EligibilityClient,
        {"eventId": "evt", "globalUserId": "fan-1"},
        {"eventId": "unknown-evt", "globalUserId": "fan-1"},
    ),
    "event_details": (EventDetailsClient, {"eventId": "evt"}, {"eventId": "unknown-evt"}),
    "lnaa": (LnaaClient, {"artistId": "a-1"}, {"artistId": "unknown-a"}),
}


@pytest.fixture
def sandbox() -> Iterator[str]:
    with SandboxThread() as thread:
        yield thread.address


def client(sandbox: str, name: str, deadline: float = DEADLINE) -> Any:
    address = f"{sandbox}/{name.replace('_', '-')}"
    if name == "account_info":
        return AccountInfoClient.of(address, name, deadline)
    upstream = Upstream.of(address, name, deadline)
    return HttpIdentityChecks(upstream) if name == "identity_checks" else LOOKUPS[name][0](upstream)


def put_faults(sandbox: str, **faults: Any) -> None:
    httpx.put(f"{sandbox}/faults", json=faults).raise_for_status()


def calls(sandbox: str, name: str) -> int:
    return httpx.get(f"{sandbox}/calls").json()[name]["calls"]


def run(asking: Any) -> Any:
    async def asked() -> Any:
        try:
            return await asking
        finally:
            await close_sessions()

    return asyncio.run(asked())


def test_each_lookup_answers_as_agreed(sandbox):
    found = {name: run(client(sandbox, name).fetch(known)) for name, (_, known, _) in LOOKUPS.items()}
    assert {name: set(answer) for name, answer in found.items()} == {
        "campaigns": {"campaignId", "name", "status", "startsAt", "endsAt"},
        "phone_scores": {"score", "riskLevel"},
        "eligibility": {"eligible", "reason"},
        "event_details": {"eventId", "name", "venue", "startsAt", "onSaleAt"},
        "lnaa": {"artistId", "name", "genre"},
    }
    assert found["event_details"]["eventId"] == "evt"
    assert 0 <= found["phone_scores"]["score"] <= 100
    assert isinstance(found["eligibility"]["eligible"], bool)


def test_the_account(sandbox):
    account = run(client(sandbox, "account_info").info("fan-1"))
    assert isinstance(account, AccountInfo) and account.global_user_id == "fan-1"
    assert account.member_id and account.email
    assert run(client(sandbox, "account_info").info("unknown-fan")) is None


@pytest.mark.parametrize("name", LOOKUPS)
def test_what_is_unknown_is_none_and_no_failure(sandbox, name):
    assert run(client(sandbox, name).fetch(LOOKUPS[name][2])) is None
    assert calls(sandbox, name) == 1


HOSTILE = ["a/../../faults", "..", ".", "a?b#c", "é \U0001f3ab", "\r\nHost: x", "\x00", "x" * 7_000, "\ud800"]


@pytest.mark.parametrize("name", HOSTILE)
def test_an_id_is_data_wherever_it_stands(sandbox, name):
    account = run(client(sandbox, "account_info").info(name))
    assert account is None or account.global_user_id == name
    event = run(client(sandbox, "event_details").fetch({"eventId": name}))
    assert event is None or event["eventId"] == name
    expected = 0 if name in ("..", ".", "\ud800") or len(name) > 6_000 else 1
    assert calls(sandbox, "account_info") == calls(sandbox, "event_details") == expected


def test_another_fans_account_is_no_answer(sandbox):
    put_faults(sandbox, account_info={"redirect": f"{sandbox}/account-info/accounts/victim", "count": 1})
    with pytest.raises(UnavailableError, match="another fan's account"):
        run(client(sandbox, "account_info").info("fan-1"))


FAULTS: dict[str, tuple[dict[str, Any], str, int]] = {
    # the fault, what the error says, calls
    "status 500": ({"status": 500}, "status 500", 2),
    "status 503": ({"status": 503}, "status 503", 2),
    "status 429": ({"status": 429}, "status 429", 2),
    "reset": ({"reset": True}, "Error", 2),
    "status 401": ({"status": 401}, "status 401", 1),
    "status 422": ({"status": 422}, "status 422", 1),
    "half": ({"body": "half"}, "not JSON", 1),
    "html": ({"body": "html"}, "content type is not JSON", 1),
    "huge": ({"body": "huge"}, "larger than 1,000,000 bytes", 1),
    "wrong types": ({"body": "text"}, "not as agreed", 1),
    "NaN": ({"body": "nan"}, "not JSON", 1),
    "redirect": ({"redirect": "http://localhost:1/secret"}, "redirects elsewhere", 1),
}


@pytest.mark.parametrize("name", ["account_info", *LOOKUPS, "identity_checks"])
def test_faults_are_named_and_tried_again_where_that_may_help(sandbox, name):
    found = {}
    for what, (fault, said, _) in FAULTS.items():
        put_faults(sandbox, **{name: fault})
        before = calls(sandbox, name)
        # A loop of its own: neither breaker nor budget of the faults before count.
        with pytest.raises(UnavailableError) as failed:
            run(_ask(client(sandbox, name)))
        assert failed.value.source == ("accounts" if name == "account_info" else name)
        assert said in failed.value.problem, what
        found[what] = calls(sandbox, name) - before
    assert found == {what: number for what, (_, _, number) in FAULTS.items()}


def _ask(asked: Any) -> Any:
    if isinstance(asked, AccountInfoClient):
        return asked.info("fan-1")
    if isinstance(asked, HttpIdentityChecks):
        return asked.start("fan-1", "t" * 64)
    return asked.fetch(next(known for kind, known, _ in LOOKUPS.values() if isinstance(asked, kind)))


@pytest.mark.parametrize("fault", [{"hang": True}, {"delayMs": 600_000}], ids=["hang", "slow"])
def test_an_upstream_that_does_not_answer_costs_its_deadline_and_one_call(sandbox, fault):
    put_faults(sandbox, campaigns=fault)
    with pytest.raises(UnavailableError, match="no answer"):
        run(_ask(client(sandbox, "campaigns", 0.3)))
    assert calls(sandbox, "campaigns") == 1


def test_one_fault_is_not_seen_by_who_asks(sandbox):
    put_faults(sandbox, campaigns={"status": 503, "count": 1})
    assert run(_ask(client(sandbox, "campaigns")))["campaignId"] == "c-1"
    assert calls(sandbox, "campaigns") == 2


@pytest.mark.parametrize("at_once", [1, 20])
def test_no_retry_storm_half_the_answers_503_make_at_most_half_again_as_many_calls(sandbox, at_once):
    put_faults(sandbox, campaigns={"status": 503, "rate": 0.5})

    async def ask() -> Counter[str]:
        asked = client(sandbox, "campaigns")
        outcomes: Counter[str] = Counter()

        async def some() -> None:
            for _ in range(200 // at_once):
                try:
                    await _ask(asked)
                    outcomes["answered"] += 1
                except UnavailableError:
                    outcomes["unavailable"] += 1

        await asyncio.gather(*(some() for _ in range(at_once)))
        return outcomes

    outcomes = run(ask())
    made = calls(sandbox, "campaigns")
    told = f"{made} calls, {made / 200:.2f} a request, {dict(outcomes)}"
    sys.stdout.write(f"\n200 requests, {at_once} at once, half of the answers 503: {told}\n")
    assert outcomes.total() == 200
    assert 200 < made <= 300, made
    assert outcomes["answered"] > 120, "retries helped nobody"


def test_an_upstream_that_is_down_is_left_alone_and_asked_again_later(sandbox):
    put_faults(sandbox, campaigns={"status": 503})

    async def ask() -> None:
        asked = client(sandbox, "campaigns")
        for _ in range(50):
            with pytest.raises(UnavailableError):
                await _ask(asked)
        assert calls(sandbox, "campaigns") < 20, "no breaker opened"
        with pytest.raises(UnavailableError, match="circuit breaker"):
            await _ask(asked)
        httpx.delete(f"{sandbox}/faults")
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await _ask(asked)
                    break
                except UnavailableError:
                    await asyncio.sleep(0.01)
        for _ in range(10):
            assert await _ask(asked)

    run(ask())


def test_phone_number_mail_and_token_stand_in_no_url_log_or_error(sandbox, monkeypatch, caplog):
    token = "canary-token-1234567890"
    monkeypatch.setenv("FAN_IDENTITY_PHONE_SCORES_TOKEN", token)
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    asked = client(sandbox, "phone_scores")
    assert run(_ask(asked))
    for fault in ({"status": 503}, {"body": "half"}, {"body": "text"}, {"redirect": f"http://localhost:1/{PHONE}"}):
        put_faults(sandbox, phone_scores=fault)
        with pytest.raises(UnavailableError) as failed:
            run(_ask(asked))
        told += [str(failed.value), repr(failed.value), repr(failed.value.__cause__)]
    text = "\n".join(told) + caplog.text + repr(asked)
    for secret in (PHONE, token, "fan-1"):
        assert secret not in text
    assert token not in asked.upstream.api.url


def test_a_session_is_started_once_for_a_token(sandbox):
    checks = client(sandbox, "identity_checks")
    put_faults(sandbox, identity_checks={"reset": True, "count": 1})
    first = run(checks.start("fan-1", "token-1"))
    assert first == run(checks.start("fan-1", "token-1")) != run(checks.start("fan-1", "token-2"))
    assert first.status == "CREATED"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/x", "--campaigns: ftp:// is not supported"),
        ("https://user:pw@host/x", "no credentials in an address"),
        ("https://host/x?retries=9", "has no option 'retries'"),
    ],
)
def test_a_wrong_address_names_its_setting(address, said):
    with pytest.raises(UsageError, match=said):
        Upstream.of(address, "campaigns", 1.0)


def test_an_address_can_only_shorten_the_deadline():
    limits = Upstream.of("https://host/x?deadline=2&timeout=1", "campaigns", 5.0).api.limits
    assert (limits.deadline_seconds, limits.attempt_seconds) == (2.0, 1.0)
    limits = Upstream.of("https://host/x?deadline=9&timeout=9", "campaigns", 0.5).api.limits
    assert (limits.deadline_seconds, limits.attempt_seconds) == (0.5, 0.5)
