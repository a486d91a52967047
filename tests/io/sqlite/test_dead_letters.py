"""Dead letters and positions: durable, found again, written twice without becoming two."""

from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.dead_letters import LetterFilter, LetterTally, RedriveAttempt
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


def attempt(name, at, outcome="queued", **more):
    return RedriveAttempt(name, at, outcome, more.get("error", ""), more.get("request_id", "r1"))


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
    assert names(letters.select(LetterFilter(worker="scoreUsers"))) == ["0" * 32]
    assert names(letters.select(LetterFilter(reason="unreadable"))) == ["a" * 32]
    assert names(letters.select(LetterFilter(worker="scoreUsers", reason="unreadable"))) == []
    assert names(letters.select(limit=2)) == ["a" * 32, "b" * 32]
    assert letters.select(limit=0) == []
    assert letters.count() == 3
    assert letters.count(LetterFilter(worker="enqueueFromStream")) == 2
    assert letters.count(LetterFilter(reason="malformed")) == 2
    assert letters.count(LetterFilter(worker="scoreUsers", reason="unreadable")) == 0


def test_a_redriven_letter_no_longer_waits_and_is_kept(letters):
    letters.write([letter("a" * 32), letter("b" * 32)])
    letters.record([attempt("a" * 32, 1_001), attempt("unknown", 1_001)])
    assert names(letters.select()) == ["b" * 32]
    assert letters.count() == 1
    assert names(letters.select(LetterFilter(waiting_only=False))) == ["a" * 32, "b" * 32]
    assert letters.count(LetterFilter(waiting_only=False)) == 2
    stored = letters.get("a" * 32)
    assert (stored.redriven_at_ms, stored.letter.attempts) == (1_001, 2)


def test_letters_are_selected_by_error_time_and_code_version(letters):
    letters.write([letter("a" * 32, error="timed out (50 %)", code_version="0.1.0")])  # written at 1,000
    letters.write([letter("b" * 32, error="TIMED out", code_version="0.2.0")])
    letters.write([letter("c" * 32, error="refused", code_version="")])
    for where, expected in [
        ({"error": "timed out (50 %"}, "a"),
        ({"error": "%"}, "a"),
        ({"error": "out"}, "ab"),
        ({"since_ms": 1_001}, "bc"),
        ({"until_ms": 1_001}, "a"),
        ({"since_ms": 1_001, "until_ms": 1_002}, "b"),
        ({"code_version": "0.2.0"}, "b"),
        ({"code_version": "0.2"}, ""),
        ({"error": "out", "code_version": "0.1.0"}, "a"),
    ]:
        found = LetterFilter(**where)
        assert names(letters.select(found)) == [name * 32 for name in expected], where
        assert letters.count(found) == len(expected)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_hold_every_letter_once_also_those_redriven_meanwhile(letters, size):
    ids = [f"{number:032x}" for number in range(7)]
    letters.write([letter(name) for name in ids])  # all at one time
    found = []
    for page in letters.pages(size=size):
        assert 0 < len(page) <= size
        found += names(page)
        letters.record([attempt(name, 5_000) for name in names(page)])
        letters.write([letter(name) for name in names(page)[:1]])  # failed again: it waits, and does not come again
    assert found == ids
    assert letters.count() == -(-7 // size)


def test_letters_are_counted_by_worker_and_reason(letters):
    letters.write([letter(f"{number:032x}") for number in range(5)])
    letters.write([letter("a" * 32, reason="unreadable"), letter("b" * 32, worker="scoreUsers")])
    letters.record([attempt("a" * 32, 1)])
    assert letters.tally() == [
        LetterTally("enqueueFromStream", "malformed", 5, tuple(f"{number:032x}" for number in range(3))),
        LetterTally("scoreUsers", "malformed", 1, ("b" * 32,)),
    ]
    assert sum(kind.number for kind in letters.tally(LetterFilter(waiting_only=False))) == 7


def test_every_attempt_is_kept_and_goes_with_its_letter(letters):
    letters.write([letter()])
    tried = [
        attempt(letter().dead_letter_id, 10, "failed", error="no queue"),
        attempt(letter().dead_letter_id, 20, "failed", request_id="r2"),
        attempt(letter().dead_letter_id, 20, "queued", request_id="r3"),
    ]
    letters.record(tried[1:2])
    letters.record([tried[2], tried[0]])
    assert letters.history(letter().dead_letter_id) == tried
    (stored,) = letters.select(LetterFilter(waiting_only=False))
    assert (stored.redriven_at_ms, stored.letter.attempts) == (20, 4)
    letters.delete([letter().dead_letter_id])
    assert letters.history(letter().dead_letter_id) == []


def test_a_failed_attempt_leaves_the_letter_waiting(letters):
    letters.write([letter()])
    letters.record([attempt(letter().dead_letter_id, 10, "failed")])
    (stored,) = letters.select()
    assert stored.letter.attempts == 2


def test_a_letter_that_failed_again_waits_again(letters):
    letters.write([letter()])
    letters.record([attempt(letter().dead_letter_id, 2)])
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
    letters.record([attempt(written[7].dead_letter_id, 1)])
    assert [stored.letter.dead_letter_id for stored in letters.each()] == names(
        letters.select(LetterFilter(waiting_only=False))
    )
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
