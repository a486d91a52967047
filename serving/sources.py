"""From the settings to the data sources behind the API."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ..io.addresses import Address, parse_address
from ..io.errors import UsageError
from ..io.registry import worker_named
from .arm import ArmLookup
from .data_sources import Accounts, DataSources, IdentityChecks, Lookup
from .outbox import EventBus, OutboxTable, TableOutbox
from .settings import ServingSettings

_ACCOUNT_FANSCORE_TABLE: Final = "accountFanscoreTable"
_DEMAND_TABLE: Final = "demandTable"
_OUTBOX_TABLE: Final = "outbox"
_OUTBOX_SHARDS: Final = 8
"""Of an outbox in DynamoDB, where a partition takes 1,000 writes a second."""

Closer = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class OpenedSources(DataSources):
    """Data sources that are open, for the event loop they were opened on.

    Attributes:
        checks: by name, what asks a table, the cache or the outbox for an answer; raises where there is none.
        closers: what ends connections and threads, in order.
    """

    arm: ArmLookup
    checks: dict[str, Closer] = field(default_factory=dict[str, Closer])
    closers: tuple[Closer, ...] = ()

    async def close(self) -> None:
        """Ends publishing, connections and threads."""
        for close in self.closers:
            await close()


def open_sources(settings: ServingSettings, *, in_lambda: bool | None = None) -> OpenedSources:
    """Opens the data sources, without connecting; called on the event loop that will use them.

    Args:
        settings: their addresses.
        in_lambda: whether nothing runs between two requests, so that events are published before an answer; found out
            from the environment where None.

    Raises:
        UsageError: an address is missing or wrong; names the setting.
    """
    opening = _Opening(settings)
    fan_identity = opening.table("table", worker_named("scoreUsers").table_name, "fan_identity")
    inline = "AWS_LAMBDA_FUNCTION_NAME" in os.environ if in_lambda is None else in_lambda
    arm = ArmLookup.of(
        settings.cache,
        settings.store,
        deadline_seconds=settings.arm_deadline.total_seconds(),
        table=(lambda: fan_identity) if settings.arm_fallback else None,
    )
    opening.checks["cache"] = arm.check
    opening.closers.append(arm.close)
    account_fanscore = opening.table("account_fanscore_table", _ACCOUNT_FANSCORE_TABLE, "account_fanscore")
    verification = opening.table("verification_table", worker_named("handleEvent").table_name, "verification")
    # What is read here is written again.
    demand = opening.table("demand_table", _DEMAND_TABLE, "demand", consistent=True)
    outbox = opening.outbox(inline=inline)
    sources: dict[str, Any] = {name: opening.lookup(name) for name in _LOOKUPS}
    return OpenedSources(
        fan_identity=fan_identity,
        account_fanscore=account_fanscore,
        verification=verification,
        demand=demand,
        arm=arm,
        outbox=outbox,
        accounts=opening.accounts(),
        identity_checks=opening.identity_checks(),
        **sources,
        checks=opening.checks,
        closers=(*opening.closers, *opening.last_closers),
    )


_LOOKUPS: Final = ("campaigns", "phone_scores", "eligibility", "event_details", "lnaa")


class _Opening:
    """Opens one after another. Clients are imported with the address that needs them: cold starts count."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._deadline = settings.upstream_deadline.total_seconds()
        self._clients: dict[tuple[tuple[str, str], ...], Any] = {}
        self.checks: dict[str, Closer] = {}
        self.closers: list[Closer] = []
        self.last_closers: list[Closer] = []

    def table(
        self, setting: str, in_store: str, name: str, *, consistent: bool = False, durable: bool = False
    ) -> OutboxTable:
        """The table of a setting, or of the store."""
        text: str | None = getattr(self._settings, setting)
        flag = setting.replace("_", "-") if text else "store"
        text = text or self._settings.store
        if text is None:
            raise UsageError(
                f"setting {setting}: no address; give --store sqlite:///file.db for everything, or "
                f"FAN_IDENTITY_{setting.upper()}=dynamodb://table"
            )
        address = parse_address(text, flag)
        if address.scheme == "dynamodb":
            table = self._dynamodb(address, flag, name, consistent=consistent)
        elif address.scheme == "sqlite":
            table = self._sqlite(text, flag, address.options.get("table", in_store), name, durable=durable)
        else:
            raise UsageError(f"--{flag}: {address.scheme}:// is no table; use sqlite:///file.db or dynamodb://table")
        return table

    def outbox(self, *, inline: bool) -> TableOutbox:
        """The outbox, publishing."""
        table = self.table("outbox", _OUTBOX_TABLE, "outbox", consistent=True, durable=True)
        text = self._settings.outbox or self._settings.store or ""
        shards = _OUTBOX_SHARDS if text.startswith("dynamodb:") else 1
        outbox = TableOutbox(table, self._bus(inline=inline), shards=shards, inline=inline)
        outbox.start()
        self.closers.insert(0, outbox.close)
        return outbox

    def _bus(self, *, inline: bool) -> EventBus | None:
        if self._settings.events is None:
            return None
        address = parse_address(self._settings.events, "events")
        if address.scheme != "eventbridge":
            raise UsageError(f"--events: {address.scheme}:// is not supported here; use eventbridge://bus")
        from ..io.eventbridge import EventBridgeBus  # noqa: PLC0415

        options = {"deadline": "1" if inline else "5", **address.options}
        return EventBridgeBus.of(Address(address.scheme, address.target, options), "events")

    def _dynamodb(self, address: Address, setting: str, name: str, *, consistent: bool) -> OutboxTable:
        from ..io.asking import waiting_limits  # noqa: PLC0415
        from ..io.aws_json_async import AsyncAwsClient  # noqa: PLC0415
        from ..io.dynamodb.async_table import DynamoDbAsyncTable  # noqa: PLC0415

        place = tuple(sorted(address.options.items()))
        client = self._clients.get(place)
        if client is None:
            client = self._clients[place] = AsyncAwsClient("dynamodb", address, setting)
            self.last_closers.append(client.close)
        table = DynamoDbAsyncTable(
            client, address, setting, name, waiting_limits(self._deadline), consistent=consistent
        )
        self.checks[name] = table.check
        return table

    def _sqlite(self, text: str, setting: str, in_store: str, name: str, *, durable: bool) -> OutboxTable:
        from ..io.backends import sqlite_store  # noqa: PLC0415
        from ..io.sqlite.async_table import SqliteAsyncTable  # noqa: PLC0415

        table = SqliteAsyncTable(sqlite_store(text, setting), in_store, name, self._deadline, durable=durable)
        self.checks[name] = table.check
        self.last_closers.append(table.close)
        return table

    def accounts(self) -> Accounts | None:
        """The account service, where there is one."""
        text = self._settings.account_info
        if text is None:
            return None
        from .upstreams.account_info import AccountInfoClient  # noqa: PLC0415

        self._over_http()
        return AccountInfoClient.of(text, "account_info", self._deadline)

    def lookup(self, setting: str) -> Lookup | None:
        """The upstream of a setting, where it has an address."""
        text: str | None = getattr(self._settings, setting)
        if text is None:
            return None
        from .upstreams.lookups import LOOKUPS  # noqa: PLC0415
        from .upstreams.upstream import Upstream  # noqa: PLC0415

        self._over_http()
        client: Lookup = LOOKUPS[setting](Upstream.of(text, setting, self._deadline))
        if setting == "event_details":
            from .cached_lookup import CachedLookup  # noqa: PLC0415

            return CachedLookup(client)
        return client

    def identity_checks(self) -> IdentityChecks | None:
        """The identity checks, where there are any."""
        text, setting = self._settings.identity_checks, "identity_checks"
        if text is None:
            return None
        address = parse_address(text, setting)
        if address.scheme == "rekognition":
            from .upstreams.rekognition import RekognitionChecks  # noqa: PLC0415

            checks = RekognitionChecks(address, setting, self._deadline)
            self.closers.append(checks.close)
            return checks
        from .upstreams.identity_checks import HttpIdentityChecks  # noqa: PLC0415
        from .upstreams.upstream import Upstream  # noqa: PLC0415

        self._over_http()
        return HttpIdentityChecks(Upstream.of(text, setting, self._deadline))

    def _over_http(self) -> None:
        from ..io.http_json import close_sessions  # noqa: PLC0415

        if close_sessions not in self.last_closers:
            self.last_closers.append(close_sessions)
