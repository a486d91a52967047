"""Dead letters sent again: which, how often, at which rate, and every attempt kept."""

import json
import signal
import sqlite3

import msgspec
import pytest

from fan_identity.batch.redrive import Redrive
from fan_identity.domain.dead_letters import LetterFilter
from fan_identity.domain.records import CODE_VERSION, DeadLetter
from fan_identity.domain.scorable import ScorableRules
from fan_identity.io.backends import Backends
from fan_identity.io.pacing import Pacer
from fan_identity.io.settings import load_settings
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters
from fan_identity.io.sqlite.store import SqliteStore

from ..shuffled_events import enveloped, idv, upsert

NOW = 1_764_000_000_000


def activity(number: int, user: str = "u") -> bytes:
    fields = {"activityId": f"a-{number}", "activityType": "login", "occurredAt": NOW, "globalUserId": user}
    return json.dumps(fields).encode()


def letter(number: int, payload: bytes | None = None, **more: object) -> DeadLetter:
    made = DeadLetter(
        dead_letter_id=f"{number:032x}",
        worker="enqueueFromStream",
        reason="malformed",
        error="timed out",
        stack="",
        attempts=1,
        request_id="r",
        activity_id=None,
        source="f.jsonl",
        position=f"byte {number}",
        payload=activity(number) if payload is None else payload,
    )
    return msgspec.structs.replace(made, **more)


@pytest.fixture
def letters(store) -> SqliteDeadLetters:
    return SqliteDeadLetters(SqliteStore(store.path))


@pytest.fixture
def redrive(store, letters):
    def make(**options: object) -> Redrive:
        settings = load_settings(store=store.address)
        rules = ScorableRules(now_ms=NOW)
        return Redrive(letters, rules, lambda name: Backends.of(settings, name), **options)

    return make


def test_each_goes_back_through_its_own_door_and_every_attempt_is_kept(store, letters, redrive):
    letters.write(
        [
            letter(1),
            letter(2, activity(2, user=" ")),
            letter(3, b"{"),
            letter(4, b'{"globalUserId":"u"}', worker="scoreUsers"),
            letter(5, b'{"rescoreId":"r","users":["u"]}', worker="processRescoreEvents"),
            letter(6, worker="a worker of the past"),
            letter(7, b"{", worker="scoreUsers", source="kinesis://changes#shard-1"),
            letter(8, b"x", worker="startClusterImport"),
            letter(9, b"{}", worker="startImport", source="sqs://events"),
        ]
    )
    run = redrive()
    result = run.run(letters.pages(size=3))
    assert (result.queued, result.rejected, result.failed, result.of_imports) == (4, 1, 2, 2)
    queues = dict(store.query("SELECT name, count(*) FROM messages JOIN queues USING (queue) GROUP BY name"))
    assert queues == {"accountActivityQueue": 3, "rescoreQueue": 1}
    outcomes = {number: [one.outcome for one in letters.history(f"{number:032x}")] for number in range(1, 10)}
    assert outcomes == {
        **{key: ["queued"] for key in (1, 4, 5, 6)},
        2: ["rejected"],
        **{key: ["failed"] for key in (3, 7)},
        **{key: [] for key in (8, 9)},
    }
    (failed,) = letters.history(f"{3:032x}")
    assert failed.error
    assert (failed.request_id, failed.code_version) == (run.request_id, CODE_VERSION)
    waiting = {stored.letter.dead_letter_id[-1]: stored.letter.attempts for stored in letters.select()}
    assert waiting == {"3": 2, "7": 2, "8": 1, "9": 1}


def test_events_go_back_in_their_users_groups_and_one_that_waits_holds_up_no_other_user(store, letters, redrive):
    events = {1: enveloped(idv(1, "fan-1"), "idv"), 2: idv(2, "fan-2"), 3: upsert(3, "fan-1"), 4: b"{", 5: b"}"}
    letters.write([letter(number, body, worker="handleEvent") for number, body in events.items()])
    result = redrive().run(letters.pages())
    assert (result.queued, result.workers) == (5, ("handleEvent",))
    groups = [group for (group,) in store.query("SELECT group_id FROM messages ORDER BY length(group_id), group_id")]
    assert groups == ["fan-1", "fan-1", "fan-2", f"{4:032x}", f"{5:032x}"]


def test_it_says_what_to_run_for_each_worker_whose_letters_were_sent(store, cli, letters):
    letters.write([letter(1), letter(2, idv(1), worker="handleEvent"), letter(3, worker="a worker of the past")])
    told = cli("dead-letters", "redrive", *store.flag)
    assert told.code == 0
    assert [line for line in told.err.splitlines() if "run" in line] == [
        f"work them off with: fan-identity run {worker} --store {store.address}"
        for worker in ("handleEvent", "scoreUsers")
    ]
    assert cli("run", "handleEvent", *store.flag).code == 0


def test_a_message_that_a_backfill_scored_past_the_queue_goes_into_the_queue(store, letters, redrive):
    """Its source is a stream, but its bytes are a message and no change record."""
    message = {"globalUserId": "u", "activityId": "a", "activityType": "login", "occurredAt": NOW, "requestId": "r"}
    body = json.dumps({**message, "worker": "enqueueFromStream", "activity": json.loads(activity(1))}).encode()
    letters.write([letter(1, body, worker="scoreUsers", source="kafka://host/topic#0")])
    assert redrive().run(letters.pages()).queued == 1
    assert [json.loads(body)["activityId"] for (body,) in store.query("SELECT body FROM messages")] == ["a"]


def test_sent_twice_is_scored_once(store, cli, letters, redrive):
    """As where a run is killed after sending and before it is recorded."""
    letters.write([letter(number) for number in range(20)])
    pages = list(letters.pages())
    assert redrive().run(pages).queued == 20
    assert redrive().run(pages).queued == 20
    assert cli("run", "scoreUsers", *store.flag).code == 0
    assert store.scores() == 20
    assert redrive().run(letters.pages()).looked_at == 0


def test_letters_are_sent_at_the_rate(letters, redrive):
    letters.write([letter(number) for number in range(500)])
    sent: list[tuple[float, int]] = []
    now = 0.0

    def pass_(seconds: float) -> None:
        nonlocal now
        sent.append((now, letters.count(LetterFilter(waiting_only=False)) - letters.count()))
        now += seconds

    assert redrive(pacer=Pacer(40, lambda: now, pass_)).run(letters.pages()).queued == 500
    assert now == pytest.approx(498 / 40), "all but the first portion of two waited"
    assert all(number <= 40 * seconds + 2.001 for seconds, number in sent)
    assert len(sent) == 249


def test_asked_to_stop_it_leaves_the_rest_waiting(letters, redrive):
    letters.write([letter(number) for number in range(500)])
    answers = iter([False, True])
    result = redrive(stop=lambda: next(answers)).run(letters.pages())
    assert (result.queued, result.interrupted) == (100, True)
    assert letters.count() == 400


def test_killed_it_goes_on_and_each_is_scored_once(store, cli, letters):
    letters.write([letter(number, user_activity(number)) for number in range(3_000)])
    run = cli.start("dead-letters", "redrive", *store.flag, "--rate", "2000/s")
    run.until(lambda: 500 < store.sent() < 2_900, "some were sent")
    assert run.kill() == -signal.SIGKILL
    waiting = letters.count()
    assert 0 < waiting < 3_000
    result = cli("dead-letters", "redrive", *store.flag, "--json")
    assert (result.code, result.json["queued"]) == (0, waiting)
    assert cli("run", "scoreUsers", *store.flag).code == 0
    assert (store.scores(), letters.count()) == (3_000, 0)
    assert store.number("SELECT count(*) FROM dead_letter_attempts") == 3_000


def user_activity(number: int) -> bytes:
    return activity(number, f"user-{number % 50}")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--error", "refused"), {2}),
        (("--worker", "scoreUsers"), {3}),
        (("--code-version", "0.0.9"), {4}),
        (("--since", "2026-01-01T00:00:00Z"), {2, 3, 4}),
        (("--until", "2026-01-01T00:00:00Z"), {1}),
        (("--since", "2026-01-01", "--until", "2026-01-03", "--reason", "malformed"), {2, 3}),
        ((), {1, 2, 3, 4}),
    ],
)
def test_letters_are_chosen_by_what_they_say(store, cli, letters, options, expected):
    letters.write(
        [
            letter(1),
            letter(2, error="connection refused"),
            letter(3, b'{"globalUserId":"u"}', worker="scoreUsers"),
            letter(4, code_version="0.0.9"),
        ]
    )
    days = {1: "2025-12-31", 2: "2026-01-01", 3: "2026-01-02", 4: "2026-01-03"}
    with sqlite3.connect(store.path) as connection:
        for number, day in days.items():
            connection.execute(
                "UPDATE dead_letters SET written_at = 1000 * unixepoch(?) WHERE dead_letter_id = ?",
                (day, f"{number:032x}"),
            )
    dry = cli("dead-letters", "redrive", *options, *store.flag, "--dry-run", "--json").json
    assert dry["wouldRedrive"] == len(expected)
    assert sum(kind["number"] for kind in dry["kinds"]) == len(expected)
    listed = cli("dead-letters", "list", *options, *store.flag, "--json").out.splitlines()
    assert {int(json.loads(line)["deadLetterId"], 16) for line in listed} == expected
    result = cli("dead-letters", "redrive", *options, *store.flag, "--json")
    assert (result.code, result.json["queued"]) == (0, len(expected)), result
    waiting = {int(stored.letter.dead_letter_id, 16) for stored in letters.select()}
    assert waiting == {1, 2, 3, 4} - expected
    again = cli("dead-letters", "redrive", *options, *store.flag, "--json")
    assert (again.code, again.json["outcome"], again.json["queued"]) == (0, "nothing to do", 0)


def test_a_letter_is_shown_with_its_attempts(store, cli, letters):
    letters.write([letter(1, b"{")])
    for _ in range(2):
        assert cli("dead-letters", "redrive", *store.flag).code == 1
    shown = cli("dead-letters", "show", "0000", *store.flag, "--json").json
    assert shown["codeVersion"] == CODE_VERSION
    assert [one["outcome"] for one in shown["history"]] == ["failed", "failed"]
    assert shown["history"][0]["at"] <= shown["history"][1]["at"]
    assert len({one["requestId"] for one in shown["history"]}) == 2
    assert cli("dead-letters", "show", "0000", *store.flag).text.count("  failed  ") == 2


def test_letters_of_imports_are_not_sent_by_row(store, cli, letters):
    letters.write([letter(1, worker="startBotOrNotImport"), letter(2)])
    for arguments in (("--worker", "startBotOrNotImport"), (f"{1:032x}",)):
        result = cli("dead-letters", "redrive", *arguments, *store.flag)
        assert (result.code, len(result.err_lines)) == (2, 1)
        assert "correct the file and import it again" in result.err
    dry = cli("dead-letters", "redrive", *store.flag, "--dry-run")
    assert dry.text.startswith("1 dead letters would be sent again\n")
    assert "not sent: import the file again" in dry.text
    result = cli("dead-letters", "redrive", *store.flag, "--json")
    assert (result.code, result.json["queued"], result.json["counts"]["of_imports"]) == (1, 1, 1)
    assert "1 are of imports" in result.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "yesterday"), "--since: write a time as"),
        (("--rate", "fast"), "--rate: write a whole number a second"),
        (("--rate", "0"), "--rate: write a whole number a second"),
        ((f"{1:032x}", "--worker", "scoreUsers"), "not both"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(store, cli, letters, options, said):
    letters.write([letter(1)])
    result = cli("dead-letters", "redrive", *options, *store.flag)
    assert (result.code, len(result.err_lines)) == (2, 1)
    assert said in result.err
    assert letters.count() == 1
