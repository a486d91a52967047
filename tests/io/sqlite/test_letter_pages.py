"""Pages of dead letters: newest first, each letter once, whatever is looked for; and read from an index."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.dead_letters import LetterFilter, RedriveAttempt
from fan_identity.io.sqlite import dead_letters as module
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters
from fan_identity.io.sqlite.store import SqliteStore

from .test_dead_letters import letter

KINDS = st.tuples(st.sampled_from("abc"), st.sampled_from("xy"))
LETTERS = st.lists(st.tuples(KINDS, st.integers(1, 5), st.booleans(), st.sampled_from([None, "a1"])), max_size=25)
FILTERS = st.builds(
    LetterFilter,
    worker=st.sampled_from([None, "a", "b", "none"]),
    reason=st.sampled_from([None, "x", "z"]),
    since_ms=st.sampled_from([None, 2]),
    until_ms=st.sampled_from([None, 4]),
    waiting_only=st.booleans(),
    redriven_only=st.booleans(),
    activity_id=st.sampled_from([None, "a1"]),
)


def written(folder, made, monkeypatch):
    letters = SqliteDeadLetters(SqliteStore(folder / "d.db"))
    for number, ((worker, reason), time, redriven, activity) in enumerate(made):
        name = f"{number * 7 % 25:032x}"
        monkeypatch.setattr(module, "now_ms", lambda time=time: time)
        letters.write([letter(name, worker=worker, reason=reason, activity_id=activity)])
        if redriven:
            letters.record([RedriveAttempt(name, 9, "queued", "", "r")])
    return letters


@settings(max_examples=60, deadline=None)
@given(LETTERS, FILTERS, st.integers(1, 4))
def test_pages_are_what_select_finds_newest_first(tmp_path_factory, made, where, size):
    with pytest.MonkeyPatch.context() as monkeypatch:
        letters = written(tmp_path_factory.mktemp("pages"), made, monkeypatch)
    found = []
    page = letters.page(where, limit=size)
    while True:
        assert len(page.letters) <= size
        found += page.letters
        if page.after is None:
            break
        assert page.letters, "no page is empty before the last"
        page = letters.page(where, after=page.after, limit=size)
    expected = letters.select(where)[::-1]
    keys = [(one.written_at_ms, one.dead_letter_id) for one in found]
    assert keys == [(one.written_at_ms, one.letter.dead_letter_id) for one in expected]
    assert letters.count_up_to(3, where) == min(3, len(expected))
    tallied = {(one.worker, one.reason): one.number for one in letters.tally(where)}
    assert {(one.worker, one.reason): one.number for one in letters.numbers(where)} == tallied


@pytest.mark.parametrize("after", ["", "x", "12", "-1-a", "1-", "9999999999999999-a", "1 OR 1=1"])
def test_a_cursor_that_no_page_gave_is_refused(tmp_path, after):
    with pytest.raises(ValueError, match="no page"):
        SqliteDeadLetters(SqliteStore(tmp_path / "d.db")).page(after=after)


def test_nothing_is_looked_for_in_all_letters(tmp_path):
    """Each statement a page makes reads a stretch of an index."""
    store = SqliteStore(tmp_path / "d.db")
    letters = SqliteDeadLetters(store)
    letters.write([letter(f"{number:032x}", worker=f"w{number % 3}") for number in range(30)])
    said: list[str] = []
    store.connection.set_trace_callback(said.append)
    for where in (LetterFilter(), LetterFilter(worker="w1"), LetterFilter(waiting_only=False, activity_id="a1")):
        page = letters.page(where, limit=3)
        letters.page(where, after=page.after, limit=3)
        letters.count_up_to(5, where)
    letters.get("0" * 30)
    store.connection.set_trace_callback(None)
    plans = {
        step
        for statement in set(said)
        for *_, step in store.connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
    }
    assert len(said) > 20
    assert not [step for step in plans if step.startswith("SCAN dead_letters") and "INDEX" not in step]
    assert not [step for step in plans if "TEMP B-TREE" in step and "dead_letters" in step]
