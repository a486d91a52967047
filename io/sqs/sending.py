"""Sending to SQS: full batches, several at a time, and never out of order within a group."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Final

import msgspec
from botocore.exceptions import ClientError

from ...domain.records import Failure
from ..aws import error_code, translated_errors
from ..errors import BackendUnavailableError
from ..ports import QueueEntry, SendOutcome
from .endpoint import POOL, Endpoint, failed_entry
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


class _Ended(msgspec.Struct, gc=False):
    error: BaseException | None


_Report = Callable[[_Settled | _Ended], None]


class Sender:
    """Sends to one queue.

    Args:
        endpoint: the queue.
        call: how a batch is sent; boto3 where None.
    """

    def __init__(self, endpoint: Endpoint, call: SendCall | None = None) -> None:
        self._endpoint = endpoint
        self._call = call or self._call_boto3

    def _call_boto3(self, entries: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:
        return self._endpoint.client.send_message_batch(QueueUrl=self._endpoint.url, Entries=entries)

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
        if not body or _FORBIDDEN.search(body):
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
        settled: list[_Settled] = []
        reports: SimpleQueue[_Settled | _Ended] = SimpleQueue()
        stop = threading.Event()
        error: BaseException | None = None
        travelling = 0
        while True:
            while error is None and travelling < POOL.size:
                batch = plan.next_batch(partial=travelling < _PARTIAL_IN_FLIGHT)
                if not batch:
                    break
                travelling += 1
                if travelling == 1 and not plan.ready:  # nothing to do beside it
                    self._deliver(batch, reports.put, stop)
                else:
                    POOL.submit(self._deliver, batch, reports.put, stop)
            if not travelling:
                break
            report = reports.get()
            if isinstance(report, _Settled):
                settled.append(report)
                plan.settle(report.outgoing)
                continue
            travelling -= 1
            if report.error is not None:
                error = error or report.error
                stop.set()
        if error is not None:
            raise error
        return settled

    def _deliver(self, batch: Sequence[Outgoing], report: _Report, stop: threading.Event) -> None:
        """Sends a batch until all of it is settled; reports each entry as soon as it is, and the end."""
        pending = list(batch)
        error: BaseException | None = None
        try:
            for attempt in self._endpoint.retrying():
                with attempt:
                    if stop.is_set():
                        break
                    pending, reason = self._attempt(pending, report)
                    if reason is not None:
                        raise reason
        except BaseException as failed:  # raised again in the caller's thread
            error = failed
        report(_Ended(error))

    def _attempt(
        self, batch: Sequence[Outgoing], report: _Report
    ) -> tuple[list[Outgoing], BackendUnavailableError | None]:
        """Sends a batch once.

        Returns:
            The entries to send again, and why, or None where there are none.
        """
        entries = [{"Id": str(number), **outgoing.entry} for number, outgoing in enumerate(batch)]
        try:
            with translated_errors(self._endpoint.setting, self._endpoint.address):
                try:
                    response = self._call(entries)
                except ClientError as error:
                    if error_code(error) not in _ENTRY_FAULTS:
                        raise
                    return self._attempt_apart(batch, error_code(error), report)
        except BackendUnavailableError as error:
            return list(batch), error
        again = dict(enumerate(batch))
        code = "without saying what became of every message"
        for entry in response.get("Successful", ()):
            report(_Settled(again.pop(int(entry["Id"])), str(entry["MessageId"])))
        for entry in response.get("Failed", ()):
            number, failed_code, at_fault = failed_entry(entry)
            if at_fault:
                report(_Settled(again.pop(number), Failure("refused", failed_code)))
            else:
                code = failed_code
        return list(again.values()), self._endpoint.busy(code) if again else None

    def _attempt_apart(
        self, batch: Sequence[Outgoing], code: str, report: _Report
    ) -> tuple[list[Outgoing], BackendUnavailableError | None]:
        """Sends each entry of a refused batch by itself, so that the entry at fault takes no other with it."""
        if len(batch) == 1:
            report(_Settled(batch[0], Failure("refused", code)))
            return [], None
        again: list[Outgoing] = []
        reason: BackendUnavailableError | None = None
        for outgoing in batch:
            failed, reason_of_one = self._attempt([outgoing], report)
            again += failed
            reason = reason_of_one or reason
        return again, reason
