"""How far a worker is behind the end of its Kafka topic: what its group has not committed yet."""

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from .addresses import parse_address
from .kafka_address import kafka_settings
from .kafka_admin import admin_of

_RECENT_SECONDS: Final = 4.0


def kafka_lag(text: str, worker: str, seconds: float) -> dict[int, int]:
    """Records that are in the topic and not committed by the worker's group, by partition; 0 where it is at the end.

    A partition of which nothing is committed counts from where the worker would begin: its first record, or its end
    where the address says ``start=latest``.

    Args:
        text: ``kafka://host:9092/topic?option=value``.
        worker: names the group where the address does not.
        seconds: what each of the questions may take.

    Raises:
        UsageError: the address is wrong, there is no such topic, or it may not be read.
        BackendUnavailableError: no broker answers in time.
    """
    settings = kafka_settings(parse_address(text, "source"), "source", worker)
    admin = admin_of(settings)
    partitions = admin.partitions(seconds)
    ends = admin.latest(partitions, seconds)
    committed = admin.committed(partitions, seconds)
    fresh = [partition for partition in partitions if partition not in committed]
    begins = ends if settings.latest else admin.earliest(fresh, seconds)
    return {
        partition: max(ends[partition] - committed.get(partition, begins.get(partition, ends[partition])), 0)
        for partition in partitions
    }


class Recent:
    """Answers that everybody in this process shares for a while: who asks meanwhile waits for the one who asks Kafka.

    Args:
        ask: for records, by address, worker and seconds.
        clock: seconds that only grow.
    """

    def __init__(self, ask: Callable[[str, str, float], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, text: str, worker: str, seconds: float) -> int:
        """The answer; an error is no answer, and the next one asks again."""
        with self._lock:
            asked_at, records = self._known.get((text, worker), (-float("inf"), 0))
            if self._clock() - asked_at >= _RECENT_SECONDS:
                records = self._ask(text, worker, seconds)
                self._known[text, worker] = self._clock(), records
            return records

    def forget(self) -> None:
        """For a forked process, where nobody will give the lock back."""
        self._lock = threading.Lock()
        self._known.clear()


recent_lag: Final = Recent(lambda text, worker, seconds: sum(kafka_lag(text, worker, seconds).values()))
"""Records of all partitions that a worker has still to read, as of the last four seconds: metrics and reports ask both.

Arguments and errors as with ``kafka_lag``.
"""

os.register_at_fork(after_in_child=recent_lag.forget)
