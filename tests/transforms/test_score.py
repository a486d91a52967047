"""The second half's steps: what is profiled, scored and persisted, and in which order its effects appear."""

import json
import sqlite3
from collections import defaultdict
from dataclasses import replace

import apache_beam as beam
import msgspec
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from fan_identity.domain.activity import decode_activity, format_time_ms
from fan_identity.domain.imports import ImportKind, Pointer, fan_item, pointer_item
from fan_identity.domain.keys import arm_cache_key, fifo_group_id, user_pk
from fan_identity.domain.messages import ScoringMessage, encode_message
from fan_identity.domain.profile import facts_of
from fan_identity.domain.records import Batch
from fan_identity.io.backends import Backends
from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.ports import QueueEntry, ReceivedMessage, ScoringRequest
from fan_identity.io.settings import Settings
from fan_identity.io.steps import MAX_RECEIVES, decode_messages, group_of
from fan_identity.transforms.finish import Acknowledge, WriteDeadLetters
from fan_identity.transforms.score import ApplyImports, DecodeMessages, FetchArai, PersistScores, ScoreUsers

NOW = 1_718_366_400_000
WORKER = "scoreUsers"


@pytest.fixture
def backends(tmp_path):
    return Backends.of(Settings(store=f"sqlite:///{tmp_path}/s.db"))


def message(activity_id="a1", *, user="u1", time_ms=NOW):
    activity = {"activityId": activity_id, "activityType": "login", "occurredAt": time_ms, "globalUserId": user}
    return ScoringMessage(
        global_user_id=user,
        activity_id=activity_id,
        activity_type="login",
        occurred_at=time_ms,
        request_id="r-enqueue",
        worker="enqueueFromStream",
        activity=msgspec.Raw(json.dumps(activity).encode()),
    )


def received(body, *, receipt="delivery/1/group", times=1, message_id="1"):
    return ReceivedMessage(receipt=receipt, group_id="group", body=body, receive_count=times, message_id=message_id)


def send(backends, *messages):
    """Puts messages, and what the enqueue worker observes of them, into the store."""
    facts = [(one.global_user_id, facts_of(decode_activity(bytes(one.activity)), one.occurred_at)) for one in messages]
    backends.open_arai().observe(facts)
    backends.open_queue().send(
        [
            QueueEntry(fifo_group_id(one.global_user_id), f"{number}/{one.activity_id}", encode_message(one))
            for number, one in enumerate(messages)
        ]
    )


def receive(backends, request_id="r-score"):
    messages = backends.open_queue().receive(1_000)
    return Batch(request_id, backends.queue, messages, receipts=tuple(one.receipt for one in messages))


def run(backends, *batches):
    """Runs the second half over batches; its counters."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = (
        pipeline
        | beam.Create(list(batches), reshuffle=False)
        | DecodeMessages(WORKER)
        | FetchArai(WORKER, backends)
        | ScoreUsers(WORKER, backends)
        | ApplyImports(backends)
        | PersistScores(WORKER, backends)
        | WriteDeadLetters(backends)
        | Acknowledge(backends)
    )
    result = pipeline.run()
    result.wait_until_finish()
    counts = defaultdict(int)
    for counter in result.metrics().query()["counters"]:
        counts[counter.key.metric.name] += counter.result
    return {name: number for name, number in counts.items() if number}


def scores(backends, user="u1"):
    return list(backends.open_table().query(user_pk(user), "SCORE#"))


def latest(backends, user="u1"):
    return backends.open_table().get(user_pk(user), "LATEST")


def cached(backends, user="u1"):
    return backends.open_cache().get(arm_cache_key(user))


def lasting(item):
    """An item without what names the run."""
    return {name: value for name, value in item.items() if name not in {"requestId", "dateUpdated"}}


def test_decoding_keeps_order_and_receipts():
    batch = Batch("r", "q", [received(encode_message(message(f"a{n}")), receipt=f"d/{n}/g") for n in range(3)])
    decoded = decode_messages(batch, WORKER)
    assert [(one.received.receipt, one.message.activity_id) for one in decoded.items] == [
        (f"d/{n}/g", f"a{n}") for n in range(3)
    ]
    assert decoded.dead_letters == ()


def test_a_body_that_is_no_message_becomes_a_dead_letter_with_its_bytes():
    decoded = decode_messages(Batch("r", "sqlite:///q", [received(b"\xff{", times=3)]), WORKER)
    (letter,) = decoded.dead_letters
    assert decoded.items == []
    assert (letter.payload, letter.reason) == (b"\xff{", "malformed")
    assert (letter.worker, letter.attempts, letter.request_id) == (WORKER, 3, "r")
    assert (letter.activity_id, letter.source, letter.stack) == (None, "sqlite:///q", "")
    assert letter.position == "message 1"


def test_a_message_received_too_often_becomes_a_dead_letter():
    body = encode_message(message())
    batch = Batch("r", "q", [received(body, times=MAX_RECEIVES), received(body, times=MAX_RECEIVES + 1)])
    decoded = decode_messages(batch, WORKER)
    assert len(decoded.items) == 1
    (letter,) = decoded.dead_letters
    assert (letter.reason, letter.attempts) == ("too_many_receives", MAX_RECEIVES + 1)
    assert (letter.activity_id, letter.request_id, letter.payload) == ("a1", "r-enqueue", body)


def test_a_message_keeps_its_letters_name_over_deliveries(tmp_path):
    clock = [NOW]
    queue = Backends.of(Settings(store=f"sqlite:///{tmp_path}/s.db")).open_sqlite_queue()
    queue._clock_ms = lambda: clock[0]
    queue.send([QueueEntry("g", "1", b"broken"), QueueEntry("g", "2", b"broken")])

    def letters():
        decoded = decode_messages(Batch("r", "q", queue.receive(10)), WORKER)
        clock[0] += 60_000  # nothing was acknowledged: visible again
        return [letter.dead_letter_id for letter in decoded.dead_letters]

    first, again = letters(), letters()
    assert len(set(first)) == 2, "two messages are two letters"
    assert again == first


def test_the_group_of_a_message_is_its_users():
    assert group_of(encode_message(message(user="ü"))) == fifo_group_id("ü")
    assert group_of(b"broken") == group_of(b"[]") == "malformed"


def test_a_score_is_persisted_under_its_activity_and_acknowledged(backends):
    send(backends, message("a1"))
    assert run(backends, receive(backends)) == {"scored": 1}
    (item,) = scores(backends)
    assert (item["activityId"], item["globalUserId"], item["worker"]) == ("a1", "u1", WORKER)
    assert (item["requestId"], item["occurredAt"]) == ("r-enqueue", format_time_ms(NOW))
    assert item["modelVersion"] == backends.open_model().scorecard.model_version
    assert latest(backends) == {**item, "SK": "LATEST", "scoreSK": item["SK"]}
    assert (cached(backends)["arm_risk"], cached(backends)["timestamp"]) == (item["armRisk"], NOW)
    assert backends.open_queue().depth() == 0


def test_each_score_sees_the_history_up_to_its_activity(backends):
    messages = [message(f"a{n:02d}", time_ms=NOW + n * 1_000) for n in range(30)]
    send(backends, *messages)
    run(backends, receive(backends))
    items = scores(backends)
    assert [item["activityId"] for item in items] == [one.activity_id for one in messages]
    model, log = backends.open_model(), backends.open_arai()
    expected = model.score([ScoringRequest(one, arai) for one, arai in zip(messages, log.fetch(messages), strict=True)])
    assert [item["accountScore"] for item in items] == [one.account_score for one in expected]
    assert items[0]["accountScore"] > items[-1]["accountScore"], "thirty logins in thirty seconds are suspicious"


def test_the_latest_and_the_cache_are_of_the_newest_activity_whatever_the_order(backends):
    late, early = message("a-late", time_ms=NOW + 5), message("a-early", time_ms=NOW)
    send(backends, late, early, message("b1", user="u2"))
    assert run(backends, receive(backends)) == {"scored": 3}
    assert latest(backends)["activityId"] == "a-late"
    assert cached(backends)["timestamp"] == NOW + 5
    # A straggler in a batch of its own.
    send(backends, message("a-middle", time_ms=NOW + 3))
    run(backends, receive(backends))
    assert latest(backends)["activityId"] == "a-late"
    assert cached(backends)["timestamp"] == NOW + 5
    assert {item["activityId"] for item in scores(backends)} == {"a-early", "a-middle", "a-late"}
    assert latest(backends, "u2")["activityId"] == "b1"


def test_scoring_again_changes_nothing_but_the_runs_name(backends):
    send(backends, message("a1"), message("a2", time_ms=NOW + 1))
    batch = receive(backends)
    run(backends, batch)
    before = [lasting(item) for item in [*scores(backends), latest(backends), cached(backends)]]
    run(backends, batch)
    assert [lasting(item) for item in [*scores(backends), latest(backends), cached(backends)]] == before


def test_scores_are_under_the_active_imports_of_the_fan_identity_table(backends):
    table = backends.open_table()
    table.put(pointer_item(ImportKind.BOT_OR_NOT, Pointer("v1", 3, 0)))
    table.put(fan_item(ImportKind.BOT_OR_NOT, "v1", user_pk("u1"), 0.9, None, 0))
    send(backends, message("a1"), message("b1", user="u2"))
    assert run(backends, receive(backends)) == {"scored": 2}
    item = latest(backends)
    assert (item["bonScore"], item["armRisk"]) == (0.9, 5)
    assert item["accountScore"] == round(item["model"]["accountScore"] - 32, 2)
    assert cached(backends)["arm_risk"] == 5
    assert cached(backends)["reasons"][-1] == "BOT_OR_NOT_IMPORT"
    assert "model" not in latest(backends, "u2")


def test_the_staging_worker_reads_the_same_imports_and_writes_its_own_table(tmp_path):
    live = Backends.of(Settings(store=f"sqlite:///{tmp_path}/s.db"))
    live.open_table().put(pointer_item(ImportKind.BOT_OR_NOT, Pointer("v1", 1, 0)))
    live.open_table().put(fan_item(ImportKind.BOT_OR_NOT, "v1", user_pk("u1"), 0.9, None, 0))
    staging = Backends.of(Settings(store=f"sqlite:///{tmp_path}/s.db"), "stagingScoreUsers")
    send(staging, message("a1"))
    assert run(staging, receive(staging)) == {"scored": 1}
    assert latest(staging)["bonScore"] == 0.9
    assert latest(live) is None


def test_a_worker_without_a_cache_persists_the_rest(backends):
    send(backends, message("a1"))
    uncached = replace(backends, cache=None)
    run(uncached, receive(backends))
    assert latest(backends)["activityId"] == "a1"
    assert cached(backends) is None


def test_failures_go_to_the_dead_letters_and_the_rest_is_scored(backends):
    send(backends, message("a1"))
    backends.open_queue().send([QueueEntry("g", "broken", b"\xff")])
    batch = receive(backends)
    tired = received(encode_message(message("a9", user="u9")), times=MAX_RECEIVES + 1)
    counts = run(backends, replace(batch, items=[*batch.items, tired]))
    assert counts == {"scored": 1, "dead_lettered.malformed": 1, "dead_lettered.too_many_receives": 1}
    letters = {stored.letter.reason: stored.letter for stored in backends.open_dead_letters().select()}
    assert letters["malformed"].payload == b"\xff"
    assert letters["too_many_receives"].activity_id == "a9"
    assert scores(backends, "u9") == []
    assert backends.open_queue().depth() == 0, "a dead letter's message is acknowledged too"


def test_a_message_that_could_never_be_scored_does_not_stop_the_others(backends):
    send(backends, message("a1"))
    impossible = [
        msgspec.structs.replace(message(), activity=msgspec.Raw(b"{}")),
        msgspec.structs.replace(message(), activity=msgspec.Raw(bytes(message().activity).replace(b"login", b"new"))),
        msgspec.structs.replace(message(), occurred_at=10**17),
    ]
    backends.open_queue().send(
        [QueueEntry("g", str(number), encode_message(one)) for number, one in enumerate(impossible)]
    )
    assert run(backends, receive(backends)) == {"scored": 1, "dead_lettered.malformed": 3}
    assert backends.open_queue().depth() == 0


@pytest.mark.parametrize("part", ["table", "cache", "dead_letters"])
def test_where_an_effect_cannot_be_written_nothing_is_acknowledged(backends, tmp_path, monkeypatch, part):
    monkeypatch.setattr("fan_identity.io.sqlite.store._BUSY_TIMEOUT_SECONDS", 0.01)
    blocked = Backends.of(Settings(store=backends.queue, **{part: f"sqlite:///{tmp_path}/blocked.db"}))
    assert blocked.open_table().get("", "") is blocked.open_cache().get("") is None
    assert blocked.open_dead_letters().count() == 0  # makes the file
    send(blocked, message("a1"))
    blocked.open_queue().send([QueueEntry("g", "broken", b"\xff")])
    batch = receive(blocked)
    other = sqlite3.connect(tmp_path / "blocked.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendUnavailableError, match=r"store .*blocked\.db: another process kept it locked"):
        run(blocked, batch)
    other.execute("ROLLBACK")
    assert blocked.open_queue().depth() == 2
    # The messages come again once their visibility timeout has ended, and end as if nothing had failed.
    blocked.open_sqlite_queue().release_in_flight()
    assert run(blocked, receive(blocked)) == {"scored": 1, "dead_lettered.malformed": 1}
    assert blocked.open_queue().depth() == 0
    assert len(scores(blocked)) == 1
    assert blocked.open_dead_letters().count() == 1


def test_an_empty_batch_passes(backends):
    assert run(backends, Batch("r", backends.queue, [])) == {}
