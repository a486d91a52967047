"""How batches cross between steps and how steps count."""

import contextlib
import os
import pickle
import re
import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import apache_beam as beam
from apache_beam import coders
from apache_beam.metrics.metric import Metrics
from typing_extensions import override

from ..domain.records import Batch
from ..io import worker_reports
from ..io.backends import Backends
from ..io.ports import MessageQueue
from ..io.settings import load_settings
from ..io.telemetry import metrics, tracing
from ..io.telemetry.batch_traces import BatchTrace, Phase, open_trace, open_traces
from ..io.telemetry.start import start
from ..io.telemetry.totals import totals_of
from ..io.telemetry.unfailing import inside, unfailing

NAMESPACE = "fan_identity"
"""Of every counter; ``Ledger.of`` reads them by name."""

_BYTES_PER_ITEM = 600
_AFTER_A_FAILURE_MS = 1_000


class BatchCoder(coders.Coder):
    """Pickles batches where they cross a stage boundary, and tells their size without doing so.

    Beam asks for an element's size after every step; pickling 500 records to answer would cost more than the step.
    """

    @override
    def encode(self, value: Batch[Any]) -> bytes:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    @override
    def decode(self, encoded: bytes) -> Batch[Any]:
        return pickle.loads(encoded)  # noqa: S301 - written by this program's own workers

    @override
    def estimate_size(self, value: Batch[Any]) -> int:
        return _BYTES_PER_ITEM * len(value.items)

    @override
    def is_deterministic(self) -> bool:
        return False  # never a key

    @override
    def to_type_hint(self) -> type:
        return Batch

    @override
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    @override
    def __hash__(self) -> int:
        return hash(type(self))


coders.registry.register_coder(Batch, BatchCoder)  # pyright: ignore[reportPrivateImportUsage]


class BatchTransform(beam.PTransform[Any, Any]):
    """A PTransform whose output is batches. Beam's types cannot say of what; its docstring does."""


def par_do(do_fn: beam.DoFn) -> beam.ParDo:
    """A ParDo that yields batches."""
    # Beam leaves this method without types.
    return beam.ParDo(do_fn).with_output_types(Batch)  # pyright: ignore[reportUnknownMemberType]


def parted_do(do_fn: beam.DoFn, *tags: str, main: str) -> Any:
    """A ParDo of several outputs by tag; what is yielded without one is of ``main``."""
    # Beam leaves this method without types.
    return beam.ParDo(do_fn).with_outputs(*tags, main=main)  # pyright: ignore[reportUnknownMemberType]


def count(name: str, number: int) -> None:
    """Adds to a counter of the running step; Beam sums it over workers."""
    if number:
        Metrics.counter(NAMESPACE, name).inc(number)


def count_of(worker: str, name: str, number: int) -> None:
    """``count``, and the same to the worker's totals in this process; a worker of no name has none."""
    if number:
        count(name, number)
        if worker:
            totals_of(worker).count(name, number)


def observe(name: str, number: int) -> None:
    """Adds to a distribution of the running step, as Beam has them: of whole numbers."""
    # Beam leaves this method without types.
    Metrics.distribution(NAMESPACE, name).update(number)  # pyright: ignore[reportUnknownMemberType]


def new_request_id() -> str:
    """Names a batch in everything it causes (32 hex digits)."""
    return uuid.uuid4().hex


def begin(
    worker: str, counter: str, source: str, items: Sequence[Any], *, position: str = "", receipts: tuple[str, ...] = ()
) -> Batch[Any]:
    """The batch of what a source brought, counted; see ``Batch``.

    Args:
        worker: whose.
        counter: ``read`` for records, ``received`` for a queue's messages.
        source: the address, or its partition's.
        items: in the source's order.
        position: after them.
        receipts: theirs.
    """
    count_of(worker, counter, len(items))
    request_id, began_ns = new_request_id(), time.time_ns()
    if worker:
        with unfailing:
            _start_telemetry(worker)
            items = _traced(request_id, worker, source, items, began_ns)
    return Batch(request_id, source, items, position=position, receipts=receipts, worker=worker, began_ns=began_ns)


def _traced(request_id: str, worker: str, source: str, items: Sequence[Any], began_ns: int) -> Sequence[Any]:
    """The items, with their spans where they are recorded."""
    if not tracing.switch.on:
        return items
    items, trace = open_trace(worker, source, items, began_ns, {"fan_identity.request_id": request_id})
    if trace is not None:
        open_traces.add(request_id, trace)
    return items


received_from: dict[str, MessageQueue] = {}
"""By address the queues this process receives from; a fused pipeline fails where it received."""


def _give_back(batch: Batch[Any]) -> None:
    """Gives a failed batch's messages back: as long as this process lives, nobody else would see them."""
    queue = received_from.get(batch.source)
    if queue is not None and batch.receipts:
        # What made the step fail may make this fail too; then they come back when their visibility ends. The error
        # that is raised is the step's, in any case.
        with contextlib.suppress(Exception):
            queue.release(batch.receipts, _AFTER_A_FAILURE_MS)


def begin_process(backends: Backends) -> None:
    """What a process does once it reads a worker's source: it is seen by the console, and tells its metrics."""
    worker_reports.start(backends)
    with unfailing:
        _start_telemetry(backends.worker)


_told_of: Final[set[str]] = set()
os.register_at_fork(after_in_child=_told_of.clear)


def _start_telemetry(worker: str) -> None:
    """Turns telemetry on in this process, where the environment asks for it: wherever Beam runs a step, looked at once.

    A worker's name comes with its batches: no process on a cluster has to be told by its environment.
    """
    if worker not in _told_of:
        _told_of.add(worker)
        start(worker, load_settings())


class BatchStep(beam.DoFn):
    """A DoFn from one batch to the next. A batch whose step fails goes back to its queue, and the bundle fails.

    Attributes:
        ends_batch: whether the batch is done after this step.
        phase: the part of the worker it belongs to, in traces.
    """

    ends_batch: bool = False
    phase: Phase = Phase.LOGIC
    _worker_of_batch: str = ""

    def process(self, element: Any) -> Any:
        """Passes on what ``step`` makes of the batch. What goes wrong with telemetry is never the batch's failure.

        Without types, since Beam would take ``Batch[Any]`` for another type than ``Batch``.
        """
        self._worker_of_batch = element.worker
        trace: BatchTrace | None = None
        if element.worker:
            with unfailing:
                _start_telemetry(element.worker)
                trace = open_traces.get(element.request_id) if tracing.switch.on else None
        try:
            if trace is None:
                done = self.step(element)
            else:
                with inside(partial(trace.step, self.phase, _label(type(self).__name__))):
                    done = self.step(element)
        except Exception as error:
            _give_back(element)
            with unfailing:
                _end(element, trace, error)
            raise
        if self.ends_batch:
            with unfailing:
                _end(done, trace)
        yield done

    def step(self, batch: Batch[Any]) -> Batch[Any]:
        """The batch one step further."""
        raise NotImplementedError

    def count(self, name: str, number: int) -> None:
        """Adds to a counter of the batch's worker."""
        count_of(self._worker_of_batch, name, number)


def _end(batch: Batch[Any], trace: BatchTrace | None, error: Exception | None = None) -> None:
    """Tells that a batch is done, or that a step of it failed."""
    if batch.worker:
        now_ns = time.time_ns()
        took_ns = max(now_ns - batch.began_ns, 0)
        metrics.observe_batch(batch.worker, took_ns / 1e9, error is not None)
        if error is not None:
            totals_of(batch.worker).failed()
        else:
            totals_of(batch.worker).finished(now_ns // 1_000_000)
            observe("batch_ms", took_ns // 1_000_000)
    if trace is not None:
        open_traces.take(batch.request_id)
        trace.end(error, batch.dead_letters, batch.returned)


_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _label(name: str) -> str:
    """A class's name as words: ``_WriteDeadLetters`` is ``Write dead letters``."""
    return _WORDS.sub(" ", name.strip("_")).capitalize()
