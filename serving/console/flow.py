"""``GET /console/api/flow``: how fast records flow, where they wait, and which processes do the work.

Each server samples for itself every few seconds: it reads what worker processes reported, and asks the queues it knows
the addresses of. What it saw is kept in memory for an hour; a server that was restarted begins anew. For longer there
is Prometheus.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from starlette.routing import Route

from ...domain.flow import FAILED_BATCHES, History, Lag, Moment, QueueState, RateMeter, Reading
from ...domain.liveness import OUTAGE_PK, Outage
from ...io.backends import open_operations, open_queue, operations_address, scheme_of
from ...io.clock import now_ms
from ...io.errors import text_of
from ...io.ports import Table
from ...io.queue_state import queue_state
from ...io.registry import WORKERS
from ...io.settings import Settings
from ...io.worker_reports import WorkerReport, read_reports, shown_address
from .guard import Asked, Guard

STEP_MS: Final = 5_000
_KEPT_MS: Final = 3_600_000
_DEADLINE_SECONDS: Final = 4.0
_BUSY_SHARE: Final = 20
"""A question that took long is asked again after so many times that long: to count SQLite's messages is not free."""

_RECENT_MS: Final = 15_000
_MOST_PROCESSES: Final = 500
_VISIBILITY_MS: Final = 60_000  # for a client that receives nothing

_log: Final = logging.getLogger("fan_identity.console")

Answer = TypeVar("Answer")
AskQueue = Callable[[], QueueState]


class FlowQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters.

    Attributes:
        since: moments after this one are answered, epoch milliseconds.
    """

    since: int = 0


class FlowSampler:
    """Samples in the background while it runs.

    Args:
        read: the reports of worker processes.
        queues: by name, how each is asked.
        outages: those that checkLiveness knows to go on.
        clock_ms: the time in epoch milliseconds; tests pass their own.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[WorkerReport]],
        queues: Mapping[str, AskQueue],
        outages: Callable[[], Sequence[Outage]] = tuple,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._read = _Asked(read)
        self._outages = _Asked(outages)
        self._queues = {name: _Asked(ask) for name, ask in queues.items()}
        self._clock_ms = clock_ms
        self._meter = RateMeter()
        self._history = History(_KEPT_MS // STEP_MS)
        self._reports: Sequence[WorkerReport] = ()
        self._problems: list[str] = []
        self._down: Sequence[Outage] = ()
        self._running: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, settings: Settings) -> "FlowSampler":
        """The sampler of the settings' operations table and queues; a queue without an address is not asked.

        Raises:
            UsageError: an address is wrong, or there is none for the operations table.
        """
        table = open_operations(operations_address(settings))
        return cls(lambda: read_reports(table), _queues_of(settings), lambda: _outages_of(table))

    def start(self) -> None:
        """Begins, on the running event loop."""
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends; a question under way is left to itself."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self.sample()
            except Exception as defect:  # the page would stand still for ever
                _log.error("the console's sampling failed: this is a defect of fan-identity", exc_info=defect)
            await asyncio.sleep(max(STEP_MS / 1_000 - (time.monotonic() - began), 0))

    async def sample(self) -> None:
        """Adds what is known now to the history."""
        asked = [self._read, self._outages, *self._queues.values()]
        reports, outages, *states = await asyncio.gather(*(one.ask() for one in asked))
        now = self._clock_ms()
        problems = [] if self._read.problem is None else ["the table of workers' reports does not answer"]
        problems += [f"queue {name} does not answer" for name, one in self._queues.items() if one.problem is not None]
        known: Sequence[WorkerReport] = () if reports is None else reports
        queues = {
            name: _with_age(state, [report for report in known if report.queue == name], now)
            for name, state in zip(self._queues, states, strict=True)
        }
        rates = {} if reports is None else self._meter.observe(_readings(known), now)
        self._history.add(Moment(now, rates, _more(queues, known, now), _lag(known, now)))
        self._problems = problems
        self._down = () if outages is None else outages
        if reports is not None:
            self._reports = reports

    def answer(self, since: int) -> dict[str, Any]:
        """What is known, of the moments after ``since`` (epoch milliseconds); see ``History.columns``."""
        now = self._clock_ms()
        shown = sorted(self._reports, key=lambda report: report.updated_at, reverse=True)[:_MOST_PROCESSES]
        return {
            "now": now,
            "stepMs": STEP_MS,
            **self._history.columns(since),
            "processes": [_process(report, now) for report in shown if now - report.updated_at < _KEPT_MS],
            "outages": [{"part": outage.part, "since": outage.began_at} for outage in self._down],
            "problems": self._problems,
        }


def flow_route(guard: Guard, sampler: FlowSampler) -> Route:
    """The route, for who may read the console."""

    async def answer(asked: Asked, question: FlowQuestion) -> dict[str, Any]:
        del asked
        return sampler.answer(question.since)

    return guard.read("/flow", answer, FlowQuestion)


class _Asked:
    """A question that may hang: asked in a thread of its own, never twice at once, and not too often where it is slow.

    Attributes:
        problem: why there was no answer last time, or None.
    """

    def __init__(self, question: Callable[[], Any]) -> None:
        self._question = question
        self._under_way: asyncio.Future[Any] | None = None
        self._rest_until = 0.0
        self._last: Any = None
        self.problem: str | None = None

    async def ask(self) -> Any:
        """The answer, or None where there was none in time; the last one again where asking anew would cost much."""
        if time.monotonic() < self._rest_until:
            return self._last
        if self._under_way is None:
            self._under_way = _in_thread(self._timed)
        try:
            self._last = await asyncio.wait_for(asyncio.shield(self._under_way), _DEADLINE_SECONDS)
            self.problem = None
        except TimeoutError:
            self._last, self.problem = None, "no answer in time"
            return None  # it goes on; the next sample looks for its end
        except Exception as error:  # whatever it is, nothing is known now
            self._last, self.problem = None, text_of(error)
            _log.debug("the console asks in vain: %s", self.problem)
        self._under_way = None
        return self._last

    def _timed(self) -> Any:
        began = time.monotonic()
        try:
            return self._question()
        finally:
            took = time.monotonic() - began
            if took * _BUSY_SHARE > STEP_MS / 1_000:
                self._rest_until = time.monotonic() + took * _BUSY_SHARE


def _in_thread(question: Callable[[], Answer]) -> "asyncio.Future[Answer]":
    """Asks in a daemon thread: the server can end while a part that is away is waited for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()

    def tell(settle: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if future.done() else settle(value))

    def run() -> None:
        try:
            found = question()
        except Exception as error:  # raised again where it is awaited
            tell(future.set_exception, error)
        else:
            tell(future.set_result, found)

    threading.Thread(target=run, name="console-flow", daemon=True).start()
    return future


def _outages_of(table: Table) -> list[Outage]:
    """Outages that go on, as checkLiveness keeps them; what was wrong is in its alert and its log, not here."""
    items = table.query(OUTAGE_PK)
    return [msgspec.convert(item, Outage) for item in items if item.get("down") is True]


def _queues_of(settings: Settings) -> dict[str, AskQueue]:
    found: dict[str, AskQueue] = {}
    for worker in WORKERS.values():
        text: str | None = getattr(settings, worker.queue_setting) or settings.store
        if text is None:
            continue
        name = worker.queue_name if scheme_of(text) == "sqlite" else shown_address(text)
        if name not in found:
            queue = open_queue(text, worker.queue_setting.replace("_", "-"), worker.queue_name, _VISIBILITY_MS)
            found[name] = lambda queue=queue: queue_state(queue)
    return found


def _readings(reports: Sequence[WorkerReport]) -> list[Reading]:
    return [
        Reading(
            report.worker,
            report.process,
            report.started_at,
            report.updated_at,
            {**report.counts, FAILED_BATCHES: report.failed_batches},
            report.ended,
        )
        for report in reports
    ]


def _with_age(state: QueueState | None, readers: Sequence[WorkerReport], now: int) -> QueueState:
    """A queue's state; where it does not tell its oldest message, what its readers found in what they received last."""
    if state is None or state.oldest_ms is not None:
        return state or QueueState()
    return QueueState(state.depth, 0 if state.depth == 0 else _age_of(readers, now))


def _age_of(readers: Sequence[WorkerReport], now: int) -> int | None:
    ages = [report.age_ms for report in readers if report.is_alive(now) and now - report.last_batch_at < _RECENT_MS]
    return max(ages, default=None)


def _more(queues: dict[str, QueueState], reports: Sequence[WorkerReport], now: int) -> dict[str, QueueState]:
    """The queues asked, and those that only their readers know."""
    found = dict(queues)
    for name in {report.queue for report in reports if report.queue is not None} - queues.keys():
        readers = [report for report in reports if report.queue == name and report.is_alive(now)]
        newest = max(readers, key=lambda report: report.updated_at, default=None)
        if newest is not None:
            found[name] = _with_age(QueueState(newest.depth), readers, now)
    return found


def _lag(reports: Sequence[WorkerReport], now: int) -> dict[str, Lag]:
    """By worker the lag told last: each process tells that of all partitions."""
    found: dict[str, Lag] = {}
    for report in sorted(reports, key=lambda report: report.updated_at):
        if report.source is not None and report.lag is not None and report.is_alive(now):
            found[report.worker] = Lag(report.source, report.lag)
    return found


def _process(report: WorkerReport, now: int) -> dict[str, Any]:
    return {
        "worker": report.worker,
        "process": report.process,
        "version": report.code_version,
        "runner": report.runner,
        "startedAt": report.started_at,
        "updatedAt": report.updated_at,
        "alive": report.is_alive(now),
        "ended": report.ended,
        "batches": report.batches,
        "failedBatches": report.failed_batches,
        "lastBatchAt": report.last_batch_at,
        "reads": report.queue or report.source,
    }
