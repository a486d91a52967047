"""Who gets into the console, and what a request must be like."""

import asyncio
import json
from typing import Any

import pytest

from fan_identity.io.errors import UsageError
from fan_identity.io.telemetry import metrics
from fan_identity.serving.api_keys import create_key
from fan_identity.serving.console import guard
from fan_identity.serving.settings import load_serving_settings

from .conftest import asked_one, code_of

LETTER = "a" * 32
COUNTS = ("dead-letters/summary", "dead-letters/count")
READS = (
    *(
        "me",
        "flow",
        "dead-letters/summary",
        "dead-letters/count",
        "dead-letters",
        f"dead-letters/{LETTER}",
        "flags",
        "imports",
        "audit",
    ),
    *("jobs", "jobs/20261127T032522887Z-ec5dea9b", "imports/cluster/20261126T231500Z-1a2b3c4d"),
)
ACTS: tuple[tuple[str, Any], ...] = (
    ("dead-letters/redrive", {"ids": [LETTER]}),
    (f"dead-letters/{LETTER}/reveal", {}),
    ("flags/scoreUsers", {"enabled": False}),
    ("imports/cluster/rollback", {"active": "20261126T231500Z-1a2b3c4d"}),
)


def test_everything_needs_the_scope_that_the_issuer_gives(console):
    nobody, fan = {"X-None": "x"}, console.bearer(console.issuer.token_of_fan("fan-1", "sub"))
    service = console.bearer(console.issuer.token_of_service())
    acts_alone = console.signed("console:act")
    for headers, expected in ((nobody, 401), (fan, 403), (service, 403), (acts_alone, 403)):
        answers = console.ask(*((path,) for path in READS), *ACTS, headers=headers)
        assert {answer.status_code for answer in answers} == {expected}
        assert all(code_of(answer) for answer in answers)
    assert console.audit.head() is None, "what is refused does nothing"


def test_reading_is_not_acting(console):
    reader = console.signed("console:read")
    answers = console.ask(*((path,) for path in READS), *ACTS, headers=reader)
    found = {path: answer.status_code for path, answer in zip(READS, answers, strict=False)}
    assert {status for path, status in found.items() if "/" not in path or path in COUNTS} == {200}
    assert {status for path, status in found.items() if "/" in path and path not in COUNTS} == {404}
    assert [code_of(answer) for answer in answers[len(READS) :]] == [(403, "FORBIDDEN")] * len(ACTS)
    assert answers[0].json() == {"subject": "desk", "mayAct": False}
    assert console.audit.head() is None


def test_a_person_is_an_operator_by_the_scope_alone(console):
    operator = console.bearer(console.issuer._signed({"sub": "ann", "scope": "openid console:read console:act"}))
    assert console.get("me", headers=operator).json() == {"subject": "ann", "mayAct": True}
    console.letters.write([console.letter()])
    revealed = console.post(f"dead-letters/{console.letter().dead_letter_id}/reveal", {}, headers=operator)
    assert revealed.status_code == 200
    subject = console.audit.newest(None, 1)[0].subject
    assert subject.startswith("user:")
    assert "ann" not in subject


def test_an_api_key_gets_in_by_its_scopes(console):
    keys = console.folder / "keys.jsonl"
    operator = create_key(keys, "desk", ["console:read", "console:act"], 5)
    other = create_key(keys, "box-office", ["fanscore:read"], 5)
    assert console.get("me", headers={"X-Api-Key": operator}, api_keys=str(keys)).json()["mayAct"]
    assert code_of(console.get("me", headers={"X-Api-Key": other}, api_keys=str(keys))) == (403, "FORBIDDEN")
    answers = console.ask(*[("me",)] * 7, headers={"X-Api-Key": operator}, api_keys=str(keys))
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2


def test_callers_are_limited_each_by_itself(console, monkeypatch):
    monkeypatch.setattr(guard, "READS_A_MINUTE", 3)
    monkeypatch.setattr(guard, "ACTS_A_MINUTE", 1)

    async def asked():
        async with console.client() as client:
            reads = [await asked_one(client, console.signed(), "me") for _ in range(5)]
            acts = [await asked_one(client, console.signed(), "flags/scoreUsers", {"enabled": True}) for _ in range(2)]
            other = await asked_one(client, console.signed(sub="desk-2", client_id="desk-2"), "me")
            return reads, acts, other

    reads, acts, other = asyncio.run(asked())
    assert [answer.status_code for answer in reads] == [200, 200, 200, 429, 429]
    assert code_of(reads[-1]) == (429, "RATE_LIMITED")
    assert int(reads[-1].headers["retry-after"]) >= 1
    assert [answer.status_code for answer in acts] == [501, 429]
    assert other.status_code == 200


HOSTILE = (
    *(
        "' OR 1=1 --",
        '"; DROP TABLE dead_letters; --',
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "..%2f..",
        "a\0b",
    ),
    *("$(touch /tmp/x)", "; rm -rf /", "--store=sqlite:///other.db", "-h", "--", "%s%n", "\u202e", "x" * 5_000, ""),
)
PARAMETERS = ("state", "worker", "reason", "from", "to", "after", "limit")
OF_PATHS = ("dead-letters/{}", "jobs/{}", "imports/{}/20261126T231500Z-1a2b3c4d", "imports/cluster/{}")


@pytest.mark.parametrize("value", HOSTILE)
def test_what_is_none_of_a_parameters_values_is_refused_and_never_repeated(console, value):
    console.letters.write([console.letter()])

    async def asked():
        async with console.client() as client:
            headers = console.signed()
            found = [
                await client.get("/console/api/dead-letters", params={name: value}, headers=headers)
                for name in PARAMETERS
            ]
            found += [
                await client.get("/console/api/audit", params={name: value}, headers=headers)
                for name in ("after", "limit")
            ]
            found.append(await client.get("/console/api/me", params={value or "x": "1"}, headers=headers))
            quoted = "".join(f"%{byte:02X}" for byte in value.encode())
            found += [await client.get("/console/api/" + path.format(quoted), headers=headers) for path in OF_PATHS]
            bodies: list[tuple[str, Any]] = [
                ("dead-letters/redrive", {"ids": [value]}),
                ("dead-letters/redrive", {"filter": {"worker": value}, "expected": 1}),
                ("dead-letters/redrive", {"filter": {"reason": value}, "expected": 1}),
                ("dead-letters/redrive", {"filter": {"from": value}, "expected": 1}),
                ("dead-letters/redrive", {"filter": {"state": value}, "expected": 1}),
                ("dead-letters/redrive", {"filter": {}, "expected": value}),
                (f"dead-letters/{quoted}/reveal", {}),
                (f"flags/{quoted}", {"enabled": False}),
                ("flags/scoreUsers", {"enabled": value}),
                (f"imports/{quoted}/rollback", {"active": "20261126T231500Z-1a2b3c4d"}),
                ("imports/cluster/rollback", {"active": value}),
            ]
            found += [await asked_one(client, headers, *body) for body in bodies]
            return found

    for answer in asyncio.run(asked()):
        assert answer.status_code in (400, 404), (answer.request.method, answer.request.url)
        assert code_of(answer)[1] in ("BAD_INPUT", "NOT_FOUND")
        assert len(value) < 3 or value not in answer.text
    assert console.audit.head() is None
    assert console.letters.count() == 1


@pytest.mark.parametrize("activity", ["' OR '1'='1", "%", "<b>", "--all", "$(id)", "a1\U0001f600"])
def test_an_activity_is_looked_for_letter_by_letter(console, activity):
    console.letters.write([console.letter(1), console.letter(2, activity_id=activity)])

    async def asked():
        async with console.client() as client:
            return await client.get(
                "/console/api/dead-letters", params={"activity": activity}, headers=console.signed()
            )

    (found,) = asyncio.run(asked()).json()["letters"]
    assert found["id"] == console.letter(2, activity_id=activity).dead_letter_id


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b'"x"', b"null", b'{"ids": ["' + LETTER.encode() + b'"], "ids": []}', b'{"ids": []}'),
        *(b'{"ids": null}', b'{"filter": {}}', b'{"expected": 1}', b'{"filter": {"state": "all"}, "expected": 1}'),
        *(
            b'{"filter": {"more": 1}, "expected": 1}',
            b'{"filter": {}, "expected": -1}',
            b'{"filter": {}, "expected": true}',
        ),
        *(b'{"filter": {}, "expected": 1.5}', b'{"filter": {}, "expected": "1"}', b"\xff", b"[" * 3_000),
        json.dumps({"ids": [LETTER[:-8] + f"{number:08x}" for number in range(101)]}).encode(),
        json.dumps({"ids": [LETTER], "filter": {}, "expected": 1}).encode(),
    ],
)
def test_a_body_is_what_it_should_be(console, body):
    assert code_of(console.post("dead-letters/redrive", body)) == (400, "BAD_INPUT")
    assert console.audit.head() is None


def test_the_rest_of_http(console):
    async def asked():
        async with console.client() as client:
            headers = console.signed()
            path = "/console/api/dead-letters/redrive"
            form = await client.post(path, content=b"ids=x", headers={**headers, "content-type": "text/plain"})
            bare = await client.post(path, content=b"{}", headers=headers)
            large = await asked_one(client, headers, "dead-letters/redrive", b" " * 65_537)
            got = await client.get(path, headers=headers)
            queried = await client.post(
                path + "?x=1", content=b"{}", headers={**headers, "content-type": "application/json"}
            )
            twice = await client.get("/console/api/dead-letters?limit=1&limit=2", headers=headers)
            strange = await client.get("/console/api/dead-letters?limit=%ff", headers=headers)
            many = await client.get("/console/api/me?" + "&".join(f"p{n}=1" for n in range(30)), headers=headers)
            return form, bare, large, got, queried, twice, strange, many

    form, bare, large, got, *others = asyncio.run(asked())
    assert code_of(form) == code_of(bare) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert code_of(large) == (413, "TOO_LARGE")
    assert code_of(got)[0] in (400, 405)
    assert [code_of(answer) for answer in others] == [(400, "BAD_INPUT")] * len(others)


def test_there_is_no_console_where_nothing_says_where_its_audit_log_is(console):
    answer = console.get("me", store=None, cache=console.address, table=console.address)
    assert code_of(answer) == (404, "NOT_FOUND")


def test_a_short_audit_key_is_told_at_the_start(console, monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_AUDIT_KEY", "short")
    with pytest.raises(UsageError, match="FAN_IDENTITY_AUDIT_KEY"):
        console.get("me")
    monkeypatch.delenv("FAN_IDENTITY_AUDIT_KEY")
    assert load_serving_settings(**console.issuer.settings).token_issuer


def test_what_is_refused_is_counted_as_such(console, monkeypatch):
    metrics.forget()
    monkeypatch.setattr(metrics.switch, "on", True)
    console.ask(("me",), ("dead-letters?limit=x",), ("nothing",), ("dead-letters/redrive", b"{"))
    counted = {labels: sum(cell.snapshot()[0]) for labels, cell in metrics.requests.items()}
    assert (counted["console", "ok"], counted["console", "client_error"]) == (1, 3)
    metrics.forget()
