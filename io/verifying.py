"""IDV results are stored, the newest wins, and the Identity Service is told of each once and in order."""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from ..domain.envelopes import Opened
from ..domain.events import Consumed, check_event_time
from ..domain.keys import user_pk
from ..domain.records import Failure
from ..domain.verification import (
    CONSUMED_SK,
    Verification,
    consumed_item,
    decode_verification,
    result_sk,
    verification_item,
)
from .clock import now_ms
from .fan_verifications import newest_of, write_newest
from .idv_secrets import idv_secrets
from .ports import Table

if TYPE_CHECKING:
    from .event_consumers import EventStores


_log = logging.getLogger("fan_identity.verifications")


class IdentityService(Protocol):
    """Who is told of verifications."""

    def tell_many(
        self,
        verifications: Sequence[Verification],
        correlation_id: str = "",
        after: Mapping[str, Verification] = MappingProxyType({}),
    ) -> list[Failure | None]:
        """Tells of each; telling twice does no harm. Outcomes are in order.

        ``after`` names by user an older one that was told too late: what is told now is told once more because of it.
        """
        ...


class Verifications:
    """Implements ``EventConsumer``: each result is an item, the newest one more, and the Identity Service is told.

    Scores read what is stored while the service is out of reach: so results are stored before it is told. How far a
    user's results are consumed stands in an item of its own, written last. By it a result that comes again is told
    from one that came late, and one the service could not be told of from both.
    """

    def decode(self, event: Opened, sent_at_ms: int) -> Verification:
        """Reads a result; where there are secrets, only one that is signed with one of them."""
        verification = decode_verification(event.body, event.time_ms or sent_at_ms, idv_secrets())
        check_event_time(verification.time_ms, now_ms())
        return verification

    def consume(
        self, records: Sequence[Verification], stores: "EventStores", request_id: str
    ) -> list[Consumed | Failure]:
        """Stores results and tells of those that are news.

        A result from before one that was consumed, or that another worker stored meanwhile, is kept, since scores as of
        its time ask for it, and told to nobody: the service knows a newer status, or is about to.
        """
        table, now = stores.verifications, now_ms()
        outcomes = _compared(records, table)
        _store(records, outcomes, table, now)
        news = [number for number, outcome in enumerate(outcomes) if outcome is Consumed.STORED]
        if stores.identity is not None and news:
            told = stores.identity.tell_many([records[number] for number in news], request_id)
            for number, failure in zip(news, told, strict=True):
                outcomes[number] = failure or Consumed.STORED
            last = _newest([records[number] for number in news])
            heard = {records[number].global_user_id for number in news if outcomes[number] is Consumed.STORED}
            _tell_overtaken({user: last[user] for user in heard}, stores.identity, table, request_id)
        done = [records[number] for number in news if outcomes[number] is Consumed.STORED]
        table.put_if_newer([(each.version, consumed_item(each, now)) for each in done])
        return outcomes


def _compared(records: Sequence[Verification], table: Table) -> list[Consumed | Failure]:
    """Of each result whether it is news: newer than all that are consumed and all before it in the batch."""
    users = list(dict.fromkeys(each.global_user_id for each in records))
    items = table.batch_get([(user_pk(user), CONSUMED_SK) for user in users])
    newest = {user: str(item["through"]) for user, item in zip(users, items, strict=True) if item}
    outcomes: list[Consumed | Failure] = []
    for each in records:
        known = newest.get(each.global_user_id, "")
        if each.version == known:
            outcomes.append(Consumed.DEDUPLICATED)
        else:
            outcomes.append(Consumed.STORED if each.version > known else Consumed.STALE)
        newest[each.global_user_id] = max(each.version, known)
    return outcomes


def _store(records: Sequence[Verification], outcomes: list[Consumed | Failure], table: Table, now: int) -> None:
    """Writes what is news, and of what is stale what is not there yet; outcomes become failures the table gives."""
    write = [number for number, outcome in enumerate(outcomes) if outcome is Consumed.STORED]
    write += _late(records, outcomes, table)
    items = {number: verification_item(records[number], now) for number in write}
    for number, failure in zip(write, table.batch_put(list(items.values())), strict=True):
        outcomes[number] = failure or outcomes[number]
    # Also of those that were there: who wrote them may have died before this.
    there = [number for number, outcome in enumerate(outcomes) if outcome in (Consumed.STORED, Consumed.STALE)]
    newest = write_newest(table, list(dict.fromkeys(records[number].global_user_id for number in there)))
    own = _newest([records[number] for number in there])
    for number in there:
        user = records[number].global_user_id
        found = newest.get(user)
        if isinstance(found, Failure):
            outcomes[number] = found
        elif found is not None and found.version > own[user].version:
            outcomes[number] = Consumed.STALE


def _newest(records: Sequence[Verification]) -> dict[str, Verification]:
    """By user the newest of some results."""
    newest: dict[str, Verification] = {}
    for each in records:
        known = newest.get(each.global_user_id)
        if known is None or each.version > known.version:
            newest[each.global_user_id] = each
    return newest


def _tell_overtaken(last: Mapping[str, Verification], identity: IdentityService, table: Table, request_id: str) -> None:
    """Where another worker stored a newer result while an older one was told, tells the newer one once more.

    The other worker may have told it before the older one arrived. Whoever tells last looks last, and finds the newest;
    so that is what the service hears last, unless it is away just then.

    Args:
        last: by user the newest result of those this worker told or tried to.
        identity: who is told.
        table: the verification table.
        request_id: of the batch.
    """
    while last:
        newest = newest_of(table, list(last))
        again = [each for user, each in newest.items() if each.version > last[user].version]
        outcomes = identity.tell_many(again, request_id, last) if again else []
        if failed := sum(outcome is not None for outcome in outcomes):
            _log.warning(
                "%d statuses may be older at the Identity Service than here: it could not be told again", failed
            )
        last = {each.global_user_id: each for each, failure in zip(again, outcomes, strict=True) if failure is None}


def _late(records: Sequence[Verification], outcomes: Sequence[Consumed | Failure], table: Table) -> list[int]:
    stale = [number for number, outcome in enumerate(outcomes) if outcome is Consumed.STALE]
    there = table.batch_get([(user_pk(records[number].global_user_id), result_sk(records[number])) for number in stale])
    return [number for number, item in zip(stale, there, strict=True) if item is None]
