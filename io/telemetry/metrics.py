"""What the program measures while it runs: cheap to tell, and nothing at all where nobody listens.

Numbers are kept here, in the process, and read when somebody asks (``collecting``). A histogram of OpenTelemetry's SDK
takes 12 µs for a number, a fifth of what an ARM lookup costs; these take half of one (docs/decisions/0017).

Labels pass through the closed lists of ``domain.measures``: whatever is given here, no other value comes out.
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from typing_extensions import override

from ...domain import measures
from ...domain.measures import SECONDS, Measure

_CLIENT_ERROR: Final = 400
_LIMITED: Final = 429
_SERVER_ERROR: Final = 500
_MOST_ASIDE: Final = 4_096


class Switch:
    """Whether anybody listens.

    Attributes:
        on: set by ``telemetry.start``.
    """

    on: bool = False


switch: Final = Switch()
"""This process's; code that would have to look at a clock asks it first."""


class _Cell:
    """What is told in the hot path is put aside, and summed up every so often: both are safe in many threads.

    Appending to a list and taking its head off are each one step for Python's threads, so no lock is held to tell.
    """

    __slots__ = ("_aside", "_summing")

    def __init__(self) -> None:
        self._aside: list[float] = []
        self._summing = threading.Lock()

    def add(self, number: float) -> None:
        """Tells a number."""
        aside = self._aside
        aside.append(number)
        if len(aside) >= _MOST_ASIDE:
            self._sum_up()

    def _sum_up(self) -> None:
        with self._summing:
            taken = self._aside[:]
            del self._aside[: len(taken)]
            self._take(taken)

    def forget(self) -> None:
        """Begins anew; also in a forked process, where another thread may have held the lock."""
        self._summing = threading.Lock()
        self._aside.clear()

    def _take(self, numbers: list[float]) -> None:
        raise NotImplementedError


class Distribution(_Cell):
    """Counts of seconds by bucket."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        super().__init__()
        self._counts = [0] * (len(SECONDS) + 1)
        self._total = 0.0

    @override
    def forget(self) -> None:
        super().forget()
        self._counts = [0] * (len(SECONDS) + 1)
        self._total = 0.0

    def snapshot(self) -> tuple[list[int], float]:
        """The counts, the last that of what is above every bound, and the sum of all seconds."""
        self._sum_up()
        with self._summing:
            return list(self._counts), self._total

    @override
    def _take(self, numbers: list[float]) -> None:
        counts = self._counts
        for seconds in numbers:
            counts[bisect_left(SECONDS, seconds)] += 1
        self._total += sum(numbers)


class Number(_Cell):
    """A sum, or a number that is set."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        super().__init__()
        self._value: float | None = None

    @override
    def forget(self) -> None:
        super().forget()
        self._value = None

    @property
    def value(self) -> float | None:
        """The number; None where none was ever told."""
        if self._aside:
            self._sum_up()
        return self._value

    def set(self, value: float) -> None:
        """Sets it, whatever it was."""
        self._value = value

    @override
    def _take(self, numbers: list[float]) -> None:
        self._value = sum(numbers, self._value or 0.0)


Cell = TypeVar("Cell", Distribution, Number)


class Family(dict[tuple[str, ...], Cell], Generic[Cell]):
    """A measure's cells by their label values; only listed values are ever keys. A cell is the same for ever.

    Args:
        measure: which.
        cell: makes one.
    """

    def __init__(self, measure: Measure, cell: type[Cell]) -> None:
        super().__init__()
        self.measure: Final = measure
        self._cell: Final = cell

    def __missing__(self, values: tuple[str, ...]) -> Cell:
        """The cell of values, the unlisted ones replaced."""
        listed = self.measure.listed(values)
        found = self.get(listed)
        return found if found is not None else self.setdefault(listed, self._cell())


batches: Final = Family(measures.BATCH_DURATION, Distribution)
calls: Final = Family(measures.CALL_DURATION, Distribution)
requests: Final = Family(measures.REQUEST_DURATION, Distribution)
retries: Final = Family(measures.CALL_RETRIES, Number)
capacity: Final = Family(measures.CAPACITY, Number)
throttled: Final = Family(measures.THROTTLED, Number)
lookups: Final = Family(measures.CACHE_LOOKUPS, Number)
probes_up: Final = Family(measures.PROBE_UP, Number)
probe_seconds: Final = Family(measures.PROBE_DURATION, Number)
export_failures: Final = Family(measures.EXPORT_FAILURES, Number)
missed_flushes: Final = Family(measures.MISSED_FLUSHES, Number)

DISTRIBUTIONS: Final = (batches, calls, requests)
COUNTERS: Final = (retries, capacity, throttled, lookups, export_failures, missed_flushes)
GAUGES: Final = (probes_up, probe_seconds)


def observe_batch(worker: str, seconds: float, failed: bool) -> None:
    """A batch came to its end.

    Args:
        worker: whose.
        seconds: since it was read.
        failed: whether a step of it failed.
    """
    if switch.on:
        batches[worker, "failed" if failed else "ok"].add(seconds)


def observe_call(service: str, seconds: float, outcome: str, attempts: int = 1) -> None:
    """A call to a service came to its end, retries included.

    Args:
        service: its name, ``model``.
        seconds: it took, waits between attempts included.
        outcome: ``ok``, ``refused``, ``transient``, ``timeout`` or ``not_called``.
        attempts: made.
    """
    if switch.on:
        calls[service, outcome].add(seconds)
        if attempts > 1:
            retries[service,].add(attempts - 1)


def observe_capacity(table: str, kind: str, units: float) -> None:
    """DynamoDB told what a call cost.

    Args:
        table: the setting that names it.
        kind: ``read`` or ``write``.
        units: of capacity.
    """
    if switch.on:
        capacity[table, kind].add(units)


def observe_throttling(table: str) -> None:
    """DynamoDB throttled a call on a table, named by its setting."""
    if switch.on:
        throttled[table,].add(1)


def observe_request(operation: str, seconds: float, outcome: str) -> None:
    """A request was answered.

    Args:
        operation: ``arm``, ``graphql`` …
        seconds: it took.
        outcome: ``ok``, ``client_error``, ``server_error`` or ``limited``.
    """
    if switch.on:
        requests[operation, outcome].add(seconds)


def outcome_of(status: int) -> str:
    """An HTTP status as ``observe_request`` has it."""
    if status < _CLIENT_ERROR:
        return "ok"
    if status == _LIMITED:
        return "limited"
    return "client_error" if status < _SERVER_ERROR else "server_error"


def observe_lookup(cache: str, outcome: str) -> None:
    """A cache was asked: ``hit``, ``miss`` (it holds nothing) or ``away``."""
    if switch.on:
        lookups[cache, outcome].add(1)


def observe_export_failure(signal: str) -> None:
    """An export of ``metrics`` or ``traces`` failed."""
    export_failures[signal,].add(1)


def observe_missed_flush(outcome: str) -> None:
    """A flush did not come to its end in time (``late``), or was ``left_out`` because an earlier one was late."""
    missed_flushes[outcome,].add(1)


def set_probe(part: str, up: bool, seconds: float) -> None:
    """What checkLiveness found out about a part, named by its setting; kept whether anybody listens or not."""
    probes_up[part,].set(float(up))
    probe_seconds[part,].set(seconds)


def all_families() -> Iterator[Family[Distribution] | Family[Number]]:
    """Every family of this process."""
    yield from DISTRIBUTIONS
    yield from COUNTERS
    yield from GAUGES


def forget() -> None:
    """Begins anew: a child's work is not its parent's, and nobody listens in it yet."""
    switch.on = False
    for family in all_families():
        for cell in family.values():
            cell.forget()


os.register_at_fork(after_in_child=forget)
