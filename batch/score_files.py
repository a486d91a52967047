"""Scores files from end to end: enqueue all of them, then drain the queue, and check the books.

The two halves run one after the other, so each profile is built over the whole input and what was stored before:
the result does not depend on the order of the input.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from ..domain.ledger import Ledger
from ..io.backends import Backends
from ..io.files import FileRange, count_records
from ..pipelines import enqueue, score
from ..pipelines.enqueue import RulesOfNow
from ..pipelines.runner import execute
from ..transforms.draining import draining
from ..transforms.sources import DrainQueue, ReadActivityFiles

ENQUEUE_WORKER = "enqueueFromStream"
SCORE_WORKER = "scoreUsers"

Watch = Callable[[str, int, Callable[[], int]], AbstractContextManager[None]]
"""Shows progress while its context lasts: a title, the total, and how far it is (asked now and then)."""


@contextmanager
def unwatched(title: str, total: int, done: Callable[[], int]) -> Generator[None]:
    """Shows nothing."""
    del title, total, done
    yield


@dataclass(frozen=True)
class ScoreRun:
    """What a run did.

    Attributes:
        ledger: the books.
        enqueue_seconds: time of the first half.
        score_seconds: time of the second half.
        interrupted: the run was asked to stop before its end.
    """

    ledger: Ledger
    enqueue_seconds: float
    score_seconds: float
    interrupted: bool

    @property
    def events_per_second(self) -> float:
        """Records read a second of both halves together."""
        seconds = self.enqueue_seconds + self.score_seconds
        return self.ledger.read / seconds if seconds else 0.0


def score_files(
    ranges: Sequence[FileRange],
    rules: RulesOfNow,
    backends: Backends,
    options: PipelineOptions,
    *,
    batch_size: int = 500,
    watch: Watch = unwatched,
) -> ScoreRun:
    """Runs both halves over files, alone on the store.

    Args:
        ranges: from ``plan_ranges``.
        rules: what is scorable.
        backends: where everything goes; the queue is an SQLite store.
        options: Beam's.
        batch_size: records a Beam element.
        watch: shows progress.

    Raises:
        UsageError: a setting or a file does not fit.
        BackendUnavailableError: the store or a file cannot be read or written, or another run holds the store.
    """
    queue = backends.open_sqlite_queue()
    with backends.exclusive_lock():
        queue.release_in_flight()
        waiting_before = queue.depth()
        last_before = queue.last_sent()
        began = time.perf_counter()
        with watch("enqueue", count_records(ranges), lambda: queue.last_sent() - last_before):
            source = ReadActivityFiles(ENQUEUE_WORKER, backends, ranges, batch_size)
            counts = execute(lambda pipeline: enqueue.build(pipeline, ENQUEUE_WORKER, source, rules, backends), options)
        enqueued_at = time.perf_counter()
        if not draining.is_set():
            waiting = queue.depth()
            with watch("score", waiting, lambda: waiting - queue.depth()):
                scored = execute(_score_half(backends, batch_size, options), options)
            counts = {name: counts.get(name, 0) + scored.get(name, 0) for name in {*counts, *scored}}
        ended = time.perf_counter()
        ledger = Ledger.of(counts, waiting_before=waiting_before, waiting_after=queue.depth())
    return ScoreRun(ledger, enqueued_at - began, ended - enqueued_at, draining.is_set())


def _score_half(backends: Backends, batch_size: int, options: PipelineOptions) -> Callable[[beam.Pipeline], object]:
    direct: Any = options.view_as(DirectOptions)
    receivers = int(direct.direct_num_workers or 1)
    return lambda pipeline: score.build(pipeline, SCORE_WORKER, DrainQueue(backends, batch_size, receivers), backends)
