"""Calls to services on a clock the tests move: deadlines, retries, budget, breaker; and the thread they run in."""

import asyncio
import heapq
import multiprocessing
import os
import pickle
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.records import Failure
from fan_identity.io.breaker import Admission, Breaker, RetryBudget
from fan_identity.io.caller import Caller, CallLimits, RefusedError, TransientError
from fan_identity.io.event_loop import run_in_background

LIMITS = CallLimits()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when all wait for it: then at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        self_: Any = self
        while self_._scheduled and self_._scheduled[0]._cancelled:
            heapq.heappop(self_._scheduled)._scheduled = False
            self_._timer_cancelled_count -= 1
        if not self_._ready and self_._scheduled:
            self.now = max(self.now, self_._scheduled[0]._when)
        super()._run_once()  # pyright: ignore


@pytest.fixture
def loop():
    loop = VirtualLoop()
    yield loop
    loop.close()


class Service:
    """A service that answers as a test says; counts its calls."""

    def __init__(self, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self.answer = answer
        self.calls: Counter[Any] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.times: list[float] = []

    @property
    def total(self) -> int:
        return self.calls.total()

    async def __call__(self, item: Any) -> Any:
        self.calls[item] += 1
        self.times.append(asyncio.get_running_loop().time())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self.answer(item)
        finally:
            self.in_flight -= 1


async def down(_item: Any) -> Any:
    raise TransientError("status 503", status=503)


async def hang(_item: Any) -> Any:
    await asyncio.Event().wait()


async def double(item: int) -> int:
    await asyncio.sleep(0.01)
    return item * 2


def flaky(failures: int, error: Exception | None = None) -> Callable[[Any], Awaitable[Any]]:
    """Fails so often for each item, then answers."""
    tries: Counter[Any] = Counter()

    async def answer(item: Any) -> Any:
        tries[item] += 1
        if tries[item] <= failures:
            raise error or TransientError("status 500", status=500)
        return item

    return answer


def test_outcomes_are_in_the_items_order_and_calls_are_bounded(loop):
    service = Service(double)
    outcomes = loop.run_until_complete(Caller("s", limits=replace(LIMITS, in_flight=7)).gather(range(100), service))
    assert outcomes == [item * 2 for item in range(100)]
    assert (service.total, service.most_in_flight) == (100, 7)


def test_the_limit_holds_over_several_maps(loop):
    service = Service(double)
    caller = Caller("s", limits=replace(LIMITS, in_flight=5))

    async def both() -> None:
        await asyncio.gather(caller.gather(range(40), service), caller.gather(range(40), service))

    loop.run_until_complete(both())
    assert (service.total, service.most_in_flight) == (80, 5)


def test_a_transient_failure_is_tried_again_with_growing_waits(loop):
    service = Service(flaky(3))
    assert loop.run_until_complete(Caller("s").gather([1], service)) == [1]
    waits = [later - earlier for earlier, later in zip(service.times, service.times[1:], strict=False)]
    assert len(waits) == 3
    for number, wait in enumerate(waits):
        least = LIMITS.backoff_seconds * 2**number
        assert least <= wait <= least + 2 * LIMITS.backoff_seconds + 1e-6


def test_waits_have_jitter(loop):
    service = Service(flaky(1))
    caller = Caller("s", limits=replace(LIMITS, retry_reserve=50))
    loop.run_until_complete(caller.gather(range(15), service))
    assert len(set(service.times)) > 10


def test_a_refusal_is_not_tried_again_and_does_not_touch_others(loop):
    async def answer(item: int) -> int:
        if item == 2:
            raise RefusedError("s_invalid", "no number")
        if item == 3:
            raise RefusedError("s_refused", "status 403", retryable=True)
        return item

    service = Service(answer)
    assert loop.run_until_complete(Caller("s").gather(range(5), service)) == [
        0,
        1,
        Failure("s_invalid", "no number"),
        Failure("s_refused", "status 403", retryable=True),
        4,
    ]
    assert service.total == 5


def test_the_deadline_binds_a_service_that_hangs(loop):
    service = Service(hang)
    began = loop.time()
    [outcome] = loop.run_until_complete(Caller("s").gather([1], service))
    assert (outcome.reason, outcome.retryable) == ("s_unavailable", True)
    assert loop.time() - began <= LIMITS.deadline_seconds + 1e-6
    assert 2 <= outcome.attempts == service.total <= 4
    assert "no answer within" in outcome.error


def test_one_attempt_is_bounded_and_the_next_may_succeed(loop):
    tries = 0

    async def answer(item: int) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()
        return item

    began = loop.time()
    assert loop.run_until_complete(Caller("s").gather([5], answer)) == [5]
    assert LIMITS.attempt_seconds <= loop.time() - began < LIMITS.deadline_seconds


def test_retry_after_is_waited_for(loop):
    service = Service(flaky(1, TransientError("status 429", retry_after=4.0, status=429)))
    assert loop.run_until_complete(Caller("s").gather([1], service)) == [1]
    assert service.times[1] - service.times[0] >= 4.0


def test_retry_after_beyond_the_deadline_fails_at_once(loop):
    service = Service(flaky(1, TransientError("status 429", retry_after=60.0, status=429)))
    began = loop.time()
    [outcome] = loop.run_until_complete(Caller("s").gather([1], service))
    assert (outcome.reason, outcome.retryable, outcome.attempts) == ("s_unavailable", True, 1)
    assert loop.time() == began


def test_items_whose_turn_never_comes_fail_without_a_call(loop):
    async def slow(item: int) -> int:
        await asyncio.sleep(2.0)
        return item

    service = Service(slow)
    limits = replace(LIMITS, in_flight=1, batch_seconds=7.0)
    began = loop.time()
    outcomes = loop.run_until_complete(Caller("s", limits=limits).gather(range(10), service))
    assert outcomes[:3] == [0, 1, 2]
    assert all(outcome.reason == "s_unavailable" and outcome.retryable for outcome in outcomes[3:])
    assert service.total == 4  # the fourth was cut short
    assert loop.time() - began <= 7.0 + 1e-6


def test_an_unexpected_exception_cancels_the_rest_and_is_raised(loop):
    async def answer(item: int) -> int:
        if item == 3:
            raise ZeroDivisionError("a defect")
        await asyncio.sleep(1)
        return item

    service = Service(answer)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        loop.run_until_complete(Caller("s").gather(range(10), service))
    assert service.in_flight == 0


def test_the_breaker_opens_and_then_nothing_is_called(loop):
    service = Service(down)
    caller = Caller("s", limits=replace(LIMITS, in_flight=1))
    outcomes = loop.run_until_complete(caller.gather(range(200), service))
    assert service.total == LIMITS.failures_to_open
    assert {(outcome.reason, outcome.retryable) for outcome in outcomes} == {("s_unavailable", True)}
    assert outcomes[-1].error == "the circuit breaker is open"


def test_a_service_that_is_down_gets_at_most_half_again_its_requests(loop):
    """Without the breaker, so that the budget alone is seen."""
    service = Service(down)
    limits = replace(LIMITS, failures_to_open=10**9, batch_seconds=10**6)
    items = 4_000
    loop.run_until_complete(Caller("s", limits=limits).gather(range(items), service))
    assert items < service.total <= items * 1.5 + limits.most_retries


def test_both_together_bound_an_outage(loop):
    service = Service(down)
    caller = Caller("s")
    for _ in range(20):
        loop.run_until_complete(caller.gather(range(100), service))
    assert service.total <= LIMITS.in_flight + LIMITS.failures_to_open


def test_the_breaker_probes_once_and_closes_when_the_service_is_back(loop):
    service = Service(down)
    caller = Caller("s")
    loop.run_until_complete(caller.gather(range(100), service))
    assert caller_is_open(loop, caller)
    service.answer = double
    before = service.total
    loop.run_until_complete(caller.gather(range(3), service))
    assert service.total == before, "too early for a probe"
    loop.now += LIMITS.first_pause_seconds
    service.most_in_flight = 0
    assert loop.run_until_complete(caller.gather(range(100), service)) == [item * 2 for item in range(100)]
    assert service.times[before + 1] - service.times[before] >= 0.009, "the others waited for the probe"
    assert not caller_is_open(loop, caller)


def test_a_failed_probe_doubles_the_pause_up_to_its_limit(loop):
    service = Service(down)
    caller = Caller("s")
    loop.run_until_complete(caller.gather(range(100), service))
    pause = LIMITS.first_pause_seconds
    for _ in range(8):
        before = service.total
        loop.now += pause * 0.5
        loop.run_until_complete(caller.gather(range(50), service))
        assert service.total == before
        loop.now += pause * 0.5 + 1e-6
        outcomes = loop.run_until_complete(caller.gather(range(50), service))
        assert service.total == before + 1, "one probe, whatever is asked"
        assert all(outcome.retryable for outcome in outcomes)
        pause = min(pause * 2, LIMITS.longest_pause_seconds)
    assert pause == LIMITS.longest_pause_seconds


def test_a_probe_that_hangs_is_a_failed_probe(loop):
    service = Service(down)
    caller = Caller("s")
    loop.run_until_complete(caller.gather(range(100), service))
    service.answer = hang
    loop.now += LIMITS.first_pause_seconds
    before = service.total
    outcomes = loop.run_until_complete(caller.gather(range(10), service))
    assert service.total == before + 1
    assert all(outcome.retryable for outcome in outcomes)
    service.answer = double
    loop.now += LIMITS.first_pause_seconds * 2
    assert loop.run_until_complete(caller.gather([4], service)) == [8]


def test_a_probe_that_ends_in_a_defect_lets_the_next_one_probe(loop):
    service = Service(down)
    caller = Caller("s")
    loop.run_until_complete(caller.gather(range(100), service))

    async def defect(_item: Any) -> Any:
        raise ZeroDivisionError

    service.answer = defect
    loop.now += LIMITS.first_pause_seconds
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(caller.gather([1], service))
    service.answer = double
    loop.now += LIMITS.first_pause_seconds * 2
    assert loop.run_until_complete(caller.gather([4], service)) == [8]


def test_refusals_never_open_the_breaker(loop):
    async def refuse(_item: int) -> int:
        raise RefusedError("s_refused", "status 400")

    service = Service(refuse)
    loop.run_until_complete(Caller("s").gather(range(200), service))
    assert service.total == 200


def test_attempts_cut_short_by_the_batch_do_not_open_the_breaker(loop):
    caller = Caller("s", limits=replace(LIMITS, batch_seconds=1.0))
    outcomes = loop.run_until_complete(caller.gather(range(64), hang))
    assert all(outcome.retryable for outcome in outcomes)
    assert not caller_is_open(loop, caller)


def test_services_do_not_share_a_breaker(loop):
    loop.run_until_complete(Caller("s", "https://a").gather(range(100), down))
    assert loop.run_until_complete(Caller("s", "https://b").gather([3], double)) == [6]
    assert isinstance(loop.run_until_complete(Caller("s", "https://a").gather([3], double))[0], Failure)


def caller_is_open(loop: VirtualLoop, caller: Caller) -> bool:
    async def ask() -> bool:
        return caller.breaker_is_open

    return loop.run_until_complete(ask())


@given(st.lists(st.sampled_from(["ok", "fail", "tick"]), max_size=200))
def test_breaker_is_open_only_after_so_many_failures_in_a_row(events):
    now = 0.0
    breaker = Breaker(lambda: now, failures_to_open=3, first_pause=1.0, longest_pause=4.0)
    in_a_row = 0
    for event in events:
        if event == "tick":
            now += 0.7
            continue
        admission = breaker.admit()
        assert admission is not Admission.WAIT, "every probe here has its outcome before the next question"
        if in_a_row < 3:
            assert admission is Admission.CALL
        else:
            assert admission in (Admission.PROBE, Admission.REFUSE)
        if admission is Admission.REFUSE:
            continue
        probe = admission is Admission.PROBE
        if event == "ok":
            breaker.succeeded(probe=probe)
            in_a_row = 0
        else:
            breaker.failed(probe=probe)
            in_a_row += 1


@given(st.lists(st.booleans(), max_size=500))
def test_budget_bounds_retries(events):
    budget = RetryBudget(0.5, 10, 50)
    requests = retries = 0
    for is_request in events:
        if is_request:
            requests += 1
            budget.request()
        else:
            retries += budget.take()
        assert retries <= 10 + 0.5 * requests


def test_a_late_failure_or_answer_does_not_move_an_open_breaker():
    now = 0.0
    breaker = Breaker(lambda: now, failures_to_open=2)
    breaker.failed()
    breaker.failed()
    now = 0.9
    breaker.failed()
    breaker.succeeded()
    assert breaker.admit() is Admission.REFUSE
    now = 1.0
    assert breaker.admit() is Admission.PROBE, "counted from when it opened"
    assert breaker.admit() is Admission.WAIT


def test_map_runs_in_the_background_and_an_empty_one_calls_nothing():
    assert Caller("sync").map([1, 2, 3], double) == [2, 4, 6]
    assert Caller("sync").map([], double) == []


def test_map_serves_several_threads_at_once():
    results: dict[int, list[Any]] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: Caller("threads").map([n] * 20, double)}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {n: [n * 2] * 20 for n in range(8)}


def test_waiting_on_the_loop_for_the_loop_is_an_error_not_a_deadlock():
    async def wrong() -> Any:
        return Caller("wrong").map([1], double)

    with pytest.raises(RuntimeError, match="await it"):
        run_in_background(wrong())


def _in_child(queue: "multiprocessing.Queue[Any]") -> None:
    queue.put((os.getpid(), Caller("fork").map([1, 2], double)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_calls_on_a_loop_of_its_own():
    assert Caller("fork").map([1], double) == [2]  # the parent's thread runs
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    pid, outcomes = queue.get(timeout=60)
    child.join(60)
    assert (pid, outcomes, child.exitcode) == (child.pid, [2, 4], 0)


def test_callers_pickle_and_equal_ones_are_one():
    caller = Caller("s", "https://a", CallLimits(in_flight=3))
    assert pickle.loads(pickle.dumps(caller)) == caller
