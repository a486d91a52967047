"""Rates from counters: exact over any number of reports and processes, gaps where nothing is known, bounded history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.flow import (
    FAILED_BATCHES,
    LAST_MS,
    SERIES,
    STALE_MS,
    History,
    Lag,
    Moment,
    QueueState,
    RateMeter,
    Reading,
    rates_between,
    series_counts,
)


def reading(at, process="p", worker="scoreUsers", started_at=0, ended=False, **counts):
    return Reading(worker, process, started_at, at, counts, ended)


def test_counters_are_summed_by_series():
    counts = {"read": 1, "received": 2, "rejected.too_old": 3, "dead_lettered.malformed": 4, FAILED_BATCHES: 5, "x": 9}
    found = series_counts(counts)
    assert {name: number for name, number in found.items() if number} == {
        "read": 3,
        "rejected": 3,
        "deadLettered": 4,
        "failed": 5,
    }


@given(st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 10**6)), min_size=1, max_size=30))
def test_rates_times_their_time_are_the_counts(steps):
    at, total, before, found = 0, 0, None, 0.0
    for milliseconds, number in steps:
        at, total = at + milliseconds, total + number
        now = reading(at, scored=total)
        rates = rates_between(before, now)
        found += rates["scored"] * milliseconds / 1_000
        assert all(rate >= 0 for rate in rates.values())
        before = now
    assert found == pytest.approx(total)


def test_a_counter_that_fell_began_anew():
    assert rates_between(reading(0, scored=100), reading(2_000, scored=30))["scored"] == 15


def test_no_time_is_no_rate():
    assert rates_between(reading(5, scored=1), reading(5, scored=2)) is None


def test_what_was_done_before_anybody_looked_is_no_rate():
    meter = RateMeter()
    assert meter.observe([reading(60_000, scored=6_000)], 60_000) == {"scoreUsers": dict.fromkeys(SERIES)}
    assert meter.observe([reading(65_000, scored=6_050)], 65_000)["scoreUsers"]["scored"] == 10


def test_a_young_process_counts_from_its_beginning():
    meter = RateMeter()
    rates = meter.observe([reading(14_000, started_at=12_000, scored=20)], 15_000)
    assert rates["scoreUsers"]["scored"] == 10


def test_processes_of_a_worker_are_added_and_workers_are_not():
    meter = RateMeter()
    rates = meter.observe(
        [
            reading(2_000, "a", scored=20),
            reading(4_000, "b", scored=20),
            reading(1_000, "c", worker="enqueueFromStream", enqueued=7),
        ],
        4_000,
    )
    assert (rates["scoreUsers"]["scored"], rates["scoreUsers"]["enqueued"]) == (15, 0)
    assert rates["enqueueFromStream"]["enqueued"] == 7


def test_a_rate_holds_until_the_next_report_and_then_is_a_gap():
    meter = RateMeter()
    told = [reading(5_000, scored=50)]
    for now in (5_000, 10_000, 5_000 + STALE_MS - 1):
        assert meter.observe(told, now)["scoreUsers"]["scored"] == 10
    assert meter.observe(told, 5_000 + STALE_MS)["scoreUsers"] == dict.fromkeys(SERIES)


def test_a_process_that_ended_does_nothing_any_more():
    meter = RateMeter()
    told = [reading(5_000, scored=50, ended=True)]
    assert meter.observe(told, 5_000)["scoreUsers"]["scored"] == 10
    assert meter.observe(told, 5_000 + LAST_MS)["scoreUsers"]["scored"] is None


def test_a_process_that_does_nothing_is_0_and_no_gap():
    meter = RateMeter()
    meter.observe([reading(1_000, scored=5)], 1_000)
    assert meter.observe([reading(6_000, scored=5)], 6_000)["scoreUsers"]["scored"] == 0


@given(st.integers(1, 50), st.integers(0, 120))
def test_history_is_bounded_and_told_from_any_moment_on(most, moments):
    history = History(most)
    for number in range(moments):
        history.add(Moment(number * 10, {}, {}, {}))
    kept = [number * 10 for number in range(moments)][-most:]
    assert history.columns(-1)["times"] == kept
    if kept:
        assert history.columns(kept[0])["times"] == kept[1:]


def test_columns_have_a_gap_where_a_name_was_not_there():
    history = History(10)
    history.add(Moment(1, {"a": {"scored": 2.0}}, {"q": QueueState(5, 70)}, {"a": Lag("kafka:t", 3)}))
    history.add(Moment(2, {"b": {"scored": 0.0}}, {"q": QueueState()}, {}))
    columns = history.columns(0)
    assert columns["workers"]["a"]["scored"] == [2.0, None]
    assert columns["workers"]["b"]["scored"] == [None, 0.0]
    assert columns["queues"] == {"q": {"depth": [5, None], "oldestMs": [70, None]}}
    assert columns["lag"] == {"a": {"source": "kafka:t", "records": [3, None]}}


def test_a_name_is_forgotten_once_nothing_is_known_of_it_any_more():
    history = History(3)
    for number in range(9):
        history.add(Moment(number, {}, {f"q{number}": QueueState(1)}, {}))
    assert sorted(history.columns(-1)["queues"]) == ["q6", "q7", "q8"]
