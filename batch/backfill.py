"""Backfills: any stream worker over a range of its source or over archived files, resumed where it was killed.

Three ways, all over the transforms that stream:

- an enqueue worker fills its queue, for scoreUsers to drain (``enqueue``);
- an enqueue worker's activities are scored at once, past the queue (``score``). Profiles that are built from the
  activities themselves come first, of the whole input, so that the result does not depend on its order (``observe``);
- a scoring worker scores the ARAI changes of a table (``changes``).

Nothing is too old for a backfill: a horizon set for streams is not applied. A score that is late never replaces a newer
one, whoever wrote that.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.options.pipeline_options import PipelineOptions

from ..domain.ledger import Ledger
from ..io.backends import STREAMS, Backends, scheme_of
from ..io.errors import UsageError
from ..io.file_ranges import FileFormat, local_path
from ..io.files import FileRange, count_records, plan_ranges
from ..io.registry import Kind, worker_named
from ..pipelines import enqueue
from ..pipelines.enqueue import RulesOfNow
from ..pipelines.runner import execute
from ..transforms import backfill as parts
from ..transforms.backfill import (
    DONE,
    CommitParts,
    Job,
    PastTheQueue,
    ReadFileParts,
    ReadStreamParts,
    StopOnOutage,
    part_of,
)
from ..transforms.batches import BatchTransform
from ..transforms.draining import draining
from ..transforms.enqueue import DecodeActivities, FilterScorable, ObserveActivities
from ..transforms.finish import WriteDeadLetters
from ..transforms.flags import KeepUsersOfShare
from ..transforms.score import FetchArai, PersistScores, ScoreUsers, SelectAraiChanges
from .backfill_sources import find_files
from .score_files import Watch, unwatched


@dataclass(frozen=True)
class Backfill:
    """What to do.

    Attributes:
        worker: the worker's name.
        backends: of the worker whose effects it has: the scoring worker's where activities are scored at once.
        sources: files, folders and globs, or one stream's address.
        scorer: who scores the activities of an enqueue worker at once, or None to enqueue them.
        from_ms: of a stream, from records of this time on, epoch milliseconds; None from the oldest there is.
        to_ms: of a stream, up to before this time; None up to now.
        format: of files whose names do not tell.
        internal_accounts: users that are never scored.
        name: another name is another job, which does all again.
        batch_size: records a Beam element.
        splits: how many readers share a stream.
    """

    worker: str
    backends: Backends
    sources: Sequence[str]
    scorer: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    format: FileFormat | None = None
    internal_accounts: frozenset[str] = frozenset()
    name: str = ""
    batch_size: int = 500
    splits: int = 1

    @property
    def streams(self) -> bool:
        """Whether the source is a stream, not files."""
        return any(scheme_of(source) in STREAMS for source in self.sources)

    @property
    def job_id(self) -> str:
        """Names the job in the store of positions: the same arguments are the same job."""
        places = [source if self.streams else str(Path(local_path(source)).absolute()) for source in self.sources]
        told = (self.worker, self.scorer, sorted(places), self.from_ms, self.to_ms, self.format, self.name)
        goes_to = self.backends.queue if self.scorer is None else self.backends.table
        return "backfill-" + hashlib.sha256(msgspec.json.encode([*told, goes_to])).hexdigest()[:16]


@dataclass(frozen=True)
class BackfillRun:
    """What a run did.

    Attributes:
        job_id: the job's.
        counts: of the transforms, by name: ``read``, ``enqueued``, ``scored``, ``rejected.<reason>`` …
        files: how many files were looked at.
        parts: parts of files there are; 0 for a stream.
        parts_done_before: of them, those an earlier run finished: they were not read again.
        seconds: how long it took.
        interrupted: it was asked to stop before its end.
    """

    job_id: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    files: int = 0
    parts: int = 0
    parts_done_before: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def ledger(self) -> Ledger:
        """The books; what was enqueued waits in the queue."""
        return Ledger.of(self.counts, waiting_before=0, waiting_after=self.counts.get("enqueued", 0))


def run_backfill(work: Backfill, options: PipelineOptions, watch: Watch = unwatched) -> BackfillRun:
    """Runs a backfill to its end.

    Raises:
        UsageError: a setting or an input does not fit.
        BackendUnavailableError: a backend is out of reach: the same command goes on later.
        JobGoesOnError: Ctrl-C, while a cluster runs the job.
    """
    began = time.perf_counter()
    ranges = [] if work.streams else _planned(work)
    run = BackfillRun(work.job_id, files=len({part.path for part in ranges}), parts=len(ranges))
    for phase, steps in _phases(work):
        job = Job(work.job_id, phase, work.backends)
        left = _not_done(ranges, job)
        run = replace(run, counts={}, parts_done_before=len(ranges) - len(left))
        if left or work.streams:
            run = replace(run, counts=_run_phase(work, job, left, steps, options, watch))
        if draining.is_set():
            break
    return replace(run, seconds=time.perf_counter() - began, interrupted=draining.is_set())


def _planned(work: Backfill) -> list[FileRange]:
    ranges = plan_ranges(find_files(work.sources), work.format)
    if worker_named(work.worker).kind is Kind.SCORE:
        for part in ranges:
            if part.format is not FileFormat.JSONL:
                raise UsageError(
                    f"{part.name}: {work.worker} reads change records, as JSON lines; this is {part.format}"
                )
    return ranges


def _not_done(ranges: Sequence[FileRange], job: Job) -> list[FileRange]:
    positions = job.open()
    return [part for part in ranges if positions.load(job.job_id, job.part(part_of(part))) != DONE]


def _run_phase(
    work: Backfill, job: Job, left: Sequence[FileRange], steps: "_Steps", options: PipelineOptions, watch: Watch
) -> dict[str, int]:
    if work.streams:
        source: BatchTransform = ReadStreamParts(work.backends, job, work.batch_size, work.splits)
        return execute(lambda pipeline: steps(pipeline, source, job), options)
    source = ReadFileParts(left, job, work.batch_size)
    before = parts.records_taken
    with watch(job.phase, count_records(left), lambda: parts.records_taken - before):
        return execute(lambda pipeline: steps(pipeline, source, job), options)


_Steps = Callable[[beam.Pipeline, BatchTransform, Job], object]
"""Lays out a phase's pipeline from a source of ``PartBatch[RawRecord]``."""


def _phases(work: Backfill) -> list[tuple[str, _Steps]]:
    def enqueuing(pipeline: beam.Pipeline, source: BatchTransform, job: Job) -> object:
        done = enqueue.build(pipeline, work.worker, source, rules, work.backends)
        return done | "Commit parts" >> CommitParts(job)

    def observing(pipeline: beam.Pipeline, source: BatchTransform, job: Job) -> object:
        return (
            _scorable(pipeline, source)
            | "Observe activities" >> ObserveActivities(work.backends)
            | "Commit parts" >> CommitParts(job)
        )

    def scoring(pipeline: beam.Pipeline, source: BatchTransform, job: Job) -> object:
        queued = (
            _scorable(pipeline, source)
            | "Past the queue" >> PastTheQueue(work.worker)
            | "Keep the scorer's users" >> KeepUsersOfShare(work.backends)
            | "Fetch ARAI" >> FetchArai(work.backends.worker, work.backends)
        )
        return _scored(queued, job)

    def of_changes(pipeline: beam.Pipeline, source: BatchTransform, job: Job) -> object:
        start: Any = pipeline  # Beam's | has no types
        selected = (
            start
            | "Read changes" >> source
            | "Select ARAI changes" >> SelectAraiChanges(work.worker)
            | "Keep users of share" >> KeepUsersOfShare(work.backends)
        )
        return _scored(selected, job)

    def _scorable(pipeline: beam.Pipeline, source: BatchTransform) -> Any:
        start: Any = pipeline
        return (
            start
            | "Read activities" >> source
            | "Decode activities" >> DecodeActivities(work.worker)
            | "Filter scorable" >> FilterScorable(rules)
            | "Keep users of share" >> KeepUsersOfShare(replace(work.backends, worker=work.worker))
        )

    def _scored(profiled: Any, job: Job) -> object:
        return (
            profiled
            | "Score users" >> ScoreUsers(work.backends.worker, work.backends)
            | "Persist scores" >> PersistScores(work.backends.worker, work.backends)
            | "Stop on outage" >> StopOnOutage()
            | "Write dead letters" >> WriteDeadLetters(work.backends)
            | "Commit parts" >> CommitParts(job)
        )

    rules = RulesOfNow(internal_accounts=work.internal_accounts)
    if worker_named(work.worker).kind is Kind.SCORE:
        return [("changes", of_changes)]
    if work.scorer is None:
        return [("enqueue", enqueuing)]
    return [*([("observe", observing)] if work.backends.builds_profiles else []), ("score", scoring)]
