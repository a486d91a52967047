"""Dead letters and positions: durable, found again, written twice without becoming two."""

from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.records import DeadLetter
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters, SqlitePositions
from fan_identity.io.sqlite.store import SqliteStore


@pytest.fixture
def store(tmp_path):
    return SqliteStore(tmp_path / "d.db")


@pytest.fixture
def letters(store, monkeypatch):
    clock = count(1_000)
    monkeypatch.setattr("fan_identity.io.sqlite.dead_letters.now_ms", lambda: next(clock))
    return SqliteDeadLetters(store)


def letter(name="0a" * 16, **more):
    fields = {
        "dead_letter_id": name,
        "worker": "enqueueFromStream",
        "reason": "malformed",
        "error": "JSON is malformed",
        "stack": "Traceback …",
        "attempts": 1,
        "request_id": "r1",
        "activity_id": "a1",
        "source": "f.jsonl",
        "position": "byte 0",
        "payload": b"\x00\xff{",
    }
    return DeadLetter(**{**fields, **more})


def names(found):
    return [stored.letter.dead_letter_id for stored in found]


def test_a_letter_is_read_as_it_was_written(letters):
    letters.write([letter(activity_id=None)])
    (stored,) = letters.select()
    assert stored.letter == letter(activity_id=None)
    assert (stored.written_at_ms, stored.redriven_at_ms) == (1_000, None)


def test_writing_again_changes_the_attempt_only(letters):
    letters.write([letter()])
    letters.write([letter(attempts=3, error="later", stack="s2", request_id="r2", payload=b"x")])
    (stored,) = letters.select()
    assert stored.letter == letter(attempts=3, error="later", stack="s2")
    assert stored.written_at_ms == 1_000
    letters.write([letter(attempts=1)])
    assert letters.select()[0].letter.attempts == 3, "a replay of the first attempt is not a step back"


def test_letters_are_selected_by_worker_and_reason_oldest_first(letters):
    letters.write([letter("b" * 32), letter("a" * 32, reason="unreadable")])
    letters.write([letter("0" * 32, worker="scoreUsers")])
    assert names(letters.select()) == ["a" * 32, "b" * 32, "0" * 32]
    assert names(letters.select(worker="scoreUsers")) == ["0" * 32]
    assert names(letters.select(reason="unreadable")) == ["a" * 32]
    assert names(letters.select(worker="scoreUsers", reason="unreadable")) == []
    assert names(letters.select(limit=2)) == ["a" * 32, "b" * 32]
    assert letters.select(limit=0) == []
    assert letters.count() == 3
    assert letters.count(worker="enqueueFromStream") == 2
    assert letters.count(reason="malformed") == 2
    assert letters.count(worker="scoreUsers", reason="unreadable") == 0


def test_a_redriven_letter_no_longer_waits_and_is_kept(letters):
    letters.write([letter("a" * 32), letter("b" * 32)])
    letters.mark_redriven(["a" * 32, "unknown"])
    assert names(letters.select()) == ["b" * 32]
    assert letters.count() == 1
    assert names(letters.select(waiting_only=False)) == ["a" * 32, "b" * 32]
    assert letters.count(waiting_only=False) == 2
    stored = letters.get("a" * 32)
    assert (stored.redriven_at_ms, stored.letter.attempts) == (1_001, 2)


def test_a_letter_that_failed_again_waits_again(letters):
    letters.write([letter()])
    letters.mark_redriven([letter().dead_letter_id])
    letters.write([letter(attempts=2)])
    (stored,) = letters.select()
    assert (stored.redriven_at_ms, stored.letter.attempts) == (None, 2)


def test_a_letter_is_found_by_the_beginning_of_its_id(letters):
    letters.write([letter("ab" * 16), letter("ac" * 16)])
    assert letters.get("ab").letter.dead_letter_id == "ab" * 16
    assert letters.get("ac" * 16).letter.dead_letter_id == "ac" * 16
    assert letters.get("a") is None, "two begin so"
    assert letters.get("b") is None
    assert letters.get("a%") is None
    assert letters.get("ab" * 17) is None


def test_each_letter_comes_once_and_deleted_ones_are_gone(letters):
    written = [letter(f"{number:032x}") for number in range(250)]
    letters.write(written)
    letters.mark_redriven([written[7].dead_letter_id])
    assert [stored.letter.dead_letter_id for stored in letters.each()] == names(letters.select(waiting_only=False))
    letters.delete([each.dead_letter_id for each in written[:249]] + ["%", "unknown"])
    assert names(letters.each()) == [written[249].dead_letter_id]


def test_a_batch_of_letters_is_written_wholly_or_not_at_all(letters):
    with pytest.raises(Exception, match="NOT NULL"):
        letters.write([letter("a" * 32), letter("b" * 32, worker=None)])
    assert letters.count() == 0


@given(st.binary(max_size=50), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_bytes_are_kept(tmp_path_factory, payload, text):
    store = SqliteStore(tmp_path_factory.mktemp("d") / "d.db")
    written = letter(payload=payload, source=text, error=text, activity_id=text)
    SqliteDeadLetters(store).write([written])
    assert SqliteDeadLetters(store).select()[0].letter == msgspec.structs.replace(written)
    store.close()


def test_positions_are_kept_per_worker_and_source(store):
    positions = SqlitePositions(store)
    assert positions.load("w", "f") == ""
    positions.commit("w", "f", "1")
    positions.commit("w", "g", "2")
    positions.commit("v", "f", "3")
    positions.commit("w", "f", "10")
    reopened = SqlitePositions(SqliteStore(store.path))
    assert [reopened.load(*key) for key in (("w", "f"), ("w", "g"), ("v", "f"), ("v", "g"))] == ["10", "2", "3", ""]
