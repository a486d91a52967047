"""What identity verifications say of fans, as the scoring workers ask for it."""

from collections.abc import Sequence
from typing import Final

import msgspec

from ..domain.keys import user_pk
from ..domain.records import Batch
from ..domain.verification import RESULT_PREFIX, VERIFIED_SK, Verification, deciding, is_decided, verification_of
from .ports import Table
from .steps import Profiled

_MOST_RESULTS: Final = 1_000
"""Of a fan the newest results that are looked at; one has a handful."""


class FanVerifications:
    """Reads the verification table. Remembers nothing, so that a result counts in the very next score.

    Args:
        table: the verification table.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def deciding(self, moments: Sequence[tuple[str, int]]) -> list[Verification | None]:
        """For each fan and moment the result that says who the fan is; see ``verification.deciding``.

        One read of many keys for all fans' newest results. Only where a fan's newest is later than the moment, or of a
        check without an outcome, are the fan's results read.

        Args:
            moments: global user id and epoch milliseconds; users may repeat.

        Raises:
            BackendUnavailableError: the table is out of reach.
        """
        users = list(dict.fromkeys(user for user, _ in moments))
        items = self._table.batch_get([(user_pk(user), VERIFIED_SK) for user in users])
        newest = {user: verification_of(item) for user, item in zip(users, items, strict=True) if item is not None}
        if not newest:
            return [None] * len(moments)
        results: dict[str, list[Verification]] = {}
        found: list[Verification | None] = []
        for user, time_ms in moments:
            latest = newest.get(user)
            if latest is None:
                found.append(None)
            elif latest.time_ms <= time_ms and is_decided(latest):
                found.append(deciding([latest], time_ms))
            else:
                if user not in results:
                    results[user] = self._results(user)
                found.append(deciding(results[user], time_ms))
        return found

    def _results(self, user: str) -> list[Verification]:
        items = self._table.query(user_pk(user), RESULT_PREFIX, newest_first=True, limit=_MOST_RESULTS)
        return [verification_of(item) for item in items]


def add_verifications(batch: Batch[Profiled], verifications: FanVerifications | None) -> Batch[Profiled]:
    """Adds to each message what an identity check says of its user as of the message's activity.

    Raises:
        BackendUnavailableError: the table is out of reach.
    """
    if verifications is None or not batch.items:
        return batch
    moments = [(profiled.message.global_user_id, profiled.message.occurred_at) for profiled in batch.items]
    found = verifications.deciding(moments)
    if not any(found):
        return batch
    return batch.with_items(
        [
            msgspec.structs.replace(profiled, verification=verification)
            for profiled, verification in zip(batch.items, found, strict=True)
        ]
    )
