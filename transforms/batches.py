"""How batches cross between steps and how steps count."""

import contextlib
import pickle
import time
import uuid
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.metrics.metric import Metrics
from typing_extensions import override

from ..domain.records import Batch
from ..io.errors import FanIdentityError
from ..io.ports import MessageQueue
from ..io.telemetry.totals import totals_of

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
    return Batch(
        new_request_id(), source, items, position=position, receipts=receipts, worker=worker, began_ns=time.time_ns()
    )


received_from: dict[str, MessageQueue] = {}
"""By address the queues this process receives from; a fused pipeline fails where it received."""


def _give_back(batch: Batch[Any]) -> None:
    """Gives a failed batch's messages back: as long as this process lives, nobody else would see them."""
    queue = received_from.get(batch.source)
    if queue is not None and batch.receipts:
        # What made the step fail may make this fail too; then they come back when their visibility ends.
        with contextlib.suppress(FanIdentityError):
            queue.release(batch.receipts, _AFTER_A_FAILURE_MS)


class BatchStep(beam.DoFn):
    """A DoFn from one batch to the next. A batch whose step fails goes back to its queue, and the bundle fails.

    Attributes:
        ends_batch: whether the batch is done after this step.
    """

    ends_batch: bool = False
    _worker_of_batch: str = ""

    def process(self, element: Any) -> Any:
        """Passes on what ``step`` makes of the batch.

        Without types, since Beam would take ``Batch[Any]`` for another type than ``Batch``.
        """
        self._worker_of_batch = element.worker
        try:
            done = self.step(element)
        except Exception:
            if element.worker:
                totals_of(element.worker).failed()
            _give_back(element)
            raise
        if self.ends_batch and element.worker:
            totals_of(element.worker).finished(time.time_ns() // 1_000_000)
        yield done

    def step(self, batch: Batch[Any]) -> Batch[Any]:
        """The batch one step further."""
        raise NotImplementedError

    def count(self, name: str, number: int) -> None:
        """Adds to a counter of the batch's worker."""
        count_of(self._worker_of_batch, name, number)
