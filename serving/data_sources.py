"""What the API's functions ask of the outside; implementations stand in ``io/`` and ``serving/upstreams/``.

Each method raises ``UnavailableError`` (of ``io.errors``) where the system behind it gives no answer in its time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ..io.clock import now_ms
from ..io.ports import Item


class AsyncTable(Protocol):
    """A table with partition and sort key, as ``io.ports.Table``, for code on an event loop."""

    async def get(self, pk: str, sk: str) -> Item | None:
        """The item with these keys, or None."""
        ...

    async def query(
        self, pk: str, sk_prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Item]:
        """A partition's items in the order of their sort keys."""
        ...

    async def put_revision(self, item: Item, revision: int) -> bool:
        """Writes an item as its next revision, in one atomic step; False where somebody else was faster.

        Args:
            item: without ``revision``; it is stored with ``revision + 1``.
            revision: of the item it replaces, 0 where there was none.
        """
        ...


class ArmScore(msgspec.Struct, frozen=True):
    """What is known of a fan's account risk.

    Attributes:
        arm_score: 1 to 5.
        scored_at_ms: the time of the activity that caused the score, epoch milliseconds, or None where unknown.
        model_version: of the model, or None where unknown.
        stale: whether it was read from the table because the cache was away.
    """

    arm_score: int
    scored_at_ms: int | None = None
    model_version: str | None = None
    stale: bool = False

    def age_seconds(self) -> float | None:
        """Seconds since the activity that caused the score, at least 0; None where unknown."""
        return None if self.scored_at_ms is None else max(0, now_ms() - self.scored_at_ms) / 1_000


class ArmScores(Protocol):
    """The ARM lookup."""

    async def get(self, global_user_id: str) -> ArmScore | None:
        """A fan's account risk; None for an unknown fan."""
        ...

    async def get_many(self, global_user_ids: Sequence[str]) -> list[ArmScore | None]:
        """Many fans' account risk, in their order, in one round trip to the cache."""
        ...


class AccountInfo(msgspec.Struct, frozen=True):
    """Who a signed-in fan is, by the account service."""

    global_user_id: str
    member_id: str | None = None
    email: str | None = None


class Accounts(Protocol):
    """The account service (``tmAccountInfo``)."""

    async def info(self, global_user_id: str) -> AccountInfo | None:
        """The account, or None where there is none."""
        ...


class Lookup(Protocol):
    """An upstream asked for one JSON object by parameters: campaigns, events, eligibility, phone scores, LNAA."""

    async def fetch(self, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The object, or None where the upstream knows of none (404)."""
        ...


class LivenessSession(msgspec.Struct, frozen=True):
    """A started identity check."""

    session_id: str
    status: str


class IdentityChecks(Protocol):
    """Starts liveness sessions: AWS Rekognition Face Liveness, or the sandbox's."""

    async def start(self, global_user_id: str, request_token: str) -> LivenessSession:
        """Starts a session; the same ``request_token`` never starts a second one."""
        ...


class Outbox(Protocol):
    """Takes events for EventBridge: stored durably before it answers, published afterwards, at least once."""

    async def add(self, detail_type: str, detail: Mapping[str, Any]) -> str:
        """Stores an event and returns its id."""
        ...


@dataclass(frozen=True)
class DataSources:
    """Everything a function can ask, by the reference's names; None where no address is set."""

    fan_identity: AsyncTable
    account_fanscore: AsyncTable
    verification: AsyncTable
    demand: AsyncTable
    arm: ArmScores
    outbox: Outbox
    accounts: Accounts | None = None
    campaigns: Lookup | None = None
    phone_scores: Lookup | None = None
    eligibility: Lookup | None = None
    event_details: Lookup | None = None
    lnaa: Lookup | None = None
    identity_checks: IdentityChecks | None = None
