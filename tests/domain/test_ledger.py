"""The books: what came in is what became of it, or the difference is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.ledger import Ledger

COUNT = st.integers(0, 1_000)
BY_REASON = st.dictionaries(st.sampled_from(["too_old", "blank_user", "malformed", "dead_lettered.x", "read"]), COUNT)


def test_counters_are_read_by_name():
    ledger = Ledger.of(
        {
            "read": 10,
            "enqueued": 6,
            "deduplicated": 1,
            "scored": 7,
            "rejected.too_old": 1,
            "rejected.blank_user": 1,
            "rejected.in_future": 0,
            "dead_lettered.malformed": 1,
            "received": 99,
            "rejectedness": 5,
        },
        waiting_before=2,
        waiting_after=1,
    )
    assert ledger == Ledger(
        read=10,
        waiting_before=2,
        rejected={"blank_user": 1, "too_old": 1},
        deduplicated=1,
        enqueued=6,
        scored=7,
        dead_lettered={"malformed": 1},
        waiting_after=1,
    )
    assert list(ledger.rejected) == ["blank_user", "too_old"]
    assert (ledger.total_rejected, ledger.total_dead_lettered, ledger.unaccounted) == (2, 1, 0)


def test_no_counters_are_empty_books():
    empty = Ledger.of({}, waiting_before=0, waiting_after=0)
    assert empty == Ledger()
    assert empty.unaccounted == 0


@given(COUNT, COUNT, COUNT, COUNT, COUNT, BY_REASON, BY_REASON, st.integers(-500, 500))
def test_what_is_missing_or_made_up_is_told(
    waiting_before, deduplicated, enqueued, scored, after, rejected, dead, lost
):
    came_in = sum(rejected.values()) + deduplicated + scored + sum(dead.values()) + after + lost
    counts = {
        "read": came_in - waiting_before,
        "deduplicated": deduplicated,
        "enqueued": enqueued,
        "scored": scored,
        **{f"rejected.{reason}": number for reason, number in rejected.items()},
        **{f"dead_lettered.{reason}": number for reason, number in dead.items()},
    }
    ledger = Ledger.of(counts, waiting_before=waiting_before, waiting_after=after)
    assert ledger.unaccounted == lost
    assert ledger.total_rejected == sum(rejected.values())
    assert ledger.total_dead_lettered == sum(dead.values())


@pytest.mark.parametrize(
    ("change", "unaccounted"),
    [
        ({"read": 1}, 1),
        ({"waiting_before": 1}, 1),
        ({"rejected": {"too_old": 1}}, -1),
        ({"deduplicated": 1}, -1),
        ({"scored": 1}, -1),
        ({"dead_lettered": {"malformed": 1}}, -1),
        ({"waiting_after": 1}, -1),
        ({"enqueued": 1}, 0),  # on its way: it is counted where it ends
    ],
)
def test_each_entry_stands_on_its_side_of_the_books(change, unaccounted):
    assert Ledger(**change).unaccounted == unaccounted
