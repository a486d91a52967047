"""What flows through the pipelines: batches of records, and the dead letters that fell out on the way.

A batch is what one poll of a source brought. It is one Beam element, because a Beam element costs as much as
filtering a record does. Each step takes a batch and returns the next one; a record that fails leaves ``items`` and
becomes a dead letter of the same batch, so nothing is lost between two steps and both are written before the
source is told that the batch is done.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import msgspec

from .. import __version__ as CODE_VERSION
from .activity import Activity

Item = TypeVar("Item", covariant=True)
Other = TypeVar("Other")


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """One record as a source delivered it.

    Attributes:
        payload: the original bytes, kept for the dead letter.
        position: where in the source it stood, for people: ``byte 1024``, ``row 17``.
        body: the activity as JSON; the payload itself where the source is JSON. None where ``error`` is set.
        error: why the source's format could not be read here, or None.
        trace: the W3C traceparent it is worked on under; "" for none.
    """

    payload: bytes
    position: str
    body: bytes | None
    error: str | None = None
    trace: str = ""


class DecodedRecord(msgspec.Struct, frozen=True, gc=False):
    """A record that is an activity.

    Attributes:
        raw: as delivered.
        activity: decoded and checked.
        time_ms: when it happened, epoch milliseconds.
    """

    raw: RawRecord
    activity: Activity
    time_ms: int


class Failure(msgspec.Struct, frozen=True):
    """Why one item of a batch could not be done; its batch-mates are not touched by it.

    Attributes:
        reason: a short code, counted: ``too_large``, ``model_unavailable``, ``malformed`` …
        error: one line without personal data.
        retryable: the same may work later (timeout, 429, 5xx, throttling); False for the item's own fault.
        stack: the stack trace, or "" where the error is the item's own.
        attempts: how often it was tried.
    """

    reason: str
    error: str
    retryable: bool = False
    stack: str = ""
    attempts: int = 1


class DeadLetter(msgspec.Struct, frozen=True, rename="camel"):
    """A record that could not be processed, with all that is needed to look into it and to send it again.

    Attributes:
        dead_letter_id: derived from worker, source, position and bytes: the same failure again is the same letter.
        worker: the worker that gave up.
        reason: a short code, counted: ``malformed``, ``unreadable``, ``too_many_receives``.
        error: one line without personal data.
        stack: the stack trace, or "" where the error is the record's own.
        attempts: how often it was tried.
        request_id: of the batch it came with.
        activity_id: of the activity, or None where it could not be read.
        source: the address it was read from.
        position: where in the source.
        payload: the original bytes.
        code_version: of the program that wrote it last; "" where it was written before versions were kept.
    """

    dead_letter_id: str
    worker: str
    reason: str
    error: str
    stack: str
    attempts: int
    request_id: str
    activity_id: str | None
    source: str
    position: str
    payload: bytes
    code_version: str = CODE_VERSION


class Returned(msgspec.Struct, frozen=True, gc=False):
    """A queue's message that is tried again later.

    Attributes:
        receipt: of this delivery.
        delay_ms: how long it stays invisible.
    """

    receipt: str
    delay_ms: int


def dead_letter_id(worker: str, source: str, position: str, payload: bytes) -> str:
    """Names a dead letter so that reading the same record again names the same letter (32 hex digits)."""
    digest = hashlib.sha256()
    for part in (worker.encode(), source.encode(), position.encode(), payload):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Batch(Generic[Item]):
    """What one poll of a source brought, on its way through a pipeline.

    Attributes:
        request_id: names this batch in messages, scores, dead letters and logs.
        source: the address it was read from.
        items: the records still in work, in the source's order.
        dead_letters: the records that failed so far.
        position: the source's position after this batch, committed once the batch is done; "" where there is none.
        receipts: what a queue delivered with this batch, acknowledged once the batch is done; empty for other sources.
        returned: of those, what goes back to the queue to be tried again instead.
        worker: whose batch it is; "" where nobody's totals are kept.
        began_ns: when it was read, nanoseconds since the epoch; 0 where nobody asks.
    """

    request_id: str
    source: str
    items: Sequence[Item]
    dead_letters: tuple[DeadLetter, ...] = ()
    position: str = ""
    receipts: tuple[str, ...] = ()
    returned: tuple[Returned, ...] = ()
    worker: str = ""
    began_ns: int = 0

    def with_items(
        self, items: Sequence[Other], failed: Sequence[DeadLetter] = (), returned: Sequence[Returned] = ()
    ) -> "Batch[Other]":
        """The same batch one step further: its items replaced, the failures of this step added."""
        return replace(  # pyright: ignore[reportReturnType]
            self,
            items=items,  # pyright: ignore[reportArgumentType]
            dead_letters=(*self.dead_letters, *failed),
            returned=(*self.returned, *returned),
        )
