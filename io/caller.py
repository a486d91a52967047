"""Calls to services, many at a time: limits, deadlines, retries, and a circuit breaker a service.

A batch's items are called concurrently and each has an outcome of its own: a result, or why there is none. What
bounds a service in trouble: calls in flight, a time per attempt and per item (retries included), a retry budget and a
breaker. They decide together whether a retry is made, which is why the loop is written here; its waits are those of
stamina: exponential, with jitter.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from weakref import WeakKeyDictionary

from ..domain.records import Failure
from .breaker import Admission, Breaker, RetryBudget
from .event_loop import run_in_background
from .telemetry import metrics, tracing

Item = TypeVar("Item")
T = TypeVar("T")


class TransientError(Exception):
    """An attempt failed in a way that a later one may not: timeout, connection, 429, 5xx.

    Args:
        message: one line without personal data.
        retry_after: seconds the service asks to wait (``Retry-After``).
        status: the HTTP status, or 0 where there was no answer.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, status: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status


class RefusedError(Exception):
    """The service is there and will not give an answer to this item: trying again now is of no use.

    Args:
        reason: the Failure's reason.
        message: one line without personal data.
        retryable: whether it may work later, once somebody mended what is wrong (credentials, a path).
        status: the HTTP status, or 0 where that was not the reason.
    """

    def __init__(self, reason: str, message: str, *, retryable: bool = False, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retryable = retryable


@dataclass(frozen=True)
class CallLimits:
    """What bounds the calls to one service; times in seconds.

    Attributes:
        in_flight: calls at the same time, in this process.
        attempt_seconds: for one attempt.
        deadline_seconds: for one item from its turn on, retries and waits included.
        batch_seconds: for the items of one ``map``; those whose turn has not come by then fail without a call.
        attempts: per item.
        backoff_seconds: the first wait before a retry; doubles. Jitter of up to twice as much comes on top.
        longest_backoff_seconds: what a wait grows to.
        failures_to_open: failed attempts in a row that open the breaker.
        first_pause_seconds: from opening to the first probe; doubles.
        longest_pause_seconds: what the pause grows to.
        retry_share: retries an item, on average.
        retry_reserve: retries on top, to begin with.
        most_retries: retries that can be saved up while all goes well.
    """

    in_flight: int = 64
    attempt_seconds: float = 3.0
    deadline_seconds: float = 10.0
    batch_seconds: float = 30.0
    attempts: int = 8
    backoff_seconds: float = 0.1
    longest_backoff_seconds: float = 2.0
    failures_to_open: int = 20
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 30.0
    retry_share: float = 0.5
    retry_reserve: float = 10.0
    most_retries: float = 50.0


DEFAULT_LIMITS: Final = CallLimits()


@dataclass(frozen=True)
class Caller:
    """Calls a service. Holds names and numbers only, so it pickles; equal callers share limits, breaker and budget.

    Attributes:
        service: its name, in reasons: ``model`` gives ``model_unavailable``.
        address: tells several of that name apart.
        limits: what bounds calls.
    """

    service: str
    address: str = ""
    limits: CallLimits = DEFAULT_LIMITS

    def map(self, items: Sequence[Item], call: Callable[[Item], Awaitable[T]]) -> list[T | Failure]:
        """Calls for each item and waits for all; outcomes are in the items' order.

        Args:
            items: what to call for.
            call: one attempt. Raises ``TransientError`` (or ``TimeoutError``) to be tried again, ``RefusedError`` to
                be not. It is cancelled when its time is up.

        Returns:
            For each item the result or a Failure: ``<service>_unavailable``, or the reason of ``RefusedError``.

        Raises:
            Exception: any other exception of ``call``; the other items' calls are cancelled.
        """
        return run_in_background(self.gather(items, call)) if items else []

    async def gather(self, items: Sequence[Item], call: Callable[[Item], Awaitable[T]]) -> list[T | Failure]:
        """``map`` for code that is on an event loop itself."""
        with tracing.service_span(self.service, {tracing.CALLS: len(items)}) as span:
            outcomes = await self._gathered(items, call)
            span.describe([outcome.reason for outcome in outcomes if isinstance(outcome, Failure)], len(outcomes))
        return outcomes

    async def _gathered(self, items: Sequence[Item], call: Callable[[Item], Awaitable[T]]) -> list[T | Failure]:
        run = _Run(self, call, items)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.limits.in_flight, len(items))):
                    group.create_task(run.work())
        except BaseExceptionGroup as failed:
            raise _first_of(failed) from None
        return [run.outcomes[number] for number in range(len(items))]

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T | Failure:
        """``gather`` for one item that somebody waits for, without a task of its own."""

        async def one(_: None) -> T:
            return await call()

        with tracing.service_span(self.service, {tracing.CALLS: 1}) as span:
            outcome = await _Run(self, one, [None]).only()
            if isinstance(outcome, Failure):
                span.fail(outcome.reason)
        return outcome

    @property
    def breaker_is_open(self) -> bool:
        """Whether the service is taken to be down; for code on the event loop."""
        return self._shared().breaker.is_open

    def _shared(self) -> "_Service":
        services = _services.setdefault(asyncio.get_running_loop(), {})
        if self not in services:
            services[self] = _Service(self.service, self.limits)
        return services[self]


class _Service:
    """What the calls to one service share; lives on one event loop."""

    def __init__(self, name: str, limits: CallLimits) -> None:
        self.slots = asyncio.Semaphore(limits.in_flight)
        self.breaker = Breaker(
            asyncio.get_running_loop().time,
            failures_to_open=limits.failures_to_open,
            first_pause=limits.first_pause_seconds,
            longest_pause=limits.longest_pause_seconds,
            service=name,
        )
        self.budget = RetryBudget(limits.retry_share, limits.retry_reserve, limits.most_retries)
        self.probe_done = asyncio.Event()


_services: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Caller, _Service]]] = WeakKeyDictionary()


class _NotCalledError(Exception):
    """The breaker is open, or time ran out before the call was made."""


class _TooLateError(TransientError):
    """An attempt's time was up."""


class _Run(Generic[Item, T]):
    """One ``map``: workers that take items in order, each seeing its item through before the next."""

    def __init__(self, caller: Caller, call: Callable[[Item], Awaitable[T]], items: Sequence[Item]) -> None:
        self.outcomes: dict[int, T | Failure] = {}
        self._service = caller._shared()  # pyright: ignore[reportPrivateUsage]
        self._name = caller.service
        self._limits = caller.limits
        self._call = call
        self._waiting = iter(enumerate(items))
        self._now = asyncio.get_running_loop().time
        self._ends_at = self._now() + caller.limits.batch_seconds

    async def work(self) -> None:
        for number, item in self._waiting:
            async with self._service.slots:
                self.outcomes[number] = await self._outcome(item)

    async def only(self) -> T | Failure:
        ((_, item),) = self._waiting
        async with self._service.slots:
            return await self._outcome(item)

    async def _outcome(self, item: Item) -> T | Failure:
        if not metrics.switch.on:
            return (await self._called(item))[0]
        began = self._now()
        outcome, what, attempts = await self._called(item)
        metrics.observe_call(self._name, self._now() - began, what, attempts)
        return outcome

    async def _called(self, item: Item) -> tuple[T | Failure, str, int]:
        """What came of an item; in one word, as ``metrics.observe_call`` has it; and the attempts made."""
        deadline = min(self._now() + self._limits.deadline_seconds, self._ends_at)
        self._service.budget.request()
        attempts = 0
        problem, what = "not tried", "not_called"
        while True:
            try:
                probe = await self._admission(deadline)
                attempts += 1
                return await self._attempt(item, deadline, probe=probe), "ok", attempts
            except RefusedError as error:
                refused = Failure(error.reason, str(error), retryable=error.retryable, attempts=attempts)
                return refused, "refused", attempts
            except _NotCalledError as error:
                problem = f"{problem}; {error}" if attempts else str(error)
                break
            except TransientError as error:
                problem, what = str(error), "timeout" if isinstance(error, _TooLateError) else "transient"
                wait = self._wait(attempts, error.retry_after, deadline)
            if wait is None:
                break
            await asyncio.sleep(wait)
        unavailable = Failure(f"{self._name}_unavailable", problem, retryable=True, attempts=max(attempts, 1))
        return unavailable, what, attempts

    async def _admission(self, deadline: float) -> bool:
        """Waits until the item may be called; True where the call is the breaker's probe.

        Raises:
            _NotCalledError: it may not.
        """
        service = self._service
        while True:
            if self._now() >= deadline:
                raise _NotCalledError("no time is left")
            admission = service.breaker.admit()
            if admission is Admission.REFUSE:
                raise _NotCalledError("the circuit breaker is open")
            if admission is not Admission.WAIT:
                if admission is Admission.PROBE:
                    service.probe_done.clear()
                return admission is Admission.PROBE
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await service.probe_done.wait()

    async def _attempt(self, item: Item, deadline: float, *, probe: bool) -> T:
        """One call; tells the breaker what came of it.

        Raises:
            TransientError: it may be tried again.
            RefusedError: it may not.
        """
        breaker = self._service.breaker
        limit = min(self._limits.attempt_seconds, self._limits.deadline_seconds)
        given = min(limit, deadline - self._now())
        # An attempt cut short by the item's deadline says nothing about the service.
        counted = probe or given >= limit * _WHOLE
        try:
            async with asyncio.timeout(given):
                result = await self._call(item)
        except (TransientError, TimeoutError) as error:
            timed_out = isinstance(error, TimeoutError)
            if counted or not timed_out:
                breaker.failed(probe=probe)
            if timed_out:
                raise _TooLateError(f"no answer within {given:.3g} s") from None
            raise
        except RefusedError:
            breaker.succeeded(probe=probe)
            raise
        except BaseException:
            if probe:
                breaker.failed(probe=True)
            raise
        else:
            breaker.succeeded(probe=probe)
            return result
        finally:
            if probe:
                self._service.probe_done.set()

    def _wait(self, attempts: int, retry_after: float, deadline: float) -> float | None:
        """Seconds to wait before the next attempt, or None where there is to be none."""
        limits = self._limits
        first = limits.backoff_seconds
        backoff = min(first * 2 ** (attempts - 1), limits.longest_backoff_seconds)
        wait = max(retry_after, backoff + random.uniform(0, 2 * first))  # noqa: S311 - jitter
        if attempts >= limits.attempts or self._now() + wait >= deadline or self._service.breaker.is_open:
            return None
        return wait if self._service.budget.take() else None


_WHOLE: Final = 0.99  # rounding aside


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first  # pyright: ignore[reportUnknownArgumentType]
