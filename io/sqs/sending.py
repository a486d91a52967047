"""Sending to SQS: full batches, several at a time, and never out of order within a group."""

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final

import msgspec
from botocore.exceptions import ClientError

from ...domain.records import Failure
from ..aws import error_code, translated_errors
from ..errors import BackendUnavailableError
from ..ports import QueueEntry, SendOutcome
from .endpoint import MOST_ENTRIES, POOL, Endpoint, failed_entry
from .plan import Outgoing, Plan

# SQS API reference, SendMessage: what a message's body and its ids may consist of.
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ID: Final = re.compile(r"[!-~]{1,128}")

_ENTRY_FAULTS: Final = frozenset(
    {
        "BatchRequestTooLong",
        "InvalidAttributeValue",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "MissingParameter",
    }
)
"""Codes by which a whole request is refused though one of its entries may be the cause."""

_PARTIAL_IN_FLIGHT: Final = 2
"""Batches that are not full travel only while fewer than this many travel: each request is paid for."""

SendCall = Callable[[Sequence[Mapping[str, str]]], Mapping[str, Any]]
"""Sends the entries of one batch and returns the response of SendMessageBatch; raises as boto3 does."""


class _Settled(msgspec.Struct, gc=False):
    outgoing: Outgoing
    outcome: str | Failure  # the message id SQS gave it, or why it refused it


_Attempt = Callable[[Sequence[Outgoing]], tuple[list[_Settled], list[Outgoing], BackendUnavailableError | None]]
"""Sends a batch once: what was settled, what is to be sent again, and why, or None where nothing is."""


class Sender:
    """Sends to one queue.

    Args:
        endpoint: the queue.
        call: how a batch is sent; to SQS where None.
    """

    def __init__(self, endpoint: Endpoint, call: SendCall | None = None) -> None:
        self._endpoint = endpoint
        self._call = call or self._call_sqs

    def _call_sqs(self, entries: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:
        return self._endpoint.call_bare("send_message_batch", Entries=entries)

    def send(self, entries: Sequence[QueueEntry]) -> list[SendOutcome | Failure]:
        """Sends entries; a group's arrive in their order.

        Batches of different groups travel side by side. Entries SQS fails to take (throttling, its own errors) are
        sent again, they alone, with backoff until the deadline; those behind them in their groups wait. Of two entries
        of one call with the same deduplication id, one is reported as the duplicate (SQS keeps the first); that an
        id was sent by an earlier call SQS does not tell.

        Returns:
            In the entries' order: sent, duplicate, or a Failure: ``too_large`` for this queue, ``unsendable`` (the
            body is empty, no UTF-8, or has characters SQS forbids, or an id SQS does not allow), ``refused`` with
            SQS's code.

        Raises:
            UsageError: the queue does not exist or access is denied.
            BackendUnavailableError: at the deadline some entries were not taken. Those behind them in their groups
                were not sent; sending all of them again within five minutes to a FIFO queue duplicates nothing.
        """
        if not entries:
            return []
        outcomes: list[SendOutcome | Failure | None] = [None] * len(entries)
        plan = Plan()
        for index, entry in enumerate(entries):
            outgoing = self._outgoing(index, entry)
            if isinstance(outgoing, Failure):
                outcomes[index] = outgoing
            else:
                plan.add(outgoing)
        known: set[str] = set()
        for settled in self._run(plan):
            outcome = settled.outcome
            if isinstance(outcome, str):
                outcome, message_id = SendOutcome.SENT if outcome not in known else SendOutcome.DUPLICATE, outcome
                known.add(message_id)
            outcomes[settled.outgoing.index] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _outgoing(self, index: int, entry: QueueEntry) -> Outgoing | Failure:
        try:
            body = entry.body.decode()
        except UnicodeDecodeError:
            return Failure("unsendable", "the message is not UTF-8")
        if not body or (not (body.isascii() and body.isprintable()) and _FORBIDDEN.search(body)):
            return Failure("unsendable", "the message is empty or has characters that SQS forbids")
        most = self._endpoint.attributes.most_bytes
        if len(entry.body) > most:
            return Failure("too_large", f"the message has {len(entry.body)} bytes; the queue takes {most}")
        if not self._endpoint.fifo:
            return Outgoing(index, index, len(entry.body), {"MessageBody": body})
        if not (_ID.fullmatch(entry.group_id) and _ID.fullmatch(entry.deduplication_id)):
            return Failure("unsendable", "the message's group or deduplication id is none that SQS allows")
        fields = {
            "MessageBody": body,
            "MessageGroupId": entry.group_id,
            "MessageDeduplicationId": entry.deduplication_id,
        }
        return Outgoing(index, entry.group_id, len(entry.body), fields)

    def _run(self, plan: Plan) -> list[_Settled]:
        return _Sending(plan, self._attempt, self._endpoint.retrying).run()

    def _attempt(
        self, batch: Sequence[Outgoing]
    ) -> tuple[list[_Settled], list[Outgoing], BackendUnavailableError | None]:
        """See ``_Attempt``."""
        entries = [{"Id": str(number), **outgoing.entry} for number, outgoing in enumerate(batch)]
        try:
            with translated_errors(self._endpoint.setting, self._endpoint.address):
                try:
                    response = self._call(entries)
                except ClientError as error:
                    if error_code(error) not in _ENTRY_FAULTS:
                        raise
                    return self._attempt_apart(batch, error_code(error))
        except BackendUnavailableError as error:
            return [], list(batch), error
        again = dict(enumerate(batch))
        settled: list[_Settled] = []
        code = "without saying what became of every message"
        for entry in response.get("Successful", ()):
            settled.append(_Settled(again.pop(int(entry["Id"])), str(entry["MessageId"])))
        for entry in response.get("Failed", ()):
            number, failed_code, at_fault = failed_entry(entry)
            if at_fault:
                settled.append(_Settled(again.pop(number), Failure("refused", failed_code)))
            else:
                code = failed_code
        return settled, list(again.values()), self._endpoint.busy(code) if again else None

    def _attempt_apart(
        self, batch: Sequence[Outgoing], code: str
    ) -> tuple[list[_Settled], list[Outgoing], BackendUnavailableError | None]:
        """Sends each entry of a refused batch by itself, so that the entry at fault takes no other with it."""
        if len(batch) == 1:
            return [_Settled(batch[0], Failure("refused", code))], [], None
        settled: list[_Settled] = []
        again: list[Outgoing] = []
        reason: BackendUnavailableError | None = None
        for outgoing in batch:
            settled_one, again_one, reason_one = self._attempt([outgoing])
            settled += settled_one
            again += again_one
            reason = reason_one or reason
        return settled, again, reason


class _Sending:
    """The batches of one send, on their way in several threads, the caller's among them.

    Each thread takes batches from the plan until there is none to take. What a batch settles makes at most another
    batch ready, which its own thread takes next: so threads never wait for each other, and no message is handed from
    one to another. Only where some of a batch has to be tried again later is another thread called for what became
    ready.
    """

    def __init__(self, plan: Plan, attempt: _Attempt, retrying: Callable[[], Any]) -> None:
        self._plan = plan
        self._attempt = attempt
        self._retrying = retrying
        self._lock = threading.Lock()
        self._settled: list[_Settled] = []
        self._travelling = 0
        self._helpers: deque[Future[None]] = deque()
        self._error: BaseException | None = None

    def run(self) -> list[_Settled]:
        """Sends until all is settled.

        Raises:
            Exception: the first of what went wrong for good; the other threads have ended by then.
        """
        for _ in range(min(POOL.size, -(-self._plan.ready // MOST_ENTRIES)) - 1):
            self._helpers.append(POOL.submit(self._work))
        try:
            self._work()
            while self._helpers:
                helper = self._helpers.popleft()
                if not helper.cancel():  # the pool had come to it; else nothing is left for it
                    wait([helper])
                self._work()
        except BaseException as interrupted:  # Ctrl-C: the others end after what travels
            self._error = self._error or interrupted
            raise
        if self._error is not None:
            raise self._error
        return self._settled

    def _work(self) -> None:
        batch = self._next()
        while batch:
            try:
                self._deliver(batch)
            except BaseException as failed:  # raised again in the caller's thread
                self._error = self._error or failed
            batch = self._next(after_one=True)

    def _next(self, *, after_one: bool = False) -> list[Outgoing]:
        with self._lock:
            self._travelling -= after_one
            if self._error is not None:
                return []
            batch = self._plan.next_batch(partial=self._travelling < _PARTIAL_IN_FLIGHT)
            self._travelling += bool(batch)
            return batch

    def _deliver(self, batch: Sequence[Outgoing]) -> None:
        """Sends a batch until all of it is settled, or another thread came to an error."""
        pending, reason = self._attempted(batch)
        if reason is None:
            return  # as nearly always: making ready for retries costs as much as the call
        for attempt in self._retrying():
            with attempt:
                if attempt.num > 1:
                    if self._error is not None:
                        return
                    pending, reason = self._attempted(pending)
                if reason is not None:
                    raise reason

    def _attempted(self, batch: Sequence[Outgoing]) -> tuple[Sequence[Outgoing], BackendUnavailableError | None]:
        settled, pending, reason = self._attempt(batch)
        with self._lock:
            self._settled += settled
            for one in settled:
                self._plan.settle(one.outgoing)
            if pending and self._plan.ready and len(self._helpers) < POOL.size:
                self._helpers.append(POOL.submit(self._work))
        return pending, reason
