"""What the console shows and does: dead letters, imports, flags, jobs, the audit log."""

import asyncio
import threading
import time

import msgspec
import pytest

from fan_identity.domain.activity import format_time_ms
from fan_identity.domain.audit import Outcome
from fan_identity.domain.dead_letters import LetterFilter, RedriveAttempt
from fan_identity.domain.imports import ArmChange, Comparison, ImportKind, Pointer, State, VersionRecord, pointer_item
from fan_identity.io.clock import now_ms
from fan_identity.io.import_versions import ImportVersions
from fan_identity.io.sqlite.queue import SqliteQueue
from fan_identity.io.sqlite.table import SqliteTable
from fan_identity.serving.console.commands import Commands

from ...conftest import until_true
from .conftest import asked_one, code_of

PATIENCE = 120


def all_pages(console, query="", limit=3):
    async def asked():
        found, after = [], ""
        async with console.client() as client:
            while after is not None:
                page = await asked_one(
                    client, console.signed(), f"dead-letters?limit={limit}{query}{after and f'&after={after}'}"
                )
                assert page.status_code == 200, page.text
                found += page.json()["letters"]
                after = page.json()["next"]
        return found

    return asyncio.run(asked())


def test_letters_are_paged_and_shown_without_their_payload(console):
    console.letters.write([console.letter(number) for number in range(8)])
    console.letters.record([RedriveAttempt(console.letter(3).dead_letter_id, 9_000, "queued", "", "r")])
    assert len(all_pages(console)) == 7
    every = all_pages(console, "&state=all")
    assert len({letter["id"] for letter in every}) == 8
    (redriven,) = all_pages(console, "&state=redriven")
    assert redriven["redrivenAt"] == "1970-01-01T00:00:09.000Z"
    assert set(redriven) == {
        *("id", "worker", "reason", "error", "attempts", "writtenAt", "redrivenAt", "source", "position"),
        "codeVersion",
    }
    assert [letter["id"] for letter in all_pages(console, "&activity=a5")] == [console.letter(5).dead_letter_id]
    assert all_pages(console, "&worker=scoreUsers") == all_pages(console, "&reason=unreadable") == []
    assert all_pages(console, "&to=1999-01-01T00:00:00Z") == []
    assert len(all_pages(console, "&from=1999-01-01T00:00:00Z&worker=enqueueFromStream&reason=malformed")) == 7


def test_letters_are_counted_in_the_background(console):
    console.letters.write([console.letter(number) for number in range(3)])
    console.letters.write([console.letter(9, worker="scoreUsers", reason="too_many_receives")])
    told = console.get("dead-letters/summary").json()
    assert told["total"] == 4
    assert told["asOf"] <= time.time() * 1_000
    assert told["groups"] == [
        {"worker": "enqueueFromStream", "reason": "malformed", "count": 3},
        {"worker": "scoreUsers", "reason": "too_many_receives", "count": 1},
    ]


def test_a_letter_is_shown_with_its_history_and_its_payload_on_demand(console):
    for payload, encoding, text in ((b"{", "utf-8", "{"), (b"\xff\0", "base64", "/wA=")):
        letter = console.letter(payload=payload)
        console.letters.write([letter])
        console.letters.record([RedriveAttempt(letter.dead_letter_id, 9_000, "failed", "again", "r", "0.9")])
        shown, revealed = console.ask(
            (f"dead-letters/{letter.dead_letter_id}",), (f"dead-letters/{letter.dead_letter_id}/reveal", {})
        )
        assert shown.json()["stack"] == "Traceback …"
        (attempt,) = shown.json()["history"]
        assert (attempt["outcome"], attempt["error"], attempt["codeVersion"]) == ("failed", "again", "0.9")
        assert "payload" not in shown.json()
        assert revealed.json() == {"payload": text, "encoding": encoding, "bytes": len(payload), "truncated": False}
        ended, begun = console.audit.newest(None, 2)
        assert (begun.outcome, ended.outcome, begun.reference) == (Outcome.BEGUN, Outcome.DONE, ended.reference)
        assert (begun.action, begun.target, begun.subject) == (
            "deadLetters.reveal",
            letter.dead_letter_id,
            "service:desk",
        )


async def ended_job(client, headers, job):
    deadline = time.monotonic() + PATIENCE
    while True:
        told = (await asked_one(client, headers, f"jobs/{job}")).json()
        if told["state"] != "running":
            return told
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def run(console, path, body):
    async def asked():
        async with console.client() as client:
            begun = await asked_one(client, console.signed(), path, body)
            assert begun.status_code == 200, begun.text
            return await ended_job(client, console.signed(), begun.json()["job"])

    return asyncio.run(asked())


def message(number):
    return b'{"activityId":"a%d","globalUserId":"fan-1","activityType":"signUp","occurredAt":%d}' % (
        number,
        int(time.time() * 1_000) - 10_000,
    )


def test_letters_are_sent_again_by_the_command_itself(console):
    console.letters.write([console.letter(number, payload=message(number)) for number in range(3)])
    console.letters.write([console.letter(9, reason="unreadable")])
    where = {"worker": "enqueueFromStream", "reason": "malformed"}
    assert code_of(console.post("dead-letters/redrive", {"filter": where, "expected": 2})) == (409, "CHANGED")
    assert code_of(console.post("dead-letters/redrive", {"filter": where, "expected": 4})) == (409, "CHANGED")
    assert console.audit.head() is None
    told = run(console, "dead-letters/redrive", {"filter": {**where, "state": "waiting"}, "expected": 3})
    assert (told["state"], told["exitCode"], told["summary"]["queued"]) == ("done", 0, 3)
    assert "settings" not in told["summary"]
    assert SqliteQueue(console.store, "accountActivityQueue", visibility_timeout_ms=1).depth() == 3
    assert console.letters.count() == 1
    ended, begun = console.audit.newest(None, 2)
    assert (begun.outcome, begun.target, begun.details["expected"]) == (Outcome.BEGUN, told["job"], 3)
    assert (ended.outcome, ended.details["queued"], ended.reference) == (Outcome.DONE, 3, begun.reference)
    assert console.audit.verify().whole


def test_a_number_and_the_moment_it_is_of_go_together_however_many_letters_come(console):
    """Shown, compared by the API and compared by the command: letters that came since are of none of the three."""
    console.letters.write([console.letter(number, payload=message(number)) for number in range(3)])

    async def asked():
        async with console.client() as client:
            counted = (await asked_one(client, console.signed(), "dead-letters/count?reason=malformed")).json()
            summed = (await asked_one(client, console.signed(), "dead-letters/summary")).json()
            until_true(lambda: now_ms() > summed["asOf"] and format_time_ms(now_ms()) > counted["to"], "time goes on")
            console.letters.write([console.letter(10 + number, payload=message(10 + number)) for number in range(5)])
            both = []
            for to in (counted["to"], str(summed["asOf"])):
                where = {"reason": "malformed", "to": to}
                again = await asked_one(client, console.signed(), f"dead-letters/count?reason=malformed&to={to}")
                both.append(again.json()["count"])
            begun = await asked_one(client, console.signed(), "dead-letters/redrive", {"filter": where, "expected": 3})
            assert begun.status_code == 200, begun.text
            return counted, summed, both, await ended_job(client, console.signed(), begun.json()["job"])

    counted, summed, both, told = asyncio.run(asked())
    assert (counted["count"], summed["total"], both) == (3, 3, [3, 3])
    assert (told["exitCode"], told["summary"]["queued"]) == (0, 3)
    assert console.letters.count() == 5, "those that came since wait still"
    begun = console.audit.newest(None, 2)[1]
    assert begun.details["until"] == format_time_ms(summed["asOf"])


def test_a_redrive_without_an_end_has_one_all_the_same(console):
    console.letters.write([console.letter(1, payload=message(1))])
    run(console, "dead-letters/redrive", {"filter": {}, "expected": 1})
    assert console.audit.newest(None, 2)[1].details["until"] <= format_time_ms(now_ms())


def test_no_text_from_outside_gets_into_the_audit_log(console):
    """Its lines are never deleted, and whoever looks for a fan may put the id into any field."""
    fan = "fan00042"
    console.letters.write([console.letter(1, payload=message(1))])
    for where in ({"reason": fan}, {"activity": fan}):
        told = run(console, "dead-letters/redrive", {"filter": where, "expected": 0})
        assert told["exitCode"] == 0
        (name,) = where
        assert console.audit.newest(None, 2)[1].details[name] == "given"
    assert code_of(console.post("dead-letters/redrive", {"filter": {"worker": fan}, "expected": 0})) == (
        400,
        "BAD_INPUT",
    )
    assert code_of(console.post("dead-letters/redrive", {"ids": ["f" * 32]})) == (404, "NOT_FOUND")
    known = {"reason": "malformed", "worker": "enqueueFromStream"}
    run(console, "dead-letters/redrive", {"filter": known, "expected": 1})
    assert known.items() <= console.audit.newest(None, 2)[1].details.items()
    assert fan not in str(console.audit.newest(None, 50))


def test_a_request_that_is_given_up_leaves_its_commands_end_to_the_command(console, monkeypatch):
    letter = console.letter(1, payload=message(1))
    console.letters.write([letter])
    launched, waits = threading.Event(), threading.Event()
    launch = Commands._launch

    def slowly(self, *arguments):
        launched.set()
        assert waits.wait(PATIENCE)
        launch(self, *arguments)

    monkeypatch.setattr(Commands, "_launch", slowly)

    async def asked():
        async with console.client() as client:
            body = {"ids": [letter.dead_letter_id]}
            request = asyncio.create_task(asked_one(client, console.signed(), "dead-letters/redrive", body))
            await asyncio.to_thread(launched.wait, PATIENCE)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            waits.set()
            job = console.audit.newest(None, 1)[0].details["job"]
            await ended_when_there(client, console.signed(), job)

    asyncio.run(asked())
    until_true(lambda: len(console.audit.newest(None, 9)) > 1, "the end is written")
    assert [line.outcome for line in console.audit.newest(None, 9)] == [Outcome.DONE, Outcome.BEGUN]


async def ended_when_there(client, headers, job):
    deadline = time.monotonic() + PATIENCE
    while (await asked_one(client, headers, f"jobs/{job}")).status_code == 404:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await ended_job(client, headers, job)


@pytest.mark.slow
def test_letters_are_sent_again_by_their_ids_and_what_fails_again_is_told(console):
    good, bad = console.letter(1, payload=message(1)), console.letter(2)
    console.letters.write([good, bad, console.letter(3)])
    told = run(console, "dead-letters/redrive", {"ids": [good.dead_letter_id, bad.dead_letter_id]})
    assert (told["state"], told["exitCode"]) == ("done", 1)
    assert (told["summary"]["queued"], told["summary"]["failed"]) == (1, 1)
    assert console.letters.count(LetterFilter()) == 2
    told = run(console, "dead-letters/redrive", {"ids": [good.dead_letter_id, "f" * 32]})
    assert (told["state"], told["exitCode"]) == ("failed", 2)
    assert told["summary"]["problem"].startswith("it was refused")
    assert console.audit.newest(None, 1)[0].outcome is Outcome.FAILED


def versions(console):
    table = SqliteTable(console.store, "fanIdentityTable")
    kept = ImportVersions(table, ImportKind.CLUSTER)
    first, second = "20261125T231500Z-1a2b3c4d", "20261126T231500Z-5a2b3c4d"
    change = ArmChange("fan-secret", 2, 5, 30.0, 90.0, "c1", "c2")
    comparison = Comparison(
        compared_with=first, rows=5, fans=4, changed=1, examples=(change,), bad_examples=("f:1 fan-secret",)
    )
    for version, state, replaced, at, compared in (
        (first, State.REPLACED, None, 1_000, Comparison(rows=3)),
        (second, State.ACTIVE, first, 2_000, comparison),
    ):
        kept.save(
            VersionRecord(
                version, ImportKind.CLUSTER, state, ("f.csv",), "0" * 64, at, 1, replaced, True, comparison=compared
            )
        )
    kept.move(kept.pointer(), first, 1)
    kept.move(kept.pointer(), second, 2)
    return kept, first, second


def test_imports_are_listed_compared_without_fans_and_taken_back(console):
    kept, first, second = versions(console)
    listed, shown = console.ask(("imports",), (f"imports/cluster/{second}",))
    assert [(one["version"], one["active"], one["rows"]) for one in listed.json()["imports"]] == [
        (second, True, 5),
        (first, False, 3),
    ]
    assert shown.json()["comparison"]["examples"][0]["armAfter"] == 5
    assert "fan-secret" not in shown.text
    assert code_of(console.post("imports/cluster/rollback", {"active": first})) == (409, "CHANGED")
    assert code_of(console.post("imports/botOrNot/rollback", {"active": second})) == (409, "CHANGED")
    told = run(console, "imports/cluster/rollback", {"active": second})
    assert (told["state"], told["exitCode"], told["summary"]["active"]) == ("done", 0, first)
    assert kept.pointer().import_version == first
    ended, begun = console.audit.newest(None, 2)
    assert (begun.action, begun.target, ended.outcome) == ("imports.rollback", second, Outcome.DONE)


def test_another_version_that_became_active_meanwhile_is_not_taken_back(console, cli):
    kept, first, second = versions(console)
    answer = cli("imports", "rollback", "cluster", f"--active={first}", "--store", console.address)
    assert answer.code == 2
    assert second in answer.err
    assert kept.pointer().import_version == second
    console.store.connection.execute("DELETE FROM items WHERE sk = 'ACTIVE'")
    SqliteTable(console.store, "fanIdentityTable").put(pointer_item(ImportKind.CLUSTER, Pointer()))
    assert cli("imports", "rollback", "cluster", f"--active={first}", "--store", console.address).code == 2


def test_the_command_compares_the_number_too(console, cli):
    console.letters.write([console.letter(number) for number in range(3)])
    answer = cli("dead-letters", "redrive", "--expected", "2", "--store", console.address)
    assert (answer.code, "3 letters match, not 2" in answer.err) == (2, True)
    answer = cli("dead-letters", "redrive", "--activity", "a1", "--dry-run", "--json", "--store", console.address)
    assert msgspec.json.decode(answer.out)["wouldRedrive"] == 1


def test_flags_without_a_server_are_all_on_and_cannot_be_switched(console):
    told, switched = console.ask(("flags",), ("flags/scoreUsers", {"enabled": False}))
    assert (told.json()["server"], told.json()["canToggle"]) == (False, False)
    assert {flag["enabled"] for flag in told.json()["flags"]} == {True}
    assert code_of(switched) == (501, "NOT_CONFIGURED")


def test_the_audit_log_is_paged_newest_first_and_says_whether_it_is_whole(console):
    console.letters.write([console.letter()])
    path = f"dead-letters/{console.letter().dead_letter_id}/reveal"
    console.ask(*[(path, {})] * 3)

    async def asked():
        async with console.client() as client:
            first = (await asked_one(client, console.signed(), "audit?limit=4")).json()
            more = (await asked_one(client, console.signed(), f"audit?limit=4&after={first['next']}")).json()
            return first, more

    first, more = asyncio.run(asked())
    assert [line["seq"] for line in first["lines"] + more["lines"]] == [6, 5, 4, 3, 2, 1]
    assert more["next"] is None
    assert first["head"] == {"seq": 6, "hash": first["lines"][0]["hash"]}
    assert first["verified"] in (None, True)


def test_a_part_that_is_away_is_said_to_be_and_its_address_is_not(console):
    (console.folder / "away.db").write_bytes(b"no store, but a file" * 100)
    away = f"sqlite:///{console.folder}/away.db"

    async def asked():
        async with console.client(dead_letters=away) as client:
            return await asked_one(client, console.signed(), "dead-letters")

    answer = asyncio.run(asked())
    assert code_of(answer) == (503, "UNAVAILABLE")
    assert "away.db" not in answer.text
