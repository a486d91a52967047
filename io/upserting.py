"""``user.upsert`` events become fans' profile items, the newest entry wins."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..domain.envelopes import Opened
from ..domain.events import Consumed, check_event_time
from ..domain.keys import user_pk
from ..domain.records import Failure
from ..domain.user_upsert import PROFILE_SK, UserUpsert, decode_upsert, profile_item, version_of_profile
from .clock import now_ms

if TYPE_CHECKING:
    from .event_consumers import EventStores


class UserUpserts:
    """Implements ``EventConsumer``: ``PK=USER#…, SK=PROFILE`` of the fan identity table, newer wins."""

    def decode(self, event: Opened, sent_at_ms: int) -> UserUpsert:
        """Reads an entry; it says itself when it was made."""
        del sent_at_ms
        upsert = decode_upsert(event.body)
        check_event_time(upsert.time_ms, now_ms())
        return upsert

    def consume(
        self, records: Sequence[UserUpsert], stores: "EventStores", request_id: str
    ) -> list[Consumed | Failure]:
        """Writes each entry that is newer than the fan's profile."""
        del request_id
        users = list(dict.fromkeys(upsert.global_user_id for upsert in records))
        profiles = stores.fans.batch_get([(user_pk(user), PROFILE_SK) for user in users])
        newest = {user: version_of_profile(item) for user, item in zip(users, profiles, strict=True) if item}
        outcomes: list[Consumed | Failure] = []
        for upsert in records:
            known = newest.get(upsert.global_user_id, "")
            outcomes.append(_compared(upsert.version, known))
            newest[upsert.global_user_id] = max(upsert.version, known)
        news = [number for number, outcome in enumerate(outcomes) if outcome is Consumed.STORED]
        now = now_ms()
        written = stores.fans.put_if_newer(
            [(records[number].version, profile_item(records[number], now)) for number in news]
        )
        for number, done in zip(news, written, strict=True):
            if done is not True:  # another worker had a newer one, or the table will never take it
                outcomes[number] = done or Consumed.STALE
        return outcomes


def _compared(version: str, known: str) -> Consumed:
    if version == known:
        return Consumed.DEDUPLICATED
    return Consumed.STORED if version > known else Consumed.STALE
