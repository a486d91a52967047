"""The Identity Service behind the sandbox: idempotent, in a user's order, users side by side."""

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from fan_identity.domain.records import Failure
from fan_identity.domain.verification import Status, Verification
from fan_identity.io.caller import CallLimits
from fan_identity.io.identity import IdentityClient, idempotency_key
from fan_identity.serving.sandbox.server import SandboxThread

PATIENT = CallLimits(attempt_seconds=60, deadline_seconds=120, batch_seconds=240, backoff_seconds=0.01)
NOW = 1_718_362_800_123


@pytest.fixture
def sandbox() -> Iterator[str]:
    with SandboxThread() as thread:
        yield thread.address


def ask(address: str, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data, method=method), timeout=60) as answer:
        return json.load(answer)


def told(address: str) -> list[tuple[str, str]]:
    """(verification id, status) in the order the service learnt of them."""
    found = ask(address, "GET", "/identity/verifications")["verifications"]
    return [(verification["verificationId"], verification["status"]) for verification in found]


def identity_at(address: str, limits: CallLimits = PATIENT) -> IdentityClient:
    client = IdentityClient.of(address, "identity")
    return replace(client, api=replace(client.api, limits=limits))


def verification(user: str, name: str, status: Status = Status.PASSED, time_ms: int = NOW) -> Verification:
    return Verification(name, user, status, time_ms)


def test_what_is_told_is_what_happened(sandbox: str):
    assert identity_at(f"{sandbox}/identity").tell_many([verification("fan-1", "v-1")]) == [None]
    assert ask(sandbox, "GET", "/identity/verifications")["verifications"] == [
        {
            "globalUserId": "fan-1",
            "verificationId": "v-1",
            "status": "PASSED",
            "occurredAt": "2024-06-14T11:00:00.123Z",
        }
    ]


def test_telling_again_is_one_event(sandbox: str):
    client = identity_at(f"{sandbox}/identity")
    both = [verification("fan-1", "v-1"), verification("fan-2", "v-2")]
    assert client.tell_many(both) == client.tell_many(both) == [None, None]
    assert sorted(told(sandbox)) == [("v-1", "PASSED"), ("v-2", "PASSED")]


def test_a_users_verifications_are_told_in_order_through_failures(sandbox: str):
    ask(sandbox, "PUT", "/faults", {"identity": {"status": 503, "rate": 0.4}})
    limits = replace(PATIENT, attempts=60, retry_reserve=1_000, most_retries=1_000)
    verifications = [
        verification(f"fan-{number % 3}", f"v-{number:02d}", Status.PENDING if number < 15 else Status.PASSED)
        for number in range(30)
    ]
    assert identity_at(f"{sandbox}/identity", limits).tell_many(verifications) == [None] * 30
    names = [name for name, _ in told(sandbox)]
    for user in range(3):
        own = [name for name in names if int(name[2:]) % 3 == user]
        assert own == sorted(own) and len(own) == 10


def test_what_follows_a_failure_waits_for_it_and_others_do_not(sandbox: str):
    ask(sandbox, "PUT", "/faults", {"identity": {"status": 503, "users": ["fan-1"]}})
    outcomes = identity_at(f"{sandbox}/identity", replace(PATIENT, attempts=2)).tell_many(
        [verification("fan-1", "a"), verification("fan-2", "b"), verification("fan-1", "c"), verification("fan-2", "d")]
    )
    assert outcomes[1] is outcomes[3] is None
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome, Failure)
        assert (outcome.reason, outcome.retryable) == ("identity_unavailable", True)
    assert [name for name, _ in told(sandbox)] == ["b", "d"]


def test_a_refusal_holds_up_nothing(sandbox: str):
    ask(sandbox, "PUT", "/faults", {"identity": {"status": 400, "count": 1}})
    first, second = identity_at(f"{sandbox}/identity").tell_many([verification("f", "a"), verification("f", "b")])
    assert isinstance(first, Failure)
    assert (first.reason, first.retryable, second) == ("identity_refused", False, None)
    assert [name for name, _ in told(sandbox)] == ["b"]


async def _serve(handler: Callable[[web.Request], Any], work: Callable[[str], Any]) -> Any:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return await asyncio.to_thread(work, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("first", [409, 503, 429])
def test_every_attempt_carries_the_same_key(first: int):
    """409: the same key is at work elsewhere."""
    seen: list[tuple[str, str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, request.headers["Idempotency-Key"]))
        return web.Response(status=first if len(seen) == 1 else 204)

    one = verification("fan-1", "v-1")
    assert asyncio.run(_serve(handler, lambda url: identity_at(f"{url}/v2").tell_many([one]))) == [None]
    assert seen == [("POST", "/v2/verifications", idempotency_key(one))] * 2


def test_keys_differ_with_whatever_is_told():
    keys = {
        idempotency_key(verification(user, name, status, time_ms))
        for user in ("a", "ab")
        for name in ("bc", "c")
        for status in (Status.PASSED, Status.FAILED)
        for time_ms in (NOW, NOW + 1)
    }
    assert len(keys) == 16
    assert all(len(key) == 32 for key in keys)


def test_nothing_to_tell_calls_nothing(sandbox: str):
    assert identity_at(f"{sandbox}/identity").tell_many([]) == []
    assert ask(sandbox, "GET", "/calls")["identity"]["calls"] == 0
