"""Accounts behind the sandbox and behind a server of the test's own; ARAI from the table with Accounts behind it."""

import asyncio
import json
import logging
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.arai import Arai, arai_item, arai_of
from fan_identity.domain.keys import user_pk
from fan_identity.domain.messages import ScoringMessage
from fan_identity.domain.records import Failure
from fan_identity.io.accounts import AccountsClient, path_segment
from fan_identity.io.caller import CallLimits
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable
from fan_identity.io.table_arai import DAY_MS, TableArai
from fan_identity.serving.sandbox.people import accounts_answer, features_of
from fan_identity.serving.sandbox.server import SandboxThread

PATIENT = CallLimits(attempt_seconds=60, deadline_seconds=120, batch_seconds=240, backoff_seconds=0.01)
HOSTILE = ["a b", "a/b", "../admin", "a?b=c#d", "ünï·😀", "%2e%2e", "a\0b\nc", "a;b=c", "~x.y", "-_", "\\..\\", "+&="]


@pytest.fixture
def sandbox() -> Iterator[str]:
    with SandboxThread() as thread:
        yield thread.address


def accounts_at(address: str, limits: CallLimits = PATIENT) -> AccountsClient:
    client = AccountsClient.of(address, "accounts")
    return replace(client, api=replace(client.api, limits=limits))


def fault(address: str, **parts: Any) -> None:
    body = json.dumps({"accounts": parts}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{address}/faults", body, method="PUT"), timeout=60):
        pass


def calls(address: str) -> int:
    with urllib.request.urlopen(f"{address}/calls", timeout=60) as answer:
        return json.load(answer)["accounts"]["calls"]


def test_users_come_in_order_and_the_unknown_are_empty(sandbox: str):
    answers = accounts_at(f"{sandbox}/accounts").fetch_many(["fan-1", "unknown-2", "fan-3"])
    assert answers == [accounts_answer("fan-1", 0), {}, accounts_answer("fan-3", 0)]


@pytest.mark.parametrize("user", HOSTILE)
def test_any_id_reaches_its_own_user(sandbox: str, user: str):
    assert accounts_at(f"{sandbox}/accounts").fetch_many([user]) == [accounts_answer(user, 0)]


@pytest.mark.parametrize("user", ["", ".", "..", "x" * 10_000, "é" * 3_000, "\ud800"])
def test_ids_no_path_can_carry_are_unknown_and_not_asked_for(sandbox: str, user: str):
    assert accounts_at(f"{sandbox}/accounts").fetch_many([user, "fan-1"]) == [{}, accounts_answer("fan-1", 0)]
    assert calls(sandbox) == 1


@given(st.text(max_size=40))
def test_a_segment_is_one_and_means_its_text(text: str):
    segment = path_segment(text)
    if segment is None:
        assert text in ("", ".", "..") or any("\ud800" <= char <= "\udfff" for char in text)
    else:
        assert unquote(segment) == text
        assert segment.isascii()
        assert not set(segment) & set("/.?#;\\ ")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(sandbox: str, status: int):
    fault(sandbox, status=status, count=2)
    assert accounts_at(f"{sandbox}/accounts").fetch_many(["fan-1"]) == [accounts_answer("fan-1", 0)]


def test_an_outage_is_retryable(sandbox: str):
    fault(sandbox, status=503)
    [outcome] = accounts_at(f"{sandbox}/accounts", replace(PATIENT, attempts=3)).fetch_many(["fan-1"])
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.retryable, outcome.attempts) == ("accounts_unavailable", True, 3)


@pytest.mark.parametrize("body", ["nan", "half", "html"])
def test_an_answer_that_is_no_json_fails_its_user_only(sandbox: str, body: str):
    fault(sandbox, body=body, users=["fan-2"])
    bad, good = accounts_at(f"{sandbox}/accounts").fetch_many(["fan-2", "fan-3"])
    assert isinstance(bad, Failure)
    assert (bad.reason, bad.retryable) == ("accounts_invalid", False)
    assert good == accounts_answer("fan-3", 0)
    assert "fan-2" not in bad.error


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


def test_the_path_is_sent_as_encoded():
    paths: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.raw_path)
        return web.json_response({})

    asyncio.run(_serve(handler, lambda url: accounts_at(f"{url}/v1/").fetch_many(["../x y", "..."])))
    assert set(paths) == {"/v1/users/%2E%2E%2Fx%20y/activity", "/v1/users/%2E%2E%2E/activity"}


def test_an_answer_that_is_no_object_is_invalid():
    async def handler(request: web.Request) -> web.Response:
        return web.json_response([1])

    [outcome] = asyncio.run(_serve(handler, lambda url: accounts_at(url).fetch_many(["fan-1"])))
    assert outcome.reason == "accounts_invalid"


# ARAI from the table


NOW = 1_718_362_800_123


@pytest.fixture
def table(tmp_path: Path) -> SqliteTable:
    return SqliteTable(SqliteStore(tmp_path / "t.db"), "fanIdentityTable")


def message(user: str, time_ms: int = NOW) -> ScoringMessage:
    return ScoringMessage(user, "a-1", "login", time_ms, "run-1", "w", msgspec.Raw(b"{}"))


def source(table: SqliteTable, address: str | None, **options: Any) -> TableArai:
    accounts = None if address is None else accounts_at(f"{address}/accounts", replace(PATIENT, attempts=2))
    return TableArai(table, accounts, clock_ms=lambda: NOW, **options)


STORED = {"features": {"activityCount": 7}, "kept": True}


@pytest.mark.parametrize("readers", [1, 4])
def test_the_newest_stored_response_is_used(table: SqliteTable, sandbox: str, readers: int):
    table.batch_put([arai_item("fan-1", {}, NOW - 2_000), arai_item("fan-1", STORED, NOW - 1_000)])
    table.put({"PK": user_pk("fan-1"), "SK": "SCORE#2099", "type": "score"})
    [arai] = source(table, sandbox, readers=readers).fetch([message("fan-1", NOW - 500_000)])
    assert arai == arai_of(STORED, NOW - 500_000)
    assert calls(sandbox) == 0


def test_what_is_missing_or_old_is_fetched_once_and_stored(table: SqliteTable, sandbox: str):
    table.put(arai_item("old", STORED, NOW - DAY_MS - 1))
    table.put(arai_item("fresh", STORED, NOW - DAY_MS))
    arai = source(table, sandbox)
    users = ["new", "old", "fresh", "new", "old"]
    found = arai.fetch([message(user) for user in users])
    assert found == [
        arai_of(accounts_answer(user, 0) or {}, NOW) if user != "fresh" else arai_of(STORED, NOW) for user in users
    ]
    assert calls(sandbox) == 2
    for user in ("new", "old"):
        [newest] = table.query(user_pk(user), "ARAI#", newest_first=True, limit=1)
        assert newest == arai_item(user, accounts_answer(user, 0) or {}, NOW)
    assert arai.fetch([message(user) for user in users]) == found
    assert calls(sandbox) == 2
    assert (arai.fetched, arai.stale) == (2, 0)


def test_that_a_user_is_unknown_is_not_stored(table: SqliteTable, sandbox: str):
    [found] = source(table, sandbox).fetch([message("unknown-1")])
    assert found == arai_of({}, NOW)
    assert table.query(user_pk("unknown-1")) == []


def test_an_old_response_is_used_while_accounts_is_down(
    table: SqliteTable, sandbox: str, caplog: pytest.LogCaptureFixture
):
    fault(sandbox, status=503)
    table.put(arai_item("old", STORED, NOW - 5 * DAY_MS))
    arai = source(table, sandbox)
    with caplog.at_level(logging.WARNING, "fan_identity"):
        old, new = arai.fetch([message("old"), message("new")])
    assert old == arai_of(STORED, NOW)
    assert isinstance(new, Failure)
    assert (new.reason, new.retryable) == ("accounts_unavailable", True)
    assert (arai.fetched, arai.stale) == (0, 1)
    assert "1 ARAI responses older than allowed" in caplog.text
    assert [item["SK"] for item in table.query(user_pk("old"))] == [arai_item("old", {}, NOW - 5 * DAY_MS)["SK"]]


def test_without_accounts_what_is_stored_is_used_whatever_its_age(table: SqliteTable):
    table.put(arai_item("old", STORED, NOW - 500 * DAY_MS))
    old, new = source(table, None).fetch([message("old"), message("new")])
    assert old == arai_of(STORED, NOW)
    assert isinstance(new, Failure)
    assert (new.reason, new.retryable) == ("arai_missing", False)


def test_a_response_of_the_wrong_shape_fails_its_user_only_and_is_not_stored(table: SqliteTable, sandbox: str):
    fault(sandbox, body="text", users=["fan-2"])
    bad, good = source(table, sandbox).fetch([message("fan-2"), message("fan-3")])
    assert isinstance(bad, Failure)
    assert (bad.reason, bad.retryable) == ("arai_invalid", False)
    assert isinstance(good, Arai)
    assert table.query(user_pk("fan-2")) == []


@pytest.mark.parametrize(
    "item",
    [
        {"SK": "ARAI#yesterday", "araiResponse": {}},
        {"SK": "ARAI#2024-06-14T11:00:00.123Z"},
        {"SK": "ARAI#2024-06-14T11:00:00.123Z", "araiResponse": "text"},
        {"SK": "ARAI#2024-06-14T11:00:00.123Z", "araiResponse": {"features": {"activityCount": "7"}}},
    ],
)
def test_a_stored_item_that_cannot_be_used_counts_as_missing(table: SqliteTable, sandbox: str, item: dict[str, Any]):
    table.put({"PK": user_pk("fan-1"), "type": "arai", **item})
    [arai] = source(table, sandbox).fetch([message("fan-1")])
    assert isinstance(arai, Arai)
    assert arai.response["features"] == features_of("fan-1", 0)


def test_observing_learns_nothing_and_nothing_is_fetched_for_no_message(table: SqliteTable, sandbox: str):
    arai = source(table, sandbox)
    arai.observe([])
    assert arai.fetch([]) == []
    assert calls(sandbox) == 0


def test_several_threads_may_fetch_at_once(table: SqliteTable, sandbox: str):
    arai = source(table, sandbox)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: arai.fetch([message(f"fan-{n}")]), range(20)))
    assert found == [[arai_of(accounts_answer(f"fan-{n}", 0) or {}, NOW)] for n in range(20)]
