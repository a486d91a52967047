"""What the workers of this process have done so far: the numbers behind metrics, the console and ``doctor``.

Plain sums in memory, added to once a batch. Whoever tells them to somebody (Prometheus, OTLP, the operations table)
reads them when it does, so a process that tells nobody pays next to nothing for them.
"""

import os
import threading
from collections import Counter
from typing import Final


class WorkerTotals:
    """One worker's totals in this process.

    Attributes:
        counts: by the counter's name, those of ``domain.ledger`` and ``rejected.<reason>`` and the like.
        batches: finished ones.
        failed_batches: those a step of which failed; they are read again.
        last_batch_ms: when the last batch was finished, epoch milliseconds; 0 for none.
        age_ms: age of the oldest message of the last received batch, milliseconds; 0 where the source does not say.
    """

    def __init__(self) -> None:
        self.counts: Final[Counter[str]] = Counter()
        self.batches = 0
        self.failed_batches = 0
        self.last_batch_ms = 0
        self.age_ms = 0
        self._lock: Final = threading.Lock()

    def count(self, name: str, number: int) -> None:
        """Adds to a counter; several threads of a runner may do so at once."""
        with self._lock:
            self.counts[name] += number

    def finished(self, now_ms: int) -> None:
        """A batch was finished."""
        with self._lock:
            self.batches += 1
            self.last_batch_ms = max(self.last_batch_ms, now_ms)

    def failed(self) -> None:
        """A step of a batch failed."""
        with self._lock:
            self.failed_batches += 1


_totals: Final[dict[str, WorkerTotals]] = {}


def totals_of(worker: str) -> WorkerTotals:
    """A worker's totals; made at the first question."""
    found = _totals.get(worker)
    return found if found is not None else _totals.setdefault(worker, WorkerTotals())


def all_totals() -> dict[str, WorkerTotals]:
    """The totals of every worker that did something in this process, by its name."""
    return dict(_totals)


os.register_at_fork(after_in_child=_totals.clear)  # a child's work is not its parent's
