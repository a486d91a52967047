"""One SQS queue as the other modules see it: its client, URL, attributes, and calls in batches of ten."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import msgspec
import stamina

from ..addresses import Address, int_option
from ..aws import THROTTLED, client, translated_errors
from ..aws_json import json_client
from ..batching import batches
from ..errors import BackendUnavailableError, UsageError
from ..worker_pool import WorkerPool

MOST_ENTRIES: Final = 10
"""Entries of one batch request (SQS API reference, SendMessageBatch)."""

MOST_BYTES: Final = 1_048_576
"""Bytes of a message, and of all messages of a batch request together (SQS API reference, SendMessageBatch)."""

POOL: Final = WorkerPool(8, "sqs")
"""The threads that call SQS. boto3's clients may be used by many threads."""


class QueueAttributes(msgspec.Struct, frozen=True):
    """What a queue says of itself.

    Attributes:
        fifo: whether it is a FIFO queue.
        most_bytes: of one message.
        max_receives: after this many receives without a deletion SQS moves a message to the queue's own dead-letter
            queue; None without a redrive policy.
    """

    fifo: bool
    most_bytes: int
    max_receives: int | None


class _RedrivePolicy(msgspec.Struct, rename="camel"):
    max_receive_count: int


class Endpoint:
    """A queue's address; asks SQS for the queue's URL and attributes when first needed.

    Args:
        address: ``sqs://name?region&endpoint&account&deadline``.
        setting: where it came from, for errors.
    """

    def __init__(self, address: Address, setting: str) -> None:
        self.address = address
        self.setting = setting
        self.name = address.target
        self.fifo = self.name.endswith(".fifo")
        self.deadline_s = int_option(address, setting, "deadline", 30, least=1)

    @property
    def client(self) -> Any:
        """boto3's client; one a process and endpoint."""
        return client("sqs", self.address, self.setting)

    @cached_property
    def url(self) -> str:
        """The queue's URL.

        Raises:
            UsageError: there is no such queue, or no access to it.
            BackendUnavailableError: SQS is out of reach.
        """
        return self.url_of(self.name)

    def url_of(self, name: str) -> str:
        """The URL of another queue of the same account; errors as with ``url``."""
        account = self.address.options.get("account")
        owner = {"QueueOwnerAWSAccountId": account} if account is not None else {}
        sqs = self.client
        with translated_errors(self.setting, self.address):
            return str(sqs.get_queue_url(QueueName=name, **owner)["QueueUrl"])

    @cached_property
    def attributes(self) -> QueueAttributes:
        """The queue's attributes as they were when first asked for; errors as with ``url``."""
        found = self.read_attributes("All")
        policy = found.get("RedrivePolicy")
        return QueueAttributes(
            fifo=found.get("FifoQueue") == "true",
            most_bytes=min(int(found.get("MaximumMessageSize", MOST_BYTES)), MOST_BYTES),
            # SQS's own console writes the count as a number, some tools as text.
            max_receives=msgspec.json.decode(policy, type=_RedrivePolicy, strict=False).max_receive_count
            if policy
            else None,
        )

    def read_attributes(self, *names: str) -> dict[str, str]:
        """Attributes as SQS has them now; errors as with ``url``."""
        url, sqs = self.url, self.client  # boto3 tries it a few times
        with translated_errors(self.setting, self.address):
            return dict(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names))["Attributes"])

    def call(self, operation: str, **parameters: Any) -> Any:
        """Calls SQS once; errors as with ``url``."""
        with translated_errors(self.setting, self.address):
            return self.call_bare(operation, **parameters)

    def call_bare(self, operation: str, **parameters: Any) -> Any:
        """Calls SQS once.

        Raises:
            ClientError, BotoCoreError: as boto3.
            UsageError, BackendUnavailableError: as ``url``, where that is not known yet.
        """
        return json_client(self.client).call(operation, {"QueueUrl": self.url, **parameters})

    def retrying(self) -> Any:
        """Retries of stamina: exponential backoff with jitter until the deadline, for BackendUnavailableError."""
        return stamina.retry_context(
            on=BackendUnavailableError, attempts=None, timeout=self.deadline_s, wait_max=5.0, wait_jitter=0.5
        )

    def busy(self, codes: str) -> BackendUnavailableError:
        """The error for entries SQS did not take now."""
        return BackendUnavailableError(f"--{self.setting}: sqs://{self.name} answers {codes}")

    def call_in_batches(
        self, operation: str, entries: Sequence[dict[str, Any]], *, one_after_the_other: bool = False
    ) -> None:
        """Calls a batch operation for all entries, ten at a time.

        What SQS refuses as the entry's fault (a receipt it no longer knows) is ignored; what it cannot do now is
        tried again.

        Args:
            operation: boto3's name of it.
            entries: as the operation takes them, without ``Id``.
            one_after_the_other: batches in the entries' order; else side by side.

        Raises:
            UsageError: no access.
            BackendUnavailableError: at the deadline some were not done.
        """
        cut = list(batches(entries, lambda _: 1, MOST_ENTRIES, MOST_ENTRIES))
        if not one_after_the_other:
            POOL.side_by_side(lambda batch: self._call_until_done(operation, batch), cut)
            return
        for batch in cut:
            self._call_until_done(operation, batch)

    def _call_until_done(self, operation: str, entries: Sequence[dict[str, Any]]) -> None:
        pending = list(entries)
        for attempt in self.retrying():
            with attempt:
                failed = self.call_batch(operation, pending)
                pending = [pending[index] for index, _, stale in failed if not stale]
                if pending:
                    raise self.busy(failed[0][1])

    def call_batch(self, operation: str, entries: Sequence[dict[str, Any]]) -> list[tuple[int, str, bool]]:
        """Calls a batch operation once for at most ten entries; errors as with ``url``.

        Returns:
            For each entry that failed its index, the error's code, and whether it is the entry's fault.
        """
        numbered = [{"Id": str(index), **entry} for index, entry in enumerate(entries)]
        response = self.call(operation, Entries=numbered)
        return [failed_entry(entry) for entry in response.get("Failed", ())]

    def other_kind(self) -> str | None:
        """The address of a queue of this name but of the other kind (FIFO or standard), where there is one."""
        name = self.name.removesuffix(".fifo") if self.fifo else f"{self.name}.fifo"
        try:
            self.url_of(name)
        except (UsageError, BackendUnavailableError):
            return None
        return f"sqs://{name}"


def failed_entry(entry: Any) -> tuple[int, str, bool]:
    """Reads an entry of a batch response's ``Failed``: its index, the code, whether the sender is at fault.

    SQS calls throttling the sender's fault; it is not the entry's.
    """
    code = str(entry.get("Code", ""))
    return int(entry["Id"]), code, bool(entry.get("SenderFault")) and code not in THROTTLED
