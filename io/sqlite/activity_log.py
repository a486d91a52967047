"""The embedded ARAI source: profiles built from the activities this machine has seen."""

from collections.abc import Iterable, Sequence
from typing import Final

from ...domain.activity import decode_activity
from ...domain.arai import Arai
from ...domain.keys import user_token
from ...domain.messages import Cause, ScoringMessage
from ...domain.profile import PROFILE_WINDOW, ActivityFacts, Profile, facts_of, profiles_at
from ...domain.records import Failure
from .store import SqliteStore

_AFTER_EVERY_ID: Final = "\U0010ffff"
_COLUMNS: Final = "time_ms, activity_id, type_index, address, device, event, failed"


class SqliteActivityLog:
    """Keeps the facts of every activity and builds a user's profile as of any of them.

    The log is a set: seeing an activity again, or in another order, changes nothing, so a profile depends on what
    happened up to its moment and not on how the input was cut or shuffled. Addresses, devices and events are kept as
    hashes only.

    Every method raises BackendUnavailableError where the store cannot be read or written.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def observe(self, facts: Sequence[tuple[str, ActivityFacts]]) -> None:
        """Records activities, each with its user id, in one transaction."""
        with self._store.transaction() as connection:
            # Where one activity id comes with two contents at one time, the smaller is kept whatever the order.
            connection.executemany(
                "INSERT INTO activities VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "type_index = excluded.type_index, address = excluded.address, device = excluded.device, "
                "event = excluded.event, failed = excluded.failed "
                "WHERE (excluded.type_index, excluded.address, excluded.device, excluded.event, excluded.failed) "
                "< (type_index, address, device, event, failed)",
                [(user_token(user), *fact) for user, fact in facts],
            )

    def fetch(self, messages: Sequence[ScoringMessage]) -> list[Arai | Failure]:
        """For each message the profile of its user as of the message's activity, that activity included.

        Where no activity is the cause, the profile is as of the user's last one up to the message's time; of a user
        without any, there is a Failure.
        """
        by_activity = [message for message in messages if message.cause is Cause.ACTIVITY]
        profiles = iter(self._profiles(by_activity))
        return [
            Arai(next(profiles)) if message.cause is Cause.ACTIVITY else self._as_of(message) for message in messages
        ]

    def _as_of(self, message: ScoringMessage) -> Arai | Failure:
        moment = (message.occurred_at, _AFTER_EVERY_ID)
        history = self.history(message.global_user_id, moment, moment)
        if not history:
            return Failure("no_activity", "nothing is known of this user's activity")
        last = history[-1][:2]
        return Arai(profiles_at(history, {last})[last])

    def _profiles(self, messages: Sequence[ScoringMessage]) -> list[Profile]:
        by_user: dict[str, list[ScoringMessage]] = {}
        for message in messages:
            by_user.setdefault(message.global_user_id, []).append(message)
        profiles: dict[tuple[str, int, str], Profile] = {}
        for user, own in by_user.items():
            targets = {(message.occurred_at, message.activity_id) for message in own}
            history = self.history(user, min(targets), max(targets))
            history = _with_missing(history, own)
            for (time_ms, activity_id), profile in profiles_at(history, targets).items():
                profiles[user, time_ms, activity_id] = profile
        return [profiles[m.global_user_id, m.occurred_at, m.activity_id] for m in messages]

    def history(self, user: str, first: tuple[int, str], last: tuple[int, str]) -> list[ActivityFacts]:
        """A user's activities from 1,000 before ``first`` up to and including ``last``, by (time, activity id)."""
        token = user_token(user)
        with self._store.translated_errors():
            before = self._store.connection.execute(
                f"SELECT {_COLUMNS} FROM activities WHERE user = ? AND (time_ms, activity_id) <= (?, ?) "
                "ORDER BY time_ms DESC, activity_id DESC LIMIT ?",
                (token, *first, PROFILE_WINDOW),
            ).fetchall()
            after: Iterable[tuple[int, str, int, int, int, int, int]] = ()
            if last > first:
                after = self._store.connection.execute(
                    f"SELECT {_COLUMNS} FROM activities WHERE user = ? AND (time_ms, activity_id) > (?, ?) "
                    "AND (time_ms, activity_id) <= (?, ?) ORDER BY time_ms, activity_id",
                    (token, *first, *last),
                )
            make = ActivityFacts._make
            return [make(row) for row in reversed(before)] + [make(row) for row in after]

    def activities(self, user: str) -> list[ActivityFacts]:
        """All that is known of a user's activities, by (time, activity id)."""
        with self._store.translated_errors():
            rows = self._store.connection.execute(
                f"SELECT {_COLUMNS} FROM activities WHERE user = ? ORDER BY time_ms, activity_id", (user_token(user),)
            ).fetchall()
        return [ActivityFacts._make(row) for row in rows]

    def delete(self, user: str) -> None:
        """Deletes all that is known of a user."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM activities WHERE user = ?", (user_token(user),))


def _with_missing(history: list[ActivityFacts], messages: Sequence[ScoringMessage]) -> list[ActivityFacts]:
    """Adds the messages' own activities where the log has not seen them (another machine enqueued them)."""
    known = {(fact.time_ms, fact.activity_id) for fact in history}
    missing = {
        (message.occurred_at, message.activity_id): message
        for message in messages
        if (message.occurred_at, message.activity_id) not in known
    }
    if not missing:
        return history
    own = [facts_of(decode_activity(bytes(message.activity)), message.occurred_at) for message in missing.values()]
    return sorted([*history, *own], key=lambda fact: (fact.time_ms, fact.activity_id))
