"""SQS as ``io/prefetch.py`` needs it: receiving, visibility, deletion."""

import uuid
from collections.abc import Sequence
from typing import Any, Final

from ..errors import UsageError
from ..inflight import Delivery
from ..ports import ReceivedMessage
from .endpoint import MOST_ENTRIES, Endpoint

MOST_VISIBILITY_S: Final = 43_200
"""A message can be kept invisible for twelve hours in all (SQS API reference, ChangeMessageVisibility)."""

_ATTRIBUTES: Final = ("ApproximateReceiveCount", "SentTimestamp", "MessageGroupId", "SequenceNumber")
_TRACE: Final = "traceparent"


class SqsCarrier:
    """Receives from one queue; see ``Carrier``.

    Args:
        endpoint: the queue.
        visibility_s: the visibility timeout, whole seconds as SQS has it.
        wait_s: how long one call waits for messages (long polling), 1 to 20 seconds.
    """

    fetched_at_once = MOST_ENTRIES
    renewals_at_once = MOST_ENTRIES

    def __init__(self, endpoint: Endpoint, visibility_s: int, wait_s: int) -> None:
        self._endpoint = endpoint
        self._visibility_s = visibility_s
        self._wait_s = wait_s

    def fetch(self) -> list[Delivery]:
        """Receives up to ten messages.

        On a FIFO queue each call and its repetitions carry one ``ReceiveRequestAttemptId``: where the answer was lost
        on the way, SQS gives the same messages again at once, instead of hiding them and their groups until the
        visibility timeout ends.
        """
        attempt_id = {"ReceiveRequestAttemptId": uuid.uuid4().hex} if self._endpoint.fifo else {}
        for attempt in self._endpoint.retrying():
            with attempt:
                response = self._endpoint.call(
                    "receive_message",
                    MaxNumberOfMessages=MOST_ENTRIES,
                    WaitTimeSeconds=self._wait_s,
                    VisibilityTimeout=self._visibility_s,
                    MessageSystemAttributeNames=list(_ATTRIBUTES),
                    MessageAttributeNames=[_TRACE],
                    **attempt_id,
                )
                return [self._delivery(message) for message in response.get("Messages", ())]
        return []

    def _delivery(self, message: Any) -> Delivery:
        attributes = message.get("Attributes", {})
        message_id = str(message["MessageId"])
        received = ReceivedMessage(
            receipt=str(message["ReceiptHandle"]),
            group_id=str(attributes.get("MessageGroupId", message_id)),
            # JSON can spell half a surrogate pair; as bytes that are no UTF-8 it becomes a dead letter like any other.
            body=str(message["Body"]).encode(errors="surrogatepass"),
            receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
            message_id=message_id,
            sent_at_ms=int(attributes.get("SentTimestamp", 0)),
            trace=str(message.get("MessageAttributes", {}).get(_TRACE, {}).get("StringValue", "")),
        )
        # A standard queue has no order, and its messages of one group (a "tenant") are worked on side by side.
        order_key = received.group_id if self._endpoint.fifo else message_id
        return Delivery(received, order_key, int(attributes.get("SequenceNumber", 0)))

    def extend(self, held: Sequence[tuple[str, float]]) -> list[str]:
        """Extends up to ten messages' visibility; at the end of SQS's twelve hours they are given up."""
        receipts = [receipt for receipt, _ in held]
        ages = dict(held)
        within = [receipt for receipt in receipts if ages[receipt] < MOST_VISIBILITY_S - 1]
        lost = [receipt for receipt in receipts if ages[receipt] >= MOST_VISIBILITY_S - 1]
        if within:
            entries = [self._entry(receipt, ages[receipt]) for receipt in within]
            failed = self._endpoint.call_batch("change_message_visibility_batch", entries)
            lost += [within[index] for index, _, stale in failed if stale]
            for _, code, stale in failed:
                if not stale:
                    raise self._endpoint.busy(code)
        return lost

    def _entry(self, receipt: str, age_s: float) -> dict[str, Any]:
        left_s = int(MOST_VISIBILITY_S - age_s)
        return {"ReceiptHandle": receipt, "VisibilityTimeout": min(self._visibility_s, left_s)}

    def delete(self, receipts: Sequence[str]) -> None:
        """Deletes messages in batches of ten, side by side."""
        self._endpoint.call_in_batches("delete_message_batch", [{"ReceiptHandle": receipt} for receipt in receipts])

    def give_back(self, receipts: Sequence[str], delay_ms: int) -> None:
        """Sets what is left of the messages' visibility timeout to the delay, rounded up to whole seconds.

        The last first: a group is locked until its first message is visible, so its messages come again together.
        """
        delay_s = min(-(-max(delay_ms, 0) // 1_000), MOST_VISIBILITY_S)
        self._endpoint.call_in_batches(
            "change_message_visibility_batch",
            [{"ReceiptHandle": receipt, "VisibilityTimeout": delay_s} for receipt in reversed(receipts)],
            one_after_the_other=True,
        )


def whole_seconds(visibility_timeout_ms: int, setting: str) -> int:
    """The visibility timeout in SQS's unit, rounded up.

    Raises:
        UsageError: it is over twelve hours.
    """
    seconds = max(-(-visibility_timeout_ms // 1_000), 1)
    if seconds > MOST_VISIBILITY_S:
        raise UsageError(f"--{setting}: SQS hides a message for at most 12 hours; lower --visibility-timeout")
    return seconds
