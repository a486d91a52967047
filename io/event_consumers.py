"""What handleEvent does with an event, by EventBridge's ``detail-type``. A further consumer is a line in ``CONSUMERS``.

See docs/identity.md. Nothing here knows Beam or AWS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..domain.envelopes import Opened
from ..domain.events import Consumed
from ..domain.records import Failure
from .ports import Table
from .upserting import UserUpserts
from .verifying import IdentityService, Verifications

if TYPE_CHECKING:
    from .backends import Backends


class EventRecord(Protocol):
    """An event, decoded."""

    @property
    def global_user_id(self) -> str:
        """Whose event: a user's events of a kind stay in order, and the flag's share is of users."""
        ...


@dataclass(frozen=True)
class EventStores:
    """Where events have their effects.

    Attributes:
        verifications: the verification table.
        fans: the fan identity table.
        identity: the Identity Service, or None to tell nobody.
    """

    verifications: Table
    fans: Table
    identity: IdentityService | None

    @classmethod
    def of(cls, backends: "Backends") -> "EventStores":
        """The stores of handleEvent's backends.

        Raises:
            UsageError: an address is missing or cannot be used.
        """
        return cls(backends.open_table(), backends.open_fan_table(), backends.open_identity())


class EventConsumer(Protocol):
    """What becomes of one kind of event. Instances hold nothing: they are shared by threads and pickled."""

    def decode(self, event: Opened, sent_at_ms: int) -> Any:
        """Checks an event and reads it as an ``EventRecord``.

        Args:
            event: out of its envelopes.
            sent_at_ms: when it was sent, for one that does not say when it happened; epoch milliseconds.

        Raises:
            MalformedRecordError: it is none of this kind; the dead letter's reason is ``malformed``.
            RefusedEventError: it is not to be trusted; names the dead letter's reason.
        """
        ...

    def consume(self, records: Sequence[Any], stores: EventStores, request_id: str) -> list[Consumed | Failure]:
        """Lets events have their effect, a user's in their order. Doing it again with the same events does no harm.

        Args:
            records: what ``decode`` made of a batch's events of this kind.
            stores: where to.
            request_id: of the batch, for the logs of services.

        Returns:
            For each what became of it, or why that is not possible; where that may pass (``retryable``), it comes
            again later, and the user's later events of this kind with it.

        Raises:
            BackendUnavailableError: a table is out of reach; all events come again.
        """
        ...


BARE: Final = "idv"
"""What an event without EventBridge's envelope is taken for: a verification result."""

CONSUMERS: Final[dict[str, EventConsumer]] = {
    "idv": Verifications(),
    "user.upsert": UserUpserts(),
}
"""By detail type. An event of no type here becomes a dead letter, ``unknown_event``."""
