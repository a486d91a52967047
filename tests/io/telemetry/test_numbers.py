import threading

from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.measures import SECONDS
from fan_identity.io.telemetry.metrics import Distribution, Number

THREADS, EACH = 4, 20_000


@given(st.lists(st.floats(0, 100)))
def test_every_duration_is_in_the_first_bucket_that_holds_it(durations):
    distribution = Distribution()
    for seconds in durations:
        distribution.add(seconds)
    counts, total = distribution.snapshot()
    bounds = [*SECONDS, float("inf")]
    below = [sum(seconds <= bound for seconds in durations) for bound in bounds]
    assert [sum(counts[: place + 1]) for place in range(len(bounds))] == below
    assert total == sum(durations)


def test_nothing_told_by_many_threads_at_once_is_lost_or_counted_twice():
    distribution, number = Distribution(), Number()
    going = threading.Event()

    def tell() -> None:
        for _ in range(EACH):
            distribution.add(0.25)
            number.add(2)

    def read() -> None:
        while not going.is_set():
            distribution.snapshot()
            _ = number.value

    tellers = [threading.Thread(target=tell) for _ in range(THREADS)]
    reader = threading.Thread(target=read)
    for thread in (reader, *tellers):
        thread.start()
    for thread in tellers:
        thread.join()
    going.set()
    reader.join()
    counts, total = distribution.snapshot()
    assert (sum(counts), total) == (THREADS * EACH, THREADS * EACH * 0.25)
    assert number.value == THREADS * EACH * 2


def test_a_number_nobody_told_is_none_and_one_that_was_forgotten_too():
    number = Number()
    assert number.value is None
    number.set(0.0)
    assert number.value == 0
    number.add(3)
    assert number.value == 3
    number.forget()
    assert number.value is None
