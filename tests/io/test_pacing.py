"""Work held to a rate, on a clock of the test's own."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.io.pacing import Pacer, pacer_of


class Clock:
    """Time that passes by sleeping, and by ``pass_`` only."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@given(
    rate=st.sampled_from([1, 7, 200, 5_000]),
    takes=st.lists(st.tuples(st.integers(1, 500), st.floats(0, 3)), min_size=1, max_size=40),
)
def test_in_any_time_no_more_passes_than_the_rate_and_one_portion(rate, takes):
    clock = Clock()
    pacer = Pacer(rate, clock, clock.pass_)
    passed: list[tuple[float, int]] = []
    for number, idle in takes:
        clock.pass_(idle)
        pacer.take(number)
        passed.append((clock.now, number))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            seconds = passed[last][0] - passed[first][0]
            before_the_last = sum(number for _, number in passed[first:last])
            assert before_the_last <= rate * seconds + 1e-6


def test_work_without_pauses_goes_at_the_rate():
    clock = Clock()
    pacer = Pacer(200, clock, clock.pass_)
    for _ in range(40):
        pacer.take(50)
    assert clock.now - 100 == pytest.approx(39 * 50 / 200)


def test_time_nobody_used_is_not_saved_up():
    clock = Clock()
    pacer = Pacer(10, clock, clock.pass_)
    clock.pass_(1_000)
    for _ in range(3):
        pacer.take(10)
    assert clock.now == pytest.approx(1_102)


def test_threads_share_the_rate():
    waits: list[float] = []
    pacer = Pacer(100, lambda: 0.0, waits.append)
    threads = [threading.Thread(target=pacer.take, args=(10,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([number / 10 for number in range(1, 20)]), "each behind the one before"


def test_everything_in_a_process_shares_the_pacer_of_a_rate():
    assert pacer_of(123) is pacer_of(123)
    assert pacer_of(123) is not pacer_of(124)


@pytest.mark.parametrize(("rate", "portion"), [(1, 1), (200, 10), (5_000, 250), (100_000, 500)])
def test_a_portion_is_a_twentieth_of_a_second_s(rate, portion):
    assert Pacer(rate).portion(500) == portion


def test_a_rate_is_above_0():
    with pytest.raises(ValueError, match="above 0"):
        Pacer(0)
