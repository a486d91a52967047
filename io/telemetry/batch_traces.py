"""The spans of a batch on its way through a worker, in a pipeline's fused steps as in a Lambda's middleware.

A batch is recorded where one of its messages is. Its span and those of its messages are linked both ways; a batch of a
single message is part of that message's trace. Inside are the reference's phases, and in these the worker's steps.
"""

import os
import random
import threading
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

from ...domain.records import DeadLetter, Returned
from ...domain.traceparent import TraceParent
from ..registry import WORKERS
from .destinations import destination, name_of
from .message_traces import Carrier, may_have_parent, parent_of
from .totals import totals_of
from .tracing import NOTHING, Attributes, Span, Value, new_span, switch

MOST_LINKS: Final = 128
"""Messages a batch's span is linked to; each of them is linked to the batch anyhow."""

MOST_OPEN: Final = 1_000
"""Batches of this process whose spans are open."""

EVICTED: Final = "evicted_traces"
"""Counts batches whose spans were ended though nobody said that they are done."""

_OFFSET_DIGITS: Final = 18  # OTLP has integers of 64 bits, and refuses a whole batch of spans for one that is larger

Item = TypeVar("Item", bound=Carrier)


class Phase(StrEnum):
    """The parts of an invocation as the reference draws them."""

    INPUT = "Transform Input"
    LOGIC = "Business Logic"
    RESULT = "Result Handler"


class BatchTrace:
    """The open spans of one batch. Used by one thread at a time, as its batch is.

    Args:
        batch: the batch's own span.
        messages: the spans of its sampled messages.
        named: these by how dead letters and returned messages name them.
        worker: whose batch it is.
    """

    def __init__(self, batch: Span, messages: Sequence[Span], named: dict[str, Span], worker: str) -> None:
        self.worker: Final = worker
        self._batch = batch
        self._messages = messages
        self._named = named
        self._phase: Phase | None = None
        self._phase_span = NOTHING

    def step(self, phase: Phase, name: str = "") -> Span:
        """The span of a step, to be run inside of; of the phase itself where the step has no name."""
        if phase is not self._phase:
            self._phase_span.end()
            self._phase, self._phase_span = phase, self._batch.child(phase.value)
        if name:
            return self._phase_span.child(name)
        own, self._phase, self._phase_span = self._phase_span, None, NOTHING
        return own

    def passed(self, phase: Phase, began_ns: int) -> None:
        """The span of a phase that ends now, and began before it was known that the batch is recorded."""
        self._batch.child(phase.value, began_ns=began_ns).end()

    def end(
        self,
        error: BaseException | None = None,
        letters: Sequence[DeadLetter] = (),
        returned: Sequence[Returned] = (),
    ) -> None:
        """Ends all of them.

        Args:
            error: what a step of it failed with.
            letters: the dead letters it came to; their messages failed.
            returned: what goes back to its queue.
        """
        for letter in letters:
            self._named.get(letter.position, NOTHING).fail(letter.reason)
        for back in returned:
            self._named.get(back.receipt, NOTHING).fail("returned")
        self._phase_span.end(error)
        for span in self._messages:
            span.end(error)
        self._batch.end(error)

    def evict(self) -> None:
        """Ends all of them though the batch did not end: its process lost sight of it."""
        totals_of(self.worker).count(EVICTED, 1)
        self._batch.fail("evicted")
        self.end()


def open_trace(
    worker: str, source: str, items: Sequence[Item], began_ns: int, attributes: Attributes | None = None
) -> tuple[Sequence[Item], BatchTrace | None]:
    """Begins the spans of a batch, where one of its messages is sampled. Only where ``tracing.switch.on``.

    Args:
        worker: whose batch it is; the span's name.
        source: the address it was read from.
        items: what was read.
        began_ns: when, nanoseconds since the epoch.
        attributes: of the batch's span, besides those of messaging.

    Returns:
        The items, each with the traceparent it is worked on under; and the spans, or None.
    """
    chosen: dict[int, TraceParent | None] = {}
    replaced: dict[int, str] = {}
    sampling = switch.sampling
    for index, item in enumerate(items):
        if not may_have_parent(item):  # nearly all: each costs as much as this line
            if random.random() < sampling.ratio:  # noqa: S311 - as Sampling.chooses, without a call
                chosen[index] = None
            continue
        parent = parent_of(item)
        if sampling.chooses(parent):
            chosen[index] = parent
        elif item.trace or parent is not None:
            replaced[index] = "" if parent is None else str(parent)  # not recorded, and so it is told on
    trace = None
    if chosen:
        trace, places = _opened(worker, source, items, chosen, began_ns, attributes or {})
        replaced |= places
    if not replaced:
        return items, None
    traced = list(items)
    for index, text in replaced.items():
        traced[index] = _with_trace(items[index], text)
    return traced, trace


def _opened(
    worker: str,
    source: str,
    items: Sequence[Carrier],
    chosen: dict[int, TraceParent | None],
    began_ns: int,
    attributes: Attributes,
) -> tuple[BatchTrace, dict[int, str]]:
    where = destination(source)
    if "messaging.destination.name" not in where:  # a store holds all queues: the worker's own is meant
        known = WORKERS.get(worker)
        where = where if known is None else {**where, "messaging.destination.name": known.queue_name}
    of_batch = {**_PROCESS, **where, "messaging.batch.message_count": len(items), **attributes}
    alone = len(items) == 1
    batch = NOTHING if alone else new_span(worker, "consumer", began_ns=began_ns, attributes=of_batch)
    messages: list[Span] = []
    named: dict[str, Span] = {}
    places: dict[int, str] = {}
    for index, parent in chosen.items():
        item: Any = items[index]
        own = destination(item.source) if hasattr(item, "source") else where
        span = new_span(
            f"process {name_of(own)}",
            "consumer",
            parent=parent,
            links=(batch.place,),
            began_ns=began_ns,
            attributes={**_PROCESS, **own, **_identity(item)},
        )
        places[index] = str(span.place)
        messages.append(span)
        named |= dict.fromkeys(_names(item), span)
        if len(places) <= MOST_LINKS:
            batch.link(span.place)
        if alone:
            batch = new_span(worker, "consumer", parent=span.place, began_ns=began_ns, attributes=of_batch)
    return BatchTrace(batch, messages, named, worker), places


_PROCESS: Final[dict[str, Value]] = {"messaging.operation.name": "process", "messaging.operation.type": "process"}


def _identity(item: Any) -> dict[str, Value]:
    """What names a message in its queue or log: never what it says."""
    message_id = getattr(item, "message_id", "")
    if message_id:
        return {"messaging.message.id": message_id}
    kind, _, number = str(getattr(item, "position", "")).partition(" ")
    told = kind == "offset" and number.isdecimal() and len(number) <= _OFFSET_DIGITS
    return {"messaging.kafka.offset": int(number)} if told else {}


def _names(item: Any) -> tuple[str, ...]:
    """How dead letters and returned messages name it: by position, and by receipt."""
    message_id = getattr(item, "message_id", "")
    if message_id:
        return f"message {message_id}", getattr(item, "receipt", message_id)
    return (str(item.position),)


def _with_trace(item: Item, trace: str) -> Item:
    known: Any = item
    return msgspec.structs.replace(known, trace=trace)


class OpenTraces:
    """The batches of this process that are on their way through a pipeline's steps, by request id. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, BatchTrace] = {}

    def add(self, request_id: str, trace: BatchTrace) -> None:
        """Keeps a batch's spans until they are taken; of too many, the oldest are ended."""
        with self._lock:
            self._open[request_id] = trace
            oldest = self._open.pop(next(iter(self._open))) if len(self._open) > MOST_OPEN else None
        if oldest is not None:
            oldest.evict()

    def get(self, request_id: str) -> BatchTrace | None:
        """A batch's spans; None where it is not recorded, or not in this process."""
        return self._open.get(request_id)

    def take(self, request_id: str) -> BatchTrace | None:
        """As ``get``, for the last time."""
        with self._lock:
            return self._open.pop(request_id, None)

    def forget(self) -> None:
        """For a forked process: what is open is its parent's."""
        self._lock = threading.Lock()
        self._open = {}


open_traces: Final = OpenTraces()
"""This process's."""

os.register_at_fork(after_in_child=open_traces.forget)
