"""ARAI from the table: the newest response stored for a user, fetched from the Accounts service where there is none."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, cast

from ..domain.activity import MalformedRecordError, parse_time_ms
from ..domain.arai import Arai, arai_item, arai_of
from ..domain.keys import user_pk
from ..domain.messages import ScoringMessage
from ..domain.profile import ActivityFacts
from ..domain.records import Failure
from .accounts import AccountsClient
from .clock import now_ms
from .ports import Item, Table

DAY_MS: Final = 24 * 60 * 60 * 1_000
_PREFIX: Final = "ARAI#"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Stored:
    response: Mapping[str, Any]
    time_ms: int


class TableArai:
    """Implements ``AraiSource`` over a table's ``ARAI#`` items.

    Args:
        table: where responses are stored.
        accounts: asked for users whose response is missing or old, or None to use what is stored.
        max_age_ms: a stored response older than this is asked for again.
        readers: threads that read the table side by side; 1 for a table in this process.
        clock_ms: the time in epoch milliseconds.

    Attributes:
        fetched: responses fetched from Accounts so far.
        stale: old responses used so far because Accounts gave none.
    """

    def __init__(
        self,
        table: Table,
        accounts: AccountsClient | None,
        *,
        max_age_ms: int = DAY_MS,
        readers: int = 1,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._table = table
        self._accounts = accounts
        self._max_age_ms = max_age_ms
        self._clock_ms = clock_ms
        self._pool = ThreadPoolExecutor(readers, "arai") if readers > 1 else None
        self.fetched = 0
        self.stale = 0

    def observe(self, facts: Sequence[tuple[str, ActivityFacts]]) -> None:
        """Learns nothing: Accounts knows its users' activities itself."""

    def fetch(self, messages: Sequence[ScoringMessage]) -> list[Arai | Failure]:
        """For each message its user's newest response, dated as of the message's activity; one look-up a user.

        Returns:
            For each message what is known, or a Failure: ``arai_missing`` (nothing stored and no Accounts service),
            ``arai_invalid`` (no ARAI response), or the Accounts service's own.

        Raises:
            BackendUnavailableError: the table is out of reach.
        """
        users = list(dict.fromkeys(message.global_user_id for message in messages))
        now = self._clock_ms()
        found: dict[str, Mapping[str, Any] | Failure] = {}
        old: dict[str, _Stored | None] = {}
        for user, stored in zip(users, self._stored(users), strict=True):
            if stored is not None and now - stored.time_ms <= self._max_age_ms:
                found[user] = stored.response
            else:
                old[user] = stored
        if old:
            found |= self._refreshed(old, now, messages[0].request_id)
        return [_arai(found[message.global_user_id], message.occurred_at) for message in messages]

    def _stored(self, users: Sequence[str]) -> list[_Stored | None]:
        return list((self._pool.map if self._pool else map)(self._newest, users))

    def _newest(self, user: str) -> _Stored | None:
        items = self._table.query(user_pk(user), _PREFIX, newest_first=True, limit=1)
        return _stored_of(items[0]) if items else None

    def _refreshed(
        self, old: Mapping[str, _Stored | None], now: int, correlation_id: str
    ) -> dict[str, Mapping[str, Any] | Failure]:
        """Asks Accounts for users and stores what it says; what is old is better than nothing."""
        users = list(old)
        answers: Sequence[Mapping[str, Any] | Failure]
        if self._accounts is None:
            answers = [Failure("arai_missing", "no ARAI response is stored and no Accounts service is set")] * len(
                users
            )
        else:
            answers = self._accounts.fetch_many(users, correlation_id)
        found: dict[str, Mapping[str, Any] | Failure] = {}
        fresh: list[Item] = []
        stale = 0
        for user, answer in zip(users, answers, strict=True):
            checked = answer if isinstance(answer, Failure) else _checked(answer, now)
            stored = old[user]
            if not isinstance(checked, Failure):
                # That a user is unknown is not kept: a new fan is known a moment later.
                if checked:
                    fresh.append(arai_item(user, checked, now))
            elif stored is not None:
                checked = stored.response
                stale += 1
            found[user] = checked
        if fresh:
            # One the table will never take (too large) is used all the same, and asked for again next time.
            refused = sum(failure is not None for failure in self._table.batch_put(fresh))
            if refused:
                _log.warning("%d ARAI responses are too large to store", refused)
        if stale:
            _log.warning("%d ARAI responses older than allowed are used: the Accounts service gave no newer", stale)
        self.fetched += len(fresh)
        self.stale += stale
        return found


def _stored_of(item: Item) -> _Stored | None:
    """A stored item's response and time; None for one that cannot be used, as if it were not there."""
    response: object = item.get("araiResponse")
    try:
        time_ms = parse_time_ms(str(item["SK"]).removeprefix(_PREFIX))
    except MalformedRecordError:
        return None
    if not isinstance(response, Mapping):
        return None
    checked = _checked(cast("Mapping[str, Any]", response), time_ms)
    return None if isinstance(checked, Failure) else _Stored(checked, time_ms)


def _checked(response: Mapping[str, Any], time_ms: int) -> Mapping[str, Any] | Failure:
    arai = _arai(response, time_ms)
    return arai if isinstance(arai, Failure) else response


def _arai(response: Mapping[str, Any] | Failure, as_of_ms: int) -> Arai | Failure:
    if isinstance(response, Failure):
        return response
    try:
        return arai_of(response, as_of_ms)
    except MalformedRecordError as error:
        return Failure("arai_invalid", str(error))
