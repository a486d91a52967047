"""How fast records flow: from counters that processes report now and then to rates per second, and their history.

A rate belongs to a process until its next report; a worker's is the sum over its processes. Where nothing is known
there is no rate: a gap, which is another thing than 0.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from .ledger import DEAD_LETTERED, REJECTED

FAILED_BATCHES: Final = "failed_batches"
"""Stands for a report's failed batches among its counters."""

SERIES: Final[Mapping[str, tuple[str, ...]]] = {
    "read": ("read", "received"),
    "enqueued": ("enqueued",),
    "deduplicated": ("deduplicated",),
    "scored": ("scored",),
    "stored": ("stored",),
    "rejected": (REJECTED,),
    "deadLettered": (DEAD_LETTERED,),
    "returned": ("returned",),
    "failed": (FAILED_BATCHES,),
}
"""By series the counters it sums; a name that ends with a dot is a prefix. ``failed`` is in batches, not records."""

STALE_MS: Final = 15_000
"""A rate holds until the next report, but no longer than this: then the process has fallen silent."""

LAST_MS: Final = 5_000
"""That of a process that ended in order, which does nothing any more."""

Rates = Mapping[str, float | None]
"""Per second, by series."""


class Reading(msgspec.Struct, frozen=True):
    """A process's counters at one moment.

    Attributes:
        worker: whose.
        process: the process's name.
        started_at: when it began to count from 0, epoch milliseconds.
        at: when it was read, epoch milliseconds.
        counts: by counter; it may fall only where counting began anew.
        ended: whether this is the process's last.
    """

    worker: str
    process: str
    started_at: int
    at: int
    counts: Mapping[str, int]
    ended: bool = False


def series_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Counters summed to the series of ``SERIES``.

    >>> series_counts({"read": 3, "rejected.too_old": 1, "rejected.unknown_type": 1})["rejected"]
    2
    """
    return {
        name: sum(
            number
            for counter, number in counts.items()
            if any(counter.startswith(wanted) if wanted.endswith(".") else counter == wanted for wanted in wanted_ones)
        )
        for name, wanted_ones in SERIES.items()
    }


def rates_between(before: Reading | None, now: Reading) -> dict[str, float] | None:
    """What a process did per second between two of its readings; None where no time passed.

    A counter that fell was begun anew: all it says was done since. Without a reading before, it is all since the
    process began.
    """
    since = now.started_at if before is None else before.at
    if now.at <= since:
        return None
    seconds = (now.at - since) / 1_000
    earlier = {} if before is None else series_counts(before.counts)
    return {
        name: (number - earlier.get(name, 0) if number >= earlier.get(name, 0) else number) / seconds
        for name, number in series_counts(now.counts).items()
    }


class RateMeter:
    """Turns readings, taken again and again, into rates by worker."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], Reading] = {}
        self._rates: dict[tuple[str, str], dict[str, float]] = {}

    def observe(self, readings: Sequence[Reading], now: int) -> dict[str, Rates]:
        """The rates at ``now`` (epoch milliseconds), by worker of the readings; None for a gap.

        Args:
            readings: the last one of each process there was in the past day.
            now: must not go back.
        """
        for reading in readings:
            self._note(reading)
        known = {(reading.worker, reading.process) for reading in readings}
        for key in self._last.keys() - known:
            del self._last[key]
            self._rates.pop(key, None)
        return {
            worker: self._sum(worker, [reading for reading in readings if reading.worker == worker], now)
            for worker in dict.fromkeys(reading.worker for reading in readings)
        }

    def _note(self, reading: Reading) -> None:
        key = (reading.worker, reading.process)
        before = self._last.get(key)
        if before is not None and reading.at <= before.at:
            return  # heard before
        self._last[key] = reading
        # What a process did in a long time before anybody looked is no rate of now.
        is_young = reading.at - reading.started_at < STALE_MS
        rates = rates_between(before, reading) if before is not None or is_young else None
        if rates is None:
            self._rates.pop(key, None)
        else:
            self._rates[key] = rates

    def _sum(self, worker: str, readings: Sequence[Reading], now: int) -> Rates:
        known = [
            self._rates[worker, reading.process]
            for reading in readings
            if now - reading.at < (LAST_MS if reading.ended else STALE_MS) and (worker, reading.process) in self._rates
        ]
        if not known:
            return dict.fromkeys(SERIES)
        return {name: round(sum(rates[name] for rates in known), 3) for name in SERIES}


class QueueState(msgspec.Struct, frozen=True):
    """What waits in a queue.

    Attributes:
        depth: messages that wait or are in flight; None where it does not say.
        oldest_ms: how long the oldest has waited, milliseconds; None where nobody can say.
    """

    depth: int | None = None
    oldest_ms: int | None = None


class Lag(msgspec.Struct, frozen=True):
    """How far a worker is behind its log.

    Attributes:
        source: the log, as it is shown.
        records: still to be read; None where the log cannot say.
    """

    source: str
    records: int | None


class Moment(msgspec.Struct, frozen=True):
    """What was known at one moment.

    Attributes:
        at: epoch milliseconds.
        workers: rates, by worker.
        queues: by queue.
        lag: by worker.
    """

    at: int
    workers: Mapping[str, Rates]
    queues: Mapping[str, QueueState]
    lag: Mapping[str, Lag]


Key = tuple[str, str, str]
"""Of a column: workers, queues or lag; a name; what of it."""


class History:
    """The last moments, at most ``most``; older ones are forgotten, and names of which nothing is known any more.

    Kept as columns, since they are asked for whole while others wait for the same event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: deque[int] = deque(maxlen=most)
        self._columns: dict[Key, deque[float | None]] = {}
        self._sources: dict[str, str] = {}

    def add(self, moment: Moment) -> None:
        """Adds the newest."""
        values = _values(moment)
        for key in values.keys() - self._columns.keys():
            self._columns[key] = deque([None] * len(self._times), self._most)
        self._times.append(moment.at)
        for key, column in list(self._columns.items()):
            column.append(values.get(key))
            if key not in values and all(value is None for value in column):
                del self._columns[key]
        self._sources |= {worker: lag.source for worker, lag in moment.lag.items()}

    def columns(self, since: int = 0) -> dict[str, Any]:
        """Moments after ``since`` (epoch milliseconds) as columns, for a plot: a value or None for each time.

        Returns:
            ``times``; ``workers`` by name and series; ``queues`` by name with ``depth`` and ``oldestMs``; ``lag`` by
            worker with ``source`` and ``records``.
        """
        start = bisect_right(self._times, since)
        found: dict[str, Any] = {
            "times": list(islice(self._times, start, None)),
            "workers": {},
            "queues": {},
            "lag": {},
        }
        for (kind, name, part), column in sorted(self._columns.items()):
            found[kind].setdefault(name, {})[part] = list(islice(column, start, None))
        for worker, columns in found["lag"].items():
            columns["source"] = self._sources[worker]
        return found


def _values(moment: Moment) -> dict[Key, float | None]:
    values: dict[Key, float | None] = {
        ("workers", worker, name): rates.get(name) for worker, rates in moment.workers.items() for name in SERIES
    }
    for queue, state in moment.queues.items():
        values["queues", queue, "depth"], values["queues", queue, "oldestMs"] = state.depth, state.oldest_ms
    return values | {("lag", worker, "records"): lag.records for worker, lag in moment.lag.items()}
