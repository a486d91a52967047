"""What every running worker process says of itself: an item of the operations table, written anew every few seconds.

A process on a cluster cannot be asked, since nobody knows where it runs; so it tells. The console and ``doctor`` read
what all of them told: how much they did, what waits before them, which code they run, and since when nothing was heard.

Nothing of this may cost a worker anything: one daemon thread a process reads the totals, asks the queue or the log, and
writes one item a worker. A table that is out of reach is told to the log once a minute, and the worker goes on.
"""

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from ..domain.records import CODE_VERSION
from .addresses import parse_address
from .backends import Backends, open_operations, scheme_of
from .clock import now_ms
from .ending import at_end
from .errors import FanIdentityError, text_of
from .log_limits import Seldom
from .ports import Table
from .registry import WORKERS, Kind, worker_named
from .telemetry.totals import totals_of

INTERVAL_SECONDS: Final = 5.0
"""How often a process reports."""

SILENT_MS: Final = 20_000
"""A process not heard of for so long is taken for dead: three reports in a row are missing, and some more."""

KEPT_MS: Final = 86_400_000
"""Reports are kept for a day; then DynamoDB's TTL takes them, or whoever reads them."""

TTL_ATTRIBUTE: Final = "expiresAt"
"""Seconds since the epoch, for DynamoDB's time to live; docs/operating.md says how it is switched on."""

_PK: Final = "REPORT#"
_ASK_SECONDS: Final = 2.0
_WARN_SECONDS: Final = 60.0
_LAST_SECONDS: Final = 2.0

_log: Final = logging.getLogger(__name__)


class WorkerReport(msgspec.Struct, frozen=True, rename="camel"):
    """What one process said of one worker.

    Attributes:
        worker: its name.
        process: a random name of the process; of no host, number or user.
        started_at: when the process began with this worker, epoch milliseconds. Likewise ``updated_at``.
        updated_at: when this was said; its version too.
        code_version: of the program.
        runner: what runs it: DirectRunner, FlinkRunner …; "" where it is not known.
        counts: by counter since ``started_at``: read, received, enqueued, scored, rejected.too_old …
        batches: finished ones. Likewise ``failed_batches``, which are read again.
        failed_batches: those a step of which failed.
        last_batch_at: when the last batch was finished, epoch milliseconds; 0 for none.
        age_ms: age of the oldest message of the batch received last, milliseconds; 0 where the source does not say.
        queue: the queue it receives from, without server and options; None where it receives from none.
        depth: messages in that queue; None where it does not say, or only by counting them (SQLite).
        source: the log it reads, likewise; None where it reads none.
        lag: records in that log that it has still to read; None where the log cannot say.
        ended: whether the process has stopped in order: this is its last report.
    """

    worker: str
    process: str
    started_at: int
    updated_at: int
    code_version: str = CODE_VERSION
    runner: str = ""
    counts: Mapping[str, int] = {}
    batches: int = 0
    failed_batches: int = 0
    last_batch_at: int = 0
    age_ms: int = 0
    queue: str | None = None
    depth: int | None = None
    source: str | None = None
    lag: int | None = None
    ended: bool = False

    def is_alive(self, now: int) -> bool:
        """Whether the process runs as far as one can tell: it did not end, and was heard of lately."""
        return not self.ended and now - self.updated_at < SILENT_MS


def shown_address(text: str) -> str:
    """An address for people: its scheme and what it names, without servers, folders and options.

    >>> shown_address("kafka://broker-1:9092,broker-2:9092/activities?group=a")
    'kafka:activities'
    >>> shown_address("sqs://accountActivityQueue.fifo?region=eu-west-1")
    'sqs:accountActivityQueue.fifo'
    """
    address = parse_address(text, "source")
    return f"{address.scheme}:{address.target.rstrip('/').rpartition('/')[2]}"


class _Reporter:
    """Makes the reports of one worker in this process.

    Args:
        backends: the worker's.
        process: the random name.
        clock_ms: the time in epoch milliseconds; tests pass their own.
    """

    def __init__(self, backends: Backends, process: str, clock_ms: Callable[[], int] = now_ms) -> None:
        self._backends = backends
        self._process = process
        self._clock_ms = clock_ms
        self._started_at = clock_ms()
        self._queue, self._source = _read_by(backends)

    def report(self, *, ended: bool = False) -> WorkerReport:
        """What there is to say now."""
        totals = totals_of(self._backends.worker)
        return WorkerReport(
            worker=self._backends.worker,
            process=self._process,
            started_at=self._started_at,
            updated_at=self._clock_ms(),
            runner=self._backends.runner,
            counts=dict(totals.counts),
            batches=totals.batches,
            failed_batches=totals.failed_batches,
            last_batch_at=totals.last_batch_ms,
            age_ms=totals.age_ms,
            queue=self._queue,
            depth=None if ended or self._queue is None else _depth(self._backends),
            source=self._source,
            lag=None if ended or self._source is None else _lag(self._backends),
            ended=ended,
        )


def _read_by(backends: Backends) -> tuple[str | None, str | None]:
    """The queue and the log a worker reads, as they are shown; one of them at most."""
    if backends.reads_queue:
        return shown_address(backends.source_queue), None
    if backends.source is not None:
        return None, shown_address(backends.source) if "://" in backends.source else "file"
    worker = worker_named(backends.worker)
    if worker.kind is Kind.ENQUEUE:
        return None, None
    queue = backends.source_queue
    return worker.queue_name if scheme_of(queue) == "sqlite" else shown_address(queue), None


def _depth(backends: Backends) -> int | None:
    if scheme_of(backends.source_queue) == "sqlite":
        return None
    with suppress(FanIdentityError):  # Pub/Sub does not say; what is out of reach says nothing now
        return backends.open_source_queue().depth()
    return None


def _lag(backends: Backends) -> int | None:
    if backends.source is None or scheme_of(backends.source) != "kafka":
        return None
    from .kafka_lag import recent_lag  # noqa: PLC0415 - brings librdkafka, which other sources do without

    with suppress(FanIdentityError):
        return recent_lag(backends.source, backends.worker, _ASK_SECONDS)
    return None


def item_of(report: WorkerReport) -> tuple[str, dict[str, Any]]:
    """A report's version and item: ``PK=REPORT#<worker>``, ``SK=<process>``."""
    item: dict[str, Any] = msgspec.to_builtins(report)
    expires_at = (report.updated_at + KEPT_MS) // 1_000
    item |= {"PK": f"{_PK}{report.worker}", "SK": report.process, TTL_ATTRIBUTE: expires_at}
    return f"{report.updated_at:015d}", item


class _Thread:
    """The process's thread: reports every worker of it to the table each names."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(8)
        self._reporters: dict[str, tuple[_Reporter, Table]] = {}
        self._stop = threading.Event()
        self._is_time_to_warn = Seldom(_WARN_SECONDS).due
        self._thread = threading.Thread(target=self._run, name="fan-identity-reports", daemon=True)

    def add(self, backends: Backends, operations: str) -> None:
        if backends.worker not in self._reporters:
            self._reporters[backends.worker] = _Reporter(backends, self._process), open_operations(operations)
        if not self._thread.is_alive() and not self._stop.is_set():
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._tell(ended=False)
            if self._stop.wait(INTERVAL_SECONDS):
                self._tell(ended=True)
                return

    def _tell(self, *, ended: bool) -> None:
        for reporter, table in list(self._reporters.values()):
            try:
                table.put_if_newer([item_of(reporter.report(ended=ended))])
            except Exception as error:  # whatever it is, a worker does not stop for it
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        if self._is_time_to_warn():
            _log.warning(
                "this process cannot report itself; it works on, and the console does not see it: %s", text_of(error)
            )

    def stop(self, seconds: float) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)


_lock = threading.Lock()
_running: _Thread | None = None


def start(backends: Backends) -> None:
    """Has this process report a worker every ``INTERVAL_SECONDS`` from now on; does nothing the second time.

    Nothing is reported where the backends name no place (``Backends.operations``). Called where a source is opened, so
    that it is known in every process that reads, whoever started it, also after a fork.
    """
    global _running  # noqa: PLW0603 - one a process
    if backends.operations is None:
        return
    with _lock:
        if _running is None:
            _running = _Thread()
        _running.add(backends, backends.operations)


def stop(seconds: float = _LAST_SECONDS) -> None:
    """Ends reporting with a last report that says so; waits for it no longer than ``seconds``."""
    global _running
    with _lock:
        ending, _running = _running, None
    if ending is not None:
        ending.stop(seconds)


def _forget() -> None:
    """A forked child is a process of its own: it has neither the thread nor the lock's holder."""
    global _lock, _running
    _lock, _running = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)
at_end(stop)


def read_reports(table: Table, workers: Iterable[str] = WORKERS) -> list[WorkerReport]:
    """What processes said last, of the past day, by worker and then process; older reports are deleted.

    Raises:
        BackendUnavailableError: the table is out of reach.
    """
    now = now_ms()
    found: list[WorkerReport] = []
    old: list[tuple[str, str]] = []
    for worker in workers:
        for item in table.query(f"{_PK}{worker}"):
            try:
                report = msgspec.convert(item, WorkerReport)
            except msgspec.ValidationError:
                continue  # of a later version of the program
            if now - report.updated_at < KEPT_MS:
                found.append(report)
            else:
                old.append((item["PK"], item["SK"]))
    if old:
        table.batch_delete(old)
    return found


def live_workers(table: Table) -> Sequence[WorkerReport]:
    """The reports of the processes that run now, as far as one can tell.

    Raises:
        BackendUnavailableError: the table is out of reach.
    """
    now = now_ms()
    return [report for report in read_reports(table) if report.is_alive(now)]
