"""The console over DynamoDB and a real Unleash server."""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fan_identity.domain.audit import AUDIT_PK, Entry, Fault, Outcome, audit_sk
from fan_identity.domain.records import DeadLetter
from fan_identity.io import aws
from fan_identity.io.addresses import parse_address
from fan_identity.io.audit import KEY_ENV, AuditLog
from fan_identity.io.backends import open_dead_letters, open_flags, open_operations
from fan_identity.io.dynamodb.table import DynamoDbTable
from fan_identity.io.flag_admin import ADMIN_TOKEN_ENV, FlagAdmin
from fan_identity.io.flags import TOKEN_ENV, UnleashFlags
from fan_identity.serving.http.app import Application
from fan_identity.serving.http.development import DevelopmentIssuer
from fan_identity.serving.http.parts import open_parts
from fan_identity.serving.settings import load_serving_settings

from .conftest import REDIS, System

DYNAMODB = "http://127.0.0.1:18000"
UNLEASH = "127.0.0.1:14242"
ADMIN_TOKEN = "*:*.unleash-admin-token"
PATIENCE = 60

APPEND = """
import sys
from fan_identity.domain.audit import Entry, Outcome
from fan_identity.io.audit import AuditLog
log = AuditLog.of(sys.argv[1])
for number in range(int(sys.argv[3])):
    log.append(Entry(f"{sys.argv[2]}-{number}", "service:a", "flags.switch", "scoreUsers", Outcome.DONE, {"n": number}))
"""


@pytest.fixture
def dynamodb(server: Callable[[str], None]) -> Iterator[str]:
    """The address of a table of the test's own."""
    server("dynamodb")
    text = f"dynamodb://console-{uuid.uuid4().hex}?region=us-east-1&endpoint={DYNAMODB}"
    made = parse_address(text, "table")
    DynamoDbTable.of(made, "table").create()
    yield text
    aws.client("dynamodb", made, "table").delete_table(TableName=made.target)


def test_processes_share_one_chain_in_dynamodb_and_tampering_shows(
    dynamodb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, "k" * 32)
    appending = [
        subprocess.Popen([sys.executable, "-c", APPEND, dynamodb, str(name), "12"], env={**os.environ})
        for name in range(3)
    ]
    log = AuditLog.of(dynamodb)
    with ThreadPoolExecutor(4) as pool:
        entries = [Entry(f"h-{n}", "service:a", "flags.switch", "scoreUsers", Outcome.DONE) for n in range(20)]
        list(pool.map(log.append, entries))
    assert [process.wait(PATIENCE * 5) for process in appending] == [0] * 3
    verdict = log.verify()
    assert (verdict.whole, verdict.lines) == (True, 3 * 12 + 20)
    references = [line.reference for line in log.newest(None, 1_000)]
    assert {f"{name}-{number}" for name in range(3) for number in range(12)} <= set(references)
    table = open_operations(dynamodb)
    item = table.get(AUDIT_PK, audit_sk(7))
    assert item is not None
    table.put({**item, "target": "nothing"})
    assert (log.verify().seq, log.verify().fault) == (7, Fault.CHANGED)
    table.batch_delete([(AUDIT_PK, audit_sk(7))])
    assert (log.verify().seq, log.verify().fault) == (7, Fault.MISSING)
    monkeypatch.delenv(KEY_ENV)
    assert AuditLog.of(dynamodb).verify().fault is Fault.NO_KEY


def letter(number: int, **changed: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "dead_letter_id": f"{number:032x}",
        "worker": "scoreUsers",
        "reason": "too_many_receives",
        "error": "received 6 times",
        "stack": "",
        "attempts": 6,
        "request_id": "r",
        "activity_id": f"a{number}",
        "source": "sqs://queue.fifo",
        "position": f"message {number}",
        "payload": b"x" * 1_000,
    }
    return DeadLetter(**{**fields, **changed})


class Api:
    """The application, and an operator's token."""

    def __init__(self, folder: Path) -> None:
        self.issuer = DevelopmentIssuer.started(folder)
        self.headers = {"Authorization": f"Bearer {self.issuer.token_of_operator()}"}

    @asynccontextmanager
    async def client(self, **settings: Any):
        loaded = load_serving_settings(**{"upstream_deadline": "30s", **self.issuer.settings, **settings})
        app = Application(lambda: open_parts(loaded))
        await app.start()
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
                client.headers.update(self.headers)
                yield client
        finally:
            await app.stop()


def test_the_console_works_over_addresses_of_dynamodb(dynamodb: str, tmp_path: Path) -> None:
    letters = open_dead_letters(dynamodb)
    letters.write([letter(number) for number in range(60)])
    letters.write([letter(100, worker="handleEvent", reason="malformed")])
    store = f"sqlite:///{tmp_path}/fans.db"
    api = Api(tmp_path)

    async def asked() -> tuple[Any, ...]:
        async with api.client(cache=store, table=dynamodb, operations=dynamodb, dead_letters=dynamodb) as client:
            summary = (await client.get("/console/api/dead-letters/summary")).json()
            found: list[str] = []
            after: str | None = ""
            while after is not None:
                query = {"worker": "scoreUsers", "limit": "25"} | ({"after": after} if after else {})
                page = (await client.get("/console/api/dead-letters", params=query)).json()
                found += [one["id"] for one in page["letters"]]
                after = page["next"]
            one = await client.get(f"/console/api/dead-letters/{100:032x}")
            revealed = await client.post(f"/console/api/dead-letters/{100:032x}/reveal", json={})
            others = [await client.get(f"/console/api/{path}") for path in ("audit", "jobs", "imports", "flags", "me")]
            changed = await client.post("/console/api/dead-letters/redrive", json={"filter": {}, "expected": 3})
            return summary, found, one, revealed, others, changed

    summary, found, one, revealed, others, changed = asyncio.run(asked())
    assert summary["total"] == 61
    assert sorted(found) == sorted(f"{number:032x}" for number in range(60))
    assert one.json()["reason"] == "malformed"
    assert len(revealed.json()["payload"]) == 1_000
    assert [answer.status_code for answer in others] == [200] * 5
    assert [line["outcome"] for line in others[0].json()["lines"]] == ["done", "begun"]
    assert changed.status_code == 409
    assert AuditLog.of(dynamodb).verify().whole


@pytest.mark.slow
def test_letters_are_sent_again_to_sqs_by_the_servers_settings(
    system: System, server: Callable[[str], None], tmp_path: Path
) -> None:
    for name in ("dynamodb", "elasticmq", "redis"):
        server(name)
    table, queue = system.table(), system.queue()
    now = int(time.time() * 1_000)
    record = {"activityId": "a1", "globalUserId": "fan-1", "activityType": "login", "occurredAt": now}
    again = letter(1, worker="enqueueFromStream", reason="malformed", payload=json.dumps(record).encode())
    open_dead_letters(table).write([again])
    api = Api(tmp_path)

    async def asked() -> Any:
        where = {"cache": f"redis://{REDIS}/9", "table": table, "operations": table, "dead_letters": table}
        async with api.client(queue=queue, **where) as client:
            begun = await client.post("/console/api/dead-letters/redrive", json={"ids": [again.dead_letter_id]})
            deadline = time.monotonic() + 5 * PATIENCE
            while True:
                told = (await client.get(f"/console/api/jobs/{begun.json()['job']}")).json()
                if told["state"] != "running":
                    return told
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)

    told = asyncio.run(asked())
    assert (told["state"], told["exitCode"], told["summary"].get("queued")) == ("done", 0, 1), told
    (received,) = system.sqs.receive_message(QueueUrl=system.url(queue), WaitTimeSeconds=5)["Messages"]
    assert "fan-1" in received["Body"]
    assert [line.outcome for line in AuditLog.of(table).newest(None, 2)] == [Outcome.DONE, Outcome.BEGUN]


class Toggles:
    """Toggles under a prefix of the test's own."""

    def __init__(self) -> None:
        self.prefix = f"console-{uuid.uuid4().hex}."
        self.http = httpx.Client(base_url=f"http://{UNLEASH}/api/admin", headers={"Authorization": ADMIN_TOKEN})
        self.address = f"unleash+http://{UNLEASH}/api?prefix={self.prefix}&refresh=200ms"

    def make(self, worker: str) -> None:
        path = "/projects/default/features"
        self.http.post(path, json={"name": self.prefix + worker, "type": "release"}).raise_for_status()
        strategies = f"{path}/{self.prefix}{worker}/environments/development/strategies"
        self.http.post(strategies, json={"name": "default", "constraints": []}).raise_for_status()

    def is_on(self, worker: str) -> bool:
        told = self.http.get(f"/projects/default/features/{self.prefix}{worker}").json()
        return next(one["enabled"] for one in told["environments"] if one["name"] == "development")

    def is_on_elsewhere(self, worker: str) -> bool:
        told = self.http.get(f"/projects/default/features/{self.prefix}{worker}").json()
        return any(one["enabled"] for one in told["environments"] if one["name"] != "development")


@pytest.fixture
def toggles(server: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Toggles:
    server("unleash")
    monkeypatch.setenv(TOKEN_ENV, "default:development.unleash-test-token")
    monkeypatch.setenv(ADMIN_TOKEN_ENV, ADMIN_TOKEN)
    return Toggles()


def test_a_flag_is_switched_on_the_server_and_seen_here(toggles: Toggles, tmp_path: Path) -> None:
    toggles.make("scoreUsers")
    store, api = f"sqlite:///{tmp_path}/fans.db", Api(tmp_path)

    async def asked() -> list[Any]:
        async with api.client(store=store, flags=toggles.address) as client:
            found: list[Any] = []
            for enabled in (True, False):
                answer = await client.post("/console/api/flags/scoreUsers", json={"enabled": enabled})
                assert answer.status_code == 200, answer.text
                assert toggles.is_on("scoreUsers") is enabled
                deadline = time.monotonic() + PATIENCE
                while True:
                    told = (await client.get("/console/api/flags")).json()
                    flag = next(one for one in told["flags"] if one["worker"] == "scoreUsers")
                    if flag["known"] and flag["enabled"] is enabled:
                        break
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.02)
                found.append(told)
            found.append(await client.post("/console/api/flags/handleEvent", json={"enabled": False}))
            return found

    on, off, unknown = asyncio.run(asked())
    assert (on["server"], on["canToggle"]) == (True, True)
    assert not toggles.is_on_elsewhere("scoreUsers")
    assert {flag["toggle"] for flag in off["flags"] if flag["known"]} == {f"{toggles.prefix}scoreUsers"}
    assert unknown.status_code == 404
    log = AuditLog.of(store)
    told = [(line.target, line.outcome, line.details.get("to")) for line in log.newest(None, 10)[::-1]]
    assert told == [
        ("scoreUsers", Outcome.BEGUN, "on"),
        ("scoreUsers", Outcome.DONE, "on"),
        ("scoreUsers", Outcome.BEGUN, "off"),
        ("scoreUsers", Outcome.DONE, "off"),
        ("handleEvent", Outcome.BEGUN, "off"),
        ("handleEvent", Outcome.FAILED, "off"),
    ]
    flags = open_flags(toggles.address, True, None)
    assert isinstance(flags, UnleashFlags)
    flags.close()


@pytest.mark.parametrize("broken", ["token", "server"])
def test_what_cannot_be_switched_is_told_and_nobody_says_it_was(
    toggles: Toggles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    toggles.make("scoreUsers")
    store, api = f"sqlite:///{tmp_path}/fans.db", Api(tmp_path)
    address = toggles.address
    if broken == "token":
        monkeypatch.setenv(ADMIN_TOKEN_ENV, "default:development.no-such-token")
    else:
        address = address.replace(UNLEASH, "127.0.0.1:9")

    async def asked() -> Any:
        async with api.client(store=store, flags=address) as client:
            return await client.post("/console/api/flags/scoreUsers", json={"enabled": True})

    answer = asyncio.run(asked())
    assert answer.status_code == 503
    assert "no-such-token" not in answer.text
    assert not toggles.is_on("scoreUsers")
    assert [line.outcome for line in AuditLog.of(store).newest(None, 2)] == [Outcome.UNKNOWN, Outcome.BEGUN]
    flags = open_flags(address, True, None)
    assert isinstance(flags, UnleashFlags)
    flags.close()


def test_without_a_token_of_its_admin_api_nothing_is_switched(
    toggles: Toggles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADMIN_TOKEN_ENV)
    assert FlagAdmin.of(UnleashFlags.of(toggles.address)) is None
    assert FlagAdmin.of(object()) is None
