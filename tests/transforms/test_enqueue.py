"""The first half's steps: what is decoded, rejected, observed and queued, and what failure leaves behind."""

import json
import sqlite3
from collections import defaultdict

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.keys import fifo_group_id
from fan_identity.domain.messages import decode_message
from fan_identity.domain.records import Batch, RawRecord
from fan_identity.domain.scorable import ScorableRules
from fan_identity.io.backends import Backends
from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.settings import Settings
from fan_identity.io.steps import decode_activities, facts_with_user, queue_entry
from fan_identity.transforms.enqueue import DecodeActivities, EnqueueActivities, FilterScorable, ObserveActivities
from fan_identity.transforms.finish import WriteDeadLetters

NOW = 1_718_366_400_000
WORKER = "enqueueFromStream"


class Rules:
    """Rules of a fixed clock, as a worker makes them for each batch."""

    def __call__(self):
        return ScorableRules(NOW, internal_accounts=frozenset({"monitor"}))


@pytest.fixture
def backends(tmp_path):
    return Backends.of(Settings(store=f"sqlite:///{tmp_path}/s.db"))


def body(activity_id="a1", *, user="u1", time_ms=NOW, kind="login", **more):
    return json.dumps(
        {"activityId": activity_id, "activityType": kind, "occurredAt": time_ms, "globalUserId": user, **more}
    ).encode()


def raw(content, position="byte 0"):
    return RawRecord(content, position, content)


def batch_of(*records, request_id="r1"):
    return Batch(request_id, "file.jsonl", [raw(record, f"byte {at}") for at, record in enumerate(records)], (), "9")


def run(backends, *batches):
    """Runs the first half over batches; its counters."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = (
        pipeline
        | beam.Create(list(batches), reshuffle=False)
        | DecodeActivities(WORKER)
        | FilterScorable(Rules())
        | ObserveActivities(backends)
        | EnqueueActivities(WORKER, backends)
        | WriteDeadLetters(backends)
    )
    result = pipeline.run()
    result.wait_until_finish()
    counts = defaultdict(int)
    for counter in result.metrics().query()["counters"]:
        counts[counter.key.metric.name] += counter.result
    return {name: number for name, number in counts.items() if number}


def queued(backends):
    return [decode_message(received.body) for received in backends.open_queue().receive(10_000)]


def test_decoding_keeps_order_and_bytes():
    first, second = body("a1"), body("a2", unheardOf=1)
    decoded = decode_activities(batch_of(first, second), WORKER)
    assert [record.activity.activity_id for record in decoded.items] == ["a1", "a2"]
    assert [record.raw.payload for record in decoded.items] == [first, second]
    assert [record.time_ms for record in decoded.items] == [NOW, NOW]
    assert (decoded.request_id, decoded.source, decoded.position, decoded.dead_letters) == ("r1", "file.jsonl", "9", ())


def test_a_malformed_record_becomes_a_dead_letter_with_its_bytes():
    decoded = decode_activities(batch_of(b"\xff{", body("a2")), WORKER)
    (letter,) = decoded.dead_letters
    assert (letter.payload, letter.position, letter.source) == (b"\xff{", "byte 0", "file.jsonl")
    assert (letter.worker, letter.reason, letter.request_id) == (WORKER, "malformed", "r1")
    assert (letter.attempts, letter.stack, letter.activity_id) == (1, "", None)
    assert len(decoded.items) == 1


def test_what_the_format_could_not_read_is_unreadable():
    batch = Batch("r1", "f.csv", [RawRecord(b"a,b", "row 7", None, "3 columns instead of 5")])
    (letter,) = decode_activities(batch, WORKER).dead_letters
    assert (letter.reason, letter.error, letter.payload) == ("unreadable", "3 columns instead of 5", b"a,b")
    assert letter.position == "row 7"


def test_an_impossible_time_is_malformed_though_the_record_decodes():
    (letter,) = decode_activities(batch_of(body(time_ms="yesterday")), WORKER).dead_letters
    assert letter.reason == "malformed"
    assert "yesterday" not in letter.error


def test_the_same_record_read_again_is_the_same_letter():
    first = decode_activities(batch_of(b"{", b"["), WORKER).dead_letters
    again = decode_activities(batch_of(b"{", b"[", request_id="r2"), WORKER).dead_letters
    assert [letter.dead_letter_id for letter in first] == [letter.dead_letter_id for letter in again]
    assert len({letter.dead_letter_id for letter in first}) == 2
    assert first[0].dead_letter_id != decode_activities(batch_of(b"{"), "other").dead_letters[0].dead_letter_id


@given(st.lists(st.one_of(st.binary(max_size=8), st.integers(0, 9).map(lambda n: body(f"a{n}")))))
def test_every_record_is_decoded_or_a_dead_letter(records):
    decoded = decode_activities(batch_of(*records), WORKER)
    good = [record for record in records if len(record) > 8]
    assert [record.raw.payload for record in decoded.items] == good
    assert [letter.payload for letter in decoded.dead_letters] == [record for record in records if len(record) <= 8]


def test_an_entry_is_grouped_by_user_and_deduplicated_by_activity():
    def entry(*args, worker=WORKER, request_id="r1", **more):
        record = decode_activities(batch_of(body(*args, **more)), WORKER).items[0]
        return queue_entry(record, request_id, worker)

    one = entry("a1", user="ü 1")
    assert one.group_id == fifo_group_id("ü 1")
    message = decode_message(one.body)
    assert (message.global_user_id, message.activity_id, message.request_id) == ("ü 1", "a1", "r1")
    assert entry("a1", request_id="r2").deduplication_id == entry("a1").deduplication_id
    assert entry("a2").deduplication_id != entry("a1").deduplication_id
    assert entry("a1", worker="other").deduplication_id != entry("a1").deduplication_id
    assert entry(time_ms=NOW - 1).precedence() < entry(time_ms=NOW).precedence()


def test_facts_carry_their_user():
    record = decode_activities(batch_of(body(attributes={"outcome": "failure"})), WORKER).items[0]
    user, facts = facts_with_user(record)
    assert (user, facts.activity_id, facts.time_ms, facts.failed) == ("u1", "a1", NOW, 1)


def test_what_is_scorable_is_queued_and_observed_and_the_rest_counted(backends):
    counts = run(
        backends,
        batch_of(
            body("a1"),
            b"broken",
            body("a2", user="u2"),
            body("a3", kind="unheardOf"),
            body("a4", user=" "),
            body("a5", user="monitor"),
            body("a6", time_ms=0),
            body("a7", time_ms=NOW + 86_400_000),
            body("a1"),
        ),
    )
    assert counts == {
        "enqueued": 2,
        "deduplicated": 1,
        "rejected.unknown_type": 1,
        "rejected.blank_user": 1,
        "rejected.internal_account": 1,
        "rejected.too_old": 1,
        "rejected.in_future": 1,
        "dead_lettered.malformed": 1,
    }
    messages = queued(backends)
    assert [(one.activity_id, one.global_user_id, one.request_id, one.worker) for one in messages] == [
        ("a1", "u1", "r1", WORKER),
        ("a2", "u2", "r1", WORKER),
    ]
    assert bytes(messages[0].activity) == body("a1")
    assert [stored.letter.payload for stored in backends.open_dead_letters().select()] == [b"broken"]
    log = backends.open_arai()
    assert [fact.activity_id for fact in log.history("u1", (0, ""), (2 * NOW, ""))] == ["a1"]
    assert log.history("monitor", (0, ""), (2 * NOW, "")) == []


def test_a_users_messages_keep_the_order_of_the_source(backends):
    bodies = [body(f"a{number}", user=f"u{number % 3}", time_ms=NOW - number) for number in range(60)]
    run(backends, batch_of(*bodies[:25]), batch_of(*bodies[25:]))
    by_user = defaultdict(list)
    for message in queued(backends):
        by_user[message.global_user_id].append(int(message.activity_id[1:]))
    assert by_user == {f"u{user}": list(range(user, 60, 3)) for user in range(3)}


def test_the_same_input_again_is_deduplicated_and_makes_no_second_letter(backends):
    batch = batch_of(body("a1"), b"broken")
    run(backends, batch)
    assert run(backends, batch) == {"deduplicated": 1, "dead_lettered.malformed": 1}
    assert backends.open_queue().depth() == 1
    assert backends.open_dead_letters().count() == 1


def test_a_batch_without_records_and_one_of_rejects_pass(backends):
    assert run(backends, batch_of(), batch_of(body(user=None))) == {"rejected.blank_user": 1}
    assert backends.open_queue().depth() == 0


def test_where_the_queue_cannot_be_written_the_bundle_fails(backends, tmp_path, monkeypatch):
    monkeypatch.setattr("fan_identity.io.sqlite.store._BUSY_TIMEOUT_SECONDS", 0.01)
    blocked = Backends.of(Settings(store=backends.arai, queue=f"sqlite:///{tmp_path}/q.db"))
    assert blocked.open_queue().depth() == 0  # makes the file
    other = sqlite3.connect(tmp_path / "q.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendUnavailableError, match=r"store .*q\.db: another process kept it locked"):
        run(blocked, batch_of(body("a1"), b"broken"))
    other.execute("ROLLBACK")
    assert blocked.open_queue().depth() == 0
    assert blocked.open_dead_letters().count() == 0, "nothing after the failing step has happened"
    # The same input again ends as if nothing had failed.
    assert run(blocked, batch_of(body("a1"), b"broken")) == {"enqueued": 1, "dead_lettered.malformed": 1}
    (fact,) = blocked.open_arai().history("u1", (0, ""), (2 * NOW, ""))
    assert fact.activity_id == "a1"
