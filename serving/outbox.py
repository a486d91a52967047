"""The outbox: events are stored before the caller hears of success, and published to EventBridge afterwards.

At least once: an event leaves the outbox after EventBridge took it, so one that was published just before a kill is
published again. Its ``messageId``, in the detail, tells consumers. A user's events are published in the order they were
stored, one at a time; what EventBridge itself does with their order is not ours. Decision 10 says why.
"""

import asyncio
import logging
import random
import uuid
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from ..domain.records import Failure
from ..io.clock import now_ms
from ..io.dynamodb.values import ItemTooLargeError, UnsupportedItemError
from ..io.errors import FanIdentityError
from ..io.ports import Item
from .data_sources import AsyncTable

SOURCE: Final = "fan-identity"
"""``source`` of every event."""

ID_FIELD: Final = "messageId"
"""Where an event's detail holds its id; consumers skip an id they have seen."""

REFUSED_PK: Final = "OUTBOX-REFUSED"
"""The partition that keeps events EventBridge will never take, with the reason."""

_MOST_BYTES: Final = 200_000  # EventBridge takes 262,144 with names and envelope
_PAGE: Final = 100
_ENTRIES: Final = 10
_AT_ONCE: Final = 4
_IDLE_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_LEASE_MS: Final = 15_000
_LEFT_BEHIND_MS: Final = 30_000
_INLINE_SECONDS: Final = 2.0
_CLOSING_SECONDS: Final = 5.0
_LEASE: Final = ("OUTBOX", "LEASE")

_log: Final = logging.getLogger("fan_identity.outbox")


class OutboxTable(AsyncTable, Protocol):
    """Where events wait."""

    async def delete(self, pk: str, sk: str) -> None:
        """Deletes an item, if there is one."""
        ...


class EventBus(Protocol):
    """Where events go; as ``io.eventbridge.EventBridgeBus``. Blocks; used in threads."""

    def put_events(self, entries: Sequence[tuple[str, str, bytes]]) -> Sequence[Failure | None]:
        """Puts (source, detail type, detail); for each None or why it is not on the bus."""
        ...


class TableOutbox:
    """Implements ``data_sources.Outbox`` over a table.

    Of several processes on one table one publishes, the holder of a lease in the table; after a kill another one takes
    over within 15 s.

    Args:
        table: where events wait; reads must be consistent.
        bus: where they go; None keeps them.
        shards: partitions they are spread over, a user always in the same one.
        inline: whether ``add`` publishes before it answers (Lambda, where nothing runs between two requests).
    """

    def __init__(self, table: OutboxTable, bus: EventBus | None, *, shards: int = 1, inline: bool = False) -> None:
        self._table = table
        self._bus = bus
        self._shards = shards
        self._inline = inline
        self._holder = uuid.uuid4().hex
        self._last = (0, 0)
        self._wake = asyncio.Event()
        self._closing = False
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Publishes in the background from now on, what waited first; for code on the event loop."""
        if self._bus is not None and not self._inline and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._publish_on())

    async def close(self) -> None:
        """Ends publishing, after the batch under way; what waits is published by the next process."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CLOSING_SECONDS)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            with suppress(FanIdentityError):  # it ends by itself
                await self._give_up_lease()

    async def add(self, detail_type: str, detail: Mapping[str, Any]) -> str:
        """Stores an event durably and returns its id; publishing is not waited for (``inline``: tried, briefly).

        Raises:
            UnavailableError: it could not be stored: the disk is full, the table is away.
            UnsupportedItemError: it is over 200,000 bytes, or its detail holds what is not JSON.
        """
        message_id = uuid.uuid4().hex
        try:
            body = msgspec.json.encode({**detail, ID_FIELD: message_id})
        except (TypeError, ValueError, RecursionError):
            raise UnsupportedItemError("the event holds a value that is none of JSON's") from None
        if len(body) > _MOST_BYTES:
            raise ItemTooLargeError(f"the event is over {_MOST_BYTES:,} bytes")
        user = detail.get("globalUserId")
        user = user if isinstance(user, str) else ""
        shard = zlib.crc32(user.encode(errors="surrogatepass")) % self._shards
        item = {
            "PK": f"OUTBOX#{shard}",
            "SK": f"{self._place()}#{message_id}",
            "type": "event",
            "detailType": detail_type,
            "detail": body.decode(),
            "user": user,
        }
        await self._table.put_revision(item, 0)
        self._wake.set()
        if self._inline and self._bus is not None:
            await self._publish_inline(item)
        return message_id

    def _place(self) -> str:
        """Orders this process's events, whatever the clock does; those of several by the clock."""
        now, (last, number) = now_ms(), self._last
        self._last = (now, 0) if now > last else (last, number + 1)
        return f"{self._last[0]:013d}#{self._last[1]:06d}"

    async def _publish_on(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._closing:
            self._wake.clear()
            try:
                more, well = await self._round()
            except FanIdentityError as error:
                more, well = False, False
                self._say(well=False, why=str(error))
            except Exception:
                more, well = False, False
                _log.exception("publishing failed, and is tried again")
            if not well:
                # Not woken by new events: an outage would be asked for each of them.
                wait, pause = pause * random.uniform(0.5, 1.5), min(pause * 2, _LONGEST_PAUSE_SECONDS)  # noqa: S311
                await self._rest(wait)
                continue
            pause = _FIRST_PAUSE_SECONDS
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE_SECONDS):
                        await self._wake.wait()

    async def _rest(self, seconds: float) -> None:
        ends = asyncio.get_running_loop().time() + seconds
        while not self._closing and (left := ends - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 0.2))

    async def _round(self) -> tuple[bool, bool]:
        """Publishes a page of each partition: whether there may be more, and whether all went well."""
        if not await self._leads():
            return False, True
        more, well = False, True
        for shard in range(self._shards):
            items = await self._table.query(f"OUTBOX#{shard}", limit=_PAGE)
            more |= len(items) == _PAGE
            if items:
                well &= await self._publish(items)
        return more, well

    async def _leads(self) -> bool:
        """Takes or renews the lease."""
        now = now_ms()
        lease = await self._table.get(*_LEASE) or {}
        mine = lease.get("holder") == self._holder
        until = lease.get("until", 0)
        if not mine and until > now:
            return False
        if mine and until - now > _LEASE_MS // 2:
            return True
        pk, sk = _LEASE
        taken = {"PK": pk, "SK": sk, "holder": self._holder, "until": now + _LEASE_MS}
        return await self._table.put_revision(taken, int(lease.get("revision", 0)))

    async def _give_up_lease(self) -> None:
        lease = await self._table.get(*_LEASE) or {}
        if lease.get("holder") == self._holder:
            ended = {name: value for name, value in lease.items() if name != "revision"} | {"until": 0}
            await self._table.put_revision(ended, int(lease.get("revision", 0)))

    async def _publish_inline(self, own: Item) -> None:
        """Publishes an event just stored, after its user's earlier ones; what was left behind, one process at a time.

        Whatever goes wrong, the event is stored, and a later request publishes it.
        """
        try:
            async with asyncio.timeout(_INLINE_SECONDS):
                waiting = await self._table.query(own["PK"], limit=_PAGE)
                before = f"{now_ms() - _LEFT_BEHIND_MS:013d}"
                left = [item for item in waiting if item["SK"] < before]
                leads = bool(left) and await self._leads()
                theirs = [
                    item
                    for item in waiting
                    if (leads and item["SK"] < before) or (item["user"] == own["user"] and item["SK"] < own["SK"])
                ]
                await self._publish([*theirs, own])
        except (FanIdentityError, TimeoutError) as error:
            self._say(well=False, why=str(error) or type(error).__name__)

    async def _publish(self, items: Sequence[Item]) -> bool:
        """Publishes events in their order, a user's one at a time; True where none has to wait any longer."""
        held: set[str] = set()
        well = True
        while items:
            turn: list[Item] = []
            later: list[Item] = []
            taken: set[str] = set()
            for item in items:
                user = item["user"]
                if user and user in held:
                    continue
                (later if user and user in taken else turn).append(item)
                taken.add(user)
            items = later
            outcomes = await self._put(turn)
            done: list[Item] = []
            for item, failure in zip(turn, outcomes, strict=True):
                if failure is None:
                    done.append(item)
                elif failure.retryable:
                    held.add(item["user"])
                    well = False
                else:
                    await self._refuse(item, failure)
            await asyncio.gather(*(self._table.delete(item["PK"], item["SK"]) for item in done))
        self._say(well=well, why="EventBridge does not take events")
        return well

    async def _put(self, items: Sequence[Item]) -> list[Failure | None]:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def put(some: Sequence[Item]) -> Sequence[Failure | None]:
            entries = [(SOURCE, str(item["detailType"]), str(item["detail"]).encode()) for item in some]
            async with slots:
                try:
                    assert self._bus is not None  # noqa: S101 - for the type checker
                    return await asyncio.to_thread(self._bus.put_events, entries)
                except FanIdentityError as error:
                    # A wrong bus or a denied access too: what is stored is never given up for a setting.
                    return [Failure("unavailable", str(error), retryable=True)] * len(some)

        parts = await asyncio.gather(*(put(items[at : at + _ENTRIES]) for at in range(0, len(items), _ENTRIES)))
        outcomes = [outcome for part in parts for outcome in part]
        if why := next((failure.error for failure in outcomes if failure and failure.retryable), None):
            self._say(well=False, why=why)
        return outcomes

    async def _refuse(self, item: Item, failure: Failure) -> None:
        """Sets an event aside that can never be published: kept, and said."""
        aside = {name: value for name, value in item.items() if name != "revision"}
        await self._table.put_revision({**aside, "PK": REFUSED_PK, "reason": failure.error}, 0)
        await self._table.delete(item["PK"], item["SK"])
        _log.error("an event is refused and set aside: %s: %s", str(item["SK"]).rpartition("#")[2], failure.error)

    def _say(self, *, well: bool, why: str) -> None:
        """Once when trouble begins, once when it ends."""
        if not well and not self._failing:
            _log.warning("events wait in the outbox: %s", why)
        elif well and self._failing:
            _log.warning("events are published again")
        self._failing = not well
