"""The verification step: IDV results are stored, newest wins, and the Identity Service is told."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ..domain.activity import MalformedRecordError
from ..domain.envelopes import opened
from ..domain.records import Batch, DeadLetter, Failure, Returned
from ..domain.verification import Verification, decode_verification, newest_verification_item, verification_item
from .clock import now_ms
from .ports import ReceivedMessage, Table
from .steps import MAX_RECEIVES, Count, dead_message, retry_delay_ms


class IdentityService(Protocol):
    """Who is told of verifications."""

    def tell_many(self, verifications: Sequence[Verification]) -> list[Failure | None]:
        """Tells of each; telling twice does no harm. Outcomes are in order."""
        ...


class Verified(msgspec.Struct, frozen=True, gc=False):
    """A received result, decoded."""

    received: ReceivedMessage
    verification: Verification


def decode_verifications(batch: Batch[ReceivedMessage], worker: str) -> Batch[Verified]:
    """Decodes results, out of their envelopes; what is none, or has an unknown status, becomes a dead letter."""
    decoded: list[Verified] = []
    failed: list[DeadLetter] = []
    for received in batch.items:
        event = opened(received.body)
        try:
            sent = event.time_ms or received.sent_at_ms or now_ms()
            decoded.append(Verified(received, decode_verification(event.body, sent)))
        except MalformedRecordError as error:
            failed.append(dead_message(batch, received, worker, Failure("malformed", str(error)), None))
    return batch.with_items(decoded, failed)


def store_verifications(
    batch: Batch[Verified], table: Table, identity: IdentityService | None, worker: str, count: Count
) -> Batch[Verified]:
    """Stores results, each user's newest where newer, then tells the Identity Service; counts ``stored``.

    Stored first: a result the service could not be told of goes back to the queue, and is stored again as the same
    item. Raises what the table raises.
    """
    now = now_ms()
    items = [verification_item(verified.verification, now) for verified in batch.items]
    refused: dict[int, Failure] = {
        index: failure for index, failure in enumerate(table.batch_put(items)) if failure is not None
    }
    kept = [index for index in range(len(items)) if index not in refused]
    newest = table.put_if_newer(
        [(batch.items[index].verification.version, newest_verification_item(items[index])) for index in kept]
    )
    refused |= {index: outcome for index, outcome in zip(kept, newest, strict=True) if isinstance(outcome, Failure)}
    if identity is not None:
        told = identity.tell_many([batch.items[index].verification for index in kept if index not in refused])
        still = [index for index in kept if index not in refused]
        refused |= {index: outcome for index, outcome in zip(still, told, strict=True) if outcome is not None}
    done: list[Verified] = []
    failed: list[DeadLetter] = []
    returned: list[Returned] = []
    for index, verified in enumerate(batch.items):
        failure, received = refused.get(index), verified.received
        if failure is None:
            done.append(verified)
        elif failure.retryable and received.receipt and received.receive_count < MAX_RECEIVES:
            returned.append(Returned(received.receipt, retry_delay_ms(received.receive_count)))
        else:
            failed.append(dead_message(batch, received, worker, failure, None))
    count("stored", len(done))
    return batch.with_items(done, failed, returned)
