"""The last steps: letters are written before anything is acknowledged, positions after everything else."""

import json
import logging
import sqlite3

import apache_beam as beam
import msgspec
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from fan_identity.domain.messages import ScoringMessage
from fan_identity.domain.records import Batch, DeadLetter, Returned
from fan_identity.domain.scorecard import ModelScore
from fan_identity.io.backends import Backends
from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.ports import QueueEntry, ReceivedMessage
from fan_identity.io.settings import Settings
from fan_identity.io.steps import Scored
from fan_identity.transforms.finish import Acknowledge, CommitPosition, WriteDeadLetters

SECRET = "jane.doe@example.org"
WORKER = "enqueueFromStream"


@pytest.fixture
def backends(tmp_path):
    return Backends.of(Settings(store=f"sqlite:///{tmp_path}/s.db"))


def run(batches, *steps):
    """Runs steps over batches; its counters."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    flow = pipeline | beam.Create(list(batches), reshuffle=False)
    for step in steps:
        flow = flow | step
    result = pipeline.run()
    result.wait_until_finish()
    return {counter.key.metric.name: counter.result for counter in result.metrics().query()["counters"]}


def letter(name, *, reason="malformed", activity_id=None):
    return DeadLetter(
        dead_letter_id=name,
        worker=WORKER,
        reason=reason,
        error="JSON is malformed",
        stack="",
        attempts=1,
        request_id="r1",
        activity_id=activity_id,
        source="f",
        position="byte 0",
        payload=json.dumps({"user": SECRET}).encode(),
    )


def scored(receipt):
    message = ScoringMessage(
        global_user_id="u",
        activity_id="a",
        activity_type="login",
        occurred_at=0,
        request_id="r",
        worker="w",
        activity=msgspec.Raw(b"{}"),
    )
    score = ModelScore(account_score=50.0, arm_risk=3, bon_score=0.5, base_score=50.0, reasons=(), model_version="m")
    return Scored(ReceivedMessage(receipt, "g", b"", 1, "1"), message, score)


def filled_queue(backends, number):
    queue = backends.open_queue()
    queue.send([QueueEntry("g", str(at), str(at).encode()) for at in range(number)])
    return [received.receipt for received in queue.receive(number)]


def waiting(backends):
    queue = backends.open_sqlite_queue()
    queue.release_in_flight()
    return [received.body for received in queue.receive(100)]


def test_letters_are_written_and_counted_by_reason(backends):
    batch = Batch("r1", "f", [], (letter("1" * 32), letter("2" * 32), letter("3" * 32, reason="unreadable")))
    counts = run([batch, Batch("r2", "f", [1])], WriteDeadLetters(backends))
    assert counts == {"dead_lettered.malformed": 2, "dead_lettered.unreadable": 1}
    stored = [one.letter for one in backends.open_dead_letters().select()]
    assert stored == list(batch.dead_letters)


def test_a_letter_is_logged_without_personal_data(backends, caplog):
    letters = (letter("1" * 32, activity_id="a1"), letter("2" * 32, activity_id=SECRET), letter("3" * 32))
    with caplog.at_level(logging.INFO, logger="fan_identity.dead_letters"):
        run([Batch("r1", "f", [], letters)], WriteDeadLetters(backends))
    lines = [record for record in caplog.records if record.name == "fan_identity.dead_letters"]
    assert [(line.deadLetterId, line.requestId, line.worker, line.reason) for line in lines] == [
        (f"{number}" * 32, "r1", WORKER, "malformed") for number in (1, 2, 3)
    ]
    assert lines[0].activityId == "a1"
    assert lines[1].activityId.startswith("sha256:")
    assert lines[2].activityId is None
    assert SECRET not in "".join(str(vars(line)) for line in lines)


def test_scores_and_dead_letters_are_acknowledged_and_nothing_else(backends):
    receipts = filled_queue(backends, 4)
    batch = Batch("r", "q", [scored(receipts[0])], (letter("1" * 32),), receipts=(receipts[0], receipts[2]))
    run([batch], Acknowledge(backends))
    assert waiting(backends) == [b"1", b"3"]


def test_what_is_to_be_tried_again_goes_back_and_is_counted(backends):
    receipts = filled_queue(backends, 3)
    returned = (Returned(receipts[1], 0), Returned(receipts[2], 0))
    batch = Batch("r", "q", [scored(receipts[0])], receipts=tuple(receipts), returned=returned)
    assert run([batch], Acknowledge(backends)) == {"returned": 2}
    again = backends.open_queue().receive(10)
    assert [(message.body, message.receive_count) for message in again] == [(b"1", 2), (b"2", 2)]


def test_a_batch_without_messages_acknowledges_nothing(backends):
    filled_queue(backends, 1)
    run([Batch("r", "q", [])], Acknowledge(backends))
    assert waiting(backends) == [b"0"]


def test_acknowledging_twice_is_once(backends):
    (receipt,) = filled_queue(backends, 1)
    batch = Batch("r", "q", [scored(receipt)], receipts=(receipt,))
    run([batch, batch], Acknowledge(backends))
    assert waiting(backends) == []


def test_a_position_is_kept_for_its_worker_and_source(backends):
    run([Batch("r", "f", [], position="17")], CommitPosition(WORKER, backends))
    run([Batch("r", "g", [], position="3")], CommitPosition(WORKER, backends))
    positions = backends.open_positions()
    assert [positions.load(WORKER, "f"), positions.load(WORKER, "g"), positions.load("other", "f")] == ["17", "3", ""]


def test_without_its_letters_a_batch_is_neither_acknowledged_nor_committed(backends, tmp_path, monkeypatch):
    monkeypatch.setattr("fan_identity.io.sqlite.store._BUSY_TIMEOUT_SECONDS", 0.01)
    blocked = Backends.of(Settings(store=backends.queue, dead_letters=f"sqlite:///{tmp_path}/letters.db"))
    assert blocked.open_dead_letters().count() == 0  # makes the file
    (receipt,) = filled_queue(blocked, 1)
    batch = Batch("r", "f", [], (letter("1" * 32),), position="17", receipts=(receipt,))
    other = sqlite3.connect(tmp_path / "letters.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    steps = WriteDeadLetters(blocked), Acknowledge(blocked), CommitPosition(WORKER, blocked)
    with pytest.raises(BackendUnavailableError, match=r"store .*letters\.db: another process"):
        run([batch], *steps)
    assert blocked.open_positions().load(WORKER, "f") == ""
    assert blocked.open_queue().depth() == 1
    other.execute("ROLLBACK")
    run([batch], *steps)
    assert blocked.open_positions().load(WORKER, "f") == "17"
    assert waiting(blocked) == []
    assert blocked.open_dead_letters().count() == 1
