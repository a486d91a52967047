"""IDV results are stored, the newest wins, and the Identity Service is told of each once and in order."""

from collections.abc import Sequence
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
    newest_verification_item,
    result_sk,
    verification_item,
)
from .clock import now_ms
from .idv_secrets import idv_secrets
from .ports import Table

if TYPE_CHECKING:
    from .event_consumers import EventStores


class IdentityService(Protocol):
    """Who is told of verifications."""

    def tell_many(self, verifications: Sequence[Verification], correlation_id: str = "") -> list[Failure | None]:
        """Tells of each; telling twice does no harm. Outcomes are in order."""
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

        A result from before one that was consumed is kept, since scores as of its time ask for it, and told to nobody:
        the service knows a newer status.
        """
        table, now = stores.verifications, now_ms()
        outcomes = _compared(records, table)
        _store(records, outcomes, table, now)
        news = [number for number, outcome in enumerate(outcomes) if outcome is Consumed.STORED]
        if stores.identity is not None and news:
            told = stores.identity.tell_many([records[number] for number in news], request_id)
            for number, failure in zip(news, told, strict=True):
                outcomes[number] = failure or Consumed.STORED
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
    news = [number for number in write if outcomes[number] is Consumed.STORED]
    newest = [(records[number].version, newest_verification_item(items[number])) for number in news]
    for number, written in zip(news, table.put_if_newer(newest), strict=True):
        if isinstance(written, Failure):
            outcomes[number] = written


def _late(records: Sequence[Verification], outcomes: Sequence[Consumed | Failure], table: Table) -> list[int]:
    stale = [number for number, outcome in enumerate(outcomes) if outcome is Consumed.STALE]
    there = table.batch_get([(user_pk(records[number].global_user_id), result_sk(records[number])) for number in stale])
    return [number for number, item in zip(stale, there, strict=True) if item is None]
