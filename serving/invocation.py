"""One invocation of a Lambda on its way through the middleware, and what is told of it: counts, time, spans."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

from ..domain.aws_events import EventKind, InputRecord
from ..domain.records import Batch, DeadLetter, Returned
from ..io.backends import Backends
from ..io.registry import Worker
from ..io.settings import Settings
from ..io.telemetry import metrics, start, tracing
from ..io.telemetry.batch_traces import BatchTrace, Phase, open_trace
from ..io.telemetry.totals import totals_of
from ..io.telemetry.unfailing import inside, unfailing


@dataclass
class Invocation:
    """One invocation; as a context manager it is told of when the block ends.

    Attributes:
        event: as AWS sent it.
        context: the Lambda's context, or None outside Lambda.
        worker: who answers.
        settings: of the worker.
        began_ns: when, nanoseconds since the epoch.
        trace: its spans, where it is recorded.
        letters: the dead letters it came to.
        returned: what goes back to its queue.
    """

    event: Mapping[str, Any]
    context: Any
    worker: Worker
    settings: Settings
    began_ns: int = field(default_factory=time.time_ns)
    request_id: str = ""
    kind: EventKind = EventKind.SQS
    records: list[InputRecord] = field(default_factory=list[InputRecord])
    batches: list[Batch[InputRecord]] = field(default_factory=list[Batch[InputRecord]])
    backends: Backends | None = None
    skipped: bool = False
    counts: Counter[str] = field(default_factory=Counter[str])
    letters: list[DeadLetter] = field(default_factory=list[DeadLetter])
    returned: list[Returned] = field(default_factory=list[Returned])
    answer: dict[str, Any] = field(default_factory=dict[str, Any])
    trace: BatchTrace | None = None

    def count(self, name: str, number: int) -> None:
        """Adds to a counter of the invocation, and of the worker in this process."""
        if number:
            self.counts[name] += number
            totals_of(self.worker.name).count(name, number)

    def open_trace(self) -> None:
        """Begins the spans, where a record is sampled; transforming the input is behind it then."""
        if not tracing.switch.on or not self.records:
            return
        attributes: tracing.Attributes = {
            "faas.invocation_id": self.request_id,
            "faas.trigger": "datasource" if self.kind is EventKind.DYNAMODB else "pubsub",
        }
        with unfailing:
            records, self.trace = open_trace(
                self.worker.name, self.records[0].source, self.records, self.began_ns, attributes
            )
            self.records = list(records)
            if self.trace is not None:
                self.trace.passed(Phase.INPUT, self.began_ns)

    def part(self, phase: Phase) -> AbstractContextManager[None]:
        """The span of a part of it, to be run inside of."""
        return nullcontext() if self.trace is None else inside(partial(self.trace.step, phase))

    def __enter__(self) -> "Invocation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tells that it was answered, or what it failed with. AWS may freeze the process now, so all is sent."""
        # What it did has had its effect: nothing that is told of it may be the reason to do it again.
        with unfailing:
            self._tell(error)
        if self.trace is not None:
            with unfailing:
                self.trace.end(error, self.letters, self.returned)
        if self.trace is not None or metrics.switch.on:
            start.flush()

    def _tell(self, error: BaseException | None) -> None:
        now_ns = time.time_ns()
        totals = totals_of(self.worker.name)
        if error is None:
            oldest = min((record.sent_at_ms for record in self.records if record.sent_at_ms), default=0)
            totals.age_ms = max(now_ns // 1_000_000 - oldest, 0) if oldest else 0
            totals.finished(now_ns // 1_000_000)
        else:
            totals.failed()
        metrics.observe_batch(self.worker.name, (now_ns - self.began_ns) / 1e9, error is not None)
