"""Rescoring as a job over the table: fans found by their latest score, and scored again at a rate.

First all that are meant are found, then they are scored: what is written does not change who is meant. Fans are spread
over ``PARTS`` by a hash of their id, and each part is remembered once its scores are durable. All scores of a job are
of one time, that of its first start, and are named by its id: done again, they are the same items.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import apache_beam as beam
import msgspec
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from ..domain.imports import bucket_of
from ..domain.records import Batch
from ..domain.rescoring import RescoreRequest, selects
from ..io import steps
from ..io.backends import Backends
from ..io.clock import now_ms
from ..io.errors import BackendUnavailableError
from ..io.pacing import pacer_of
from ..io.ports import PositionStore, ReceivedMessage
from ..io.rescoring import Rescoring
from ..pipelines.runner import execute
from ..transforms.backfill import DONE
from ..transforms.batches import count, new_request_id
from ..transforms.draining import draining
from ..transforms.flags import kill_switch
from .score_files import Watch, unwatched

PARTS: Final = 64
"""So much of the work is done again, at most, for each worker that is killed: a 64th."""

_CHUNK: Final = 1_000
_OUTAGE_FANS: Final = 10
_REQUESTED_AT: Final = "requestedAt"
_WORKER: Final = "processRescoreEvents"

PartOfFans = tuple[int, tuple[str, ...]]


@dataclass(frozen=True)
class Rescore:
    """What to do.

    Attributes:
        request: names the job and whom to score; its ``requested_at`` is set when the job first starts.
        backends: of processRescoreEvents; ``rescore_rate`` is users a second in each process.
    """

    request: RescoreRequest
    backends: Backends

    @property
    def job_id(self) -> str:
        """Names the job in the store of positions: the same id over the same table is the same job."""
        told = f"{self.request.rescore_id}\0{self.backends.table}"
        return "rescore-" + hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class RescoreRun:
    """What a run did.

    Attributes:
        counts: ``selected`` fans, of them ``done_before`` by an earlier run, ``scored`` and ``left`` where it was
            asked to stop; ``dead_lettered.<reason>``.
        requested_at: the time of the scores, epoch milliseconds.
        interrupted: it was asked to stop before its end.
    """

    requested_at: int
    counts: dict[str, int] = field(default_factory=dict[str, int])
    interrupted: bool = False

    @property
    def dead_letters(self) -> int:
        """Fans who could not be scored."""
        return sum(number for name, number in self.counts.items() if name.startswith("dead_lettered."))

    @property
    def unaccounted(self) -> int:
        """Fans who were selected and of whom nothing is known: 0."""
        went = sum(self.counts.get(name, 0) for name in ("done_before", "scored", "left"))
        return self.counts.get("selected", 0) - went - self.dead_letters


def rescore(work: Rescore, options: PipelineOptions, watch: Watch = unwatched) -> RescoreRun:
    """Runs a rescoring to its end.

    Raises:
        UsageError: a setting does not fit.
        BackendUnavailableError: a backend is out of reach: the same command goes on later.
        JobGoesOnError: Ctrl-C, while a cluster runs the job.
    """
    positions = work.backends.open_positions()
    requested_at = _started(positions, work)
    work = Rescore(
        msgspec.structs.replace(work.request, requested_at=requested_at),
        replace(work.backends, rescore_rate=_share_of_rate(work.backends.rescore_rate, options)),
    )
    before = done.fans
    with watch("rescore", len(work.request.users or ()), lambda: done.fans - before):
        counts = execute(lambda pipeline: _build(pipeline, work), options)
    return RescoreRun(requested_at, counts, draining.is_set())


def _started(positions: PositionStore, work: Rescore) -> int:
    """When the job first started, now remembered."""
    known = positions.load(work.job_id, _REQUESTED_AT)
    if known:
        return int(known)
    now = now_ms()
    positions.commit(work.job_id, _REQUESTED_AT, str(now))
    return now


def _share_of_rate(rate: int, options: PipelineOptions) -> int:
    """The rate of each process, where the direct runner makes several; of a cluster's workers each has the whole."""
    direct: Any = options.view_as(DirectOptions)
    several = direct.direct_running_mode == "multi_processing"
    return max(1, rate // int(direct.direct_num_workers or 1)) if several else rate


def _build(pipeline: beam.Pipeline, work: Rescore) -> object:
    start: Any = pipeline  # Beam's | has no types
    request = work.request
    if request.users is not None:
        fans: Any = start | "Fans" >> _typed(beam.Create(list(_parts(request.users))))
    else:
        fans = (
            start
            | "Table" >> beam.Create([work])
            | "Share among workers" >> beam.Reshuffle()
            | "Find fans" >> _typed(beam.ParDo(_FindFans()))
        )
    return fans | "Parts" >> beam.GroupByKey() | "Rescore" >> beam.ParDo(_RescorePart(work))


def _typed(transform: Any) -> Any:
    """With the type of parts; Beam leaves that method without types."""
    return transform.with_output_types(PartOfFans)


def _parts(users: Iterable[str]) -> Iterator[PartOfFans]:
    """Fans by part, in chunks: a fan's part is always the same."""
    waiting: dict[int, list[str]] = {}
    for user in users:
        part = bucket_of(user) % PARTS
        chunk = waiting.setdefault(part, [])
        chunk.append(user)
        if len(chunk) == _CHUNK:
            yield part, tuple(waiting.pop(part))
    for part, chunk in waiting.items():
        yield part, tuple(chunk)


class _FindFans(beam.DoFn):
    def process(self, element: Rescore) -> Iterator[PartOfFans]:
        items = element.backends.open_table().latest_items()
        yield from _parts(str(item["globalUserId"]) for item in items if selects(element.request, item))


@dataclass
class _Done:
    """How many fans this process is done with, for a progress bar."""

    fans: int = 0


done = _Done()


class _RescorePart(beam.DoFn):
    def __init__(self, work: Rescore) -> None:
        self._work = work

    def setup(self) -> None:
        backends = self._work.backends
        self._positions = backends.open_positions()
        self._dead_letters = backends.open_dead_letters()
        self._rescoring = Rescoring.of(_WORKER, backends, pacer_of(backends.rescore_rate))
        self._switch = kill_switch(backends)

    def process(self, element: tuple[int, Iterable[tuple[str, ...]]]) -> None:
        part, chunks = element
        job = self._work.job_id
        is_done = self._positions.load(job, str(part)) == DONE
        for chunk in chunks:
            users = list(dict.fromkeys(chunk))
            count("selected", len(users))
            if is_done:
                count("done_before", len(users))
                done.fans += len(users)
                continue
            for start in range(0, len(users), self._rescoring.page):
                if draining.is_set() or not self._switch.wait():
                    count("left", len(users) - start)
                    break
                self._score(users[start : start + self._rescoring.page])
        if not is_done and not draining.is_set():
            self._positions.commit(job, str(part), DONE)

    def _score(self, users: Sequence[str]) -> None:
        request = self._work.request
        name = f"rescore {request.rescore_id}"
        batch: Batch[object] = Batch(new_request_id(), name, ())
        received = ReceivedMessage("", "", b"", 1, name)  # each fan's letter holds a request for that fan alone
        time_ms = int(request.requested_at or 0)
        failed, outage = self._rescoring.rescore_page(batch, received, request, users, time_ms, count)
        if outage is not None and len(users) >= _OUTAGE_FANS:  # of few, it may be their own
            raise BackendUnavailableError(f"{outage.error}; run the same command again, and it goes on where it was")
        steps.write_dead_letters(batch.with_items((), failed), self._dead_letters, count)
        done.fans += len(users)
